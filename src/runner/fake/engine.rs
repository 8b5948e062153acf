//! The simulated engine: what exists, whether it answers, and what tests may do to it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream::{self, Stream};
use jiff::Timestamp;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{oneshot, watch};
use tokio::time::{Duration, Instant, sleep_until};

use super::refused;
use super::sandbox::{Name, Progress, Run, Sandbox, Standing};
use super::script::{LaunchScript, Script, SideLog};
use crate::clock::{Clock, SystemClock};
use crate::domain::exit::{ExitReport, ExitStatus};
use crate::domain::failure::Reason;
use crate::domain::spec::SpecHash;
use crate::failpoints::{self, Guard};
use crate::ids::{AttemptId, Fence, InstallationId, TaskId};
use crate::runner::{
    Disposal, EngineId, EngineState, Handle, KillAck, KillMode, LaunchError, LaunchRequest,
    LogFrame, Observation, OwnedSandbox, RunnerError, SandboxKey, WaitError,
};

const VERSION: &str = "simulated";

/// Where a sandbox is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) key: SandboxKey,
    pub(super) engine: EngineId,
}

/// Which log of a sandbox: none names the main container.
#[derive(Debug, Clone)]
pub(super) struct LogOf {
    pub(super) place: Place,
    pub(super) container: Option<String>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Started {
    pub(super) started_at: Timestamp,
    pub(super) already: bool,
}

/// What a launch asks for: it may come later than its sender lives.
#[derive(Debug, Clone)]
pub(super) struct Order {
    key: SandboxKey,
    task: TaskId,
    spec_hash: SpecHash,
    engine: EngineId,
    name: Name,
}

impl Order {
    pub(super) fn of(request: &LaunchRequest<'_>) -> Self {
        Self {
            key: request.key,
            task: request.task,
            spec_hash: request.spec_hash.clone(),
            engine: request.engine.clone(),
            name: Name::of(request.took_over),
        }
    }
}

/// A sandbox as a test sees it, from above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub task: TaskId,
    pub attempt: AttemptId,
    pub state: SeenState,
    pub kept: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenState {
    Created,
    Running,
    Ended(Option<i32>),
}

/// An engine that outlives its runners. Cheap to clone: all clones are the same one.
#[derive(Debug, Clone)]
pub struct FakeEngine(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: watch::Sender<EngineState>,
    inner: Mutex<Inner>,
    /// Keeps what a test wants to know afterwards. Off in a service that runs for months.
    recording: bool,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct Inner {
    id: EngineId,
    /// Mostly one for each attempt; never two of one name.
    sandboxes: BTreeMap<SandboxKey, Vec<Sandbox>>,
    /// Attempts whose scripted first failure has happened.
    failed_once: HashSet<AttemptId>,
    faults: Faults,
    record: Record,
}

/// What goes wrong next.
#[derive(Debug, Default)]
struct Faults {
    lose_create: bool,
    lose_start: bool,
    hold: Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>,
}

#[derive(Debug, Default)]
struct Record {
    starts: HashMap<AttemptId, u32>,
    /// What a runner removed after its start.
    removed: Vec<AttemptId>,
    /// The attempt of each task that was started last.
    latest: HashMap<TaskId, SandboxKey>,
    violations: Vec<String>,
}

/// A launch that stands between create and start.
#[derive(Debug)]
pub struct Held {
    arrived: oneshot::Receiver<()>,
    go_on: oneshot::Sender<()>,
}

impl Held {
    /// Waits until a launch has come so far.
    pub async fn arrived(&mut self) -> bool {
        (&mut self.arrived).await.is_ok()
    }

    pub fn release(self) {
        // A launch that was dropped meanwhile does not listen any more.
        self.go_on.send(()).ok();
    }
}

impl FakeEngine {
    pub fn new(id: &str) -> Self {
        Self::with(id, false, Arc::new(SystemClock))
    }

    /// One that remembers what was done to it, for tests.
    pub fn recording(id: &str) -> Self {
        Self::with(id, true, Arc::new(SystemClock))
    }

    /// One that remembers, and has a clock of its own.
    pub fn recording_by(id: &str, clock: Arc<dyn Clock>) -> Self {
        Self::with(id, true, clock)
    }

    fn with(id: &str, recording: bool, clock: Arc<dyn Clock>) -> Self {
        let id = EngineId(id.to_owned());
        let inner = Inner {
            id: id.clone(),
            sandboxes: BTreeMap::new(),
            failed_once: HashSet::new(),
            faults: Faults::default(),
            record: Record::default(),
        };
        let state =
            watch::Sender::new(EngineState::Ready { id, version: VERSION.to_owned(), node: None });
        Self(Arc::new(Shared { state, inner: Mutex::new(inner), recording, clock }))
    }

    // What tests do to it.

    /// It does not answer any more. What runs goes on.
    pub fn go_down(&self, why: &str) {
        let since = self.0.clock.now();
        self.0.state.send_replace(EngineState::Down { since, why: why.to_owned() });
    }

    pub fn come_up(&self) {
        let id = self.lock().id.clone();
        self.0.state.send_replace(EngineState::Ready {
            id,
            version: VERSION.to_owned(),
            node: None,
        });
    }

    /// Another engine answers in its place, with nothing in it.
    pub fn replace(&self, id: &str) {
        self.wipe();
        self.lock().id = EngineId(id.to_owned());
        self.come_up();
    }

    /// Everything is gone, and nobody asked for it.
    pub fn wipe(&self) {
        let gone: Vec<Sandbox> = {
            let mut inner = self.lock();
            std::mem::take(&mut inner.sandboxes).into_values().flatten().collect()
        };
        gone.iter().for_each(Sandbox::wake);
    }

    /// The next launch creates the sandbox and breaks off before its start.
    pub fn lose_next_create(&self) {
        self.lock().faults.lose_create = true;
    }

    /// The next launch starts the sandbox and never hears of it.
    pub fn lose_next_start(&self) {
        self.lock().faults.lose_start = true;
    }

    /// The next launch stands still between create and start.
    pub fn hold_next_start(&self) -> Held {
        let (arrive, arrived) = oneshot::channel();
        let (go_on, released) = oneshot::channel();
        self.lock().faults.hold = Some((arrive, released));
        Held { arrived, go_on }
    }

    // What tests ask of it, if it records.

    /// How often this attempt was started. More than once is a violation.
    pub fn starts(&self, attempt: AttemptId) -> u32 {
        self.lock().record.starts.get(&attempt).copied().unwrap_or_default()
    }

    /// What a caller must never do, and did.
    pub fn violations(&self) -> Vec<String> {
        self.lock().record.violations.clone()
    }

    /// What a runner removed after its start, since the last call.
    pub fn take_removed(&self) -> Vec<AttemptId> {
        std::mem::take(&mut self.lock().record.removed)
    }

    /// Every sandbox, as it stands.
    pub fn seen(&self) -> Vec<Seen> {
        let inner = self.lock();
        let all = inner.sandboxes.iter().flat_map(|(key, all)| all.iter().map(move |it| (key, it)));
        all.map(|(key, it)| Seen {
            task: it.task,
            attempt: key.attempt,
            kept: it.name == Name::Kept,
            state: match it.standing() {
                Standing::Created => SeenState::Created,
                Standing::Running { .. } => SeenState::Running,
                Standing::Ended(report) => SeenState::Ended(report.status.code()),
                Standing::Vanished => SeenState::Ended(None),
            },
        })
        .collect()
    }

    pub fn id(&self) -> EngineId {
        self.lock().id.clone()
    }

    /// How many sandboxes there are, those put aside too.
    pub fn count(&self) -> usize {
        self.lock().sandboxes.values().map(Vec::len).sum()
    }

    // What its runner asks.

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watch(&self) -> watch::Receiver<EngineState> {
        self.0.state.subscribe()
    }

    fn up(&self) -> Result<(), RunnerError> {
        match &*self.0.state.borrow() {
            EngineState::Ready { .. } => Ok(()),
            EngineState::Down { why, .. } => Err(RunnerError::Unavailable(why.clone())),
            EngineState::Connecting => {
                Err(RunnerError::Unavailable("not connected yet".to_owned()))
            }
        }
    }

    /// The engine's content, if this very engine answers.
    fn open(&self, engine: &EngineId) -> Result<MutexGuard<'_, Inner>, RunnerError> {
        self.up()?;
        let inner = self.lock();
        if &inner.id == engine || !failpoints::holds(Guard::SameEngine) {
            return Ok(inner);
        }
        Err(RunnerError::OtherEngine { expected: engine.clone(), found: inner.id.clone() })
    }

    fn violation(&self, inner: &mut Inner, what: String) {
        tracing::error!(what, "runner contract violated");
        if self.0.recording {
            inner.record.violations.push(what);
        }
    }

    pub(super) fn create(&self, request: &Order, script: Script) -> Result<(), LaunchError> {
        let mut inner =
            self.open(&request.engine).map_err(|it| LaunchError::Unavailable(it.to_string()))?;
        let attempt = request.key.attempt;
        if script.launch == LaunchScript::Unavailable && inner.failed_once.insert(attempt) {
            return Err(LaunchError::Unavailable("away, as FAKE_LAUNCH says".to_owned()));
        }
        let name = request.name;
        match inner.named(&request.key, name) {
            Some(sandbox) if sandbox.spec != request.spec_hash => {
                self.violation(
                    &mut inner,
                    format!("{attempt} was launched again from another spec"),
                );
                Err(refused(Reason::CreateConfigError, "it exists and was made from another spec"))
            }
            // Made before, by whoever: it is looked at next.
            Some(_) => Ok(()),
            None => {
                let sandbox = Sandbox {
                    name,
                    task: request.task,
                    spec: request.spec_hash.clone(),
                    created_at: self.0.clock.now(),
                    script: Arc::new(script),
                    progress: Progress::Created,
                    changed: None,
                };
                inner.sandboxes.entry(request.key).or_default().push(sandbox);
                if std::mem::take(&mut inner.faults.lose_create) {
                    return Err(LaunchError::Indeterminate("broken off after create".to_owned()));
                }
                Ok(())
            }
        }
    }

    /// Where a test holds a launch.
    pub(super) async fn let_start(&self) {
        let hold = self.lock().faults.hold.take();
        if let Some((arrive, released)) = hold
            && arrive.send(()).is_ok()
        {
            // A test that is over holds nothing.
            released.await.ok();
        }
    }

    /// What a launch finds under its name. None: it is to be started.
    pub(super) fn startable(&self, request: &Order) -> Result<Option<Started>, LaunchError> {
        let mut inner =
            self.open(&request.engine).map_err(|it| LaunchError::Indeterminate(it.to_string()))?;
        match inner.named(&request.key, request.name).map(|it| (&it.progress, &it.script)) {
            None => Err(gone()),
            Some((Progress::Created, _)) => Ok(None),
            Some(_) if !failpoints::holds(Guard::InspectBeforeStart) => Ok(None),
            Some((Progress::Failed, script)) => Err(start_failed(script)),
            Some((Progress::Started(run), _)) => {
                Ok(Some(Started { started_at: run.started_at, already: true }))
            }
        }
    }

    /// Starts what has the name, as an engine does: one that runs stays as it is, one that has ended runs
    /// once more.
    pub(super) fn start(&self, request: &Order) -> Result<Started, LaunchError> {
        let mut guard =
            self.open(&request.engine).map_err(|it| LaunchError::Indeterminate(it.to_string()))?;
        let inner = &mut *guard;
        let attempt = request.key.attempt;
        let Some(sandbox) = inner.named(&request.key, request.name) else {
            return Err(gone());
        };
        if let Progress::Started(run) = &sandbox.progress
            && sandbox.is_running()
        {
            return Ok(Started { started_at: run.started_at, already: true });
        }
        if matches!(sandbox.script.status, ExitStatus::StartFailed { .. }) {
            sandbox.progress = Progress::Failed;
            return Err(start_failed(&sandbox.script));
        }
        let started_at = self.0.clock.now();
        sandbox.progress =
            Progress::Started(Run { started_at, started: Instant::now(), cut: None });
        let loses = sandbox.script.launch == LaunchScript::Indeterminate;
        let task = sandbox.task;
        if self.0.recording {
            let starts = inner.record.starts.entry(attempt).or_default();
            *starts += 1;
            if *starts > 1 {
                self.violation(inner, format!("{attempt} was started twice"));
            }
            let before = inner.record.latest.insert(task, request.key);
            let other = before.filter(|it| it.attempt != attempt).filter(|it| {
                inner.sandboxes.get(it).is_some_and(|all| all.iter().any(Sandbox::is_running))
            });
            if let Some(other) = other {
                self.violation(
                    inner,
                    format!("{attempt} was started while {} of the same task runs", other.attempt),
                );
            }
        }
        if loses || std::mem::take(&mut inner.faults.lose_start) {
            return Err(LaunchError::Indeterminate("the answer to the start was lost".to_owned()));
        }
        Ok(Started { started_at, already: false })
    }

    pub(super) fn inspect(
        &self,
        place: &Place,
        handle: impl FnOnce(&Script) -> Handle,
    ) -> Result<Observation, RunnerError> {
        let mut inner = self.open(&place.engine)?;
        let Some(sandbox) = inner.current(&place.key) else { return Ok(Observation::Absent) };
        Ok(match sandbox.standing() {
            Standing::Created => Observation::Created,
            Standing::Running { started_at, .. } => {
                Observation::Running { handle: handle(&sandbox.script), started_at }
            }
            Standing::Ended(report) => {
                Observation::Exited { handle: handle(&sandbox.script), report }
            }
            Standing::Vanished => {
                inner.sandboxes.remove(&place.key);
                Observation::Absent
            }
        })
    }

    /// A new holder's name for what there is.
    pub(super) fn adopt(&self, place: &Place, took_over: Fence) -> Result<(), RunnerError> {
        if let Some(sandbox) = self.open(&place.engine)?.current(&place.key) {
            sandbox.name = Name::of(Some(took_over));
        }
        Ok(())
    }

    pub(super) async fn wait(&self, place: &Place) -> Result<ExitReport, WaitError> {
        let mut state = self.watch();
        loop {
            state.borrow_and_update();
            let (until, changed) = match self.open(&place.engine) {
                Ok(mut inner) => {
                    let Some(sandbox) = inner.any(&place.key) else {
                        return Err(WaitError::Vanished);
                    };
                    match sandbox.standing() {
                        Standing::Ended(report) => return Ok(report),
                        Standing::Vanished => {
                            inner.sandboxes.remove(&place.key);
                            return Err(WaitError::Vanished);
                        }
                        Standing::Created => (None, Some(sandbox.subscribe())),
                        Standing::Running { until, .. } => (until, Some(sandbox.subscribe())),
                    }
                }
                Err(RunnerError::Unavailable(_)) => (None, None),
                Err(error) => return Err(error.into()),
            };
            tokio::select! {
                biased;
                () = at(until) => {}
                () = notified(changed) => {}
                _ = state.changed() => {}
            }
        }
    }

    pub(super) fn logs(
        &self,
        log: LogOf,
        since: i64,
        follow: bool,
    ) -> impl Stream<Item = Result<LogFrame, RunnerError>> + Send + use<> {
        let engine = self.clone();
        stream::unfold(Some(0), move |next| {
            let (engine, log) = (engine.clone(), log.clone());
            async move {
                let mut index = next?;
                let mut state = engine.watch();
                loop {
                    state.borrow_and_update();
                    match engine.line(&log, index, since) {
                        Ok(Line::Is(frame)) => return Some((Ok(frame), Some(index + 1))),
                        Ok(Line::TooOld) => index += 1,
                        Ok(Line::End) => return None,
                        Ok(Line::NotYet { .. } | Line::Unstarted) if !follow => return None,
                        Ok(Line::Unstarted) => {
                            let why = "the container has not been started".to_owned();
                            return Some((Err(RunnerError::Unavailable(why)), None));
                        }
                        Ok(Line::NotYet { until, changed }) => {
                            tokio::select! {
                                biased;
                                () = at(until) => {}
                                () = notified(Some(changed)) => {}
                                _ = state.changed() => {}
                            }
                        }
                        Err(error) => return Some((Err(error), None)),
                    }
                }
            }
        })
    }

    fn line(&self, log: &LogOf, index: u64, since: i64) -> Result<Line, RunnerError> {
        let mut inner = self.open(&log.place.engine)?;
        let Some(sandbox) = inner.any(&log.place.key) else {
            return Err(RunnerError::Unavailable(
                "the sandbox is gone, and its log with it".to_owned(),
            ));
        };
        let Progress::Started(run) = &sandbox.progress else { return Ok(Line::End) };
        let run_for = sandbox.script.run_for;
        let side = log.container.as_ref().and_then(|it| sandbox.script.side_logs.get(it));
        let (log, goes_on) = match side {
            None => (sandbox.script.log, false),
            Some(SideLog::Ends(log)) => (*log, false),
            Some(SideLog::GoesOn(log)) => (*log, true),
            Some(SideLog::Unstarted) => return Ok(Line::Unstarted),
            Some(SideLog::Unreadable) => {
                return Err(RunnerError::Unavailable("this log can't be read".to_owned()));
            }
        };
        let running = sandbox.is_running();
        if index < log.lines() {
            let offset = log.offset(index, run_for);
            let written = Duration::from_nanos(u64::try_from(offset).unwrap_or_default());
            if run_for.is_zero() || written <= sandbox.ran_for() {
                let start = i64::try_from(run.started_at.as_nanosecond()).unwrap_or_default();
                let at = start.saturating_add(offset);
                return Ok(if at < since { Line::TooOld } else { Line::Is(log.frame(index, at)) });
            }
            if running {
                let until = run.started.checked_add(written);
                return Ok(Line::NotYet { until, changed: sandbox.subscribe() });
            }
        } else if running {
            let until = run.started.checked_add(run_for);
            return Ok(Line::NotYet { until, changed: sandbox.subscribe() });
        }
        if goes_on {
            return Ok(Line::NotYet { until: None, changed: sandbox.subscribe() });
        }
        Ok(Line::End)
    }

    pub(super) fn kill(&self, key: &SandboxKey, mode: KillMode) -> Result<KillAck, RunnerError> {
        self.up()?;
        let mut inner = self.lock();
        let Some(sandbox) = inner.current(key).filter(|it| it.is_running()) else {
            return Ok(KillAck::AlreadyGone);
        };
        let status = match mode {
            KillMode::Force => Some(Script::killed()),
            KillMode::Graceful => {
                sandbox.script.on_term.map(|code| ExitStatus::Code { code, oom_killed: false })
            }
        };
        if let (Some(status), Progress::Started(run)) = (status, &mut sandbox.progress) {
            run.cut = Some((status, run.started.elapsed()));
            sandbox.wake();
        }
        Ok(KillAck::Sent)
    }

    /// The script of a sandbox that has ended: collecting from any other is a violation.
    pub(super) fn ended(&self, place: &Place) -> Result<Arc<Script>, RunnerError> {
        let mut inner = self.open(&place.engine)?;
        let Some(sandbox) = inner.any(&place.key) else {
            return Err(RunnerError::Unavailable(
                "the sandbox is gone, and its outputs with it".to_owned(),
            ));
        };
        if matches!(sandbox.standing(), Standing::Ended(_)) {
            return Ok(Arc::clone(&sandbox.script));
        }
        let what = format!("outputs of {} were collected before its exit", place.key.attempt);
        self.violation(&mut inner, what.clone());
        Err(RunnerError::Unavailable(what))
    }

    pub(super) fn cleanup(&self, key: &SandboxKey, disposal: Disposal) -> Result<(), RunnerError> {
        self.up()?;
        let mut inner = self.lock();
        inner.failed_once.remove(&key.attempt);
        match disposal {
            Disposal::Remove => {
                for sandbox in inner.sandboxes.remove(key).into_iter().flatten() {
                    if self.0.recording && matches!(sandbox.progress, Progress::Started(_)) {
                        inner.record.removed.push(key.attempt);
                    }
                    sandbox.wake();
                }
            }
            Disposal::Keep => {
                let Some(sandbox) = inner.current(key) else { return Ok(()) };
                if sandbox.is_running() {
                    let what = format!("{} was put aside while it runs", key.attempt);
                    self.violation(&mut inner, what.clone());
                    return Err(RunnerError::Unavailable(what));
                }
                if failpoints::holds(Guard::RenameKept) {
                    sandbox.name = Name::Kept;
                }
            }
        }
        Ok(())
    }

    pub(super) fn list(
        &self,
        installation: InstallationId,
    ) -> Result<Vec<OwnedSandbox>, RunnerError> {
        self.up()?;
        let inner = self.lock();
        let all = inner.sandboxes.iter().filter(|(key, _)| key.installation == installation);
        Ok(all
            .flat_map(|(key, all)| all.iter().map(|it| (key.attempt, it)))
            .map(|(attempt, sandbox)| OwnedSandbox {
                attempt,
                task: sandbox.task,
                created_at: sandbox.created_at,
                kept: sandbox.name == Name::Kept,
            })
            .collect())
    }
}

/// What a reader of the log finds at one index.
enum Line {
    Is(LogFrame),
    TooOld,
    NotYet { until: Option<Instant>, changed: OwnedNotified },
    Unstarted,
    End,
}

impl Inner {
    fn named(&mut self, key: &SandboxKey, name: Name) -> Option<&mut Sandbox> {
        self.sandboxes.get_mut(key)?.iter_mut().find(|it| it.name == name)
    }

    /// The sandbox of the attempt, but for what was put aside. Where there are several, all but one were
    /// made late and never started.
    fn current(&mut self, key: &SandboxKey) -> Option<&mut Sandbox> {
        let all = self.sandboxes.get_mut(key)?.iter_mut();
        all.filter(|it| it.name != Name::Kept)
            .max_by_key(|it| !matches!(it.progress, Progress::Created))
    }

    /// That which has run, wherever it is.
    fn any(&mut self, key: &SandboxKey) -> Option<&mut Sandbox> {
        let all = self.sandboxes.get_mut(key)?.iter_mut();
        all.max_by_key(|it| !matches!(it.progress, Progress::Created))
    }
}

fn start_failed(script: &Script) -> LaunchError {
    let reason = Reason::of_failed_start(script.status.code().unwrap_or_default());
    refused(reason, "could not be started, as FAKE_START_FAILS says")
}

fn gone() -> LaunchError {
    refused(Reason::DeletedExternally, "it was removed, put aside or adopted before it was started")
}

async fn at(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

async fn notified(changed: Option<OwnedNotified>) {
    match changed {
        Some(changed) => changed.await,
        None => std::future::pending().await,
    }
}
