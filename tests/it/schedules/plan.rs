//! What a schedule is about: processes, tasks, and what happens at which time. Drawn before it begins.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use supercargo::domain::spec::{Cleanup, Limits, OutputDecl, OutputSource, TaskSpec, parse};

use supercargo::domain::target::{Backend, Target};
use supercargo::failpoints::Guard;

use super::dice::Dice;

pub(super) const TARGET: &str = "sim";
/// What happens, happens before; and calls go wrong until then.
pub(super) const TROUBLE: Duration = Duration::from_secs(75);

#[derive(Debug)]
pub(super) struct Plan {
    /// How wrong the clock of each process is, in milliseconds.
    pub(super) skews: Vec<i64>,
    /// Of 1,000 calls that many go wrong.
    pub(super) fault_rate: u16,
    pub(super) tasks: Vec<TaskSpec>,
    /// In the order of their times.
    pub(super) actions: Vec<(Duration, Action)>,
}

/// What happens to one submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Submit {
    Answered,
    /// Its answer is lost, and it is sent again.
    AnswerLost,
    /// Its server dies in the middle, and it is sent again.
    Broken,
    /// It is sent twice.
    Twice,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    Submit(usize, Submit),
    Cancel(usize),
    Retry(usize),
    Kill(usize, Duration),
    Stop(usize, Duration),
    Freeze(usize, Duration),
    CutStore(usize, Duration),
    CutEngine(usize, Duration),
    EngineDown(Duration),
    Wipe,
    /// The other engine answers at the target, for a while.
    Switch(Duration),
    /// Milliseconds.
    ClockJump(usize, i64),
    /// What the sweeper of this process reads once is as old as this.
    Stale(usize, Duration),
}

static PLAIN: LazyLock<TaskSpec> = LazyLock::new(|| {
    let limits = Limits {
        default_target: TARGET.to_owned(),
        targets: Arc::new([(TARGET.to_owned(), Target::plain(Backend::Simulated))].into()),
        ..Limits::default()
    };
    parse(&json!({"image": "simulated"}), &limits).unwrap()
});

impl Plan {
    /// `focus`: mostly what that guard is against.
    pub(super) fn draw(dice: &mut Dice, focus: Option<Guard>) -> Self {
        let processes = 1 + dice.index(3);
        let skews = (0..processes)
            .map(|_| *dice.pick(&[0, 0, 0, 1_500, -1_500, 90_000, -90_000, 400_000, -400_000]))
            .collect();
        let fault_rate = *dice.pick(&[0, 15, 40, 100, 250]);
        let count = 1 + dice.index(6);
        let mut actions = Vec::new();
        let mut tasks = Vec::new();
        for index in 0..count {
            tasks.push(task(dice));
            let at = Duration::from_millis(u64::from(dice.below(40)) * 500);
            let how = *dice.pick(&[
                Submit::Answered,
                Submit::Answered,
                Submit::AnswerLost,
                Submit::Broken,
                Submit::Twice,
            ]);
            actions.push((at, Action::Submit(index, how)));
        }
        for _ in 0..dice.below(13) {
            let at = Duration::from_millis(u64::from(dice.below(600)) * 100);
            let process = dice.index(processes);
            let lasts = *dice.pick(&[100, 1_000, 4_000, 10_000, 19_000, 30_000, 60_000]);
            let lasts = Duration::from_millis(lasts + u64::from(dice.below(10)) * 10);
            let action = match dice.below(16) {
                0..2 => Action::Cancel(dice.index(count)),
                2..4 => Action::Retry(dice.index(count)),
                4 | 5 => Action::Kill(process, lasts),
                6 => Action::Stop(process, lasts),
                7 | 8 => Action::Freeze(process, lasts),
                9 => Action::CutStore(process, lasts),
                10 => Action::CutEngine(process, lasts),
                11 => Action::EngineDown(lasts),
                12 => Action::Wipe,
                13 => Action::Switch(lasts),
                14 => {
                    let jump = i64::from(*dice.pick(&[1_u16, 20, 70, 400, 700])) * 1_000;
                    Action::ClockJump(process, if dice.chance(400) { -jump } else { jump })
                }
                _ => Action::Stale(process, lasts),
            };
            actions.push((at, action));
        }
        // Stable: what is drawn first comes first.
        actions.sort_by_key(|(at, _)| *at);
        let mut plan = Self { skews, fault_rate, tasks, actions };
        if let Some(guard) = focus {
            plan.turn_to(guard, dice);
        }
        plan
    }

