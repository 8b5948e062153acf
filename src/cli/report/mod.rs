//! What a CI system is told of tasks that were waited for: a JUnit file, and its own marks in its log.

mod github;
mod gitlab;
mod junit;
mod tail;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::client::{Error, Task};
use super::exit::Exit;
use super::out;

pub(crate) use tail::Tail;

/// Where to report to.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ReportArgs {
    /// Write how the task ended to this JUnit file, also when it failed or was not waited for to its end
    #[arg(long, value_name = "FILE", value_parser = report_file)]
    pub(crate) junit: Option<PathBuf>,
}

/// A folder that is missing is told before anything runs: a step that ends well without its report misleads.
fn report_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.is_dir() => {
            Err(format!("there is no folder {}: make it first", folder.display()))
        }
        _ if path.is_dir() => Err("it is a folder: name a file".to_owned()),
        _ => Ok(path),
    }
}

/// How the waiting for one task ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict {
    /// Empty: it was never accepted.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) word: Word,
    /// Why it is no success, in one line.
    pub(crate) message: String,
    /// A word for the message, for programs.
    pub(crate) reason: String,
    pub(crate) exit_code: Option<i64>,
    pub(crate) time: Duration,
    /// How its log ended.
    pub(crate) log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Word {
    Succeeded,
    Skipped,
    Failed,
    Cancelled,
    /// It is not over, or nobody knows.
    #[default]
    Unfinished,
}

impl Word {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Unfinished => "unfinished",
        }
    }

    const fn is_good(self) -> bool {
        matches!(self, Self::Succeeded | Self::Skipped)
    }
}

impl Verdict {
    pub(crate) fn of_task(task: &Task) -> Self {
        let word = match task.state.0.as_str() {
            "succeeded" => Word::Succeeded,
            "skipped" => Word::Skipped,
            "failed" => Word::Failed,
            "cancelled" => Word::Cancelled,
            _ => Word::Unfinished,
        };
        let failure = task.failure.clone().unwrap_or_default();
        let ran_for = task.timings.ran_for().map(jiff::SignedDuration::unsigned_abs);
        Self {
            id: task.id.clone(),
            name: if task.name.is_empty() { task.id.clone() } else { task.name.clone() },
            word,
            message: if word.is_good() { String::new() } else { failure.message },
            reason: failure.reason,
            exit_code: task.exit_code,
            time: ran_for.unwrap_or_default(),
            log: failure.log_tail.join("\n"),
        }
    }

    /// Of one that is known by its name and id, and whose end was not seen.
    pub(crate) fn of_error(id: &str, name: &str, error: &Error) -> Self {
        let reason = match error.exit() {
            Exit::TimedOut => "timed_out_waiting",
            Exit::Usage => "refused",
            _ => "service",
        };
        Self {
            id: id.to_owned(),
            name: if name.is_empty() { id.to_owned() } else { name.to_owned() },
            message: error.to_string(),
            reason: reason.to_owned(),
            ..Self::default()
        }
    }
}

/// What runs this program.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ci {
    None,
    GitHub { summary: Option<PathBuf> },
    GitLab,
}

impl Ci {
    fn of_process() -> Self {
        Self::read(&|name| std::env::var_os(name).and_then(|it| it.into_string().ok()))
    }

    fn read(env: &dyn Fn(&str) -> Option<String>) -> Self {
        if env("GITHUB_ACTIONS").as_deref() == Some("true") {
            let summary = env("GITHUB_STEP_SUMMARY").filter(|it| !it.is_empty());
            Self::GitHub { summary: summary.map(PathBuf::from) }
        } else if env("GITLAB_CI").as_deref() == Some("true") {
            Self::GitLab
        } else {
            Self::None
        }
    }
}

/// The report of one command.
#[derive(Debug)]
pub(crate) struct Report {
    junit: Option<PathBuf>,
    ci: Ci,
    fold: Option<Fold>,
    began: Instant,
}

/// A part of the CI's log that is folded away, and in which nothing is a command.
#[derive(Debug)]
enum Fold {
    GitHub(github::Fold),
    GitLab(gitlab::Section),
}

impl Report {
    pub(crate) fn new(args: &ReportArgs) -> Self {
        let (junit, ci) = (args.junit.clone(), Ci::of_process());
        Self { junit, ci, fold: None, began: Instant::now() }
    }

    /// What a task writes comes next, until [`Report::unfold`].
    pub(crate) async fn fold(&mut self, title: &str) {
        self.fold = match &self.ci {
            Ci::None => None,
            Ci::GitHub { .. } => Some(Fold::GitHub(github::Fold::open(title).await)),
            Ci::GitLab => Some(Fold::GitLab(gitlab::Section::open(title))),
        };
    }

    pub(crate) async fn unfold(&mut self) {
        match self.fold.take() {
            None => {}
            Some(Fold::GitHub(fold)) => fold.close().await,
            Some(Fold::GitLab(section)) => section.close(),
        }
    }

    /// Says how it ended, everywhere. That the report can't be written is told, and changes no exit code.
    pub(crate) async fn finish(mut self, verdicts: &[Verdict]) {
        self.unfold().await;
        if let Ci::GitHub { summary } = &self.ci {
            for verdict in verdicts.iter().filter(|it| !it.word.is_good()) {
                out::hint(github::annotation(verdict));
            }
            if let Some(path) = summary {
                written(path, github::append(path, &github::summary(verdicts)));
            }
        }
        if let Some(path) = &self.junit {
            let document = junit::document(verdicts, self.began.elapsed());
            written(path, std::fs::write(path, document));
        }
    }
}

fn written(path: &std::path::Path, result: std::io::Result<()>) {
    if let Err(error) = result {
        out::error(format_args!("can't write {}: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ci(vars: &[(&str, &str)]) -> Ci {
        Ci::read(&|name| {
            vars.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_ci_is_known_by_its_variables() {
        assert_eq!(ci(&[]), Ci::None);
        assert_eq!(ci(&[("GITHUB_ACTIONS", "false"), ("CI", "true")]), Ci::None);
        assert_eq!(ci(&[("GITLAB_CI", "true")]), Ci::GitLab);
        let vars = [("GITHUB_ACTIONS", "true"), ("GITHUB_STEP_SUMMARY", "/s")];
        assert_eq!(ci(&vars), Ci::GitHub { summary: Some("/s".into()) });
        assert_eq!(ci(&vars[..1]), Ci::GitHub { summary: None });
    }
}
