//! Sections of a job's log, which GitLab folds away. Its reports are JUnit files.

use crate::cli::format::printable;
use crate::cli::out;
use crate::clock::{Clock as _, SystemClock};

/// From its beginning to its end.
#[derive(Debug)]
pub(super) struct Section {
    name: String,
}

impl Section {
    pub(super) fn open(title: &str) -> Self {
        let name = format!("supercargo_{}", uuid::Uuid::now_v7().simple());
        out::hint(format_args!("{}{}", mark("start", now(), &name), printable(title)));
        Self { name }
    }

    pub(super) fn close(self) {
        out::hint(mark("end", now(), &self.name));
    }
}

fn now() -> i64 {
    SystemClock.now().as_second()
}

fn mark(what: &str, at: i64, name: &str) -> String {
    format!("\u{1b}[0Ksection_{what}:{at}:{name}\r\u{1b}[0K")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_written_as_gitlab_reads_it() {
        assert_eq!(
            mark("start", 1_560_896_352, "a"),
            "\u{1b}[0Ksection_start:1560896352:a\r\u{1b}[0K"
        );
    }
}
