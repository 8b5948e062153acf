//! Brings the log of one container of an attempt from the engine's store into ours.
//!
//! There is one way to begin, to go on after a break and to go on after a crash: see what is stored, read
//! the engine's log from a little before that, drop what is known. The engine's own file is the buffer:
//! the container never waits for us, and while our store is down nothing is read, so memory is bounded.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::intake::{Intake, Packed};
use super::pace::Pace;
use super::recent::Skip;
use super::{MAIN_CONTAINER, chunk};
use crate::ids::{AttemptNo, Fence, TaskId};
use crate::runner::{Handle, LogFrame, Runner, RunnerError};
use crate::store::{self, Ledger, LogPosition, LogSeal, NewChunk};
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
    pub store: Arc<dyn Ledger>,
    pub wake: Wake,
    pub runner: Arc<dyn Runner>,
    pub handle: Handle,
    /// Whose log it is. The main container decides how long there is something to read; any other one may
    /// have ended long before, run on for ever, or never start.
    pub container: Arc<str>,
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
/// Frames that are taken before anything else is looked at.
const AT_ONCE: usize = 256;
/// Compressing less than this takes less than handing it to another thread.
const SMALL: usize = 16 << 10;
/// How long a fast writer is left alone while somebody looks.
const SHORT_PAUSE: Duration = Duration::from_millis(100);
/// Of the end of a log, which is compared with what was taken in.
const END_FRAMES: usize = 256;
/// After the exit, a followed log that gives nothing for so long is read to its end without following.
const QUIET_AFTER_EXIT: Duration = Duration::from_millis(500);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// After a followed log has ended by itself and given nothing. Its container has ended as a rule, and some engines
/// say so a second later and more: until then there is nothing to read, and the word of the end cuts this short.
const AFTER_ITS_END: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// Of a container beside the main one: that its log has ended, or not begun, is no reason to ask all the time.
const LONGEST_SIDE_BACKOFF: Duration = Duration::from_secs(15);
/// What was there before a log was opened comes within this time.
const BACKLOG: Duration = Duration::from_secs(2);
/// Of the last reading of such a log. It must not hold up the end of the attempt.
const LAST_SIDE_TRIES: u32 = 4;

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
                Ok(()) => {
                    let end = intake.end();
                    tracing::debug!(task.id = %self.task, container = %self.container, bytes = end.seal.bytes, "the log is complete");
                    return Some(end);
                }
                Err(Stop::Fenced) => return None,
                Err(Stop::Moved) => {}
            }
        }
    }

    /// `fresh`: nobody can have stored anything yet.
    async fn begin(&self, fresh: bool) -> Result<Intake, Stop> {
        if fresh {
            return Ok(Intake::new(
                Arc::clone(&self.container),
                LogPosition::default(),
                self.limits,
            ));
        }
        let position = self
            .insist(|| self.store.log_position(self.task, self.attempt_no, &self.container))
            .await?;
        let mut intake = Intake::new(Arc::clone(&self.container), position, self.limits);
        let mut frames: Vec<LogFrame> = Vec::new();
        let mut before = position.next_seq;
        // Two steps back are enough for any log that is not written in very small pieces.
        while before > 0 && frames.len() < 8_192 {
            let chunks = self
                .insist(|| {
                    self.store.chunks_backwards(
                        self.task,
                        self.attempt_no,
                        &self.container,
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
                        &self.container,
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
            intake.remember(frame);
        }
        Ok(intake)
    }

    async fn pump(
        &self,
        intake: &mut Intake,
        exited: &CancellationToken,
        give_up: &CancellationToken,
    ) -> Result<(), Stop> {
        let mut writer = Writer { pump: self, storing: None };
        let mut backoff = FIRST_BACKOFF;
        let longest = if self.is_side() { LONGEST_SIDE_BACKOFF } else { LONGEST_BACKOFF };
        let mut last_tries = 0;
        loop {
            let last = exited.is_cancelled();
            let before = intake.taken();
            let mut ended = false;
            let reading = if last && self.read_end(intake, give_up).await {
                Reading::Ended
            } else {
                self.read_once(intake, &mut writer, exited, give_up, !last).await?
            };
            match reading {
                Reading::Ended if last => return writer.stored().await,
                Reading::GivenUp => {
                    intake.seal.incomplete = true;
                    return writer.stored().await;
                }
                // The engine ends a followed log at the exit, or when it goes down itself.
                Reading::Ended => ended = true,
                Reading::Broken(error) => {
                    tracing::debug!(task.id = %self.task, container = %self.container, %error, "the log broke off, reading on");
                    last_tries += u32::from(last);
                    if self.is_side() && last_tries == LAST_SIDE_TRIES {
                        intake.seal.incomplete = true;
                        return writer.stored().await;
                    }
                }
            }
            if intake.taken() > before {
                backoff = FIRST_BACKOFF;
            } else if ended {
                backoff = backoff.max(AFTER_ITS_END);
            }
            tokio::select! {
                biased;
                () = exited.cancelled() => {
                    if !last {
                        backoff = FIRST_BACKOFF;
                        continue;
                    }
                    sleep(backoff).await;
                }
                () = sleep(backoff) => {}
                () = give_up.cancelled() => {}
            }
            backoff = (backoff * 2).min(longest);
        }
    }

    async fn read_once(
        &self,
        intake: &mut Intake,
        writer: &mut Writer<'_>,
        exited: &CancellationToken,
        give_up: &CancellationToken,
        follow: bool,
    ) -> Result<Reading, Stop> {
        let (since, mut skip) = intake.recent.resume();
        let mut frames = self.runner.logs(&self.handle, since, follow);
        let mut pace = Pace::begin();
        let mut paused_until = None;
        let opened = Instant::now();
        let (mut went_on, turnover) = (false, self.runner.log_turnover());
        loop {
            let (full, storing, flush_at) =
                (intake.is_full(), writer.is_storing(), intake.flush_at);
            let reads = !full && paused_until.is_none();
            tokio::select! {
                biased;
                () = give_up.cancelled() => return Ok(Reading::GivenUp),
                // What runs on may write on: what there is now is read without following.
                () = exited.cancelled(), if follow && self.is_side() => return Ok(Reading::Ended),
                stored = writer.stored(), if storing => stored?,
                frame = frames.next(), if reads => {
                    match self.take(intake, &mut skip, frame, &mut frames, storing) {
                        None if !went_on => {
                            went_on = skip.went_on();
                            // What comes later has been written since.
                            let is_backlog = went_on && opened.elapsed() < BACKLOG;
                            if turnover.is_some_and(|it| is_backlog && skip.may_lack(it)) {
                                tracing::warn!(task.id = %self.task, container = %self.container, "the engine has put away what was not read of the log");
                                intake.seal.incomplete = true;
                            }
                        }
                        None => {}
                        Some(Reading::Ended) if !follow && self.lacks(&skip) => {
                            intake.seal.incomplete = true;
                            return Ok(Reading::Ended);
                        }
                        // More may come with the last reading; the rest goes with the end.
                        Some(Reading::Ended) if !follow || exited.is_cancelled() => {
                            return Ok(Reading::Ended);
                        }
                        Some(reading) => {
                            writer.store(intake).await?;
                            return Ok(reading);
                        }
                    }
                }
                () = exited.cancelled(), if paused_until.is_some() => {
                    paused_until = None;
                }
                () = at(paused_until), if paused_until.is_some() => paused_until = None,
                () = at(flush_at), if flush_at.is_some() && !storing => writer.begin(intake),
                () = async { exited.cancelled().await; sleep(QUIET_AFTER_EXIT).await }, if follow && reads => {
                    // It did not end by itself: engines are known to leave a follower hanging.
                    return Ok(Reading::Ended);
                }
            }
            if writer.is_storing() {
                continue;
            }
            if intake.has_chunk() {
                let is_fast = pace.filled(intake.begun_at.elapsed(), intake.latest_at);
                if is_fast && follow && !exited.is_cancelled() {
                    paused_until = Some(Instant::now() + self.pause());
                }
                writer.begin(intake);
            } else if intake.is_due() {
                // Frames that are always there come before the timer above. A reader that is slow, and dies
                // before it has a whole chunk, would begin at the same place again and again.
                writer.begin(intake);
            }
        }
    }

    /// Takes a frame, and those that are there already. Some: it ends here.
    fn take(
        &self,
        intake: &mut Intake,
        skip: &mut Skip,
        first: Option<Result<LogFrame, RunnerError>>,
        frames: &mut Frames,
        storing: bool,
    ) -> Option<Reading> {
        let linger = self.linger(intake);
        let mut next = first;
        let mut count = 0;
        loop {
            match next {
                Some(Ok(frame)) => intake.take(frame, skip, linger),
                Some(Err(error)) => return Some(Reading::Broken(error.to_string())),
                None => return Some(Reading::Ended),
            }
            count += 1;
            if count == AT_ONCE || intake.is_full() || (intake.has_chunk() && !storing) {
                return None;
            }
            next = frames.next().now_or_never()?;
        }
    }

    /// Reads the end of the log alone, and takes what is new there. False: that it is all can't be told.
    async fn read_end(&self, intake: &mut Intake, give_up: &CancellationToken) -> bool {
        let end = self.runner.log_end(&self.handle, END_FRAMES);
        let read = async {
            let mut end = std::pin::pin!(end);
            let mut frames = Vec::with_capacity(END_FRAMES);
            while let Some(frame) = end.next().await {
                frames.push(frame.ok()?);
            }
            Some(frames)
        };
        let frames = tokio::select! {
            biased;
            frames = read => frames,
            () = give_up.cancelled() => None,
        };
        let Some(frames) = frames else { return false };
        let whole = frames.len() < END_FRAMES;
        let Some(known) = intake.recent.known_at_end(&frames, whole) else { return false };
        for frame in frames.into_iter().skip(known) {
            intake.take(frame, &mut Skip::default(), self.limits.linger);
        }
        true
    }

    /// Some of what was taken in did not come again, and perhaps something else neither.
    fn lacks(&self, skip: &Skip) -> bool {
        match self.runner.log_turnover() {
            Some(turnover) => skip.may_lack(turnover),
            None => skip.is_unmet(),
        }
    }

    fn is_side(&self) -> bool {
        *self.container != *MAIN_CONTAINER
    }

    fn linger(&self, intake: &Intake) -> Duration {
        if intake.chunks() < QUICK_CHUNKS || self.wake.is_watched(self.task) {
            self.limits.linger
        } else {
            SLOW_LINGER
        }
    }

    /// How long a fast writer is left alone.
    fn pause(&self) -> Duration {
        if self.wake.is_watched(self.task) { SHORT_PAUSE } else { SLOW_LINGER }
    }

    async fn append(&self, packed: Packed) -> Result<(), Stop> {
        let chunk = if packed.payload() < SMALL {
            packed.into_chunk()
        } else {
            let chunk = tokio::task::spawn_blocking(move || packed.into_chunk()).await;
            chunk.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
        };
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

type Frames = BoxStream<'static, Result<LogFrame, RunnerError>>;

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Stores one chunk at a time, while the next one is read.
struct Writer<'a> {
    pump: &'a Pump,
    storing: Option<BoxFuture<'a, Result<(), Stop>>>,
}

impl Writer<'_> {
    const fn is_storing(&self) -> bool {
        self.storing.is_some()
    }

    /// Waits for the chunk that is being stored. It may be dropped and called again.
    async fn stored(&mut self) -> Result<(), Stop> {
        let Some(storing) = &mut self.storing else { return Ok(()) };
        let result = storing.await;
        self.storing = None;
        result
    }

    /// Begins to store what was taken in. The chunk before must be stored.
    fn begin(&mut self, intake: &mut Intake) {
        let pump = self.pump;
        self.storing = intake.next_chunk().map(|packed| pump.append(packed).boxed());
    }

    /// Stores all that was taken in.
    async fn store(&mut self, intake: &mut Intake) -> Result<(), Stop> {
        self.stored().await?;
        self.begin(intake);
        self.stored().await
    }
}

enum Reading {
    Ended,
    Broken(String),
    GivenUp,
}
