//! A model of the store in memory: what Postgres does, without Postgres.
//!
//! Each method says in a few lines what a statement of `src/store` says in SQL. That both are the same is what
//! `differential.rs` shows; without it, nothing that is found on the model means anything.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use supercargo::clock::Clock;
use supercargo::domain::attempt::Phase;
use supercargo::domain::outcome::Outcome;
use supercargo::domain::plan::QueuedTask;
use supercargo::ids::{AttemptId, AttemptNo, Fence, TaskId, WorkerId};
use supercargo::store::{
    AttemptEnd, AttemptFate, ClaimTarget, ClaimedTask, Error, Ledger, LogPosition, NewChunk,
    NewEvent, Recorded, StopRequest, StoredChunk, TaskRecord, WorkerTargets,
};

pub(crate) use tables::{Attempt, Live, Tables};
use tables::{Registered, conflict};

mod rows;
mod submit;
mod tables;

pub(crate) type Answer<T> = Result<T, Error>;

/// What the database has, and its clock.
#[derive(Debug)]
pub(crate) struct Model {
    tables: Mutex<Tables>,
    clock: Arc<dyn Clock>,
}

impl Model {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { tables: Mutex::default(), clock }
    }

    /// What it had at some time.
    pub(crate) fn of(tables: Tables, clock: Arc<dyn Clock>) -> Self {
        Self { tables: Mutex::new(tables), clock }
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// All of it or nothing.
    pub(crate) fn transaction<T>(
        &self,
        work: impl FnOnce(&mut Tables) -> Answer<(T, bool)>,
    ) -> Answer<T> {
        let mut tables = self.tables();
        let mut draft = tables.clone();
        let (answer, commits) = work(&mut draft)?;
        if commits {
            *tables = draft;
        }
        Ok(answer)
    }
}

fn stored(it: &NewChunk) -> StoredChunk {
    StoredChunk {
        seq: it.seq,
        byte_offset: it.byte_offset,
        byte_len: it.byte_len,
        last_at: it.last_at,
        crc32c: it.crc32c,
        encoding: it.encoding.to_owned(),
        data: it.data.clone(),
    }
}

fn limited(limit: i64) -> usize {
    usize::try_from(limit).unwrap()
}

#[async_trait]
impl Ledger for Model {
    async fn register_worker(&self, worker: WorkerId, _: &str, _: &str) -> Answer<i64> {
        let now = self.now();
        let mut tables = self.tables();
        let row =
            tables.workers.entry(worker).or_insert(Registered { epoch: 0, heartbeat_at: now });
        row.epoch += 1;
        row.heartbeat_at = now;
        Ok(row.epoch)
    }

    async fn heartbeat(&self, worker: WorkerId, epoch: i64, _: &WorkerTargets) -> Answer<bool> {
        let now = self.now();
        let mut tables = self.tables();
        let row = tables.workers.get_mut(&worker).filter(|it| it.epoch == epoch);
        Ok(row.map(|it| it.heartbeat_at = now).is_some())
    }

    async fn release_lease(&self, worker: WorkerId, epoch: i64) -> Answer<()> {
        let mut tables = self.tables();
        if let Some(it) = tables.workers.get_mut(&worker).filter(|it| it.epoch == epoch) {
            it.heartbeat_at = Timestamp::MIN;
        }
        Ok(())
    }

    async fn claim(&self, worker: WorkerId, targets: &[ClaimTarget]) -> Answer<Vec<ClaimedTask>> {
        let now = self.now();
        let mut tables = self.tables();
        let mut tasks = Vec::new();
        let (by_name, by_labels): (Vec<_>, Vec<_>) =
            targets.iter().partition(|it| it.selectors.is_empty());
        for target in by_name.into_iter().chain(by_labels) {
            let waits = |it: &str| it == target.name || target.selectors.iter().any(|s| s == it);
            let mut queue: Vec<_> = tables
                .live
                .iter()
                .filter(|(_, it)| it.state == Phase::Queued && waits(&it.target))
                .filter(|(_, it)| it.not_before.is_none_or(|at| at <= now))
                .filter(|(_, it)| it.after.is_none_or(|it| !tables.live.contains_key(&it)))
                .map(|(task, it)| (std::cmp::Reverse(it.priority), *task))
                .collect();
            queue.sort_unstable();
            queue.truncate(limited(target.slots));
            for (_, task) in queue {
                let live = tables.live.get_mut(&task).unwrap();
                live.state = Phase::Starting;
                live.target.clone_from(&target.name);
                live.engine = Some(target.engine.clone());
                live.claimed_at = Some(now);
                tasks.push(task);
            }
        }
        Ok(tables.take(&tasks, worker))
    }

    async fn queued_selectors(&self) -> Answer<Vec<String>> {
        let tables = self.tables();
        let queued = tables.live.values().filter(|it| it.state == Phase::Queued);
        let targets: BTreeSet<String> = queued.map(|it| it.target.clone()).collect();
        Ok(targets.into_iter().filter(|it| it.contains('=')).collect())
    }

