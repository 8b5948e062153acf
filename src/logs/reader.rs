//! Hands stored logs out as the container wrote them, from any offset, while they grow or after.
//!
//! A reader asks for more when it is ready for more: a slow one holds nothing up and loses nothing. It has
//! one chunk of frames in memory, and a few that are packed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::merged::Merged;
use super::{MAIN_CONTAINER, chunk};
use crate::domain::log::{Follow, LogBlock, LogFrame, LogPlace, LogStream};
use crate::ids::{AttemptNo, TaskId};
use crate::store::{Error, Ledger, StoredChunk};
use crate::wake::{Subscription, Wake};

/// Chunks per query.
const AT_ONCE: i64 = 8;
/// Between looks where no wake-up comes, as from another process without notifications.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Reads logs from the store.
#[derive(Debug, Clone)]
pub struct LogReader {
    store: Arc<dyn Ledger>,
    wake: Wake,
}

impl LogReader {
    pub const fn new(store: Arc<dyn Ledger>, wake: Wake) -> Self {
        Self { store, wake }
    }

    /// The bytes of the log of the main container from `offset` on, of one attempt or of the latest. Followed, it goes on as the log
    /// grows and ends with the task; where no attempt was named, it goes over to the next one.
    pub fn stream(
        &self,
        task: TaskId,
        attempt: Option<AttemptNo>,
        offset: u64,
        follow: bool,
    ) -> BoxStream<'static, Result<Bytes, Error>> {
        let follow = match (follow, attempt) {
            (false, _) => Follow::No,
            (true, Some(_)) => Follow::Attempt,
            (true, None) => Follow::Task,
        };
        self.read(task, MAIN_CONTAINER, attempt, offset, follow).map_ok(|it| text(&it)).boxed()
    }

    /// The frames of the log of a container from there on.
    pub fn blocks(
        &self,
        task: TaskId,
        container: &str,
        from: LogPlace,
        follow: Follow,
    ) -> BoxStream<'static, Result<LogBlock, Error>> {
        self.read(task, container, Some(from.attempt), from.offset, follow)
    }

    /// The frames of the logs of all containers of an attempt, by their time as far as they are there:
    /// whoever follows gets what comes as it comes. Each log begins at its offset, or at its beginning.
    pub fn merged(
        &self,
        task: TaskId,
        attempt: AttemptNo,
        offsets: BTreeMap<String, u64>,
        follow: Follow,
    ) -> BoxStream<'static, Result<LogBlock, Error>> {
        let subscription = (follow != Follow::No).then(|| self.wake.subscribe(task));
        let store = Arc::clone(&self.store);
        Merged::new(store, task, attempt, offsets, follow, subscription).stream()
    }

    /// The containers of an attempt that have a log, as far as is known: one that still runs may get more.
    pub async fn containers(&self, task: TaskId, attempt: AttemptNo) -> Result<Vec<String>, Error> {
        self.store.log_containers(task, attempt).await
    }

    fn read(
        &self,
        task: TaskId,
        container: &str,
        attempt: Option<AttemptNo>,
        offset: u64,
        follow: Follow,
    ) -> BoxStream<'static, Result<LogBlock, Error>> {
        let cursor = Cursor {
            chunks: Chunks::new(Arc::clone(&self.store), task, container.into(), offset),
            subscription: (follow != Follow::No).then(|| self.wake.subscribe(task)),
            attempt,
            goes_over: follow == Follow::Task,
            done: false,
        };
        stream::try_unfold(cursor, |mut cursor| async move {
            Ok(cursor.next().await?.map(|block| (block, cursor)))
        })
        .boxed()
    }

    /// The block of frames that ends right before a place, or before the end if the log is shorter.
    pub async fn block_before(
        &self,
        task: TaskId,
        container: &str,
        place: LogPlace,
    ) -> Result<Option<LogBlock>, Error> {
        let before = signed(place.offset);
        let chunk = self.store.chunk_before(task, place.attempt, container, before).await?;
        let Some(chunk) = chunk else { return Ok(None) };
        let mut frames = unpack(&chunk)?;
        let mut most = usize::try_from(before - chunk.byte_offset).unwrap_or(usize::MAX);
        frames.retain_mut(|it| {
            it.bytes.truncate(most);
            most -= it.bytes.len();
            !it.bytes.is_empty()
        });
        let place = LogPlace { offset: unsigned(chunk.byte_offset), ..place };
        Ok(Some(LogBlock { container: container.into(), place, frames }))
    }

    /// How many bytes of the log of an attempt there are now.
    pub async fn length(
        &self,
        task: TaskId,
        container: &str,
        attempt: AttemptNo,
    ) -> Result<u64, Error> {
        Ok(unsigned(self.store.log_length(task, attempt, container).await?))
    }

    /// Where the first chunk begins that has a frame of this time or later.
    pub async fn offset_since(
        &self,
        task: TaskId,
        container: &str,
        attempt: AttemptNo,
        since: i64,
    ) -> Result<u64, Error> {
        match self.store.log_offset_since(task, attempt, container, since).await? {
            Some(offset) => Ok(unsigned(offset)),
            None => self.length(task, container, attempt).await,
        }
    }

    /// All of the stdout of the main container, if it is not more than `limit` bytes.
    pub async fn whole_stdout(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, Error> {
        let from = LogPlace { attempt: attempt_no, offset: 0 };
        let mut blocks = self.blocks(task, MAIN_CONTAINER, from, Follow::No);
        let mut text = Vec::new();
        while let Some(block) = blocks.try_next().await? {
            for frame in block.frames.iter().filter(|it| it.stream == LogStream::Stdout) {
                text.extend_from_slice(&frame.bytes);
            }
            if text.len() > limit {
                return Ok(None);
            }
        }
        Ok(Some(text))
    }
}

