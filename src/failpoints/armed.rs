//! What a build for tests does at its fail points.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use super::{Guard, Point};

/// How long a request is under way when its sender dies.
const IN_FLIGHT: Duration = Duration::from_millis(2);
/// A signal to the whole process may reach another of its threads first.
const UNTIL_STOPPED: Duration = Duration::from_millis(100);

struct Plan {
    signal: Signal,
    word: &'static str,
    /// At which time of coming there.
    turn: u32,
    came: AtomicU32,
}

struct Settings {
    points: HashMap<Point, Plan>,
    guards_out: HashSet<Guard>,
}

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    Settings::read(&variable("SUPERCARGO_FAILPOINTS"), &variable("SUPERCARGO_GUARDS_OUT"))
        .unwrap_or_else(|fault| panic!("{fault}"))
});

#[expect(
    clippy::disallowed_methods,
    reason = "no setting of the product: it exists in builds for tests alone"
)]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

impl Settings {
    fn read(points: &str, guards: &str) -> Result<Self, String> {
        let points = words(points, ';').map(read_point).collect::<Result<_, _>>()?;
        let guards_out = words(guards, ',')
            .map(|it| Guard::parse(it).ok_or_else(|| format!("there is no guard {it:?}")))
            .collect::<Result<_, _>>()?;
        Ok(Self { points, guards_out })
    }
}

fn words(text: &str, separator: char) -> impl Iterator<Item = &str> {
    text.split(separator).map(str::trim).filter(|it| !it.is_empty())
}

fn read_point(text: &str) -> Result<(Point, Plan), String> {
    let (name, action) = text.split_once('=').ok_or_else(|| format!("{text:?} has no action"))?;
    let point = Point::parse(name).ok_or_else(|| format!("there is no fail point {name:?}"))?;
    let (word, turn) = action.split_once('@').unwrap_or((action, "1"));
    let turn = turn.parse().map_err(|_| format!("{turn:?} in {text:?} is no number"))?;
    let (signal, word) = match word {
        "kill" => (Signal::KILL, "kill"),
        "stop" => (Signal::STOP, "stop"),
        _ => return Err(format!("{word:?} in {text:?} is neither kill nor stop")),
    };
    Ok((point, Plan { signal, word, turn, came: AtomicU32::new(0) }))
}

/// The process has come to this step.
pub fn at(point: Point) {
    if let Some(plan) = due(point) {
        carry_out(plan);
    }
}

/// The request that this step sends is on its way.
pub async fn in_flight(point: Point) {
    if let Some(plan) = due(point) {
        tokio::time::sleep(IN_FLIGHT).await;
        carry_out(plan);
    }
}

fn due(point: Point) -> Option<&'static Plan> {
    let plan = SETTINGS.points.get(&point)?;
    let turn = plan.came.fetch_add(1, Ordering::AcqRel) + 1;
    (turn == plan.turn).then_some(plan)
}

fn carry_out(plan: &Plan) {
    if kill_process(getpid(), plan.signal).is_err() {
        tracing::error!("the process can't send a signal to itself");
    }
    // What gets SIGKILL never leaves; what gets SIGSTOP leaves when it is continued.
    std::thread::park_timeout(UNTIL_STOPPED);
    if plan.signal == Signal::KILL {
        loop {
            std::thread::park();
        }
    }
}

thread_local! {
    static OUT_HERE: RefCell<Vec<Guard>> = const { RefCell::new(Vec::new()) };
}

/// Whether the guard is in its place.
pub fn holds(guard: Guard) -> bool {
    !SETTINGS.guards_out.contains(&guard) && OUT_HERE.with_borrow(|it| !it.contains(&guard))
}

/// Takes a guard out, on this thread, until the answer is dropped.
pub fn without(guard: Guard) -> Without {
    OUT_HERE.with_borrow_mut(|it| it.push(guard));
    Without { guard, here: PhantomData }
}

/// A guard is out. Bound to its thread.
#[derive(Debug)]
#[must_use]
pub struct Without {
    guard: Guard,
    here: PhantomData<*const ()>,
}

impl Drop for Without {
    fn drop(&mut self) {
        OUT_HERE.with_borrow_mut(|it| {
            if let Some(index) = it.iter().rposition(|it| *it == self.guard) {
                it.remove(index);
            }
        });
    }
}

/// What this process was told to do wrong. A fault in it ends the process here, at its start.
pub fn summary() -> Option<String> {
    let settings = &*SETTINGS;
    let mut said: Vec<String> = settings
        .points
        .iter()
        .map(|(point, plan)| format!("{}={}@{}", point.as_str(), plan.word, plan.turn))
        .chain(settings.guards_out.iter().map(|it| format!("without {}", it.as_str())))
        .collect();
    said.sort();
    Some(if said.is_empty() { "nothing".to_owned() } else { said.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_steps_turns_and_guards() {
        let read = Settings::read("start.answered=kill; record.committed=stop@3", "fence").unwrap();
        let plan = &read.points[&Point::RecordCommitted];
        assert_eq!((plan.word, plan.turn), ("stop", 3));
        assert_eq!(read.points[&Point::StartAnswered].turn, 1);
        assert!(read.guards_out.contains(&Guard::Fence));
        for (points, guards, names) in [
            ("start=kill", "", "\"start\""),
            ("start.begun", "", "start.begun"),
            ("start.begun=wait", "", "wait"),
            ("start.begun=kill@x", "", "\"x\""),
            ("", "fences", "fences"),
        ] {
            let fault = Settings::read(points, guards).err().unwrap();
            assert!(fault.contains(names), "{fault}");
        }
    }

    #[test]
    fn a_guard_is_out_on_one_thread_and_for_a_while() {
        assert!(holds(Guard::Fence));
        let out = without(Guard::Fence);
        assert!(!holds(Guard::Fence) && holds(Guard::LeaseStop));
        assert!(std::thread::spawn(|| holds(Guard::Fence)).join().unwrap());
        drop(out);
        assert!(holds(Guard::Fence));
    }
}
