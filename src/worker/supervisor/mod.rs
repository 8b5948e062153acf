//! Drives one attempt: asks the state machine what to do, does it, tells it what came of it.

mod finish;
mod pumps;
mod sandbox;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;

use self::pumps::{LogEnds, Pumps};
use super::events::Journal;
use super::slots::Slot;
use super::{Shared, collect};
use crate::domain::attempt::{Action, Attempt, Event, Sandbox};
use crate::domain::exit::ExitStatus;
use crate::domain::outcome::StopReason;
use crate::domain::spec::TaskSpec;
use crate::failpoints::{self, Point};
use crate::measures;
use crate::runner::{Disposal, EngineId, EngineState, Handle, Observation, Runner, SandboxKey};
use crate::store::{self, ClaimedTask};

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// What ends sooner is written once, at its end.
const BRIEF: Duration = Duration::from_millis(10);
/// Storing what an attempt left is shown as a state of its own when it takes longer.
const SLOW_FINISH: Duration = Duration::from_millis(250);
const FLUSH_EVENTS: Duration = Duration::from_millis(500);

/// Why a supervisor ends without having written the end of its attempt.
#[derive(Debug)]
enum Quit {
    /// Somebody else has it.
    Fenced,
    /// This process stops. The sandbox goes on.
    Detached,
    /// It is back in the queue.
    Unclaimed,
    /// Something is stored that this supervisor does not know of, as when the answer to a write was lost, or the
    /// target has another runner: it begins anew from what is stored.
    Anew,
}

/// Drives an attempt to its end, over panics of our own making.
pub(super) async fn run(
    shared: &Arc<Shared>,
    mut claimed: ClaimedTask,
    mut taken_over: bool,
    mut lapses: u64,
    stop: watch::Receiver<Option<StopReason>>,
    slot: Slot,
) {
    let mut slot = Some(slot);
    loop {
        let task = claimed.task;
        let driven = drive(shared, claimed, taken_over, lapses, stop.clone(), slot.take());
        match AssertUnwindSafe(driven).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(Quit::Anew)) => {
                tracing::warn!(task.id = %task, "there is more than was known, the supervisor begins anew");
            }
            Ok(Err(quit)) => {
                tracing::info!(task.id = %task, why = ?quit, "let go of the attempt");
                if matches!(quit, Quit::Fenced) {
                    metrics::counter!(measures::ATTEMPTS_FENCED).increment(1);
                }
                if matches!(quit, Quit::Unclaimed) {
                    shared.parts.wake.task_changed(task);
                }
                return;
            }
            Err(_) => {
                tracing::error!(task.id = %task, "the supervisor of the attempt panicked, it begins anew");
            }
        }
        tokio::time::sleep(LONGEST_BACKOFF).await;
        claimed = loop {
            lapses = shared.lease.lapses();
            match shared.parts.store.retake(shared.parts.worker, task).await {
                Ok(Some(again)) => break again,
                Ok(None) => return,
                Err(_) => tokio::time::sleep(LONGEST_BACKOFF).await,
            }
        };
        taken_over = true;
    }
}

async fn drive(
    shared: &Arc<Shared>,
    claimed: ClaimedTask,
    taken_over: bool,
    lapses: u64,
    stop: watch::Receiver<Option<StopReason>>,
    slot: Option<Slot>,
) -> Result<(), Quit> {
    let runner = connected(shared, &claimed).await?;
    let spec = match &claimed.spec {
        Ok(spec) => spec.clone(),
        Err(error) => {
            let message = format!("the stored spec can't be read by this version: {error}");
            return finish::unreadable(shared, &claimed, &message).await;
        }
    };
    let attempt = if taken_over {
        let (phase, at) = (claimed.phase, claimed.started_at);
        Attempt::taken_over(phase, claimed.stop, at, spec.timeouts, spec.at_most_once)
    } else {
        let mut attempt = Attempt::queued(spec.timeouts, spec.at_most_once);
        attempt.stop = claimed.stop;
        apply(&mut attempt, Event::Claimed(shared.parts.clock.now()));
        attempt
    };
    let journal = Journal::new(Arc::clone(&shared.parts.clock), runner.kind().as_str());
    if taken_over {
        journal.add("adopted", "taken over after a restart");
    }
    let mut supervisor = Supervisor {
        key: SandboxKey { installation: shared.parts.installation, attempt: claimed.attempt },
        engine: EngineId(claimed.engine.clone()),
        shared,
        runner,
        claimed,
        spec,
        attempt,
        journal,
        taken_over,
        stop,
        slot,
        lapses,
        handle: None,
        node: None,
        image_digest: None,
        pumps: None,
        recorded_running: false,
        adopted: !taken_over,
        backoff: FIRST_BACKOFF,
        remains: None,
        disposal: Disposal::Remove,
    };
    supervisor.run().await
}

/// The runner of the attempt's target. A process that has just started may not know all targets yet; one that is
/// gone for good leaves its attempts to whoever has it.
async fn connected(shared: &Shared, claimed: &ClaimedTask) -> Result<Arc<dyn Runner>, Quit> {
    let mut changes = shared.parts.targets.watch();
    let mut told = false;
    loop {
        changes.mark_unchanged();
        if let Some(runner) = shared.parts.targets.runner(&claimed.target) {
            return Ok(runner);
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(task.id = %claimed.task, target.name = claimed.target, "this worker does not have the target of the attempt");
        }
        tokio::select! {
            biased;
            () = shared.detach.cancelled() => return Err(Quit::Detached),
            Ok(()) = changes.changed() => {}
        }
    }
}

