//! Random schedules of the real worker code, each in one process and from one seed.
//!
//! Workers, sweepers and schedulers are those of the service; the store is a [model] that `differential.rs`
//! holds against Postgres; the engines are simulated and as dangerous as Docker; time is virtual. `world.rs` has
//! what goes wrong, `check.rs` what must hold all the same.
//!
//! `SUPERCARGO_TEST_SEED=7 make test ARGS='--test it schedules'` plays one schedule and tells what happens;
//! `SUPERCARGO_TEST_SOAK=1` plays many more of them.

mod check;
mod dice;
mod differential;
mod guards;
mod model;
mod plan;
mod run;
mod shrink;
mod store;
mod way;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dice::Dice;
use run::{Played, play};

const SCHEDULES: u64 = 10_000;
const SOAK: u64 = 300_000;

fn seeded(seed: u64, traced: bool) -> Played {
    play(Dice::seeded(seed), Dice::seeded(!seed), None, traced)
}

/// The first seed of a range that leads to a violation, looked for on every core.
fn first_violation(seeds: std::ops::Range<u64>) -> (Option<u64>, u64) {
    let (next, steps) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let found = AtomicU64::new(u64::MAX);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || found.load(Ordering::Relaxed) < seed {
                        return;
                    }
                    let played = seeded(seed, false);
                    steps.fetch_add(played.steps, Ordering::Relaxed);
                    if played.violation.is_some() {
                        found.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let found = found.into_inner();
    (seeds.contains(&found).then_some(found), steps.into_inner())
}

#[test]
fn no_schedule_loses_anything_or_runs_it_twice() {
    if let Ok(seed) = std::env::var("SUPERCARGO_TEST_SEED") {
        let played = seeded(seed.parse().unwrap(), true);
        eprintln!("{}", played.trace.unwrap_or_default());
        assert_eq!(played.violation, None, "seed {seed}");
        return;
    }
    let count = match std::env::var_os("SUPERCARGO_TEST_SOAK") {
        Some(_) => SOAK,
        None => {
            std::env::var("SUPERCARGO_TEST_SCHEDULES").map_or(SCHEDULES, |it| it.parse().unwrap())
        }
    };
    let begun = Instant::now();
    let (found, steps) = first_violation(0..count);
    if let Some(seed) = found {
        panic!("{}", shrink::report(seed));
    }
    eprintln!("{count} schedules, {steps} steps, {:?}", begun.elapsed());
}

#[test]
fn a_seed_is_the_same_schedule_each_time() {
    for seed in 0..20 {
        let (first, second) = (seeded(seed, true), seeded(seed, true));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first.faults, second.faults, "seed {seed}");
        let replayed = play(Dice::replay(first.plan), Dice::replay(first.faults), None, true);
        assert_eq!(first.trace, replayed.trace, "seed {seed}, from its decisions");
    }
}
