//! The only place that prints: data to stdout, words for people to stderr.

use std::fmt::Display;
use std::io::{self, Write};

/// Bytes for stdout, there at once: a log is watched while it grows.
pub(crate) fn data(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Text for stdout, with the end of its last line if that lacks one.
pub(crate) fn text(text: impl Display) -> io::Result<()> {
    let mut text = text.to_string();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    data(text.as_bytes())
}

/// Bytes for people: a log next to which stdout holds something else.
pub(crate) fn aside(bytes: &[u8]) -> io::Result<()> {
    io::stderr().lock().write_all(bytes)
}

/// A line for people.
pub(crate) fn note(text: impl Display) {
    // Where stderr is closed nobody is left to be told.
    writeln!(io::stderr().lock(), "{text}").unwrap_or_default();
}
