//! The steps after the end of the sandbox: what it left, the verdict, the record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::{Shared, collect};
use super::pumps::{LogEnds, Patience, Pumps};
use super::{Quit, SLOW_FINISH, Supervisor, insist};
use crate::domain::attempt::{Ending, Event, Sandbox};
use crate::domain::exit::ExitReport;
use crate::domain::failure::{Failure, Reason};
use crate::domain::outcome::{self, Outcome};
use crate::domain::retry;
use crate::domain::spec::{Cleanup, TaskSpec};
use crate::domain::state::TaskState;
use crate::failpoints::{self, Guard, Point};
use crate::ids::{AttemptId, AttemptNo, TaskId};
use crate::measures;
use crate::runner::{Collected, Disposal, Handle, JsonFile, Runner, naming};
use crate::store::{AttemptEnd, AttemptFate, ClaimedTask, LogSeals, Recorded, Requeue};

/// After a longer wait nobody misses the second that those who claim may take.
const LONGEST_TIMER: Duration = Duration::from_mins(1);
/// How long a log may take to its end once the database answers again.
const FINISH_AFTER_OUTAGE: Duration = Duration::from_mins(1);
/// How long what may be gone is asked for.
const FLEETING_FINISH: Duration = Duration::from_secs(15);

impl Supervisor<'_> {
    pub(super) async fn collect(&mut self, exit: &ExitReport) -> Result<(), Quit> {
        let (Some(handle), Some(pumps)) = (self.handle.clone(), self.pumps.take()) else {
            // It never ran: there is nothing to read.
            self.apply(Event::Collected(None));
            return Ok(());
        };
        pumps.exited();
        let finish = Duration::try_from(self.spec.timeouts.finish).unwrap_or_default();
        let now = Instant::now();
        let patience = if exit.fleeting {
            let deadline = now + finish.min(FLEETING_FINISH);
            Patience { deadline, after_outage: Duration::ZERO }
        } else {
            Patience { deadline: now + finish, after_outage: FINISH_AFTER_OUTAGE }
        };
        let stored = {
            let runner = self.runner.as_ref();
            let stored = store_remains(
                self.shared,
                runner,
                &self.claimed,
                &self.spec,
                &handle,
                pumps,
                patience,
            );
            tokio::pin!(stored);
            tokio::select! {
                biased;
                stored = &mut stored => stored,
                () = self.shared.detach.cancelled() => return Err(Quit::Detached),
                () = tokio::time::sleep(SLOW_FINISH) => {
                    let (shared, task, fence) = (self.shared, self.claimed.task, self.claimed.fence);
                    insist(shared, || shared.parts.store.record_finishing(task, fence)).await?;
                    shared.parts.wake.task_changed(task);
                    tokio::select! {
                        biased;
                        stored = stored => stored,
                        () = self.shared.detach.cancelled() => return Err(Quit::Detached),
                    }
                }
            }
        };
        let (mut logs, remains) = stored?;
        logs.main.seal.incomplete |= exit.unwatched;
        tracing::debug!(task.id = %self.claimed.task, code = ?exit.status.code(), "the attempt has ended");
        failpoints::at(Point::Collected);
        if !failpoints::holds(Guard::AccountBeforeRemove) {
            self.runner.cleanup(&self.key, Disposal::Remove).await.ok();
            failpoints::at(Point::CleanupDone);
        }
        let fault = remains.fault.clone();
        self.remains = Some((logs, remains));
        self.apply(Event::Collected(fault));
        Ok(())
    }

    pub(super) async fn record(&mut self, ending: Ending) -> Result<(), Quit> {
        if self.remains.is_none()
            && let Some(pumps) = self.pumps.take()
        {
            // It is gone, or can't be asked: what was read of its logs is what there is.
            let logs = pumps.give_up().await?;
            self.remains = Some((logs, collect::Remains::default()));
        }
        let finished_at = match &ending {
            Ending::Exited { exit, .. } => exit.finished_at,
            Ending::Known(_) => None,
        };
        let outcome = self.judge(ending);
        let (logs, remains) = match self.remains.take() {
            Some((logs, remains)) => (Some(logs), remains),
            None => (None, collect::Remains::default()),
        };
        let (seals, chunks) = logs.map(LogEnds::into_stored).unwrap_or_default();
        let requeue = self.next_attempt(&outcome);
        self.disposal = self.disposal_after(&outcome);
        let mut end = AttemptEnd {
            keep_sandbox: self.disposal == Disposal::Keep,
            started_at: self.attempt.started_at,
            finished_at: finished_at.unwrap_or_else(|| self.shared.parts.clock.now()),
            handle: self.handle.as_ref().and_then(|it| serde_json::to_value(it).ok()),
            image_digest: self.image_digest.clone(),
            node: self.node.clone(),
            sandbox: self.handle.as_ref().map(|_| self.sandbox_name()),
            outputs: remains.outputs,
            seals,
            chunks,
            events: self.journal.take(),
            requeue,
            outcome,
        };
        let requeued = self.write_end(&mut end).await?;
        self.measure(&end, requeued);
        let (wake, task) = (&self.shared.parts.wake, self.claimed.task);
        let reason = end.outcome.failure.as_ref().map_or("", |it| it.reason.as_str());
        tracing::info!(
            task.id = %task, attempt.no = %self.claimed.attempt_no, state = %end.outcome.state, reason, requeued,
            "attempt ended"
        );
        wake.task_changed(task);
        if requeued {
            wake.queued();
        } else if self.claimed.is_planned {
            wake.run_is_due();
        }
        if let Some(next) = end.requeue.as_ref().filter(|_| requeued) {
            self.wake_at(next.not_before);
        }
        self.apply(Event::Recorded);
        Ok(())
    }

    /// Those who claim look from time to time: a wait that is over sooner is told to them.
    fn wake_at(&self, due: jiff::Timestamp) {
        let wait = Duration::try_from(self.shared.parts.clock.now().duration_until(due));
        let Some(wait) = wait.ok().filter(|it| *it <= LONGEST_TIMER) else {
            return;
        };
        let (shared, wake) = (Arc::clone(self.shared), self.shared.parts.wake.clone());
        self.shared.supervisors.spawn(failpoints::gated(async move {
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => wake.queued(),
                () = shared.detach.cancelled() => {}
            }
        }));
    }

    fn measure(&self, end: &AttemptEnd, requeued: bool) {
        let state = end.outcome.state.as_str();
        let target = || self.claimed.target.clone();
        metrics::counter!(measures::ATTEMPTS, "target" => target(), "state" => state).increment(1);
        if let Some(failure) = &end.outcome.failure {
            let (reason, class) = (failure.reason.as_str(), failure.reason.class().as_str());
            metrics::counter!(
                measures::ATTEMPT_FAILURES, "target" => target(), "reason" => reason, "class" => class,
            )
            .increment(1);
        }
        if !requeued {
            measures::task_ended(state);
        }
        if let Some(started_at) = end.started_at {
            let ran = end.finished_at.duration_since(started_at);
            metrics::histogram!(measures::TASK_DURATION, "target" => target(), "state" => state)
                .record(Duration::try_from(ran).unwrap_or_default());
        }
    }

    /// Writes the end. False: the task has ended with its attempt.
    pub(super) async fn write_end(&self, end: &mut AttemptEnd) -> Result<bool, Quit> {
        let (shared, task, fence) = (self.shared, self.claimed.task, self.claimed.fence);
        loop {
            let written =
                insist(shared, || shared.parts.store.finish_attempt(task, fence, end)).await;
            match written {
                Ok(Recorded::Done) => return Ok(end.requeue.is_some()),
                Ok(Recorded::StopRequested) => {
                    end.requeue = None;
                    end.outcome.state = TaskState::Cancelled;
                    if let Some(failure) = &mut end.outcome.failure {
                        failure.message = format!("cancelled; before that: {}", failure.message);
                        failure.reason = Reason::Cancelled;
                    }
                }
                // Perhaps the answer to an earlier try was lost, and the end is ours.
                Err(Quit::Fenced) if self.has_ended(end.keep_sandbox).await? => {
                    return Ok(end.requeue.is_some());
                }
                Err(quit) => return Err(quit),
            }
        }
    }

    /// Whether the attempt has an end by which its sandbox is to be treated so. An end by which it is not was
    /// written by somebody else, whose the sandbox is then.
    async fn has_ended(&self, keep: bool) -> Result<bool, Quit> {
        let (shared, attempt) = (self.shared, [(self.claimed.task, self.claimed.attempt)]);
        let fates = insist(shared, || shared.parts.store.attempt_fates(&attempt));
        Ok(match fates.await?.get(&self.claimed.attempt) {
            Some(AttemptFate::Ended { keep_sandbox }) => *keep_sandbox == keep,
            Some(AttemptFate::Live) | None => false,
        })
    }

    /// What people find it by on its backend.
    fn sandbox_name(&self) -> String {
        match self.disposal {
            Disposal::Remove => {
                let took_over = self.taken_over.then_some(self.claimed.fence);
                naming::held_name(&self.key, took_over)
            }
            Disposal::Keep => naming::kept_name(&self.key),
        }
    }

    pub(super) fn judge(&self, ending: Ending) -> Outcome {
        let mut outcome = match ending {
            Ending::Known(outcome) => outcome,
            Ending::Exited { exit, stopped, output_fault } => {
                outcome::judge(&exit, stopped, &self.spec.skip_on_exit_codes, output_fault)
            }
        };
        if let (Some(failure), Some((logs, _))) = (&mut outcome.failure, &self.remains) {
            failure.log_tail.clone_from(&logs.main.lines);
        }
        outcome
    }

    pub(super) fn next_attempt(&self, outcome: &Outcome) -> Option<Requeue> {
        let failure = outcome.failure.as_ref().filter(|_| outcome.state == TaskState::Failed)?;
        if self.attempt.stop.is_some() {
            return None;
        }
        let facts = retry::Facts {
            reason: failure.reason,
            exit_code: outcome.exit_code,
            may_have_started: self.attempt.may_have_started(),
            unconfirmed: outcome.unconfirmed,
            at_most_once: self.spec.at_most_once,
            user_failures: self.claimed.user_failures,
            platform_failures: self.claimed.platform_failures,
            retries: &self.spec.retries,
            platform_retries: self.spec.platform_retries,
            seed: spread(self.claimed.task, self.claimed.attempt_no),
        };
        match retry::decide(facts) {
            retry::Decision::Final => None,
            retry::Decision::Retry { after, budget } => {
                let now = self.shared.parts.clock.now();
                let not_before = now.checked_add(after).unwrap_or(now);
                Some(Requeue { attempt: AttemptId::generate(), not_before, budget })
            }
        }
    }

    pub(super) fn disposal_after(&self, outcome: &Outcome) -> Disposal {
        match (self.spec.cleanup, outcome.state) {
            (Cleanup::Always, _)
            | (Cleanup::OnSuccess, TaskState::Succeeded | TaskState::Skipped) => Disposal::Remove,
            (Cleanup::Never | Cleanup::OnSuccess, _) => match self.attempt.sandbox {
                Sandbox::Exited(_) => Disposal::Keep,
                // What may still run is not left behind.
                Sandbox::Unknown | Sandbox::Absent | Sandbox::Created | Sandbox::Running => {
                    Disposal::Remove
                }
            },
        }
    }

    /// Best effort: the sweeper finds what is left.
    pub(super) async fn cleanup(&mut self) {
        if self.attempt.sandbox == Sandbox::Absent && self.attempt.refusal.is_none() {
            return;
        }
        let disposal = match self.attempt.sandbox {
            Sandbox::Exited(_) => self.disposal,
            Sandbox::Unknown | Sandbox::Absent | Sandbox::Created | Sandbox::Running => {
                Disposal::Remove
            }
        };
        failpoints::at(Point::CleanupBegun);
        // Beside the one that was taken over there may be another, which was made late and never started.
        for _ in 0..if self.taken_over { 2 } else { 1 } {
            if let Err(error) = self.runner.cleanup(&self.key, disposal).await {
                tracing::warn!(task.id = %self.claimed.task, %error, "the sandbox is left to the sweeper");
            }
        }
        failpoints::at(Point::CleanupDone);
    }
}

