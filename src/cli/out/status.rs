//! One line at the bottom of a terminal, which gives way to everything else that is printed.

use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

/// To the beginning of the line, and nothing behind it.
const ERASE: &[u8] = b"\r\x1b[K";
/// What fits on every terminal: a line that wraps can't be taken back.
const WIDTH: usize = 79;

#[derive(Debug)]
pub(super) struct StatusLine(Mutex<State>);

#[derive(Debug)]
struct State {
    shown: bool,
    /// Something else was printed up to here, and its line is not over.
    in_line: bool,
}

impl StatusLine {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(State { shown: false, in_line: false }))
    }

    /// Replaces what it says, or takes it away.
    pub(super) fn set(&self, text: Option<&str>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Half a line of a log is not to be overwritten.
        if state.in_line {
            return;
        }
        let mut bytes = Vec::new();
        if state.shown {
            bytes.extend(ERASE);
        }
        if let Some(text) = text {
            bytes.extend(text.chars().take(WIDTH).collect::<String>().bytes());
        }
        state.shown = text.is_some();
        write(&bytes);
    }

    /// Prints something else. `here`: it goes to the terminal, too.
    pub(super) fn around(
        &self,
        bytes: &[u8],
        here: bool,
        print: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if here && let Some(last) = bytes.last() {
            if state.shown {
                state.shown = false;
                write(ERASE);
            }
            state.in_line = *last != b'\n';
        }
        print()
    }
}

fn write(bytes: &[u8]) {
    // It is an extra: a terminal that is gone misses nothing.
    io::stderr().lock().write_all(bytes).unwrap_or_default();
}
