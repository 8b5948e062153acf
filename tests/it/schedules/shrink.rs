//! Makes a schedule that failed smaller, as long as it fails: fewer tasks, fewer faults.

use super::dice::Dice;
use super::run::{Played, play};
use super::seeded;

/// How often it is played again.
const TRIES: u32 = 600;

/// What failed, as small as it gets, for people.
pub(super) fn report(seed: u64) -> String {
    let first = seeded(seed, false);
    let small = shrink(&first);
    let told = play(Dice::replay(small.plan), Dice::replay(small.faults), None, true);
    format!(
        "seed {seed}: {}\nshrunk, it is: {}\n{}",
        first.violation.unwrap_or_default(),
        told.violation.unwrap_or_default(),
        told.trace.unwrap_or_default()
    )
}

pub(super) fn shrink(found: &Played) -> Played {
    let mut tries = TRIES;
    let mut small = again(&found.plan, &found.faults);
    loop {
        let before = (small.plan.clone(), small.faults.clone());
        // Faults first: without them the rest is quick.
        small = pass(small, &mut tries, false);
        small = pass(small, &mut tries, true);
        if tries == 0 || (small.plan == before.0 && small.faults == before.1) {
            return small;
        }
    }
}

fn again(plan: &[u16], faults: &[u16]) -> Played {
    play(Dice::replay(plan.to_vec()), Dice::replay(faults.to_vec()), None, false)
}

/// Tries to cut pieces of one list off, to leave them out, and to make them 0.
fn pass(mut small: Played, tries: &mut u32, of_plan: bool) -> Played {
    let length = |it: &Played| if of_plan { it.plan.len() } else { it.faults.len() };
    let mut size = length(&small).max(1);
    while size > 0 && *tries > 0 {
        let mut at = 0;
        while at < length(&small) && *tries > 0 {
            let list = if of_plan { &small.plan } else { &small.faults };
            let end = (at + size).min(list.len());
            let cut = list[..at].to_vec();
            let zeroed = [&list[..at], &vec![0; end - at], &list[end..]].concat();
            let without = [&list[..at], &list[end..]].concat();
            let smaller = [cut, without, zeroed].into_iter().find_map(|candidate| {
                if *tries == 0 || candidate == *list {
                    return None;
                }
                *tries -= 1;
                let played = if of_plan {
                    again(&candidate, &small.faults)
                } else {
                    again(&small.plan, &candidate)
                };
                played.violation.is_some().then_some(played)
            });
            match smaller {
                Some(it) if weight(&it) < weight(&small) => small = it,
                _ => at += size,
            }
        }
        size /= 2;
    }
    small
}

/// How much happens in it.
fn weight(it: &Played) -> (usize, usize) {
    let all = || it.plan.iter().chain(&it.faults);
    (all().filter(|it| **it > 0).count(), all().count())
}
