//! The logs of all containers of an attempt in one: by time, as far as they are there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::reader::{Chunks, LOOK_AGAIN};
use crate::domain::log::{Follow, LogBlock, LogFrame, LogPlace};
use crate::ids::{AttemptNo, TaskId};
use crate::store::{Error, Ledger};
use crate::wake::Subscription;

/// Chunks of each log per query: there are several logs.
const AT_ONCE: i64 = 2;

pub(super) struct Merged {
    store: Arc<dyn Ledger>,
    task: TaskId,
    attempt: AttemptNo,
    goes_over: bool,
    subscription: Option<Subscription>,
    /// Where logs begin that are not known yet.
    offsets: BTreeMap<String, u64>,
    logs: Vec<Log>,
    /// Nothing follows what is here.
    done: bool,
    /// All that is stored was looked for.
    looked: bool,
}

struct Log {
    chunks: Chunks,
    /// Of the first frame.
    offset: u64,
    frames: VecDeque<LogFrame>,
    /// There is nothing more of it for now.
    dry: bool,
}

impl Log {
    async fn fill(&mut self, attempt: AttemptNo) -> Result<(), Error> {
        while self.frames.is_empty() && !self.dry {
            match self.chunks.unpack_next(attempt)? {
                Some(block) => {
                    self.offset = block.place.offset;
                    self.frames = block.frames.into();
                }
                None => self.dry = !self.chunks.fill(attempt, AT_ONCE).await?,
            }
        }
        Ok(())
    }

    fn next_at(&self) -> Option<i64> {
        self.frames.front().map(|it| it.at)
    }
}

impl Merged {
    pub(super) fn new(
        store: Arc<dyn Ledger>,
        task: TaskId,
        attempt: AttemptNo,
        offsets: BTreeMap<String, u64>,
        follow: Follow,
        subscription: Option<Subscription>,
    ) -> Self {
        let goes_over = matches!(follow, Follow::Task);
        let (logs, done, looked) = (Vec::new(), false, false);
        Self { store, task, attempt, goes_over, subscription, offsets, logs, done, looked }
    }

    pub(super) fn stream(self) -> BoxStream<'static, Result<LogBlock, Error>> {
        stream::try_unfold(
            self,
            |mut it| async move { Ok(it.next().await?.map(|block| (block, it))) },
        )
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<LogBlock>, Error> {
        loop {
            if self.looked {
                for log in &mut self.logs {
                    log.fill(self.attempt).await?;
                }
                if let Some(block) = self.oldest() {
                    return Ok(Some(block));
                }
                self.looked = false;
                if self.done {
                    return Ok(None);
                }
            }
            self.look().await?;
        }
    }

    /// The frames that are older than those of every other log.
    fn oldest(&mut self) -> Option<LogBlock> {
        let times = self.logs.iter().enumerate();
        let (index, _) =
            times.filter_map(|(index, it)| Some((index, it.next_at()?))).min_by_key(|it| it.1)?;
        let others = self.logs.iter().enumerate().filter(|(other, _)| *other != index);
        let until = others.filter_map(|(_, it)| it.next_at()).min();
        let log = &mut self.logs[index];
        let place = LogPlace { attempt: self.attempt, offset: log.offset };
        let mut frames = Vec::new();
        while let Some(frame) =
            log.frames.pop_front_if(|it| until.is_none_or(|until| it.at <= until))
        {
            log.offset += frame.bytes.len() as u64;
            frames.push(frame);
        }
        Some(LogBlock { container: Arc::clone(&log.chunks.container), place, frames })
    }

    /// Looks for what is stored, and waits where that was all so far.
    async fn look(&mut self) -> Result<(), Error> {
        // The state first, the chunks then: what an ended attempt wrote is all there.
        let task = match &self.subscription {
            Some(_) => self.store.find_task(self.task).await?,
            None => None,
        };
        for container in self.store.log_containers(self.task, self.attempt).await? {
            if !self.logs.iter().any(|it| *it.chunks.container == *container) {
                let offset = self.offsets.remove(&container).unwrap_or_default();
                let store = Arc::clone(&self.store);
                let chunks = Chunks::new(store, self.task, container.into(), offset);
                self.logs.push(Log { chunks, offset, frames: VecDeque::new(), dry: false });
            }
        }
        self.looked = true;
        let mut there = false;
        for log in &mut self.logs {
            log.dry = false;
            log.fill(self.attempt).await?;
            there |= !log.frames.is_empty();
        }
        if there {
            return Ok(());
        }
        match (&mut self.subscription, task) {
            (Some(_), Some(task)) if task.attempt_no > self.attempt && self.goes_over => {
                self.attempt = self.attempt.next();
                self.offsets.clear();
                self.logs.clear();
                self.looked = false;
            }
            (Some(subscription), Some(task))
                if !task.state.is_terminal() && task.attempt_no == self.attempt =>
            {
                // Elapsed or changed: either way it is time to look.
                let _ = tokio::time::timeout(LOOK_AGAIN, subscription.changed()).await;
                self.looked = false;
            }
            _ => self.done = true,
        }
        Ok(())
    }
}
