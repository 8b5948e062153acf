//! The steps that ask the engine for something.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    BRIEF, FIRST_BACKOFF, FLUSH_EVENTS, LONGEST_BACKOFF, Quit, Supervisor, insist, write_events,
};
use crate::domain::attempt::{Event, Sandbox};
use crate::domain::exit::ExitReport;
use crate::domain::outcome::StopReason;
use crate::domain::quantity::format_duration;
use crate::failpoints::{self, Guard, Point};
use crate::measures;
use crate::runner::{
    Disposal, EngineState, Handle, KillAck, KillMode, LaunchError, LaunchRequest, Observation,
    Progress, RunnerError, SandboxKey, WaitError,
};
use crate::worker::events::Journal;
use crate::worker::lease::Lease;

/// A launch under way, as its runner knows it.
struct Launching<'a> {
    journal: &'a Journal,
    lease: &'a Lease,
    lapses: u64,
}

impl Progress for Launching<'_> {
    fn step(&self, reason: &'static str, message: String) {
        self.journal.step(reason, message);
    }

    fn waits(&self) {
        self.journal.waits();
    }

    fn may_start(&self) -> bool {
        let is_ours = self.lease.is_valid() && self.lease.lapses() == self.lapses;
        is_ours || !failpoints::holds(Guard::LeaseBeforeStart)
    }
}

