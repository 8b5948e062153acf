//! What those who drive attempts need of the store.
//!
//! [`Store`] is the one of the product. The schedules of the tests put a model in its place, which a test
//! holds against Postgres; so each rule that they rely on stands here.
//!
//! One method is one use case is one transaction: all of it or nothing. A call that fails with
//! [`Error::Unavailable`] may have been carried out.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    AttemptEnd, AttemptFate, ClaimTarget, ClaimedTask, Error, LogPosition, NewChunk, NewEvent,
    Recorded, StopRequest, Store, StoredChunk, TaskRecord, WorkerTargets,
};
use crate::domain::outcome::Outcome;
use crate::domain::plan::QueuedTask;
use crate::ids::{AttemptId, AttemptNo, Fence, TaskId, WorkerId};

/// Workers, the log, the scheduler and the sweeper ask this. The module documentation is its contract.
#[async_trait]
pub trait Ledger: fmt::Debug + Send + Sync + 'static {
    // The identity of a worker, and its lease.

    /// Makes this process the holder of the worker's identity, with a lease from now on. The epoch that it
    /// answers is higher than any before.
    async fn register_worker(
        &self,
        worker: WorkerId,
        hostname: &str,
        version: &str,
    ) -> Result<i64, Error>;

    /// Renews the lease of everything that the worker holds. False: another process has its identity.
    async fn heartbeat(
        &self,
        worker: WorkerId,
        epoch: i64,
        targets: &WorkerTargets,
    ) -> Result<bool, Error>;

    /// The lease has expired from now on, if it is still this epoch's.
    async fn release_lease(&self, worker: WorkerId, epoch: i64) -> Result<(), Error>;

    // Taking tasks. Each of these adds one to the fence of what it takes. Two calls at once never take the
    // same task.

    /// Takes queued tasks by priority, then age, no more for each target than it has slots; none before
    /// its time, and none that another live task comes before. What waits for labels is taken for a target that
    /// names them among its selectors, and has its name from then on.
    async fn claim(
        &self,
        worker: WorkerId,
        targets: &[ClaimTarget],
    ) -> Result<Vec<ClaimedTask>, Error>;

    /// The labels that queued tasks wait for, each once.
    async fn queued_selectors(&self) -> Result<Vec<String>, Error>;

    /// Takes back what this worker holds but for the tasks in `driven`.
    async fn take_own(
        &self,
        worker: WorkerId,
        driven: &[TaskId],
    ) -> Result<Vec<ClaimedTask>, Error>;

    /// Takes from other workers whose lease has expired, by the store's clock, what was given to one of
    /// these engines.
    async fn take_expired(
        &self,
        worker: WorkerId,
        lease_secs: f64,
        targets: &[ClaimTarget],
    ) -> Result<Vec<ClaimedTask>, Error>;

    /// How many seconds are left until the lease of another worker expires, if it renews it no more. None:
    /// nobody else has a valid one.
    async fn next_expiry(&self, worker: WorkerId, lease_secs: f64) -> Result<Option<f64>, Error>;

    /// Takes a task again that this worker holds. None: it holds it no more.
    async fn retake(&self, worker: WorkerId, task: TaskId) -> Result<Option<ClaimedTask>, Error>;

    /// Whether the attempt is still held under this fence.
    async fn holds(&self, task: TaskId, fence: Fence) -> Result<bool, Error>;

    // What the holder of an attempt writes. Under a fence that is not the current one nothing is written,
    // and the answer is `Fenced`.

    /// Puts a task back into the queue that was certainly not started: the same attempt waits again, for the
    /// same target or labels as before.
    async fn unclaim(&self, task: TaskId, fence: Fence) -> Result<(), Error>;

    /// Writes that the sandbox runs.
    async fn record_running(
        &self,
        task: TaskId,
        fence: Fence,
        started_at: Timestamp,
        handle: &Value,
        image_digest: Option<&str>,
        events: &[NewEvent],
    ) -> Result<(), Error>;

    /// Writes that the sandbox has ended.
    async fn record_finishing(&self, task: TaskId, fence: Fence) -> Result<(), Error>;

    /// Writes the end of an attempt, and of its task or the next attempt. `StopRequested`: there was to be
    /// another attempt, and a stop is wanted; nothing was written.
    async fn finish_attempt(
        &self,
        task: TaskId,
        fence: Fence,
        end: &AttemptEnd,
    ) -> Result<Recorded, Error>;

    async fn append_events(
        &self,
        task: TaskId,
        fence: Fence,
        attempt_no: AttemptNo,
        events: &[NewEvent],
    ) -> Result<(), Error>;

    /// Appends a piece of log. `Conflict`: there is one with this number.
    async fn append_chunk(
        &self,
        task: TaskId,
        fence: Fence,
        attempt_no: AttemptNo,
        chunk: &NewChunk,
    ) -> Result<(), Error>;

    // What anybody may read.

    /// The stops that are wanted of this worker's attempts.
    async fn stop_requests(&self, worker: WorkerId) -> Result<Vec<StopRequest>, Error>;

    /// What became of these attempts. One that is not in the answer is not in the store.
    async fn attempt_fates(
        &self,
        attempts: &[(TaskId, AttemptId)],
    ) -> Result<HashMap<AttemptId, AttemptFate>, Error>;

    async fn find_task(&self, task: TaskId) -> Result<Option<TaskRecord>, Error>;

    /// Where the stored log of an attempt ends.
    async fn log_position(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
    ) -> Result<LogPosition, Error>;

    /// The chunks from number `seq` on that hold bytes from `from` on, in order, at most `limit` of them.
    async fn chunks_from(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
        seq: i32,
        from: i64,
        limit: i64,
    ) -> Result<Vec<StoredChunk>, Error>;

    /// The last chunks, newest first, before chunk `before`.
    async fn chunks_backwards(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
        before: i32,
        limit: i64,
    ) -> Result<Vec<StoredChunk>, Error>;

    /// The last chunk that has a byte before `before`.
    async fn chunk_before(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
        before: i64,
    ) -> Result<Option<StoredChunk>, Error>;

    /// How many bytes are stored.
    async fn log_length(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
    ) -> Result<i64, Error>;

    /// Where the first chunk begins that has a frame of this time (nanoseconds since the epoch) or later.
    async fn log_offset_since(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
        since: i64,
    ) -> Result<Option<i64>, Error>;

    /// The containers of an attempt whose logs are stored, or known to be empty.
    async fn log_containers(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
    ) -> Result<Vec<String>, Error>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), Error>;

    // What the scheduler does.

    /// The queued tasks that have a deadline, the nearest first.
    async fn queued_with_deadline(&self, limit: i64) -> Result<Vec<QueuedTask>, Error>;

    /// Ends those of the tasks that are still queued. Returns how many ended.
    async fn expire_queued(
        &self,
        tasks: &[TaskId],
        outcome: &Outcome,
        now: Timestamp,
    ) -> Result<usize, Error>;
}

