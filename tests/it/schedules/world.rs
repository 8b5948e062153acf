//! The world of one schedule: the store, two engines, the processes, what is broken just now, and the decisions
//! about what breaks next. Time is tokio's paused clock: one for all, and it only moves where nobody has
//! anything to do.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use supercargo::clock::Clock;
use supercargo::failpoints::{Gate, Guard};
use supercargo::ids::{AttemptId, InstallationId, TaskId, WorkerId};
use supercargo::runner::EngineState;
use supercargo::runner::fake::FakeEngine;
use supercargo::wake::Wake;
use supercargo::worker::Worker;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use super::check::Checker;
use super::dice::Dice;
use super::model::{Model, Tables};

/// When every schedule begins.
const EPOCH: i64 = 1_700_000_000;

/// A clock that goes with the time of the runtime, and may be wrong.
#[derive(Debug)]
pub(super) struct SimClock {
    origin: Instant,
    skew_millis: AtomicI64,
}

impl SimClock {
    fn new(origin: Instant, skew_millis: i64) -> Self {
        Self { origin, skew_millis: AtomicI64::new(skew_millis) }
    }

    pub(super) fn set_right(&self) {
        self.skew_millis.store(0, Ordering::Relaxed);
    }

    pub(super) fn jump(&self, millis: i64) {
        self.skew_millis.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.origin.elapsed()).unwrap();
        let skew = SignedDuration::from_millis(self.skew_millis.load(Ordering::Relaxed));
        Timestamp::from_second(EPOCH).unwrap() + passed + skew
    }
}

/// What happens to a call of a process to the store or to an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// It takes a while to get there.
    Slow(Duration),
    /// It never gets there.
    Refused,
    /// It is carried out, and nobody hears of it.
    AnswerLost,
    /// It is carried out later, even if who sent it is gone by then.
    Late(Duration),
    /// The answer takes a while.
    AnswerLate(Duration),
    /// The process stands still before, or after.
    Freeze {
        before: bool,
        lasts: Duration,
    },
    /// The process dies before, or after, and begins anew a while later.
    Kill {
        before: bool,
        away: Duration,
    },
}

/// One worker process.
pub(super) struct Process {
    pub(super) id: WorkerId,
    pub(super) clock: Arc<SimClock>,
    pub(super) gate: Gate,
    pub(super) worker: Option<Worker>,
    pub(super) wake: Wake,
    /// How often it began.
    pub(super) incarnation: u32,
    pub(super) store_cut: bool,
    pub(super) engine_cut: bool,
    /// What its next look at the fates of attempts reads.
    pub(super) stale: Option<Tables>,
    /// Everybody in it who watches the engine, in the order in which they began.
    watchers: Vec<watch::Sender<EngineState>>,
    /// It stands still as soon as the request that is being carried out is.
    freeze_next: Option<Duration>,
    kill_next: Option<Duration>,
}

pub(super) struct State {
    pub(super) processes: Vec<Process>,
    pub(super) faults: Dice,
    /// Of 1,000 calls.
    pub(super) fault_rate: u16,
    pub(super) focus: Option<Guard>,
    /// Whom the focus has met.
    pub(super) aimed: Vec<usize>,
    pub(super) calm: bool,
    /// Which engine answers at the target.
    pub(super) engine: usize,
    pub(super) engine_down: bool,
    pub(super) check: Checker,
    violation: Option<String>,
    trace: Option<String>,
    pub(super) steps: u64,
    tasks: Vec<(TaskId, String)>,
    pub(super) restarts: Vec<(usize, Instant)>,
}

