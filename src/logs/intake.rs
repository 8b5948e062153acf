//! What a pump has taken in and not handed on yet, and where the stored log ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::MAIN_CONTAINER;
use super::chunk::Builder;
use super::pump::{Limits, LogEnd};
use super::recent::{Recent, Skip};
use super::tail::Tail;
use crate::measures;
use crate::runner::{LogFrame, LogStream};
use crate::store::{LogPosition, LogSeal, NewChunk};

/// What is kept of the end of a log that is too long.
const KEPT_TAIL_BYTES: usize = 64 << 10;
/// While the chunk before is being stored, the next one may grow to this many times its size.
const BACKLOG_CHUNKS: usize = 4;

/// Frames for a chunk, and its place.
#[derive(Debug)]
pub(super) struct Packed {
    container: Arc<str>,
    builder: Builder,
    seq: i32,
    offset: i64,
}

impl Packed {
    pub(super) const fn payload(&self) -> usize {
        self.builder.payload()
    }

    /// Compresses it: not for a thread that others wait for, if it is large.
    pub(super) fn into_chunk(mut self) -> NewChunk {
        self.builder.take(&self.container, self.seq, self.offset)
    }
}

pub(super) struct Intake {
    container: Arc<str>,
    position: LogPosition,
    /// Of the first chunk that is not stored yet.
    first_seq: i32,
    builder: Builder,
    pub(super) recent: Recent,
    /// Of the main container alone: nobody asks for the last lines of another one.
    tail: Option<Tail>,
    pub(super) seal: LogSeal,
    limits: Limits,
    /// When what is there is to be stored at the latest.
    pub(super) flush_at: Option<Instant>,
    /// When the first frame of the chunk came.
    pub(super) begun_at: Instant,
    /// Of the frame that came last, by the engine's clock.
    pub(super) latest_at: i64,
    /// The end of a log that is over its limit, and how much of it is not kept.
    overflow: VecDeque<LogFrame>,
    overflow_bytes: usize,
    dropped: u64,
}

impl Intake {
    pub(super) fn new(container: Arc<str>, position: LogPosition, limits: Limits) -> Self {
        Self {
            tail: (*container == *MAIN_CONTAINER).then(Tail::default),
            container,
            first_seq: position.next_seq,
            position,
            builder: Builder::default(),
            recent: Recent::default(),
            seal: LogSeal::default(),
            limits,
            flush_at: None,
            begun_at: Instant::now(),
            latest_at: 0,
            overflow: VecDeque::new(),
            overflow_bytes: 0,
            dropped: 0,
        }
    }

    /// A frame that is stored already.
    pub(super) fn remember(&mut self, frame: &LogFrame) {
        self.recent.add(frame);
        if let Some(tail) = &mut self.tail {
            tail.add(frame);
        }
    }

    pub(super) fn take(&mut self, frame: LogFrame, skip: &mut Skip, linger: Duration) {
        if skip.is_known(&frame) {
            return;
        }
        self.remember(&frame);
        self.latest_at = frame.at;
        let taken = self.taken() + frame.bytes.len() as u64;
        if self.dropped == 0 && self.overflow.is_empty() && taken <= self.limits.log_bytes {
            if self.builder.is_empty() {
                self.begun_at = Instant::now();
                self.flush_at = Some(self.begun_at + linger);
            }
            self.builder.push(&frame);
            return;
        }
        self.overflow_bytes += frame.bytes.len();
        // A piece of a buffer would keep all of it.
        let bytes = bytes::Bytes::copy_from_slice(&frame.bytes);
        self.overflow.push_back(LogFrame { bytes, ..frame });
        while self.overflow_bytes > KEPT_TAIL_BYTES {
            let Some(old) = self.overflow.pop_front() else { break };
            self.overflow_bytes -= old.bytes.len();
            self.dropped += old.bytes.len() as u64;
        }
    }

    /// Bytes that were taken in.
    pub(super) fn taken(&self) -> u64 {
        u64::try_from(self.position.bytes).unwrap_or_default() + self.builder.payload() as u64
    }

    /// How many chunks were handed on since it began.
    pub(super) const fn chunks(&self) -> i32 {
        self.position.next_seq - self.first_seq
    }

    /// What is there has waited for as long as it may.
    pub(super) fn is_due(&self) -> bool {
        self.flush_at.is_some_and(|it| it <= Instant::now())
    }

    /// There is enough for a chunk.
    pub(super) const fn has_chunk(&self) -> bool {
        self.builder.payload() >= self.limits.chunk_bytes
    }

    /// There is no room for more before a chunk is stored.
    pub(super) const fn is_full(&self) -> bool {
        self.builder.payload() >= self.limits.chunk_bytes * BACKLOG_CHUNKS
    }

    /// All that is there, as the next chunk.
    pub(super) fn next_chunk(&mut self) -> Option<Packed> {
        self.flush_at = None;
        if self.builder.is_empty() {
            return None;
        }
        let packed = Packed {
            container: Arc::clone(&self.container),
            builder: std::mem::take(&mut self.builder),
            seq: self.position.next_seq,
            offset: self.position.bytes,
        };
        self.position.next_seq += 1;
        self.position.bytes += i64::try_from(packed.payload()).unwrap_or_default();
        metrics::counter!(measures::LOG_BYTES).increment(packed.payload() as u64);
        Some(packed)
    }

    pub(super) fn end(mut self) -> LogEnd {
        let mut tail = self.tail.take().unwrap_or_default();
        tail.close();
        if self.dropped > 0 {
            self.seal.truncated = true;
            let at = self.overflow.front().map_or(0, |it| it.at);
            let note = format!(
                "\n[supercargo: {} bytes are left out here: the log is larger than its limit of {} bytes]\n",
                self.dropped, self.limits.log_bytes
            );
            self.builder.push(&LogFrame { at, stream: LogStream::Stderr, bytes: note.into() });
        }
        for frame in std::mem::take(&mut self.overflow) {
            self.builder.push(&frame);
        }
        let chunk = self.next_chunk().map(Packed::into_chunk);
        self.seal.bytes = u64::try_from(self.position.bytes).unwrap_or_default();
        LogEnd {
            seal: self.seal,
            chunk,
            lines: tail.lines(),
            last_stdout_line: tail.last_stdout_line(),
        }
    }
}