    /// Makes that likely which the guard is against.
    fn turn_to(&mut self, guard: Guard, dice: &mut Dice) {
        let submits = self.actions.iter().filter(|it| matches!(it.1, Action::Submit(..)));
        let submits: Vec<Duration> = submits.map(|it| it.0).collect();
        let processes = self.skews.len();
        let mut script = |name: &str, value: &str| {
            for it in &mut self.tasks {
                it.env.insert(name.to_owned(), value.to_owned());
            }
        };
        let mut more = Vec::new();
        for at in submits {
            let soon = at + Duration::from_millis(u64::from(dice.below(1_200)));
            let process = dice.index(processes);
            match guard {
                // It stands still for longer than its lease while it launches.
                Guard::LeaseStop | Guard::LeaseBeforeStart => {
                    script("FAKE_LAUNCH", "slow");
                    script("FAKE_RUN_FOR", "50s");
                    more.push((soon, Action::Freeze(process, Duration::from_secs(30))));
                }
                // Its clock is ahead, and it reads what was before the submit.
                Guard::TwoPassSweep => {
                    script("FAKE_RUN_FOR", "50s");
                    let before = at.saturating_sub(Duration::from_millis(10));
                    more.push((before, Action::Stale(process, Duration::from_secs(2))));
                    more.push((at, Action::ClockJump(process, 400_000)));
                }
                // A start comes late: `SimWay::aimed`.
                Guard::RenameAdopted => script("FAKE_RUN_FOR", "2s"),
                _ => {}
            }
        }
        self.actions.extend(more);
        self.actions.sort_by_key(|(at, _)| *at);
    }
}

pub(super) fn plain() -> TaskSpec {
    PLAIN.clone()
}

fn task(dice: &mut Dice) -> TaskSpec {
    let mut spec = PLAIN.clone();
    let mut env = |name: &str, value: &str| {
        if !value.is_empty() {
            spec.env.insert(name.to_owned(), value.to_owned());
        }
    };
    env("FAKE_RUN_FOR", dice.pick::<&str>(&["", "", "200ms", "2s", "9s", "25s", "50s"]));
    env("FAKE_EXIT", dice.pick::<&str>(&["", "", "1", "1,0", "3,3,0"]));
    let lines = dice.pick::<&str>(&["0", "0", "3", "30", "200"]);
    env("FAKE_LOG_LINES", lines);
    if *lines == "30" {
        // One of each kind: what has ended before, what runs on, and what never began.
        env("FAKE_SIDE_LOGS", "init:2,proxy:40+,next:-");
    }
    env("FAKE_STDERR_EVERY", dice.pick::<&str>(&["", "", "2"]));
    env(
        "FAKE_LAUNCH",
        dice.pick::<&str>(&["", "", "", "", "slow", "unavailable", "indeterminate"]),
    );
    env("FAKE_IGNORE_TERM", dice.pick::<&str>(&["", "", "1"]));
    env("FAKE_ON_TERM", dice.pick::<&str>(&["", "", "0", "7"]));
    match dice.below(20) {
        17 => env("FAKE_START_FAILS", "127"),
        18 => {
            env("FAKE_VANISH", "1");
            env("FAKE_LAUNCH", "slow");
        }
        19 => env("FAKE_LAUNCH", "refused:registry_transient"),
        _ => {}
    }
    if dice.chance(300) {
        env("FAKE_OUTPUT", r#"{"n": 7}"#);
        let decl = OutputDecl { source: OutputSource::Json, required: true };
        spec.outputs.insert("n".to_owned(), decl);
    }
    let seconds = SignedDuration::from_secs;
    spec.retries.max = *dice.pick(&[0, 0, 1, 3]);
    spec.retries.backoff_initial = seconds(i64::from(*dice.pick(&[1, 10])));
    spec.retries.on_unconfirmed = dice.chance(60);
    spec.at_most_once = dice.chance(150);
    spec.timeouts.run = *dice.pick(&[None, None, None, Some(seconds(1)), Some(seconds(6))]);
    spec.timeouts.queue = *dice.pick(&[None, None, None, None, None, Some(seconds(8))]);
    spec.timeouts.stop_grace = seconds(i64::from(*dice.pick(&[1, 1, 10])));
    spec.cleanup =
        *dice.pick(&[Cleanup::Always, Cleanup::Always, Cleanup::Never, Cleanup::OnSuccess]);
    spec.priority = *dice.pick(&[0, 0, 5]);
    spec
}
