//! The rows of the model, and what happens to several of them at once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;
use supercargo::domain::attempt::Phase;
use supercargo::domain::failure::{Budget, Failure};
use supercargo::domain::outcome::{Outcome, Output, StopReason};
use supercargo::domain::spec::{SpecHash, TaskSpec};
use supercargo::domain::state::TaskState;
use supercargo::failpoints::{self, Guard};
use supercargo::ids::{AttemptId, AttemptNo, Fence, RunId, TaskId, WorkerId};
use supercargo::store::{
    AttemptEnd, ClaimedTask, Error, EventRecord, LogSeals, NewChunk, NewEvent, Recorded, Requeue,
    TaskRecord, Unconfirmed,
};

use super::Answer;

#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    pub(crate) specs: BTreeMap<TaskId, Spec>,
    pub(crate) superseded: BTreeMap<(TaskId, i32), (TaskSpec, SpecHash)>,
    pub(crate) live: BTreeMap<TaskId, Live>,
    pub(crate) ended: BTreeMap<TaskId, Ended>,
    pub(crate) attempts: BTreeMap<(TaskId, i32), Attempt>,
    pub(crate) outputs: BTreeMap<(TaskId, i32, String), Output>,
    pub(crate) events: BTreeMap<TaskId, Vec<EventRecord>>,
    pub(crate) chunks: BTreeMap<(TaskId, i32, String, i32), NewChunk>,
    /// Of requests: (project, key) → task and fingerprint.
    pub(crate) keys: BTreeMap<(String, String), (TaskId, [u8; 32])>,
    /// Of work: (project, key) → task.
    pub(crate) run_keys: BTreeMap<(String, String), TaskId>,
    pub(crate) workers: BTreeMap<WorkerId, Registered>,
}