pub(super) struct World {
    pub(super) model: Arc<Model>,
    pub(super) engines: [FakeEngine; 2],
    pub(super) origin: Instant,
    pub(super) installation: InstallationId,
    state: Mutex<State>,
    /// What answers at the target, or whether anything does.
    pub(super) way_changed: Notify,
    pub(super) broken: Notify,
    pub(super) restart: Notify,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

/// An id of this schedule alone, the same each time.
pub(super) fn id(kind: u128, number: u128) -> uuid::Uuid {
    let millis = u128::try_from(EPOCH).unwrap() * 1_000 + number;
    uuid::Uuid::from_u128((millis << 80) | (0x7 << 76) | (0x2 << 62) | (kind << 32) | number)
}

impl World {
    pub(super) fn new(
        faults: Dice,
        fault_rate: u16,
        skews: &[i64],
        focus: Option<Guard>,
        traced: bool,
    ) -> Arc<Self> {
        let origin = Instant::now();
        let clock = || Arc::new(SimClock::new(origin, 0));
        let processes = skews.iter().zip(0..).map(|(skew, number)| Process {
            id: WorkerId::from_uuid(id(1, number)),
            clock: Arc::new(SimClock::new(origin, *skew)),
            gate: Gate::default(),
            worker: None,
            wake: Wake::default(),
            incarnation: 0,
            store_cut: false,
            engine_cut: false,
            stale: None,
            watchers: Vec::new(),
            freeze_next: None,
            kill_next: None,
        });
        let state = State {
            processes: processes.collect(),
            faults,
            fault_rate,
            focus,
            aimed: Vec::new(),
            calm: false,
            engine: 0,
            engine_down: false,
            check: Checker::default(),
            violation: None,
            trace: traced.then(String::new),
            steps: 0,
            tasks: Vec::new(),
            restarts: Vec::new(),
        };
        Arc::new(Self {
            model: Arc::new(Model::new(clock())),
            engines: ["engine-a", "engine-b"].map(|it| FakeEngine::recording_by(it, clock())),
            origin,
            installation: InstallationId::from_uuid(id(2, 0)),
            state: Mutex::new(state),
            way_changed: Notify::new(),
            broken: Notify::new(),
            restart: Notify::new(),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn say(&self, what: impl FnOnce(&Names<'_>) -> String) {
        let mut state = self.state();
        if state.trace.is_none() {
            return;
        }
        let what = what(&Names { tasks: &state.tasks, model: &self.model });
        let at = self.origin.elapsed();
        let _ = writeln!(state.trace.as_mut().unwrap(), "{:>10.3} {what}", at.as_secs_f64());
    }

    /// From now on it has a name in the trace.
    pub(super) fn name(&self, task: TaskId, name: String) {
        self.state().tasks.push((task, name));
    }

    /// Somebody has changed something, and says so to every process.
    pub(super) fn wake(&self) {
        let wakes: Vec<Wake> = self.state().processes.iter().map(|it| it.wake.clone()).collect();
        wakes.iter().for_each(Wake::anything);
    }

    pub(super) fn violate(&self, what: String) {
        self.say(|_| format!("VIOLATION {what}"));
        self.state().violation.get_or_insert(what);
        self.broken.notify_one();
    }

    pub(super) fn violation(&self) -> Option<String> {
        self.state().violation.clone()
    }

    pub(super) fn take_trace(&self) -> Option<String> {
        self.state().trace.take()
    }

    pub(super) fn take_faults(&self) -> Vec<u16> {
        std::mem::replace(&mut self.state().faults, Dice::replay(Vec::new())).into_tape()
    }

    /// After each step: whether everything that must hold does.
    pub(super) fn check(&self) {
        let mut state = self.state();
        state.steps += 1;
        let found = state.check.step(&self.model.tables(), &self.engines);
        drop(state);
        if let Some(what) = found {
            self.violate(what);
        }
    }

    /// Draws what happens to the next call of a process.
    pub(super) fn draw(&self, process: usize) -> Fault {
        let mut state = self.state();
        if state.calm || state.processes[process].gate.has_ended() {
            return Fault::None;
        }
        let rate = state.fault_rate;
        let dice = &mut state.faults;
        let drawn = dice.below(1_000);
        if drawn < 1_000 - rate {
            // Every seventh call takes a little while, so that two of them come in any order.
            return match drawn % 7 {
                6 => Fault::Slow(Duration::from_millis(u64::from(1 + drawn % 40))),
                _ => Fault::None,
            };
        }
        let long = |dice: &mut Dice| {
            let millis = *dice.pick(&[20, 300, 2_000, 7_000, 16_000, 25_000, 45_000]);
            Duration::from_millis(millis + u64::from(dice.below(100)))
        };
        match dice.below(13) {
            0 | 1 => Fault::Refused,
            2 | 3 => Fault::AnswerLost,
            4 => Fault::Slow(long(dice)),
            5 | 6 => Fault::Late(long(dice)),
            7 => Fault::AnswerLate(long(dice)),
            8 => Fault::Freeze { before: true, lasts: long(dice) },
            9 => Fault::Freeze { before: false, lasts: long(dice) },
            10 | 11 => Fault::Kill { before: true, away: long(dice) },
            _ => Fault::Kill { before: false, away: long(dice) },
        }
    }

    // What happens to processes.

    /// It stands still from the next await on.
    pub(super) fn freeze(self: &Arc<Self>, process: usize, lasts: Duration) {
        self.say(|_| format!("w{process} stands still for {lasts:?}"));
        let gate = self.state().processes[process].gate.clone();
        gate.shut();
        let world = Arc::clone(self);
        tokio::spawn(async move {
            sleep(lasts).await;
            if !gate.has_ended() {
                world.say(|_| format!("w{process} goes on"));
            }
            gate.open();
        });
    }

    pub(super) fn kill(&self, process: usize, away: Duration) {
        let mut state = self.state();
        let it = &mut state.processes[process];
        if it.gate.has_ended() {
            return;
        }
        it.gate.end();
        it.worker = None;
        it.watchers.clear();
        it.freeze_next = None;
        it.kill_next = None;
        state.restarts.push((process, Instant::now() + away));
        drop(state);
        self.restart.notify_one();
        self.say(|_| format!("w{process} is killed, for {away:?}"));
    }

    /// Lets nobody through who stands still or is dead, and has only not noticed it yet.
    pub(super) async fn pass(&self, process: usize) {
        let open = self.state().processes[process].gate.is_open();
        if !open {
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn after_next(&self, process: usize, fault: Fault) {
        let mut state = self.state();
        let it = &mut state.processes[process];
        match fault {
            Fault::Freeze { lasts, .. } => it.freeze_next = Some(lasts),
            Fault::Kill { away, .. } => it.kill_next = Some(away),
            _ => {}
        }
    }

    /// A request of the process was carried out.
    pub(super) fn carried_out(self: &Arc<Self>, process: usize, changes: bool) {
        if changes {
            self.check();
        }
        let mut state = self.state();
        let it = &mut state.processes[process];
        let (freeze, kill) = (it.freeze_next.take(), it.kill_next.take());
        drop(state);
        if let Some(lasts) = freeze {
            self.freeze(process, lasts);
        }
        if let Some(away) = kill {
            self.kill(process, away);
        }
    }

    // The engines.

    /// The engine that answers to a process.
    pub(super) fn reached(&self, process: usize) -> Option<usize> {
        let state = self.state();
        (!state.engine_down && !state.processes[process].engine_cut).then_some(state.engine)
    }

    pub(super) fn engine_state(&self, process: usize) -> EngineState {
        match self.reached(process) {
            Some(engine) => EngineState::Ready {
                id: self.engines[engine].id(),
                version: "simulated".to_owned(),
                node: None,
            },
            None => EngineState::Down {
                since: self.state().processes[process].clock.now(),
                why: "it does not answer".to_owned(),
            },
        }
    }

    pub(super) fn watch_engine(&self, process: usize) -> watch::Receiver<EngineState> {
        let (sender, receiver) = watch::channel(self.engine_state(process));
        let mut state = self.state();
        let watchers = &mut state.processes[process].watchers;
        watchers.retain(|it| it.receiver_count() > 0);
        watchers.push(sender);
        receiver
    }

    /// Changes what can be reached, and tells everybody.
    pub(super) fn change_way(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        let count = self.state().processes.len();
        for process in 0..count {
            let now = self.engine_state(process);
            let watchers = self.state().processes[process].watchers.clone();
            for it in watchers {
                it.send_if_modified(|before| {
                    let same = match (&*before, &now) {
                        (EngineState::Down { .. }, EngineState::Down { .. }) => true,
                        (before, now) => before == now,
                    };
                    if !same {
                        *before = now.clone();
                    }
                    !same
                });
            }
        }
        self.way_changed.notify_waiters();
    }
}

/// Short names for the trace.
pub(super) struct Names<'a> {
    tasks: &'a [(TaskId, String)],
    model: &'a Model,
}

impl Names<'_> {
    pub(super) fn task(&self, task: TaskId) -> String {
        match self.tasks.iter().find(|it| it.0 == task) {
            Some((_, name)) => name.clone(),
            None => "t?".to_owned(),
        }
    }

    pub(super) fn attempt(&self, attempt: AttemptId) -> String {
        let tables = self.model.tables();
        let live = tables.live.iter().find(|(_, it)| it.attempt == attempt);
        let live = live.map(|(task, it)| (*task, it.attempt_no));
        let ended = tables.attempts.iter().find(|(_, it)| it.attempt == attempt);
        match live.or(ended.map(|(key, _)| *key)) {
            Some((task, no)) => format!("{}/{no}", self.task(task)),
            None => "?".to_owned(),
        }
    }
}