    async fn take_own(&self, worker: WorkerId, driven: &[TaskId]) -> Answer<Vec<ClaimedTask>> {
        let mut tables = self.tables();
        let own = tables.live.iter().filter(|(_, it)| it.worker == Some(worker));
        let tasks: Vec<_> = own.map(|(it, _)| *it).filter(|it| !driven.contains(it)).collect();
        Ok(tables.take(&tasks, worker))
    }

    async fn take_expired(
        &self,
        worker: WorkerId,
        lease_secs: f64,
        targets: &[ClaimTarget],
    ) -> Answer<Vec<ClaimedTask>> {
        let oldest = self.now() - SignedDuration::from_secs_f64(lease_secs);
        let mut tables = self.tables();
        let is_dead = |it: WorkerId| {
            it != worker && tables.workers.get(&it).is_some_and(|it| it.heartbeat_at < oldest)
        };
        let reaches = |live: &Live| {
            targets
                .iter()
                .any(|it| it.name == live.target && Some(&it.engine) == live.engine.as_ref())
        };
        let tasks: Vec<_> = tables
            .live
            .iter()
            .filter(|(_, it)| it.worker.is_some_and(is_dead) && reaches(it))
            .map(|(task, _)| *task)
            .take(1_000)
            .collect();
        Ok(tables.take(&tasks, worker))
    }

    async fn next_expiry(&self, worker: WorkerId, lease_secs: f64) -> Answer<Option<f64>> {
        let now = self.now();
        let lease = SignedDuration::from_secs_f64(lease_secs);
        let tables = self.tables();
        let others = tables.workers.iter().filter(|(it, _)| **it != worker);
        let valid = others.map(|(_, it)| it.heartbeat_at).filter(|it| *it >= now - lease);
        Ok(valid.min().map(|it| (it.duration_since(now) + lease).as_secs_f64()))
    }

    async fn retake(&self, worker: WorkerId, task: TaskId) -> Answer<Option<ClaimedTask>> {
        let mut tables = self.tables();
        if tables.live.get(&task).is_none_or(|it| it.worker != Some(worker)) {
            return Ok(None);
        }
        Ok(tables.take(&[task], worker).pop())
    }

    async fn holds(&self, task: TaskId, fence: Fence) -> Answer<bool> {
        Ok(self.tables().live.get(&task).is_some_and(|it| it.fence == fence.0))
    }

    async fn unclaim(&self, task: TaskId, fence: Fence) -> Answer<()> {
        let not_before = self.now() + SignedDuration::from_secs(1);
        let mut tables = self.tables();
        let wanted = tables.specs.get(&task).map(|it| it.spec.target.to_string());
        let row = tables.live.get_mut(&task);
        let row = row.filter(|it| it.fence == fence.0 && it.state == Phase::Starting);
        let live = row.ok_or(Error::Fenced)?;
        live.state = Phase::Queued;
        if live.unconfirmed.is_none() {
            live.target = wanted.unwrap();
        }
        live.worker = None;
        live.engine = None;
        live.claimed_at = None;
        live.fence += 1;
        live.not_before = Some(not_before);
        Ok(())
    }

    async fn record_running(
        &self,
        task: TaskId,
        fence: Fence,
        started_at: Timestamp,
        handle: &Value,
        image_digest: Option<&str>,
        events: &[NewEvent],
    ) -> Answer<()> {
        let mut tables = self.tables();
        let live = tables.held(task, fence)?;
        live.state = Phase::Running;
        live.started_at.get_or_insert(started_at);
        live.handle = Some(handle.clone());
        live.image_digest = image_digest.map(str::to_owned).or(live.image_digest.take());
        let attempt_no = live.attempt_no;
        tables.add_events(task, attempt_no, events);
        Ok(())
    }

    async fn record_finishing(&self, task: TaskId, fence: Fence) -> Answer<()> {
        self.tables().held(task, fence)?.state = Phase::Finishing;
        Ok(())
    }

    async fn finish_attempt(
        &self,
        task: TaskId,
        fence: Fence,
        end: &AttemptEnd,
    ) -> Answer<Recorded> {
        self.transaction(|tables| {
            let live = tables.held(task, fence)?.clone();
            for chunk in &end.chunks {
                tables.add_chunk(task, live.attempt_no, chunk)?;
            }
            for output in &end.outputs {
                let key = (task, live.attempt_no, output.name.clone());
                if tables.outputs.insert(key, output.clone()).is_some() {
                    return Err(conflict("outputs"));
                }
            }
            tables.add_events(task, live.attempt_no, &end.events);
            let recorded = match &end.requeue {
                None => tables.end_task(task, &live, end)?,
                Some(next) => tables.requeue(task, &live, end, next)?,
            };
            Ok((recorded, recorded == Recorded::Done))
        })
    }

    async fn append_events(
        &self,
        task: TaskId,
        fence: Fence,
        attempt_no: AttemptNo,
        events: &[NewEvent],
    ) -> Answer<()> {
        let mut tables = self.tables();
        tables.held(task, fence)?;
        tables.add_events(task, attempt_no.0, events);
        Ok(())
    }