#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) run: RunId,
    pub(crate) spec: TaskSpec,
    pub(crate) hash: SpecHash,
    pub(crate) run_key: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) state: Phase,
    pub(crate) priority: i16,
    pub(crate) target: String,
    pub(crate) queued_at: Timestamp,
    pub(crate) not_before: Option<Timestamp>,
    pub(crate) queue_deadline: Option<Timestamp>,
    pub(crate) attempt: AttemptId,
    pub(crate) attempt_no: i32,
    pub(crate) user_failures: u32,
    pub(crate) platform_failures: u32,
    pub(crate) fence: i64,
    pub(crate) worker: Option<WorkerId>,
    pub(crate) engine: Option<String>,
    pub(crate) claimed_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) handle: Option<Value>,
    pub(crate) image_digest: Option<String>,
    pub(crate) stop: Option<(StopReason, Timestamp)>,
    pub(crate) attempt_queued_at: Option<Timestamp>,
    pub(crate) after: Option<TaskId>,
    pub(crate) unconfirmed: Option<Unconfirmed>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ended {
    pub(crate) state: TaskState,
    pub(crate) attempt_no: i32,
    pub(crate) exit_code: Option<i32>,
    pub(crate) failure: Option<Failure>,
    pub(crate) queued_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attempt {
    pub(crate) attempt: AttemptId,
    pub(crate) state: TaskState,
    pub(crate) exit_code: Option<i32>,
    pub(crate) failure: Option<Failure>,
    pub(crate) target: String,
    pub(crate) engine: Option<String>,
    pub(crate) worker: Option<WorkerId>,
    pub(crate) handle: Option<Value>,
    pub(crate) image_digest: Option<String>,
    pub(crate) keep_sandbox: bool,
    pub(crate) log: Option<LogSeals>,
    pub(crate) queued_at: Timestamp,
    pub(crate) claimed_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Timestamp,
    pub(crate) node: Option<String>,
    pub(crate) sandbox: Option<String>,
    pub(crate) unconfirmed: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Registered {
    pub(crate) epoch: i64,
    pub(crate) heartbeat_at: Timestamp,
}

pub(crate) fn conflict(constraint: &str) -> Error {
    Error::Conflict { constraint: constraint.to_owned() }
}

impl Tables {
    /// The row that is held under this fence.
    pub(crate) fn held(&mut self, task: TaskId, fence: Fence) -> Answer<&mut Live> {
        let any = !failpoints::holds(Guard::Fence);
        let held = self.live.get_mut(&task).filter(|it| any || it.fence == fence.0);
        held.ok_or(Error::Fenced)
    }

    pub(crate) fn claimed(&self, task: TaskId) -> Option<ClaimedTask> {
        let (live, spec) = (self.live.get(&task)?, self.specs.get(&task)?);
        Some(ClaimedTask {
            task,
            run: spec.run,
            attempt: live.attempt,
            attempt_no: AttemptNo(live.attempt_no),
            fence: Fence(live.fence),
            phase: live.state,
            target: live.target.clone(),
            engine: live.engine.clone().unwrap_or_default(),
            stop: live.stop.map(|(reason, _)| reason),
            started_at: live.started_at,
            user_failures: live.user_failures,
            platform_failures: live.platform_failures,
            unconfirmed: live.unconfirmed.clone(),
            spec: Ok(spec.spec.clone()),
            spec_hash: spec.hash.clone(),
            is_planned: false,
        })
    }

    /// Adds one to the fences of these tasks, and gives them to `worker`.
    pub(crate) fn take(&mut self, tasks: &[TaskId], worker: WorkerId) -> Vec<ClaimedTask> {
        for task in tasks {
            if let Some(live) = self.live.get_mut(task) {
                live.fence += 1;
                live.worker = Some(worker);
            }
        }
        tasks.iter().filter_map(|it| self.claimed(*it)).collect()
    }

    pub(crate) fn add_events(&mut self, task: TaskId, attempt_no: i32, events: &[NewEvent]) {
        let all = self.events.entry(task).or_default();
        all.extend(events.iter().map(|it| EventRecord {
            at: it.at,
            attempt_no: AttemptNo(attempt_no),
            source: it.source.to_owned(),
            reason: it.reason.clone(),
            message: it.message.replace('\0', "\u{fffd}"),
        }));
    }

    pub(crate) fn add_chunk(
        &mut self,
        task: TaskId,
        attempt_no: i32,
        chunk: &NewChunk,
    ) -> Answer<()> {
        let key = (task, attempt_no, chunk.container.clone(), chunk.seq);
        if self.chunks.contains_key(&key) {
            return Err(conflict("log_chunks"));
        }
        self.chunks.insert(key, chunk.clone());
        Ok(())
    }

    pub(crate) fn chunks_of<'a>(
        &'a self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &'a str,
    ) -> impl DoubleEndedIterator<Item = &'a NewChunk> {
        let name = container.to_owned();
        let from = (task, attempt_no.0, name.clone(), i32::MIN);
        self.chunks.range(from..=(task, attempt_no.0, name, i32::MAX)).map(|(_, it)| it)
    }

    /// What becomes of the attempt that a task has now.
    pub(crate) fn end_attempt(
        &mut self,
        task: TaskId,
        live: &Live,
        end: &AttemptEnd,
    ) -> Answer<()> {
        let row = Attempt {
            attempt: live.attempt,
            state: end.outcome.state,
            exit_code: end.outcome.exit_code,
            failure: end.outcome.failure.clone(),
            target: live.target.clone(),
            engine: live.engine.clone(),
            worker: live.worker,
            handle: live.handle.clone().or_else(|| end.handle.clone()),
            image_digest: live.image_digest.clone().or_else(|| end.image_digest.clone()),
            keep_sandbox: end.keep_sandbox,
            log: Some(end.seals.clone()),
            queued_at: live.attempt_queued_at.unwrap_or(live.queued_at),
            claimed_at: live.claimed_at,
            started_at: end.started_at.or(live.started_at),
            finished_at: end.finished_at,
            node: end.node.clone(),
            sandbox: end.sandbox.clone(),
            unconfirmed: end.outcome.unconfirmed,
        };
        match self.attempts.insert((task, live.attempt_no), row) {
            None => Ok(()),
            Some(_) => Err(conflict("attempts")),
        }
    }

    pub(crate) fn end_task(
        &mut self,
        task: TaskId,
        live: &Live,
        end: &AttemptEnd,
    ) -> Answer<Recorded> {
        self.end_attempt(task, live, end)?;
        self.live.remove(&task);
        let row = Ended {
            state: end.outcome.state,
            attempt_no: live.attempt_no,
            exit_code: end.outcome.exit_code,
            failure: end.outcome.failure.clone(),
            queued_at: live.queued_at,
            started_at: end.started_at.or(live.started_at),
            finished_at: end.finished_at,
        };
        match self.ended.insert(task, row) {
            None => Ok(Recorded::Done),
            Some(_) => Err(conflict("ended_tasks")),
        }
    }

    pub(crate) fn requeue(
        &mut self,
        task: TaskId,
        live: &Live,
        end: &AttemptEnd,
        next: &Requeue,
    ) -> Answer<Recorded> {
        self.end_attempt(task, live, end)?;
        if live.stop.is_some() {
            return Ok(Recorded::StopRequested);
        }
        let unconfirmed = end.outcome.unconfirmed.then(|| Unconfirmed {
            attempt: live.attempt,
            engine: live.engine.clone().unwrap_or_default(),
        });
        let target = match self.specs.get(&task) {
            Some(spec) if unconfirmed.is_none() => spec.spec.target.to_string(),
            _ => live.target.clone(),
        };
        let row = Live {
            state: Phase::Queued,
            target,
            worker: None,
            engine: None,
            claimed_at: None,
            started_at: None,
            handle: None,
            image_digest: None,
            attempt: next.attempt,
            attempt_no: live.attempt_no + 1,
            user_failures: live.user_failures + u32::from(next.budget == Budget::User),
            platform_failures: live.platform_failures + u32::from(next.budget == Budget::Platform),
            not_before: Some(next.not_before),
            queue_deadline: None,
            attempt_queued_at: Some(end.finished_at),
            fence: live.fence + 1,
            unconfirmed,
            ..live.clone()
        };
        self.live.insert(task, row);
        Ok(Recorded::Done)
    }

    /// Ends the tasks that are queued.
    pub(crate) fn end_queued(
        &mut self,
        tasks: &[TaskId],
        outcome: &Outcome,
        now: Timestamp,
    ) -> usize {
        let mut ended = 0;
        for task in tasks {
            let Some(live) = self.live.get(task).filter(|it| it.state == Phase::Queued).cloned()
            else {
                continue;
            };
            self.live.remove(task);
            self.attempts.insert(
                (*task, live.attempt_no),
                Attempt {
                    attempt: live.attempt,
                    state: outcome.state,
                    exit_code: None,
                    failure: outcome.failure.clone(),
                    target: live.target,
                    engine: None,
                    worker: None,
                    handle: None,
                    image_digest: None,
                    keep_sandbox: false,
                    log: None,
                    queued_at: live.attempt_queued_at.unwrap_or(live.queued_at),
                    claimed_at: None,
                    started_at: None,
                    finished_at: now,
                    node: None,
                    sandbox: None,
                    unconfirmed: false,
                },
            );
            self.ended.insert(
                *task,
                Ended {
                    state: outcome.state,
                    attempt_no: live.attempt_no,
                    exit_code: None,
                    failure: outcome.failure.clone(),
                    queued_at: live.queued_at,
                    started_at: None,
                    finished_at: now,
                },
            );
            ended += 1;
        }
        ended
    }

    /// The target that a task is on or was on, or what it waits for.
    fn target(&self, task: TaskId, spec: &Spec) -> String {
        let wanted = &spec.spec.target;
        if let Some(live) = self.live.get(&task) {
            return live.target.clone();
        }
        let last = self.ended.get(&task).and_then(|it| self.attempts.get(&(task, it.attempt_no)));
        match last {
            Some(last) if !wanted.is_named() => last.target.clone(),
            _ => wanted.to_string(),
        }
    }

    /// As [`Ledger::find_task`].
    pub(crate) fn record(&self, task: TaskId) -> Option<TaskRecord> {
        let spec = self.specs.get(&task)?;
        let (live, ended) = (self.live.get(&task), self.ended.get(&task));
        Some(TaskRecord {
            task,
            run: spec.run,
            name: spec.spec.name.clone(),
            image: spec.spec.image.clone(),
            target: self.target(task, spec),
            labels: spec.spec.labels.clone(),
            priority: spec.spec.priority,
            state: live.and_then(|it| it.state.task_state()).or(ended.map(|it| it.state))?,
            attempt_no: AttemptNo(live.map(|it| it.attempt_no).or(ended.map(|it| it.attempt_no))?),
            exit_code: ended.and_then(|it| it.exit_code),
            failure: ended.and_then(|it| it.failure.clone()),
            queued_at: live.map(|it| it.queued_at).or(ended.map(|it| it.queued_at))?,
            claimed_at: live.and_then(|it| it.claimed_at),
            started_at: live.and_then(|it| it.started_at).or(ended.and_then(|it| it.started_at)),
            finished_at: ended.map(|it| it.finished_at),
            not_before: live.and_then(|it| it.not_before),
            stop_requested: live.is_some_and(|it| it.stop.is_some()),
            run_key: spec.run_key.clone(),
            after_task: live.and_then(|it| it.after),
            engine: live.and_then(|it| it.engine.clone()),
        })
    }
}
