//! A kill at every step.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use supercargo::failpoints::Point;

use super::ledger::Figures;
use super::points::{APART, CORE, round};
use super::rounds::{Lane, Round};
use super::seed::{Random, is_soak, seed};
use crate::support::containers;
use crate::support::starts::Starts;

/// Services side by side.
const LANES: usize = 2;
/// Of a sample: no further round begins after it.
const SAMPLE: Duration = Duration::from_secs(55);
/// Of a sweep of everything, each step at its first, second and third time.
const TURNS: u32 = 3;

#[derive(Default)]
struct Sum {
    rounds: usize,
    kills: usize,
    swept: BTreeSet<Point>,
    figures: Figures,
    faults: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_loses_nothing_and_runs_nothing_twice() {
    if !containers::available().await {
        return;
    }
    let (seed, begun) = (seed(), Instant::now());
    let mut random = Random::new(seed);
    let rounds = plan(&mut random);
    eprintln!("SUPERCARGO_TEST_SEED={seed}: {} rounds at most", rounds.len());
    let starts = Arc::new(Starts::record().await);
    let sum = Mutex::new(Sum::default());
    let rounds = Mutex::new(rounds.into_iter());
    let lane = async || {
        let mut lane = Lane::start(&starts).await;
        loop {
            let next = rounds.lock().unwrap().next();
            let Some((round, sure)) = next else { return };
            if sure || begun.elapsed() < SAMPLE {
                go(&mut lane, &round, &sum).await;
            }
        }
    };
    join_all((0..LANES).map(|_| lane())).await;
    let sum = sum.lock().unwrap();
    let Figures { tasks, attempts, started, adopted } = sum.figures;
    eprintln!(
        "swept {} of {} steps in {} rounds: {} kills, {tasks} tasks, {attempts} attempts, {started} containers, \
         {adopted} adopted, {} violations, {:.0} s",
        sum.swept.len(),
        Point::ALL.len(),
        sum.rounds,
        sum.kills,
        sum.faults.len(),
        begun.elapsed().as_secs_f64()
    );
    assert!(sum.faults.is_empty(), "SUPERCARGO_TEST_SEED={seed}\n{}", sum.faults.join("\n"));
}

/// The rounds, and whether each has to be gone through.
fn plan(random: &mut Random) -> Vec<(Round, bool)> {
    let named = std::env::var("SUPERCARGO_TEST_POINTS").unwrap_or_default();
    let named: Vec<Point> = named
        .split(',')
        .filter(|it| !it.is_empty())
        .map(|it| Point::parse(it).expect("SUPERCARGO_TEST_POINTS names steps"))
        .collect();
    let apart = APART.map(|it| it.0);
    let mut points: Vec<Point> =
        Point::ALL.iter().copied().filter(|it| !apart.contains(it)).collect();
    random.shuffle(&mut points);
    if !named.is_empty() {
        return named.into_iter().map(|it| (round(it, 1, 6, random), true)).collect();
    }
    if is_soak() {
        let turns = (1..=TURNS).flat_map(|turn| points.iter().map(move |it| (*it, turn)));
        return turns.map(|(point, turn)| (round(point, turn, 12, random), true)).collect();
    }
    points.sort_by_key(|it| !CORE.contains(it));
    let sample = points.into_iter().map(|point| {
        let turn = 1 + u32::try_from(random.below(TURNS.into())).unwrap();
        (round(point, turn, 5, random), CORE.contains(&point))
    });
    sample.collect()
}

async fn go(lane: &mut Lane, round: &Round, sum: &Mutex<Sum>) {
    let begun = Instant::now();
    let report = lane.run(round).await;
    eprintln!(
        "{}: {:?}, {} kills, {} violations, {:.1} s",
        round.name(),
        round.kinds,
        report.kills,
        report.faults.len(),
        begun.elapsed().as_secs_f64()
    );
    let mut sum = sum.lock().unwrap();
    sum.rounds += 1;
    sum.kills += report.kills;
    sum.swept.extend(round.arms.iter().filter(|it| it.must).map(|it| it.point));
    sum.figures.add(&report.figures);
    for fault in report.faults {
        let task = fault.split("(task ").nth(1).and_then(|it| it.split(')').next());
        let log = task.map(|it| lane.service.log_of(it)).unwrap_or_default();
        sum.faults.push(format!("{}: {fault}\n{log}", round.name()));
    }
}