/// Hands each call on to the method of the same name.
macro_rules! hand_on {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Ledger for Store {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$answer, Error> {
                Self::$name(self, $($argument),*).await
            })*
        }
    };
}

hand_on! {
    register_worker(worker: WorkerId, hostname: &str, version: &str) -> i64;
    heartbeat(worker: WorkerId, epoch: i64, targets: &WorkerTargets) -> bool;
    release_lease(worker: WorkerId, epoch: i64) -> ();
    claim(worker: WorkerId, targets: &[ClaimTarget]) -> Vec<ClaimedTask>;
    queued_selectors() -> Vec<String>;
    take_own(worker: WorkerId, driven: &[TaskId]) -> Vec<ClaimedTask>;
    take_expired(worker: WorkerId, lease_secs: f64, targets: &[ClaimTarget]) -> Vec<ClaimedTask>;
    next_expiry(worker: WorkerId, lease_secs: f64) -> Option<f64>;
    retake(worker: WorkerId, task: TaskId) -> Option<ClaimedTask>;
    holds(task: TaskId, fence: Fence) -> bool;
    unclaim(task: TaskId, fence: Fence) -> ();
    record_running(
        task: TaskId, fence: Fence, started_at: Timestamp, handle: &Value, image_digest: Option<&str>,
        events: &[NewEvent]
    ) -> ();
    record_finishing(task: TaskId, fence: Fence) -> ();
    finish_attempt(task: TaskId, fence: Fence, end: &AttemptEnd) -> Recorded;
    append_events(task: TaskId, fence: Fence, attempt_no: AttemptNo, events: &[NewEvent]) -> ();
    append_chunk(task: TaskId, fence: Fence, attempt_no: AttemptNo, chunk: &NewChunk) -> ();
    stop_requests(worker: WorkerId) -> Vec<StopRequest>;
    attempt_fates(attempts: &[(TaskId, AttemptId)]) -> HashMap<AttemptId, AttemptFate>;
    find_task(task: TaskId) -> Option<TaskRecord>;
    log_position(task: TaskId, attempt_no: AttemptNo, container: &str) -> LogPosition;
    chunks_from(
        task: TaskId, attempt_no: AttemptNo, container: &str, seq: i32, from: i64, limit: i64
    ) -> Vec<StoredChunk>;
    chunks_backwards(
        task: TaskId, attempt_no: AttemptNo, container: &str, before: i32, limit: i64
    ) -> Vec<StoredChunk>;
    chunk_before(
        task: TaskId, attempt_no: AttemptNo, container: &str, before: i64
    ) -> Option<StoredChunk>;
    log_length(task: TaskId, attempt_no: AttemptNo, container: &str) -> i64;
    log_offset_since(
        task: TaskId, attempt_no: AttemptNo, container: &str, since: i64
    ) -> Option<i64>;
    log_containers(task: TaskId, attempt_no: AttemptNo) -> Vec<String>;
    ping() -> ();
    queued_with_deadline(limit: i64) -> Vec<QueuedTask>;
    expire_queued(tasks: &[TaskId], outcome: &Outcome, now: Timestamp) -> usize;
}
