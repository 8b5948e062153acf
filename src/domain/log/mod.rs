//! A log as its writers wrote it: frames at their place, and the lines that they make up.
//!
//! A log is append-only and byte-addressed: an offset counts the bytes of both streams in the engine's
//! order. [`lines`] puts lines together, [`tail`] finds the last ones.

pub mod lines;
pub mod tail;

use std::sync::Arc;

use bytes::Bytes;

use crate::ids::AttemptNo;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogStream {
    Stdout,
    Stderr,
}

impl LogStream {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Stdout, Self::Stderr].into_iter().find(|it| it.as_str() == text)
    }
}

/// A piece of the log with the engine's time: a line with its end, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFrame {
    /// Nanoseconds since the epoch.
    pub at: i64,
    pub stream: LogStream,
    pub bytes: Bytes,
}

/// A place in the log of a container: before this byte of this attempt's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPlace {
    pub attempt: AttemptNo,
    pub offset: u64,
}

/// Frames of one container that follow each other, and where the first one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBlock {
    pub container: Arc<str>,
    pub place: LogPlace,
    pub frames: Vec<LogFrame>,
}

impl LogBlock {
    /// The frames, each with its offset.
    pub fn placed(self) -> impl Iterator<Item = (u64, LogFrame)> {
        let mut offset = self.place.offset;
        self.frames.into_iter().map(move |it| {
            let begin = offset;
            offset += it.bytes.len() as u64;
            (begin, it)
        })
    }
}

/// How long a reader stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// To where the log ends now.
    No,
    /// Until the attempt is over.
    Attempt,
    /// Until the task is over, through further attempts.
    Task,
}
