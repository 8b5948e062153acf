//! Hands stored logs out as the bytes that the container wrote, from any offset, while they grow or after.
//!
//! A reader asks for more when it is ready for more: a slow one holds nothing up and loses nothing.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};

use super::{MAIN_CONTAINER, chunk};
use crate::ids::{AttemptNo, TaskId};
use crate::runner::LogStream;
use crate::store::{Error, Store};
use crate::wake::{Subscription, Wake};

/// Chunks per query.
const AT_ONCE: i64 = 16;
/// Between looks where no wake-up comes, as from another process without notifications.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Reads logs from the store.
#[derive(Debug, Clone)]
pub struct LogReader {
    store: Store,
    wake: Wake,
}

impl LogReader {
    pub const fn new(store: Store, wake: Wake) -> Self {
        Self { store, wake }
    }

    /// The bytes of a log from `offset` on, of one attempt or of the latest. Followed, it goes on as the log
    /// grows and ends with the task; where no attempt was named, it goes over to the next one.
    pub fn stream(
        &self,
        task: TaskId,
        attempt: Option<AttemptNo>,
        offset: u64,
        follow: bool,
    ) -> BoxStream<'static, Result<Bytes, Error>> {
        let cursor = Cursor {
            store: self.store.clone(),
            subscription: follow.then(|| self.wake.subscribe(task)),
            task,
            attempt,
            goes_over: attempt.is_none(),
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            seq: 0,
            ready: VecDeque::new(),
            done: false,
        };
        stream::try_unfold(cursor, |mut cursor| async move {
            Ok(cursor.next().await?.map(|bytes| (bytes, cursor)))
        })
        .boxed()
    }

    /// All of stdout, if it is not more than `limit` bytes.
    pub async fn whole_stdout(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, Error> {
        let mut text = Vec::new();
        let mut seq = 0;
        loop {
            let chunks =
                self.store.chunks_from(task, attempt_no, MAIN_CONTAINER, seq, 0, AT_ONCE).await?;
            let Some(last) = chunks.last() else { return Ok(Some(text)) };
            seq = last.seq + 1;
            for it in &chunks {
                let frames = chunk::unpack(it).map_err(|it| Error::Corrupt(it.to_string()))?;
                for frame in frames.iter().filter(|it| it.stream == LogStream::Stdout) {
                    text.extend_from_slice(&frame.bytes);
                }
                if text.len() > limit {
                    return Ok(None);
                }
            }
        }
    }
}

struct Cursor {
    store: Store,
    subscription: Option<Subscription>,
    task: TaskId,
    /// None until the latest one is known.
    attempt: Option<AttemptNo>,
    goes_over: bool,
    offset: i64,
    /// The next chunk to look for.
    seq: i32,
    ready: VecDeque<Bytes>,
    done: bool,
}

impl Cursor {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Ok(Some(bytes));
            }
            if self.done {
                return Ok(None);
            }
            // The state first, the chunks then: what an ended attempt wrote is all there.
            let task = if self.subscription.is_some() || self.attempt.is_none() {
                self.store.find_task(self.task).await?
            } else {
                None
            };
            let Some(attempt) = self.attempt.or(task.as_ref().map(|it| it.attempt_no)) else {
                return Ok(None);
            };
            self.attempt = Some(attempt);
            if self.fill(attempt).await? {
                continue;
            }
            match (&mut self.subscription, task) {
                (Some(_), Some(task)) if task.attempt_no > attempt && self.goes_over => {
                    self.attempt = Some(attempt.next());
                    self.offset = 0;
                    self.seq = 0;
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

    /// Reads the next chunks. False: there are none.
    async fn fill(&mut self, attempt: AttemptNo) -> Result<bool, Error> {
        let chunks = self
            .store
            .chunks_from(self.task, attempt, MAIN_CONTAINER, self.seq, self.offset, AT_ONCE)
            .await?;
        for it in &chunks {
            let frames = chunk::unpack(it).map_err(|it| Error::Corrupt(it.to_string()))?;
            let mut text =
                BytesMut::with_capacity(usize::try_from(it.byte_len).unwrap_or_default());
            for frame in frames {
                text.extend_from_slice(&frame.bytes);
            }
            let skip = usize::try_from(self.offset - it.byte_offset).unwrap_or_default();
            let text = text.freeze();
            if skip < text.len() {
                self.ready.push_back(text.slice(skip..));
            }
            self.offset = it.byte_offset + i64::from(it.byte_len);
            self.seq = it.seq + 1;
        }
        Ok(!chunks.is_empty())
    }
}
