//! Brings the log of one attempt from the engine's store into ours.
//!
//! There is one way to begin, to go on after a break and to go on after a crash: see what is stored, read
//! the engine's log from a little before that, drop what is known. The engine's own file is the buffer:
//! the container never waits for us, and while our store is down nothing is read, so memory is bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::MAIN_CONTAINER;
use super::chunk::{self, Builder};
use super::recent::{Recent, Skip};
use super::tail::Tail;
use crate::ids::{AttemptNo, Fence, TaskId};
use crate::measures;
use crate::runner::{Handle, LogFrame, LogStream, Runner};
use crate::store::{self, LogPosition, LogSeal, NewChunk, Store};
use crate::wake::Wake;

/// What bounds a log, and how it is cut.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of one log; beyond it only the end is kept.
    pub log_bytes: u64,
    pub chunk_bytes: usize,
    /// How long frames wait for company while somebody looks, and at the start, where most tasks end.
    pub linger: Duration,
}

/// What a pump works on.
#[derive(Debug)]
pub struct Pump {
    pub store: Store,
    pub wake: Wake,
    pub runner: Arc<dyn Runner>,
    pub handle: Handle,
    pub task: TaskId,
    pub attempt_no: AttemptNo,
    pub fence: Fence,
    pub limits: Limits,
    /// An earlier holder may have stored some of it.
    pub taken_over: bool,
}

/// The end of the log, for whoever writes the end of the attempt.
#[derive(Debug)]
pub struct LogEnd {
    pub seal: LogSeal,
    /// Not stored yet.
    pub chunk: Option<NewChunk>,
    pub lines: Vec<String>,
    pub last_stdout_line: Option<String>,
}

/// How long they wait otherwise.
const SLOW_LINGER: Duration = Duration::from_secs(1);
const QUICK_CHUNKS: i32 = 10;
/// What is kept of the end of a log that is too long.
const KEPT_TAIL_BYTES: usize = 64 << 10;
/// After the exit, a followed log that gives nothing for so long is read to its end without following.
const QUIET_AFTER_EXIT: Duration = Duration::from_millis(500);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

enum Stop {
    /// Somebody else has the attempt.
    Fenced,
    /// Somebody else wrote where we were about to: see again what is stored.
    Moved,
}

impl Pump {
    /// Reads until `exited` and the end of the log. None: the attempt was taken by somebody else.
    /// Cancelling `give_up` ends it at once with what it has, marked incomplete.
    pub async fn run(
        self,
        exited: CancellationToken,
        give_up: CancellationToken,
    ) -> Option<LogEnd> {
        let mut fresh = !self.taken_over;
        loop {
            let mut intake = match self.begin(std::mem::take(&mut fresh)).await {
                Ok(intake) => intake,
                Err(Stop::Fenced) => return None,
                Err(Stop::Moved) => continue,
            };
            match self.pump(&mut intake, &exited, &give_up).await {
                Ok(()) => return Some(intake.end(&self)),
                Err(Stop::Fenced) => return None,
                Err(Stop::Moved) => {}
            }
        }
    }

    /// `fresh`: nobody can have stored anything yet.
    async fn begin(&self, fresh: bool) -> Result<Intake, Stop> {
        if fresh {
            return Ok(Intake::new(LogPosition::default(), self.limits));
        }
        let position = self
            .insist(|| self.store.log_position(self.task, self.attempt_no, MAIN_CONTAINER))
            .await?;
        let mut intake = Intake::new(position, self.limits);
        let mut frames: Vec<LogFrame> = Vec::new();
        let mut before = position.next_seq;
        // Two steps back are enough for any log that is not written in very small pieces.
        while before > 0 && frames.len() < 8_192 {
            let chunks = self
                .insist(|| {
                    self.store.chunks_backwards(
                        self.task,
                        self.attempt_no,
                        MAIN_CONTAINER,
                        before,
                        16,
                    )
                })
                .await?;
            let Some(oldest) = chunks.last() else { break };
            let enough = position
                .last_at
                .is_some_and(|latest| oldest.last_at < latest.saturating_sub(2_000_000_000));
            before = oldest.seq;
            for it in &chunks {
                match chunk::unpack(it) {
                    Ok(mut older) => {
                        older.append(&mut frames);
                        frames = older;
                    }
                    Err(error) => {
                        tracing::warn!(task.id = %self.task, %error, "a stored log chunk can't be read");
                        intake.seal.incomplete = true;
                    }
                }
            }
            if enough {
                break;
            }
        }
        if before > 0 {
            let older = self
                .insist(|| {
                    self.store.chunks_backwards(
                        self.task,
                        self.attempt_no,
                        MAIN_CONTAINER,
                        before,
                        1,
                    )
                })
                .await?;
            if let Some(it) = older.first() {
                intake.recent.forget_until(it.last_at);
            }
        }
        for frame in &frames {
            intake.recent.add(frame);
            intake.tail.add(frame);
        }
        Ok(intake)
    }

