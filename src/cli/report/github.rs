//! Workflow commands and the summary of a step, as GitHub Actions reads them.
//!
//! The runner looks for commands in stdout and in stderr. Ours go to stderr, so that stdout stays the
//! task's. While a task's log goes by, commands are switched off: a line of it must not act.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use super::Verdict;
use crate::cli::out;

/// A group in which nothing is a command, from its beginning to its end.
#[derive(Debug)]
pub(super) struct Fold {
    token: String,
}

impl Fold {
    pub(super) async fn open(title: &str) -> Self {
        // Nobody who writes the log can know it.
        let token = uuid::Uuid::now_v7().simple().to_string();
        out::hint(format_args!("::group::{}", data(title)));
        out::hint(format_args!("::stop-commands::{token}"));
        until_read().await;
        Self { token }
    }

    pub(super) async fn close(self) {
        until_read().await;
        out::hint(format_args!("::{}::", self.token));
        out::hint("::endgroup::");
    }
}

/// The runner reads the two streams apart from each other: what was written to one of them first has to be
/// read before something is written to the other, or a line slips out of the fold.
async fn until_read() {
    const LOOK_AGAIN: Duration = Duration::from_millis(10);
    const PATIENCE: Duration = Duration::from_secs(2);
    /// From the pipe to the one who looks for commands.
    const ON_THE_WAY: Duration = Duration::from_millis(50);
    let empty = async {
        while is_pending(&io::stdout()) || is_pending(&io::stderr()) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        tokio::time::sleep(ON_THE_WAY).await;
    };
    // Whoever does not read is not the runner.
    tokio::time::timeout(PATIENCE, empty).await.unwrap_or_default();
}

/// Whether a pipe still holds something; files never do.
fn is_pending(stream: &impl std::os::fd::AsFd) -> bool {
    let is_pipe = rustix::fs::fstat(stream).is_ok_and(|it| {
        rustix::fs::FileType::from_raw_mode(it.st_mode) == rustix::fs::FileType::Fifo
    });
    is_pipe && rustix::io::ioctl_fionread(stream).is_ok_and(|it| it > 0)
}

/// An error on the page of the run.
pub(super) fn annotation(verdict: &Verdict) -> String {
    let Verdict { id, name, word, message, log, .. } = verdict;
    let title = format!("{name}: {}", word.as_str());
    let mut text = message.clone();
    let last: Vec<&str> = log.lines().rev().take(10).collect();
    if !last.is_empty() {
        text += "\n";
    }
    for line in last.into_iter().rev() {
        text = format!("{text}\n{line}");
    }
    if !id.is_empty() {
        text = format!("{text}\n\ntask {id}");
    }
    format!("::error title={}::{}", property(&title), data(&text))
}

/// A table for the page of the run.
pub(super) fn summary(verdicts: &[Verdict]) -> String {
    let mut table = String::from("| Task | State | Exit code | Time | |\n|---|---|---|---|---|\n");
    for verdict in verdicts {
        let Verdict { id, name, word, message, exit_code, time, .. } = verdict;
        let code = exit_code.map(|it| it.to_string()).unwrap_or_default();
        let name = match id.as_str() {
            "" => cell(name),
            id if id == name => format!("`{}`", cell(id)),
            id => format!("{} `{}`", cell(name), cell(id)),
        };
        table += &format!(
            "| {name} | {} | {code} | {:.1} s | {} |\n",
            word.as_str(),
            time.as_secs_f64(),
            cell(message)
        );
    }
    table + "\n"
}

pub(super) fn append(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes())
}

/// What stands behind the second `::`.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// What stands behind the `=`.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// Names and messages come from anywhere: nothing in them is markup.
fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for it in text.chars() {
        match it {
            '&' => cell += "&amp;",
            '<' => cell += "&lt;",
            '>' => cell += "&gt;",
            '|' | '`' | '*' | '_' | '[' | ']' | '!' | '\\' | '~' | '@' | '#' => {
                cell += &format!("&#{};", u32::from(it));
            }
            it if it.is_control() => cell.push(' '),
            it => cell.push(it),
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::super::Word;
    use super::*;

    fn verdict() -> Verdict {
        Verdict {
            id: "0199".to_owned(),
            name: "count, <b>|a".to_owned(),
            word: Word::Failed,
            message: "exited: 100%".to_owned(),
            reason: "exit_nonzero".to_owned(),
            exit_code: Some(3),
            time: Duration::from_millis(1_250),
            log: "::error::no\r\nlast\n".to_owned(),
        }
    }

    #[test]
    fn an_annotation_is_one_command_whatever_it_tells() {
        assert_eq!(
            annotation(&verdict()),
            "::error title=count%2C <b>|a%3A failed::exited: 100%25%0A%0A::error::no%0Alast%0A%0Atask 0199"
        );
    }

    #[test]
    fn a_summary_is_a_table_whatever_it_tells() {
        assert_eq!(
            summary(&[verdict()]),
            "| Task | State | Exit code | Time | |\n|---|---|---|---|---|\n\
             | count, &lt;b&gt;&#124;a `0199` | failed | 3 | 1.2 s | exited: 100% |\n\n"
        );
    }
}
