//! Plays one schedule from its decisions to its end.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use supercargo::failpoints::{Gate, Guard};
use supercargo::ids::{AttemptId, AttemptNo, RunId, TaskId};
use supercargo::logs::pump;
use supercargo::loops;
use supercargo::maintenance::orphan_sweeper::OrphanSweeper;
use supercargo::outputs::FolderStore;
use supercargo::runner::Registry;
use supercargo::scheduler::Scheduler;
use supercargo::store::{Cancelled, IdempotencyKey, NewTask, Reopening, Submitted, Submitter};
use supercargo::wake::Wake;
use supercargo::worker::{Parts, Settings, Worker};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::check::Checker;
use super::dice::Dice;
use super::plan::{Action, Plan, Submit, TARGET, TROUBLE};
use super::store::SimStore;
use super::way::SimRunner;
use super::world::{World, id};

/// How long everything may take to its end once nothing goes wrong any more.
const PATIENCE: Duration = Duration::from_hours(1);
/// Between looks then, and how many of them each engine gets.
const LOOK: Duration = Duration::from_secs(15);
const LOOKS: u32 = 8;

/// What came of a schedule.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) violation: Option<String>,
    pub(super) plan: Vec<u16>,
    pub(super) faults: Vec<u16>,
    pub(super) steps: u64,
    /// Where it was asked for.
    pub(super) trace: Option<String>,
}

/// Plays a schedule in a runtime of its own.
pub(super) fn play(mut plan: Dice, faults: Dice, focus: Option<Guard>, traced: bool) -> Played {
    let planned = Plan::draw(&mut plan, focus);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let world = runtime.block_on(async {
        let world = World::new(faults, planned.fault_rate, &planned.skews, focus, traced);
        let broken = world.broken.notified();
        tokio::select! {
            biased;
            () = broken => {}
            () = drive(&world, &planned) => {}
        }
        world.state().calm = true;
        world
    });
    let steps = world.state().steps;
    let played = Played {
        violation: world.violation(),
        plan: plan.into_tape(),
        faults: world.take_faults(),
        steps,
        trace: world.take_trace(),
    };
    drop(runtime);
    played
}

async fn drive(world: &Arc<World>, plan: &Plan) {
    let begun = world.origin;
    for process in 0..plan.skews.len() {
        begin(world, process);
    }
    tokio::spawn(restart(Arc::clone(world)));
    for index in 0..plan.tasks.len() {
        let ids = [0, 1].map(|turn| task_id(index, turn));
        for it in ids {
            world.name(it, format!("t{index}"));
        }
        world.state().check.requested(ids);
    }
    let mut hands = 0;
    for (at, action) in &plan.actions {
        sleep_until(begun + *at).await;
        world.say(|_| format!("-- {action:?}"));
        act(world, plan, *action, &mut hands).await;
        world.check();
    }
    sleep_until(begun + TROUBLE).await;
    world.say(|_| "-- nothing goes wrong any more".to_owned());
    world.state().calm = true;
    world.change_way(|state| {
        state.engine_down = false;
        for it in &mut state.processes {
            it.store_cut = false;
            it.engine_cut = false;
            it.stale = None;
            it.clock.set_right();
        }
    });
    let mut looks = 0;
    loop {
        sleep(LOOK).await;
        let over = Checker::is_over(&world.model.tables(), &world.engines);
        match over {
            Ok(()) if looks >= 3 => break,
            Err(why) if begun.elapsed() > PATIENCE => {
                world.violate(format!("it never ends: {why}"));
                return;
            }
            Ok(()) | Err(_) => {}
        }
        looks += 1;
        if looks % LOOKS == 0 {
            world.say(|_| "-- the other engine answers".to_owned());
            world.change_way(|state| state.engine = 1 - state.engine);
        }
    }
    let workers: Vec<Worker> =
        world.state().processes.iter_mut().filter_map(|it| it.worker.take()).collect();
    for it in workers {
        let left = it.detach(Duration::from_secs(5)).await;
        if left > 0 {
            world.violate(format!("{left} supervisors have nothing to do and do not end"));
        }
    }
    if let Some(what) = Checker::contract(&world.engines) {
        world.violate(what);
    }
}

/// Nothing is stored in it: outputs that are files are a matter of other tests.
static OBJECTS: LazyLock<(tempfile::TempDir, FolderStore)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let objects = FolderStore::open(PathBuf::from(folder.path()).join("objects")).unwrap();
    (folder, objects)
});

