//! Each guard is taken out, and a schedule must then break a promise that it keeps with the guard in its place.

use supercargo::failpoints::{self, Guard};

use super::dice::Dice;
use super::run::{Played, play};

/// How many schedules may be needed.
const AT_MOST: u64 = 1_500;

fn focused(guard: Guard, seed: u64) -> Played {
    play(Dice::seeded(seed), Dice::seeded(!seed), Some(guard), false)
}

/// Looks for a schedule that breaks one of these promises without the guard. Plays it once more with it.
fn catches(guard: Guard, promises: &[&str]) {
    let mut others = Vec::new();
    for seed in 0..AT_MOST {
        let without = failpoints::without(guard);
        let played = focused(guard, seed);
        drop(without);
        let Some(what) = played.violation else { continue };
        if !promises.iter().any(|it| what.contains(it)) {
            others.push(what);
            continue;
        }
        let with = focused(guard, seed).violation;
        assert_eq!(with, None, "seed {seed} with the guard in its place");
        eprintln!("without {}, seed {seed}: {what}", guard.as_str());
        return;
    }
    panic!("{AT_MOST} schedules did well without {}; others: {others:?}", guard.as_str());
}

const TWICE: &str = "was started twice";
const BOTH_RUN: &str = "run at the same time";

#[test]
fn a_stale_holder_that_may_write_is_noticed() {
    catches(
        Guard::Fence,
        &[
            "an ended attempt changed",
            "another log than it wrote",
            "its engine did not report",
            "follows an acknowledged cancel",
            "ended attempts, live",
            "its seal says",
            "its sandbox was removed",
            "bytes of log",
            TWICE,
            BOTH_RUN,
        ],
    );
}

#[test]
fn a_kept_sandbox_with_its_old_name_is_noticed() {
    catches(Guard::RenameKept, &[TWICE, "a sandbox is left"]);
}

#[test]
fn an_adopted_sandbox_with_its_old_name_is_noticed() {
    catches(Guard::RenameAdopted, &[TWICE, BOTH_RUN]);
}

#[test]
fn a_word_of_another_engine_is_noticed() {
    catches(Guard::SameEngine, &[TWICE, BOTH_RUN]);
}

#[test]
fn a_removal_before_the_end_is_written_is_noticed() {
    catches(Guard::AccountBeforeRemove, &["its sandbox was removed"]);
}

#[test]
fn a_sweep_at_first_sight_is_noticed() {
    catches(Guard::TwoPassSweep, &["its sandbox was removed"]);
}

#[test]
fn a_key_behind_its_submit_is_noticed() {
    catches(Guard::KeyInSubmit, &["one key made two tasks"]);
}

#[test]
fn a_launch_without_a_lease_is_noticed() {
    catches(Guard::LeaseStop, &[TWICE, BOTH_RUN]);
}

#[test]
fn a_start_behind_a_lapse_of_the_lease_is_noticed() {
    catches(Guard::LeaseBeforeStart, &[TWICE, BOTH_RUN]);
}
