//! The store as one process reaches it: with what goes wrong on the way.

#![expect(
    clippy::redundant_locals,
    reason = "arguments that are copied and those that are cloned are written alike"
)]

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use supercargo::domain::outcome::Outcome;
use supercargo::domain::plan::QueuedTask;
use supercargo::ids::{AttemptId, AttemptNo, Fence, TaskId, WorkerId};
use supercargo::store::{
    AttemptEnd, AttemptFate, ClaimTarget, ClaimedTask, Error, Ledger, LogPosition, NewChunk,
    NewEvent, Recorded, StopRequest, StoredChunk, TaskRecord, WorkerTargets,
};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::model::Model;
use super::world::{Fault, World};

#[derive(Debug, Clone)]
pub(super) struct SimStore {
    pub(super) world: Arc<World>,
    pub(super) process: usize,
    /// The sweeper reads from a standby, which may lag.
    pub(super) reads_stale: bool,
}

/// What may break a promise.
const WRITES: [&str; 7] = [
    "unclaim",
    "record_running",
    "record_finishing",
    "finish_attempt",
    "append_chunk",
    "append_events",
    "expire_queued",
];

fn unavailable() -> Error {
    Error::Unavailable(sqlx::Error::PoolTimedOut)
}

impl SimStore {
    async fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        task: Option<TaskId>,
        effect: impl FnOnce(Arc<Model>) -> BoxFuture<'static, Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (world, process) = (&self.world, self.process);
        world.pass(process).await;
        let fault = world.draw(process);
        let says = |what: &str| {
            world.say(|names| {
                let task = task.map(|it| names.task(it)).unwrap_or_default();
                let fault =
                    if fault == Fault::None { String::new() } else { format!(" {fault:?}") };
                format!("w{process} store.{name} {task}{what}{fault}")
            });
        };
        says("");
        match fault {
            Fault::Slow(by) => sleep(by).await,
            Fault::Refused => return Err(unavailable()),
            Fault::Freeze { before: true, lasts } => {
                world.freeze(process, lasts);
                tokio::task::yield_now().await;
            }
            Fault::Kill { before: true, away } => {
                world.kill(process, away);
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        if world.state().processes[process].store_cut {
            return Err(unavailable());
        }
        let carry_out = {
            let world = Arc::clone(world);
            async move {
                let answer = effect(Arc::clone(&world.model)).await;
                let failed = answer.as_ref().err().map(ToString::to_string);
                if let Some(error) = failed {
                    world.say(|_| format!("w{process} store.{name} answers: {error}"));
                }
                if WRITES.contains(&name) {
                    world.check();
                }
                answer
            }
        };
        if let Fault::Late(by) = fault {
            let (answer, answered) = oneshot::channel();
            tokio::spawn(async move {
                sleep(by).await;
                answer.send(carry_out.await).ok();
            });
            return answered.await.unwrap_or_else(|_| Err(unavailable()));
        }
        let answer = carry_out.await;
        match fault {
            Fault::AnswerLost => return Err(unavailable()),
            Fault::AnswerLate(by) => sleep(by).await,
            Fault::Freeze { before: false, lasts } => {
                world.freeze(process, lasts);
                tokio::task::yield_now().await;
            }
            Fault::Kill { before: false, away } => {
                world.kill(process, away);
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        answer
    }
}

/// `name(argument: type = owned => handed on) -> answer, task`
macro_rules! calls {
    ($($name:ident($($argument:ident: $type:ty = $own:expr => $pass:expr),*) -> $answer:ty, $task:expr;)*) => {
        #[async_trait]
        impl Ledger for SimStore {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$answer, Error> {
                let task: Option<TaskId> = $task;
                $(let $argument = $own;)*
                self.call(stringify!($name), task, move |model| {
                    async move { model.$name($($pass),*).await }.boxed()
                })
                .await
            })*

            async fn attempt_fates(
                &self,
                attempts: &[(TaskId, AttemptId)],
            ) -> Result<HashMap<AttemptId, AttemptFate>, Error> {
                let attempts = attempts.to_vec();
                let stale = if self.reads_stale {
                    self.world.state().processes[self.process].stale.take()
                } else {
                    None
                };
                if let Some(tables) = stale {
                    self.world.say(|_| format!("w{} reads from a standby that lags", self.process));
                    let lagging = Model::of(tables, self.world.model.clock());
                    return lagging.attempt_fates(&attempts).await;
                }
                self.call("attempt_fates", None, move |model| {
                    async move { model.attempt_fates(&attempts).await }.boxed()
                })
                .await
            }
        }
    };
}

calls! {
    register_worker(
        worker: WorkerId = worker => worker, _hostname: &str = () => "", _version: &str = () => ""
    ) -> i64, None;
    heartbeat(worker: WorkerId = worker => worker, epoch: i64 = epoch => epoch,
        targets: &WorkerTargets = targets.clone() => &targets) -> bool, None;
    release_lease(worker: WorkerId = worker => worker, epoch: i64 = epoch => epoch) -> (), None;
    claim(worker: WorkerId = worker => worker, targets: &[ClaimTarget] = targets.to_vec() => &targets)
        -> Vec<ClaimedTask>, None;
    queued_selectors() -> Vec<String>, None;
    take_own(worker: WorkerId = worker => worker, driven: &[TaskId] = driven.to_vec() => &driven)
        -> Vec<ClaimedTask>, None;
    take_expired(worker: WorkerId = worker => worker, lease: f64 = lease => lease,
        targets: &[ClaimTarget] = targets.to_vec() => &targets) -> Vec<ClaimedTask>, None;
    next_expiry(worker: WorkerId = worker => worker, lease: f64 = lease => lease) -> Option<f64>, None;
    retake(worker: WorkerId = worker => worker, task: TaskId = task => task)
        -> Option<ClaimedTask>, Some(task);
    holds(task: TaskId = task => task, fence: Fence = fence => fence) -> bool, Some(task);
    unclaim(task: TaskId = task => task, fence: Fence = fence => fence) -> (), Some(task);
    record_running(task: TaskId = task => task, fence: Fence = fence => fence,
        at: Timestamp = at => at, handle: &Value = handle.clone() => &handle,
        digest: Option<&str> = digest.map(str::to_owned) => digest.as_deref(),
        events: &[NewEvent] = events.to_vec() => &events) -> (), Some(task);
    record_finishing(task: TaskId = task => task, fence: Fence = fence => fence) -> (), Some(task);
    finish_attempt(task: TaskId = task => task, fence: Fence = fence => fence,
        end: &AttemptEnd = end.clone() => &end) -> Recorded, Some(task);
    append_events(task: TaskId = task => task, fence: Fence = fence => fence,
        no: AttemptNo = no => no, events: &[NewEvent] = events.to_vec() => &events) -> (), Some(task);
    append_chunk(task: TaskId = task => task, fence: Fence = fence => fence,
        no: AttemptNo = no => no, chunk: &NewChunk = chunk.clone() => &chunk) -> (), Some(task);
    stop_requests(worker: WorkerId = worker => worker) -> Vec<StopRequest>, None;
    find_task(task: TaskId = task => task) -> Option<TaskRecord>, Some(task);
    log_position(task: TaskId = task => task, no: AttemptNo = no => no,
        container: &str = container.to_owned() => &container) -> LogPosition, Some(task);
    chunks_from(task: TaskId = task => task, no: AttemptNo = no => no,
        container: &str = container.to_owned() => &container, seq: i32 = seq => seq,
        from: i64 = from => from, limit: i64 = limit => limit) -> Vec<StoredChunk>, Some(task);
    chunks_backwards(task: TaskId = task => task, no: AttemptNo = no => no,
        container: &str = container.to_owned() => &container, before: i32 = before => before,
        limit: i64 = limit => limit) -> Vec<StoredChunk>, Some(task);
    chunk_before(task: TaskId = task => task, no: AttemptNo = no => no,
        container: &str = container.to_owned() => &container, before: i64 = before => before)
        -> Option<StoredChunk>, Some(task);
    log_length(task: TaskId = task => task, no: AttemptNo = no => no,
        container: &str = container.to_owned() => &container) -> i64, Some(task);
    log_offset_since(task: TaskId = task => task, no: AttemptNo = no => no,
        container: &str = container.to_owned() => &container, since: i64 = since => since)
        -> Option<i64>, Some(task);
    log_containers(task: TaskId = task => task, no: AttemptNo = no => no) -> Vec<String>, Some(task);
    ping() -> (), None;
    queued_with_deadline(limit: i64 = limit => limit) -> Vec<QueuedTask>, None;
    expire_queued(tasks: &[TaskId] = tasks.to_vec() => &tasks,
        outcome: &Outcome = outcome.clone() => &outcome, now: Timestamp = now => now) -> usize, None;
}