/// A process begins, with nothing but its id.
fn begin(world: &Arc<World>, process: usize) {
    let (gate, parts) = {
        let mut state = world.state();
        let it = &mut state.processes[process];
        it.gate = Gate::default();
        it.wake = Wake::default();
        it.incarnation += 1;
        (it.gate.clone(), (it.id, it.wake.clone(), Arc::clone(&it.clock)))
    };
    let (id, wake, clock) = parts;
    world.say(|_| format!("w{process} begins"));
    let store = SimStore { world: Arc::clone(world), process, reads_stale: false };
    let world = Arc::clone(world);
    let alive = gate.clone();
    tokio::spawn(gate.hold(async move {
        let stop = CancellationToken::new();
        let tracker = TaskTracker::new();
        let worker = loop {
            let runner = Arc::new(SimRunner::new(&world, process));
            let targets: Registry = [(TARGET.to_owned(), runner as _)].into_iter().collect();
            let parts = Parts {
                store: Arc::new(store.clone()),
                wake: wake.clone(),
                clock: clock.clone(),
                installation: world.installation,
                worker: id,
                targets: targets.clone(),
                objects: OBJECTS.1.clone(),
                settings: settings(),
            };
            match Worker::start(parts, &tracker).await {
                Ok(worker) => break (worker, targets),
                // Whoever keeps the service running starts it again.
                Err(_) => sleep(Duration::from_secs(1)).await,
            }
        };
        let (worker, targets) = worker;
        if !alive.has_ended() {
            world.state().processes[process].worker = Some(worker.clone());
        }
        let (other, replaced) = (Arc::clone(&world), worker);
        tokio::spawn(alive.hold(async move {
            replaced.until_replaced().await;
            // It ends, and whoever keeps the service running starts it again.
            other.kill(process, Duration::from_secs(1));
        }));
        let reads = SimStore { reads_stale: true, ..store.clone() };
        let sweeper =
            OrphanSweeper::new(Arc::new(reads), clock.clone(), world.installation, targets);
        let waker = sweeper.waker();
        let sweeper = Arc::new(tokio::sync::Mutex::new(sweeper));
        let sweeping = loops::run("orphan_sweeper", stop.clone(), waker, move || {
            let sweeper = Arc::clone(&sweeper);
            async move { sweeper.lock().await.tick().await }
        });
        let scheduler = Scheduler { store: Arc::new(store), wake, clock };
        let scheduling = loops::run("scheduler", stop, loops::nothing, move || {
            let scheduler = scheduler.clone();
            async move { scheduler.tick().await }
        });
        tokio::join!(sweeping, scheduling);
    }));
}

fn settings() -> Settings {
    Settings {
        concurrency: 3,
        starts: 2,
        heartbeat: Duration::from_secs(5),
        lease: Duration::from_secs(18),
        // Everybody is told; this is for when nobody is.
        poll: Duration::from_secs(4),
        log: pump::Limits {
            log_bytes: 1 << 20,
            chunk_bytes: 100,
            linger: Duration::from_millis(100),
        },
        output_json_bytes: 1 << 16,
        output_file_bytes: 1 << 16,
    }
}