    async fn append_chunk(
        &self,
        task: TaskId,
        fence: Fence,
        attempt_no: AttemptNo,
        chunk: &NewChunk,
    ) -> Answer<()> {
        let mut tables = self.tables();
        tables.held(task, fence)?;
        tables.add_chunk(task, attempt_no.0, chunk)
    }

    async fn stop_requests(&self, worker: WorkerId) -> Answer<Vec<StopRequest>> {
        let tables = self.tables();
        let own = tables.live.iter().filter(|(_, it)| it.worker == Some(worker));
        Ok(own
            .filter_map(|(task, it)| Some(StopRequest { task: *task, reason: it.stop?.0 }))
            .collect())
    }

    async fn attempt_fates(
        &self,
        attempts: &[(TaskId, AttemptId)],
    ) -> Answer<HashMap<AttemptId, AttemptFate>> {
        let tables = self.tables();
        let asks = |task: &TaskId, attempt: &AttemptId| {
            attempts.iter().any(|(it, _)| it == task)
                && attempts.iter().any(|(_, it)| it == attempt)
        };
        let live = tables.live.iter().filter(|(task, it)| asks(task, &it.attempt));
        let live = live.map(|(_, it)| (it.attempt, AttemptFate::Live));
        let ended = tables.attempts.iter().filter(|((task, _), it)| asks(task, &it.attempt));
        let ended =
            ended.map(|(_, it)| (it.attempt, AttemptFate::Ended { keep_sandbox: it.keep_sandbox }));
        Ok(live.chain(ended).collect())
    }

    async fn find_task(&self, task: TaskId) -> Answer<Option<TaskRecord>> {
        Ok(self.tables().record(task))
    }

    async fn log_position(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
    ) -> Answer<LogPosition> {
        let tables = self.tables();
        let chunks = || tables.chunks_of(task, attempt_no, container);
        Ok(LogPosition {
            next_seq: chunks().map(|it| it.seq + 1).max().unwrap_or_default(),
            bytes: chunks()
                .map(|it| it.byte_offset + i64::from(it.byte_len))
                .max()
                .unwrap_or_default(),
            last_at: chunks().map(|it| it.last_at).max(),
        })
    }

    async fn chunks_from(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
        seq: i32,
        from: i64,
        limit: i64,
    ) -> Answer<Vec<StoredChunk>> {
        let tables = self.tables();
        let chunks = tables.chunks_of(task, attempt_no, container);
        Ok(chunks
            .filter(|it| it.seq >= seq && it.byte_offset + i64::from(it.byte_len) > from)
            .take(limited(limit))
            .map(stored)
            .collect())
    }

    async fn chunks_backwards(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
        before: i32,
        limit: i64,
    ) -> Answer<Vec<StoredChunk>> {
        let tables = self.tables();
        let chunks = tables.chunks_of(task, attempt_no, container).rev();
        Ok(chunks.filter(|it| it.seq < before).take(limited(limit)).map(stored).collect())
    }

    async fn chunk_before(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
        before: i64,
    ) -> Answer<Option<StoredChunk>> {
        let tables = self.tables();
        let mut chunks = tables.chunks_of(task, attempt_no, container).rev();
        Ok(chunks.find(|it| it.byte_offset < before).map(stored))
    }

    async fn log_length(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
    ) -> Answer<i64> {
        let tables = self.tables();
        let last = tables.chunks_of(task, attempt_no, container).next_back();
        Ok(last.map(|it| it.byte_offset + i64::from(it.byte_len)).unwrap_or_default())
    }

    async fn log_offset_since(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
        since: i64,
    ) -> Answer<Option<i64>> {
        let tables = self.tables();
        let mut chunks = tables.chunks_of(task, attempt_no, container);
        Ok(chunks.find(|it| it.last_at >= since).map(|it| it.byte_offset))
    }

    async fn log_containers(&self, task: TaskId, attempt_no: AttemptNo) -> Answer<Vec<String>> {
        let tables = self.tables();
        let stored = tables.chunks.keys().filter(|it| (it.0, it.1) == (task, attempt_no.0));
        let stored = stored.map(|it| it.2.clone());
        let ended = tables.attempts.get(&(task, attempt_no.0)).and_then(|it| it.log.as_ref());
        let sealed = ended.into_iter().flat_map(|it| it.keys().cloned());
        Ok(stored.chain(sealed).collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn ping(&self) -> Answer<()> {
        Ok(())
    }

    async fn queued_with_deadline(&self, limit: i64) -> Answer<Vec<QueuedTask>> {
        let tables = self.tables();
        let mut queued: Vec<_> = tables
            .live
            .iter()
            .filter(|(_, it)| it.state == Phase::Queued && it.queue_deadline.is_some())
            .map(|(task, it)| QueuedTask {
                task: *task,
                queued_at: it.queued_at,
                queue_deadline: it.queue_deadline,
            })
            .collect();
        queued.sort_by_key(|it| it.queue_deadline);
        queued.truncate(limited(limit));
        Ok(queued)
    }

    async fn expire_queued(
        &self,
        tasks: &[TaskId],
        outcome: &Outcome,
        now: Timestamp,
    ) -> Answer<usize> {
        Ok(self.tables().end_queued(tasks, outcome, now))
    }
}