struct Supervisor<'a> {
    shared: &'a Arc<Shared>,
    runner: Arc<dyn Runner>,
    claimed: ClaimedTask,
    key: SandboxKey,
    engine: EngineId,
    spec: TaskSpec,
    attempt: Attempt,
    journal: Journal,
    taken_over: bool,
    stop: watch::Receiver<Option<StopReason>>,
    slot: Option<Slot>,
    /// How often the lease had lapsed when the attempt was known to be ours.
    lapses: u64,
    handle: Option<Handle>,
    /// The machine that the sandbox is on.
    node: Option<String>,
    image_digest: Option<String>,
    pumps: Option<Pumps>,
    recorded_running: bool,
    /// What an earlier holder may have made is under a name of our own.
    adopted: bool,
    backoff: Duration,
    remains: Option<(LogEnds, collect::Remains)>,
    /// As the end of the attempt was written.
    disposal: Disposal,
}

impl Supervisor<'_> {
    async fn run(&mut self) -> Result<(), Quit> {
        loop {
            if let Some(reason) = *self.stop.borrow_and_update() {
                apply(&mut self.attempt, Event::StopRequested(reason));
            }
            match self.attempt.next_action(self.shared.parts.clock.now()) {
                Action::Claim => return Err(Quit::Unclaimed),
                Action::Inspect => self.inspect().await?,
                Action::Launch => self.launch().await?,
                Action::Discard => self.discard().await?,
                Action::Watch { until } => self.watch(until).await?,
                Action::Signal(reason) => self.signal(reason).await?,
                Action::Force => self.force().await?,
                Action::Collect { exit } => self.collect(&exit).await?,
                Action::Record(ending) => self.record(ending).await?,
                Action::Cleanup => {
                    self.cleanup().await;
                    return Ok(());
                }
            }
        }
    }

    fn apply(&mut self, event: Event) {
        apply(&mut self.attempt, event);
    }

    async fn inspect(&mut self) -> Result<(), Quit> {
        let asked = if self.adopted {
            self.runner.inspect(&self.key, &self.engine).await
        } else {
            self.runner.adopt(&self.key, &self.engine, self.claimed.fence).await
        };
        match asked {
            Ok(observation) => {
                failpoints::at(Point::InspectAnswered);
                self.adopted = true;
                self.backoff = FIRST_BACKOFF;
                self.observed(observation);
                Ok(())
            }
            Err(error) => self.engine_is_silent(&error.to_string()).await,
        }
    }

    fn observed(&mut self, observation: Observation) {
        match observation {
            Observation::Absent => self.apply(Event::Observed(Sandbox::Absent)),
            Observation::Created => self.apply(Event::Observed(Sandbox::Created)),
            Observation::Running { handle, started_at } => {
                self.runs(handle);
                self.apply(Event::Started(started_at));
            }
            Observation::Exited { handle, report } => {
                if !matches!(report.status, ExitStatus::StartFailed { .. }) {
                    self.runs(handle);
                }
                self.apply(Event::Observed(Sandbox::Exited(report)));
            }
        }
    }

    /// There is a sandbox that has been started: its logs are ours to bring in.
    fn runs(&mut self, handle: Handle) {
        if let Some(slot) = &mut self.slot {
            slot.started();
        }
        if self.pumps.is_none() {
            self.pumps = Some(self.start_pumps(&handle));
        }
        self.handle = Some(handle);
        if let EngineState::Ready { node, .. } = &*self.runner.engine().borrow() {
            self.node.clone_from(node);
        }
    }
}

fn apply(attempt: &mut Attempt, event: Event) {
    if let Err(error) = attempt.apply(event) {
        // The state is unchanged and decides the next step.
        tracing::error!(%error, "an event that can't be");
    }
}

/// Best effort: events that can't be written now go with the next write.
async fn write_events(shared: &Shared, claimed: &ClaimedTask, journal: &Journal) {
    // Thousands that are told the same at the same time, as that there is no room, would all hold a write ready
    // for the few connections.
    let Ok(_telling) = shared.telling.try_acquire() else { return };
    let events = journal.take();
    if events.is_empty() {
        return;
    }
    let written = shared
        .parts
        .store
        .append_events(claimed.task, claimed.fence, claimed.attempt_no, &events)
        .await;
    if written.is_err() {
        journal.put_back(events);
    }
}

/// Asks the database until it answers. What is driven goes on meanwhile; nothing is done about it.
async fn insist<T, F>(shared: &Shared, call: impl Fn() -> F) -> Result<T, Quit>
where
    F: Future<Output = Result<T, store::Error>>,
{
    let mut backoff = FIRST_BACKOFF;
    loop {
        match call().await {
            Ok(it) => return Ok(it),
            Err(store::Error::Fenced) => return Err(Quit::Fenced),
            Err(store::Error::Conflict { .. }) => return Err(Quit::Anew),
            Err(error) => {
                tracing::warn!(%error, transient = error.is_transient(), "the database is asked again");
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(backoff) => {}
                    () = shared.detach.cancelled() => return Err(Quit::Detached),
                }
                backoff = (backoff * 2).min(LONGEST_BACKOFF);
            }
        }
    }
}