/// Begins the processes that were killed when their time has come.
async fn restart(world: Arc<World>) {
    loop {
        let next = world.state().restarts.iter().map(|it| it.1).min();
        tokio::select! {
            biased;
            () = world.restart.notified() => continue,
            () = at(next) => {}
        }
        let now = Instant::now();
        let due: Vec<usize> = {
            let mut state = world.state();
            let due = state.restarts.iter().filter(|it| it.1 <= now).map(|it| it.0).collect();
            state.restarts.retain(|it| it.1 > now);
            due
        };
        for process in due {
            begin(&world, process);
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn task_id(index: usize, turn: u128) -> TaskId {
    TaskId::from_uuid(id(3 + turn, index as u128))
}

async fn act(world: &Arc<World>, plan: &Plan, action: Action, hands: &mut u128) {
    let later = |lasts: Duration, undo: fn(&Arc<World>, usize), process: usize| {
        let world = Arc::clone(world);
        tokio::spawn(async move {
            sleep(lasts).await;
            undo(&world, process);
        });
    };
    match action {
        Action::Submit(index, how) => submit(world, plan, index, how).await,
        Action::Cancel(index) => cancel(world, index),
        Action::Retry(index) => {
            *hands += 1;
            retry(world, index, *hands);
        }
        Action::Kill(process, away) => world.kill(process, away),
        Action::Stop(process, away) => {
            let worker = world.state().processes[process].worker.clone();
            let Some(worker) = worker else { return };
            let (world, gate) = (Arc::clone(world), world.state().processes[process].gate.clone());
            tokio::spawn(gate.hold(async move {
                worker.detach(Duration::from_secs(5)).await;
                world.kill(process, away);
            }));
        }
        Action::Freeze(process, lasts) => world.freeze(process, lasts),
        Action::CutStore(process, lasts) => {
            world.state().processes[process].store_cut = true;
            later(lasts, |world, it| world.state().processes[it].store_cut = false, process);
        }
        Action::CutEngine(process, lasts) => {
            world.change_way(|state| state.processes[process].engine_cut = true);
            let undo: fn(&Arc<World>, usize) = |world, process| {
                world.change_way(|state| state.processes[process].engine_cut = false);
            };
            later(lasts, undo, process);
        }
        Action::EngineDown(lasts) => {
            world.change_way(|state| state.engine_down = true);
            later(lasts, |world, _| world.change_way(|state| state.engine_down = false), 0);
        }
        Action::Wipe => {
            let engine = world.state().engine;
            let engine = &world.engines[engine];
            let seen = engine.seen();
            world.state().check.loses(seen);
            engine.wipe();
        }
        Action::Switch(lasts) => {
            world.change_way(|state| state.engine = 1 - state.engine);
            later(lasts, |world, _| world.change_way(|it| it.engine = 1 - it.engine), 0);
        }
        Action::ClockJump(process, millis) => world.state().processes[process].clock.jump(millis),
        Action::Stale(process, lag) => {
            let before = world.model.tables().clone();
            let world = Arc::clone(world);
            tokio::spawn(async move {
                sleep(lag).await;
                let mut state = world.state();
                if !state.calm {
                    state.processes[process].stale = Some(before);
                }
            });
        }
    }
}

const CALLER: Submitter<'static> = Submitter { project: "p", token: None, name: "a caller" };

async fn submit(world: &Arc<World>, plan: &Plan, index: usize, how: Submit) {
    let new = |turn: u128| {
        let spec = plan.tasks[index].clone();
        NewTask {
            task: task_id(index, turn),
            run: RunId::from_uuid(id(10 + turn, index as u128)),
            attempt: AttemptId::from_uuid(id(20 + turn, index as u128)),
            spec_hash: spec.hash(),
            spec,
            key: Some(IdempotencyKey { key: format!("k{index}"), fingerprint: [7; 32] }),
            work: None,
        }
    };
    let now = world.model.clock().now();
    let (first, second) = (new(0), new(1));
    let first = std::slice::from_ref(&first);
    let sent = world.model.submit(CALLER, now, first);
    let answer = match how {
        Submit::Answered => Some(sent.await),
        Submit::AnswerLost => {
            sent.await.ok();
            None
        }
        Submit::Broken => sent.now_or_never().and_then(|_| None),
        Submit::Twice => {
            accept(world, index, sent.await);
            None
        }
    };
    world.check();
    let answer = if let Some(answer) = answer {
        answer
    } else {
        sleep(Duration::from_millis(300)).await;
        world.model.submit(CALLER, now, &[second]).await
    };
    accept(world, index, answer);
    world.wake();
}

fn accept(
    world: &Arc<World>,
    index: usize,
    answer: Result<Vec<Submitted>, supercargo::store::Error>,
) {
    let task = match answer.as_deref() {
        Ok([Submitted::Created]) => {
            let tables = world.model.tables();
            let made = [0, 1].map(|turn| task_id(index, turn));
            made.into_iter().find(|it| tables.specs.contains_key(it))
        }
        Ok([Submitted::Replayed(task)]) => Some(*task),
        _ => None,
    };
    match task {
        Some(task) => world.state().check.accepted(task),
        None => world.violate(format!("a submit was answered {answer:?}")),
    }
}

/// The task that a request has made, if it has.
fn made(world: &World, index: usize) -> Option<TaskId> {
    let tables = world.model.tables();
    [0, 1].map(|turn| task_id(index, turn)).into_iter().find(|it| tables.specs.contains_key(it))
}

fn cancel(world: &Arc<World>, index: usize) {
    let Some(task) = made(world, index) else { return };
    let no = world.model.tables().record(task).map(|it| it.attempt_no);
    let now = world.model.clock().now();
    let answer = world.model.cancel(task, CALLER.name, now);
    world.say(|_| format!("   {answer:?}"));
    if let (Cancelled::AtOnce | Cancelled::Requested, Some(AttemptNo(no))) = (answer, no) {
        world.state().check.cancelled(task, no);
    }
    world.wake();
}

fn retry(world: &Arc<World>, index: usize, hand: u128) {
    let Some(task) = made(world, index) else { return };
    let reopening = Reopening {
        attempt: AttemptId::from_uuid(id(30, hand)),
        spec: None,
        from_attempt: None,
        message: "somebody asked".to_owned(),
    };
    let retried = world.model.retry(task, &reopening, world.model.clock().now());
    world.say(|_| format!("   {retried}"));
    if retried {
        world.state().check.retried(task);
    }
    world.wake();
}