impl Supervisor<'_> {
    pub(super) async fn launch(&mut self) -> Result<(), Quit> {
        if !self.predecessor_is_gone().await? {
            return Ok(());
        }
        self.may_launch().await?;
        failpoints::at(Point::LaunchBegun);
        let request = LaunchRequest {
            key: self.key,
            run: self.claimed.run,
            task: self.claimed.task,
            attempt_no: self.claimed.attempt_no,
            spec: &self.spec,
            spec_hash: &self.claimed.spec_hash,
            engine: &self.engine,
            took_over: self.taken_over.then_some(self.claimed.fence),
        };
        let launching =
            Launching { journal: &self.journal, lease: &self.shared.lease, lapses: self.lapses };
        let given_up = CancellationToken::new();
        let (begun, mut waited) = (Instant::now(), false);
        let launched = {
            let launch = self.runner.launch(&request, &launching, &given_up);
            tokio::pin!(launch);
            loop {
                tokio::select! {
                    biased;
                    launched = &mut launch => break launched,
                    Ok(()) = self.stop.changed() => given_up.cancel(),
                    // A create or start that is in flight is waited for, a pull is given up.
                    () = self.shared.detach.cancelled(), if !given_up.is_cancelled() => given_up.cancel(),
                    () = self.journal.until_waiting(), if !waited => {
                        waited = true;
                        if let Some(slot) = &mut self.slot {
                            slot.started();
                        }
                    }
                    () = tokio::time::sleep(FLUSH_EVENTS) => {
                        let lease = &self.shared.lease;
                        if lease.is_valid() && lease.lapses() == self.lapses {
                            write_events(self.shared, &self.claimed, &self.journal).await;
                        } else {
                            // A pull may take longer than a lease: nothing is made after that without
                            // asking whether the attempt is still ours.
                            given_up.cancel();
                        }
                    }
                }
            }
        };
        match launched {
            Ok(it) => {
                let target = self.claimed.target.clone();
                let pulled = if self.journal.pulled() { "true" } else { "false" };
                metrics::histogram!(measures::LAUNCH, "target" => target, "pulled" => pulled)
                    .record(begun.elapsed());
                self.image_digest = it.image_digest;
                self.runs(it.handle);
                self.apply(Event::Started(it.started_at));
                Ok(())
            }
            Err(LaunchError::Refused(failure)) => {
                self.apply(Event::Refused(failure));
                Ok(())
            }
            Err(LaunchError::Indeterminate(why)) => {
                self.attempt.launch_may_have_happened();
                self.apply(Event::AnswerLost);
                self.engine_is_silent(&why).await?;
                self.take_anew().await
            }
            // A request to stop, or a lease that lapsed: what was made until then has to be found.
            Err(LaunchError::Cancelled) if !self.shared.detach.is_cancelled() => {
                self.apply(Event::AnswerLost);
                Ok(())
            }
            Err(LaunchError::Cancelled) => Err(Quit::Detached),
            Err(LaunchError::Unavailable(why)) => {
                // Certainly not started: whoever can reach an engine may have it.
                tracing::info!(task.id = %self.claimed.task, why, "the target went away before the start");
                let (shared, task, fence) = (self.shared, self.claimed.task, self.claimed.fence);
                insist(shared, || shared.parts.store.unclaim(task, fence)).await?;
                Err(Quit::Unclaimed)
            }
        }
    }

    /// A start whose answer was lost may still be on its way, and is treated as that of a holder before: it must
    /// find nothing, whatever is done next.
    async fn take_anew(&mut self) -> Result<(), Quit> {
        let (shared, task) = (self.shared, self.claimed.task);
        let worker = shared.parts.worker;
        let again = insist(shared, || shared.parts.store.retake(worker, task)).await?;
        self.claimed.fence = again.ok_or(Quit::Fenced)?.fence;
        self.taken_over = true;
        self.adopted = false;
        Ok(())
    }

    /// Where nobody could say that an earlier attempt has ended, its sandbox is removed before another one is
    /// made, by the engine that has it. False: that can't be done now, and is tried again.
    async fn predecessor_is_gone(&mut self) -> Result<bool, Quit> {
        let Some(before) = self.claimed.unconfirmed.clone() else { return Ok(true) };
        let key = SandboxKey { attempt: before.attempt, ..self.key };
        let why = if before.engine == self.engine.0 {
            match self.remove_confirmed(&key).await {
                Ok(()) => {
                    self.journal
                        .add("predecessor_removed", "the earlier attempt does not run any more");
                    self.claimed.unconfirmed = None;
                    return Ok(true);
                }
                Err(error) => format!("an earlier attempt may still run: {error}"),
            }
        } else {
            format!(
                "an earlier attempt may still run on the engine {}, which does not answer at this target",
                before.engine
            )
        };
        if self.spec.retries.on_unconfirmed {
            self.journal.add("predecessor_unconfirmed", why);
            self.claimed.unconfirmed = None;
            return Ok(true);
        }
        self.engine_is_silent(&why).await?;
        // What is asked for meanwhile is seen before the next try.
        self.apply(Event::AnswerLost);
        Ok(false)
    }

    /// Removes the sandbox of another attempt, and looks whether it is gone.
    async fn remove_confirmed(&self, key: &SandboxKey) -> Result<(), RunnerError> {
        self.runner.cleanup(key, Disposal::Remove).await?;
        match self.runner.inspect(key, &self.engine).await? {
            Observation::Absent => Ok(()),
            Observation::Created | Observation::Running { .. } | Observation::Exited { .. } => {
                Err(RunnerError::Unavailable("it is not gone yet".to_owned()))
            }
        }
    }

    /// Only the holder of a valid lease launches. Who could not renew in time asks whether it still holds
    /// the attempt.
    pub(super) async fn may_launch(&mut self) -> Result<(), Quit> {
        let lease = &self.shared.lease;
        while !lease.is_valid() || lease.lapses() != self.lapses {
            if lease.is_valid() {
                let lapses = lease.lapses();
                let (shared, task, fence) = (self.shared, self.claimed.task, self.claimed.fence);
                if !insist(shared, || shared.parts.store.holds(task, fence)).await? {
                    return Err(Quit::Fenced);
                }
                self.lapses = lapses;
            } else {
                self.pause(FIRST_BACKOFF).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn discard(&mut self) -> Result<(), Quit> {
        match self.runner.cleanup(&self.key, Disposal::Remove).await {
            Ok(()) => self.apply(Event::Observed(Sandbox::Unknown)),
            Err(error) => return self.engine_is_silent(&error.to_string()).await,
        }
        Ok(())
    }

    pub(super) async fn watch(&mut self, until: Option<jiff::Timestamp>) -> Result<(), Quit> {
        let Some(handle) = self.handle.clone() else {
            self.apply(Event::AnswerLost);
            return Ok(());
        };
        let runner = Arc::clone(&self.runner);
        let key = self.key;
        let exit = runner.wait(&key, &handle);
        tokio::pin!(exit);
        if !self.recorded_running {
            // A task that ends at once costs one write less.
            match tokio::time::timeout(BRIEF, &mut exit).await {
                Ok(exit) => return self.waited(exit).await,
                Err(_) => self.record_running(&handle).await?,
            }
        }
        let deadline = until.map(|at| {
            let left = self.shared.parts.clock.now().duration_until(at);
            Instant::now() + Duration::try_from(left).unwrap_or_default()
        });
        tokio::select! {
            biased;
            exit = &mut exit => self.waited(exit).await,
            Ok(()) = self.stop.changed() => Ok(()),
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Ok(()),
            () = self.shared.detach.cancelled() => Err(Quit::Detached),
        }
    }

    pub(super) async fn waited(&mut self, exit: Result<ExitReport, WaitError>) -> Result<(), Quit> {
        match exit {
            Ok(report) => {
                failpoints::at(Point::ExitSeen);
                self.apply(Event::Observed(Sandbox::Exited(report)));
            }
            Err(WaitError::Vanished) => self.apply(Event::Observed(Sandbox::Absent)),
            Err(WaitError::Runner(error)) => {
                self.apply(Event::AnswerLost);
                return self.engine_is_silent(&error.to_string()).await;
            }
        }
        Ok(())
    }

    pub(super) async fn record_running(&mut self, handle: &Handle) -> Result<(), Quit> {
        let started_at = self.attempt.started_at.unwrap_or_else(|| self.shared.parts.clock.now());
        let state = serde_json::to_value(handle).unwrap_or_default();
        let events = self.journal.take();
        let (shared, task, fence) = (self.shared, self.claimed.task, self.claimed.fence);
        let digest = self.image_digest.as_deref();
        insist(shared, || {
            shared.parts.store.record_running(task, fence, started_at, &state, digest, &events)
        })
        .await?;
        self.recorded_running = true;
        shared.parts.wake.task_changed(task);
        Ok(())
    }

    pub(super) async fn signal(&mut self, reason: StopReason) -> Result<(), Quit> {
        failpoints::at(Point::SignalBegun);
        match self.runner.kill(&self.key, KillMode::Graceful).await {
            Ok(KillAck::Sent) => {
                failpoints::at(Point::SignalSent);
                let grace = format_duration(self.spec.timeouts.stop_grace);
                let hint = if self.spec.init {
                    ""
                } else {
                    "; a main process that sets no handler for it goes on until then, unless the task sets \"init\": true"
                };
                let message =
                    format!("the stop signal was sent, the kill follows after {grace}{hint}");
                self.journal.add("stop_signal", message);
                self.apply(Event::Signalled { reason, at: self.shared.parts.clock.now() });
                Ok(())
            }
            Ok(KillAck::AlreadyGone) => {
                self.apply(Event::AnswerLost);
                Ok(())
            }
            Err(error) => self.engine_is_silent(&error.to_string()).await,
        }
    }

    pub(super) async fn force(&mut self) -> Result<(), Quit> {
        match self.runner.kill(&self.key, KillMode::Force).await {
            Ok(KillAck::Sent) => {
                failpoints::at(Point::KillSent);
                self.journal
                    .add("killed", "it did not end within timeouts.stop_grace and was killed");
                self.apply(Event::Forced);
                Ok(())
            }
            Ok(KillAck::AlreadyGone) => {
                self.apply(Event::Forced);
                self.apply(Event::AnswerLost);
                Ok(())
            }
            Err(error) => self.engine_is_silent(&error.to_string()).await,
        }
    }

    /// The engine gives no answer, which says nothing about the sandbox: ask again in a while.
    pub(super) async fn engine_is_silent(&mut self, why: &str) -> Result<(), Quit> {
        self.apply(Event::NoAnswer(self.shared.parts.clock.now()));
        if self.has_another_way() {
            return Err(Quit::Anew);
        }
        // At a start the engine has not been reached yet, which is no news.
        let connecting = matches!(*self.runner.engine().borrow(), EngineState::Connecting);
        if self.backoff == FIRST_BACKOFF && !connecting {
            tracing::warn!(task.id = %self.claimed.task, why, "the engine gives no answer about the attempt");
            self.journal.add("target_silent", why.to_owned());
            write_events(self.shared, &self.claimed, &self.journal).await;
        }
        let pause = self.backoff;
        self.backoff = (pause * 2).min(LONGEST_BACKOFF);
        self.pause(pause).await
    }

    /// Whether the target was given another way to its engine since the attempt began, and the one of before leads
    /// nowhere.
    fn has_another_way(&self) -> bool {
        let current = self.shared.parts.targets.runner(&self.claimed.target);
        current.is_some_and(|it| !Arc::ptr_eq(&it, &self.runner))
            && matches!(*self.runner.engine().borrow(), EngineState::Down { .. })
    }

    pub(super) async fn pause(&mut self, pause: Duration) -> Result<(), Quit> {
        let mut engine = self.runner.engine();
        engine.mark_unchanged();
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => Ok(()),
            // It may be back.
            Ok(()) = engine.changed() => Ok(()),
            () = self.shared.detach.cancelled() => Err(Quit::Detached),
        }
    }
}
