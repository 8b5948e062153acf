//! Which lines of a log a caller wants.

use regex::bytes::{Regex, RegexBuilder};

use crate::domain::log::LogStream;
use crate::domain::log::lines::Line;

const PATTERN_CHARS: usize = 1_000;
/// Of a compiled pattern, in bytes.
const PATTERN_SIZE: usize = 1 << 20;

/// What lets a line pass. The default lets all of them.
#[derive(Debug, Clone, Default)]
pub(in crate::api) struct Select {
    pub(in crate::api) stream: Option<LogStream>,
    /// Nanoseconds since the epoch.
    pub(in crate::api) since: Option<i64>,
    pub(in crate::api) grep: Option<Regex>,
}

impl Select {
    /// Whether it lets everything pass.
    pub(in crate::api) const fn is_all(&self) -> bool {
        self.stream.is_none() && self.since.is_none() && self.grep.is_none()
    }

    pub(in crate::api) fn wants(&self, stream: LogStream) -> bool {
        self.stream.is_none_or(|it| it == stream)
    }

    /// Of a line, or a part of one, of a stream that is wanted.
    pub(in crate::api) fn passes(&self, line: &Line) -> bool {
        self.since.is_none_or(|it| line.at >= it)
            && self.grep.as_ref().is_none_or(|it| it.is_match(&line.text))
    }
}

/// Takes time that is linear in the text, whatever the pattern.
pub(in crate::api) fn pattern(text: &str) -> Result<Regex, String> {
    if text.chars().count() > PATTERN_CHARS {
        return Err(format!("a pattern has at most {PATTERN_CHARS} characters"));
    }
    let pattern =
        RegexBuilder::new(text).size_limit(PATTERN_SIZE).dfa_size_limit(PATTERN_SIZE).build();
    pattern.map_err(|error| {
        let why = match error {
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            // The last line says what, the ones before draw where.
            other => other
                .to_string()
                .lines()
                .last()
                .map(|it| it.trim_start_matches("error:").trim().to_owned())
                .unwrap_or_default(),
        };
        format!("{text:?} is not a regular expression ({why}): escape with \\ what is to be taken literally")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn line(at: i64, text: &'static [u8]) -> Line {
        let text = Bytes::from_static(text);
        Line { stream: LogStream::Stdout, at, offset: 0, end: 0, text, ended: true, begins: true }
    }

    #[test]
    fn a_line_passes_by_its_time_and_its_text() {
        let select = |since, grep: Option<&str>| Select {
            since,
            grep: grep.map(|it| pattern(it).unwrap()),
            ..Select::default()
        };
        for (select, at, text, expected) in [
            (select(None, None), 0, &b""[..], true),
            (select(Some(5), None), 5, b"", true),
            (select(Some(5), None), 4, b"", false),
            (select(None, Some("err")), 0, b"an error", true),
            (select(None, Some("err")), 0, b"AN ERROR", false),
            (select(None, Some("(?i)err")), 0, b"AN ERROR", true),
            (select(None, Some("^a.*c$")), 0, b"abc", true),
            (select(None, Some("^a.*c$")), 0, b"abcd", false),
            (select(None, Some("c$")), 0, b"abc\r", false),
            (select(None, Some(r"\x1b\[31m")), 0, b"\x1b[31mred\x1b[0m", true),
            (select(None, Some(r"(?-u)\xff")), 0, b"\xff\x00", true),
            (select(None, Some("b")), 0, b"\xffb", true),
            (select(Some(5), Some("b")), 4, b"b", false),
        ] {
            assert_eq!(select.passes(&line(at, text)), expected, "{select:?} {text:?}");
        }
        let stderr = Select { stream: Some(LogStream::Stderr), ..Select::default() };
        assert!(stderr.wants(LogStream::Stderr) && !stderr.wants(LogStream::Stdout));
    }

    #[test]
    fn a_pattern_that_can_not_be_used_says_why() {
        let why = |text: &str| pattern(text).unwrap_err();
        assert!(why("a(").contains("unclosed group"), "{}", why("a("));
        assert!(why(r"(\w{1000}){1000}").contains("too large"));
        assert!(why(&"x".repeat(1_001)).contains("at most 1000"));
    }
}