/// The same for the same attempt, whoever decides; each attempt of a task has another one.
fn spread(task: TaskId, attempt: AttemptNo) -> u64 {
    let random = (task.uuid().as_u128() & u128::from(u64::MAX)) as u64;
    random ^ u64::from(attempt.0.unsigned_abs()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Reads the logs to their end and stores the files, both at once.
async fn store_remains(
    shared: &Shared,
    runner: &dyn Runner,
    claimed: &ClaimedTask,
    spec: &TaskSpec,
    handle: &Handle,
    pumps: Pumps,
    patience: Patience,
) -> Result<(LogEnds, collect::Remains), Quit> {
    let files = collect::files(shared, runner, claimed, spec, handle, patience.deadline);
    let (logs, files) = tokio::join!(pumps.drain(shared, patience), files);
    let logs = logs?;
    failpoints::at(Point::LogDrained);
    let remains = match files {
        Ok(collected) => collect::outputs(shared, claimed, spec, &collected, &logs.main).await,
        Err(fault) => {
            // What the log gives is there all the same.
            let nothing = Collected { json: JsonFile::Absent, files: BTreeMap::new() };
            let mut remains = collect::outputs(shared, claimed, spec, &nothing, &logs.main).await;
            remains.fault = Some(fault);
            remains
        }
    };
    Ok((logs, remains))
}

/// Ends a task whose document means nothing to this version.
pub(super) async fn unreadable(
    shared: &Shared,
    claimed: &ClaimedTask,
    message: &str,
) -> Result<(), Quit> {
    tracing::error!(task.id = %claimed.task, message);
    let end = AttemptEnd {
        outcome: Outcome::failed(Failure::new(Reason::Internal, message)),
        started_at: claimed.started_at,
        finished_at: shared.parts.clock.now(),
        handle: None,
        image_digest: None,
        node: None,
        sandbox: None,
        outputs: Vec::new(),
        seals: LogSeals::new(),
        chunks: Vec::new(),
        events: Vec::new(),
        keep_sandbox: false,
        requeue: None,
    };
    insist(shared, || shared.parts.store.finish_attempt(claimed.task, claimed.fence, &end)).await?;
    shared.parts.wake.task_changed(claimed.task);
    Ok(())
}