/// The store counts in signed numbers.
fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

fn unsigned(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or_default()
}

fn unpack(chunk: &StoredChunk) -> Result<Vec<LogFrame>, Error> {
    chunk::unpack(chunk).map_err(|it| Error::Corrupt(it.to_string()))
}

fn text(block: &LogBlock) -> Bytes {
    let mut text = BytesMut::with_capacity(block.frames.iter().map(|it| it.bytes.len()).sum());
    for frame in &block.frames {
        text.extend_from_slice(&frame.bytes);
    }
    text.freeze()
}

/// The chunks of one log, one after the other.
pub(super) struct Chunks {
    pub(super) store: Arc<dyn Ledger>,
    pub(super) task: TaskId,
    pub(super) container: Arc<str>,
    /// Of the next byte that is wanted.
    pub(super) offset: i64,
    /// The next chunk to look for.
    seq: i32,
    packed: VecDeque<StoredChunk>,
}

impl Chunks {
    pub(super) fn new(
        store: Arc<dyn Ledger>,
        task: TaskId,
        container: Arc<str>,
        offset: u64,
    ) -> Self {
        Self { store, task, container, offset: signed(offset), seq: 0, packed: VecDeque::new() }
    }

    /// The next attempt has a log of its own.
    fn begin_again(&mut self) {
        self.offset = 0;
        self.seq = 0;
    }

    /// Reads the next chunks, at most so many. False: there are none.
    pub(super) async fn fill(&mut self, attempt: AttemptNo, at_once: i64) -> Result<bool, Error> {
        let chunks = self
            .store
            .chunks_from(self.task, attempt, &self.container, self.seq, self.offset, at_once)
            .await?;
        if let Some(last) = chunks.last() {
            self.seq = last.seq + 1;
        }
        self.packed = chunks.into();
        Ok(!self.packed.is_empty())
    }

    pub(super) fn unpack_next(&mut self, attempt: AttemptNo) -> Result<Option<LogBlock>, Error> {
        let Some(chunk) = self.packed.pop_front() else { return Ok(None) };
        let mut frames = unpack(&chunk)?;
        // Only the first chunk may begin before what is wanted.
        let mut skip = usize::try_from(self.offset - chunk.byte_offset).unwrap_or_default();
        frames.retain_mut(|it| {
            let skipped = skip.min(it.bytes.len());
            skip -= skipped;
            drop(it.bytes.split_to(skipped));
            !it.bytes.is_empty()
        });
        let offset = self.offset.max(chunk.byte_offset);
        self.offset = chunk.byte_offset + i64::from(chunk.byte_len);
        let place = LogPlace { attempt, offset: unsigned(offset) };
        Ok(Some(LogBlock { container: Arc::clone(&self.container), place, frames }))
    }
}

struct Cursor {
    chunks: Chunks,
    subscription: Option<Subscription>,
    /// None until the latest one is known.
    attempt: Option<AttemptNo>,
    goes_over: bool,
    done: bool,
}

impl Cursor {
    async fn next(&mut self) -> Result<Option<LogBlock>, Error> {
        loop {
            if let Some(attempt) = self.attempt
                && let Some(block) = self.chunks.unpack_next(attempt)?
            {
                return Ok(Some(block));
            }
            if self.done {
                return Ok(None);
            }
            // The state first, the chunks then: what an ended attempt wrote is all there.
            let task = if self.subscription.is_some() || self.attempt.is_none() {
                self.chunks.store.find_task(self.chunks.task).await?
            } else {
                None
            };
            let Some(attempt) = self.attempt.or(task.as_ref().map(|it| it.attempt_no)) else {
                return Ok(None);
            };
            self.attempt = Some(attempt);
            if self.chunks.fill(attempt, AT_ONCE).await? {
                continue;
            }
            match (&mut self.subscription, task) {
                (Some(_), Some(task)) if task.attempt_no > attempt && self.goes_over => {
                    self.attempt = Some(attempt.next());
                    self.chunks.begin_again();
                }
                (Some(subscription), Some(task))
                    if !task.state.is_terminal() && task.attempt_no == attempt =>
                {
                    // Elapsed or changed: either way it is time to look.
                    let _ = tokio::time::timeout(LOOK_AGAIN, subscription.changed()).await;
                }
                _ => self.done = true,
            }
        }
    }
}