    async fn pump(
        &self,
        intake: &mut Intake,
        exited: &CancellationToken,
        give_up: &CancellationToken,
    ) -> Result<(), Stop> {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let last = exited.is_cancelled();
            let before = intake.position.bytes;
            match self.read_once(intake, exited, give_up, !last).await? {
                Reading::Ended if last => return Ok(()),
                Reading::GivenUp => {
                    intake.seal.incomplete = true;
                    return Ok(());
                }
                // The engine ends a followed log at the exit, or when it goes down itself.
                Reading::Ended => {}
                Reading::Broken(error) => {
                    tracing::debug!(task.id = %self.task, %error, "the log broke off, reading on");
                }
            }
            if intake.position.bytes > before {
                backoff = FIRST_BACKOFF;
            }
            tokio::select! {
                () = exited.cancelled() => {
                    if last {
                        tokio::time::sleep(backoff).await;
                    }
                }
                () = tokio::time::sleep(backoff) => {}
                () = give_up.cancelled() => {}
            }
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    async fn read_once(
        &self,
        intake: &mut Intake,
        exited: &CancellationToken,
        give_up: &CancellationToken,
        follow: bool,
    ) -> Result<Reading, Stop> {
        let (since, mut skip) = intake.recent.resume();
        let mut frames = self.runner.logs(&self.handle, since, follow);
        loop {
            let wait_flush = intake.flush_at;
            tokio::select! {
                biased;
                () = give_up.cancelled() => return Ok(Reading::GivenUp),
                frame = frames.next() => match frame {
                    Some(Ok(frame)) => {
                        intake.take(&frame, &mut skip, self.linger(intake));
                        if intake.builder.payload() >= self.limits.chunk_bytes {
                            self.flush(intake).await?;
                        }
                    }
                    Some(Err(error)) => {
                        self.flush(intake).await?;
                        return Ok(Reading::Broken(error.to_string()));
                    }
                    None => {
                        if !follow && skip.is_unmet() {
                            intake.seal.incomplete = true;
                        }
                        if follow {
                            // More may come with the last reading; the rest goes with the end.
                            if !exited.is_cancelled() {
                                self.flush(intake).await?;
                            }
                        }
                        return Ok(Reading::Ended);
                    }
                },
                () = tokio::time::sleep_until(wait_flush.unwrap_or_else(Instant::now)), if wait_flush.is_some() => {
                    self.flush(intake).await?;
                }
                () = async { exited.cancelled().await; tokio::time::sleep(QUIET_AFTER_EXIT).await }, if follow => {
                    // It did not end by itself: engines are known to leave a follower hanging.
                    return Ok(Reading::Ended);
                }
            }
        }
    }

    fn linger(&self, intake: &Intake) -> Duration {
        if intake.position.next_seq < QUICK_CHUNKS || self.wake.is_watched(self.task) {
            self.limits.linger
        } else {
            SLOW_LINGER
        }
    }

    async fn flush(&self, intake: &mut Intake) -> Result<(), Stop> {
        intake.flush_at = None;
        let Some(chunk) = intake.next_chunk() else { return Ok(()) };
        self.insist(|| self.store.append_chunk(self.task, self.fence, self.attempt_no, &chunk))
            .await?;
        self.wake.task_changed(self.task);
        Ok(())
    }

    /// Asks the database until it answers.
    async fn insist<T, F: Future<Output = Result<T, store::Error>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, Stop> {
        let mut backoff = FIRST_BACKOFF;
        loop {
            match call().await {
                Ok(it) => return Ok(it),
                Err(store::Error::Fenced) => return Err(Stop::Fenced),
                Err(store::Error::Conflict { .. }) => return Err(Stop::Moved),
                Err(error) => {
                    tracing::warn!(task.id = %self.task, %error, "the log waits for the database");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
            }
        }
    }
}

enum Reading {
    Ended,
    Broken(String),
    GivenUp,
}

/// What was taken in and where the stored log ends.
struct Intake {
    position: LogPosition,
    builder: Builder,
    recent: Recent,
    tail: Tail,
    seal: LogSeal,
    limits: Limits,
    flush_at: Option<Instant>,
    /// The end of a log that is over its limit, and how much of it is not kept.
    overflow: VecDeque<LogFrame>,
    overflow_bytes: usize,
    dropped: u64,
}

impl Intake {
    fn new(position: LogPosition, limits: Limits) -> Self {
        Self {
            position,
            builder: Builder::default(),
            recent: Recent::default(),
            tail: Tail::default(),
            seal: LogSeal::default(),
            limits,
            flush_at: None,
            overflow: VecDeque::new(),
            overflow_bytes: 0,
            dropped: 0,
        }
    }

    fn take(&mut self, frame: &LogFrame, skip: &mut Skip, linger: Duration) {
        if skip.is_known(frame) {
            return;
        }
        self.recent.add(frame);
        self.tail.add(frame);
        let taken =
            u64::try_from(self.position.bytes).unwrap_or_default() + self.builder.payload() as u64;
        if self.dropped == 0
            && self.overflow.is_empty()
            && taken + frame.bytes.len() as u64 <= self.limits.log_bytes
        {
            self.builder.push(frame);
            self.flush_at.get_or_insert_with(|| Instant::now() + linger);
            return;
        }
        self.overflow_bytes += frame.bytes.len();
        self.overflow.push_back(frame.clone());
        while self.overflow_bytes > KEPT_TAIL_BYTES {
            let Some(old) = self.overflow.pop_front() else { break };
            self.overflow_bytes -= old.bytes.len();
            self.dropped += old.bytes.len() as u64;
        }
    }

    fn next_chunk(&mut self) -> Option<NewChunk> {
        if self.builder.is_empty() {
            return None;
        }
        let chunk = self.builder.take(MAIN_CONTAINER, self.position.next_seq, self.position.bytes);
        self.position.next_seq += 1;
        self.position.bytes += i64::from(chunk.byte_len);
        metrics::counter!(measures::LOG_BYTES).increment(u64::from(chunk.byte_len.unsigned_abs()));
        Some(chunk)
    }

    fn end(mut self, pump: &Pump) -> LogEnd {
        self.tail.close();
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
        let chunk = self.next_chunk();
        self.seal.bytes = u64::try_from(self.position.bytes).unwrap_or_default();
        tracing::debug!(task.id = %pump.task, bytes = self.seal.bytes, "the log is complete");
        LogEnd {
            seal: self.seal,
            chunk,
            lines: self.tail.lines(),
            last_stdout_line: self.tail.last_stdout_line(),
        }
    }
}
