//! The end of a log, kept while it passes: the last lines for failures, the last line for outputs.

use std::collections::VecDeque;

use crate::runner::{LogFrame, LogStream};

/// Lines in a failure.
const LINES: usize = 20;
/// Of each of them.
const LINE_BYTES: usize = 2_048;
/// Of the line that may become an output. Longer ones are too large for one anyway.
pub(super) const OUTPUT_LINE_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Tail {
    stdout: Line,
    stderr: Line,
    lines: VecDeque<Vec<u8>>,
    last_stdout: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
}

impl Tail {
    pub(super) fn add(&mut self, frame: &LogFrame) {
        let mut rest: &[u8] = &frame.bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            self.line(frame.stream).extend(&rest[..end]);
            self.end_line(frame.stream);
            rest = &rest[end + 1..];
        }
        self.line(frame.stream).extend(rest);
    }

    fn line(&mut self, stream: LogStream) -> &mut Line {
        match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        }
    }

    fn end_line(&mut self, stream: LogStream) {
        let line = match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        };
        if !line.bytes.iter().all(u8::is_ascii_whitespace) {
            // Buffers are used again: this is done for each line.
            let oldest = if self.lines.len() == LINES { self.lines.pop_front() } else { None };
            let mut short = oldest.unwrap_or_default();
            short.clear();
            short.extend_from_slice(&line.bytes[..line.bytes.len().min(LINE_BYTES)]);
            self.lines.push_back(short);
            if stream == LogStream::Stdout {
                std::mem::swap(self.last_stdout.get_or_insert_default(), &mut line.bytes);
            }
        }
        line.bytes.clear();
    }

    /// Takes the lines that are not ended for ended.
    pub(super) fn close(&mut self) {
        self.end_line(LogStream::Stdout);
        self.end_line(LogStream::Stderr);
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.iter().map(|it| text(it)).collect()
    }

    /// The last line of stdout that is not blank.
    pub(super) fn last_stdout_line(&self) -> Option<String> {
        self.last_stdout.as_deref().map(text)
    }
}

impl Line {
    fn extend(&mut self, bytes: &[u8]) {
        let room = (OUTPUT_LINE_BYTES + 1).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// As people would read it: no line end of either kind, no NUL (which Postgres does not take).
pub(super) fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_from_frames_by_stream() {
        let mut tail = Tail::default();
        for (stream, text) in [
            (LogStream::Stdout, "one\ntw"),
            (LogStream::Stderr, "err\r\n"),
            (LogStream::Stdout, "o\n\n  \n"),
            (LogStream::Stderr, "last"),
        ] {
            tail.add(&LogFrame { at: 0, stream, bytes: text.into() });
        }
        tail.close();
        assert_eq!(tail.lines(), ["one", "err", "two", "last"]);
        assert_eq!(tail.last_stdout_line().unwrap(), "two");
    }

    #[test]
    fn memory_is_bounded() {
        let mut tail = Tail::default();
        let long = LogFrame { at: 0, stream: LogStream::Stdout, bytes: vec![b'x'; 3 << 20].into() };
        tail.add(&long);
        tail.close();
        assert_eq!(tail.lines()[0].len(), LINE_BYTES);
        assert_eq!(tail.last_stdout_line().unwrap().len(), OUTPUT_LINE_BYTES + 1);
    }
}
