//! When the engine was down, as far as this process saw it. Pure.

use std::collections::VecDeque;

use jiff::Timestamp;

const KEPT: usize = 64;

/// The latest outages, in the engine's own time.
#[derive(Debug, Clone, Default)]
pub(super) struct Outages(VecDeque<(Timestamp, Timestamp)>);

impl Outages {
    /// From the last sign of life to the first one after it.
    pub(super) fn add(&mut self, from: Timestamp, to: Timestamp) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((from, to));
    }

    /// Whether one was seen at this time, and not only concluded from when the engine came up.
    pub(super) fn were_seen_at(&self, at: Option<Timestamp>) -> bool {
        let seen = self.0.iter().filter(|(from, _)| *from > Timestamp::UNIX_EPOCH);
        at.is_some_and(|at| seen.into_iter().any(|&(from, to)| from <= at && at <= to))
    }

    /// Whether a container that ran from `started` ended in one of them.
    pub(super) fn ended_in(&self, started: Option<Timestamp>, finished: Option<Timestamp>) -> bool {
        self.0.iter().any(|&(from, to)| match (started, finished) {
            (_, Some(finished)) => from <= finished && finished <= to,
            (Some(started), None) => started <= to,
            (None, None) => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_end_counts_within_the_outage_or_if_unknown_before_its_end() {
        let mut outages = Outages::default();
        outages.add(at(10), at(20));
        for (started, finished, expected) in [
            (5, Some(9), false),
            (5, Some(10), true),
            (5, Some(20), true),
            (5, Some(21), false),
            (5, None, true),
            (21, None, false),
        ] {
            assert_eq!(
                outages.ended_in(Some(at(started)), finished.map(at)),
                expected,
                "{started} {finished:?}"
            );
        }
    }

    #[test]
    fn what_was_only_concluded_was_not_seen() {
        let mut outages = Outages::default();
        outages.add(Timestamp::UNIX_EPOCH, at(5));
        outages.add(at(10), at(20));
        for (second, expected) in [(3, false), (9, false), (10, true), (20, true), (21, false)] {
            assert_eq!(outages.were_seen_at(Some(at(second))), expected, "{second}");
        }
        assert!(!outages.were_seen_at(None));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut outages = Outages::default();
        for second in 0..100 {
            outages.add(at(second * 10), at(second * 10 + 1));
        }
        assert!(!outages.ended_in(None, Some(at(0))) && outages.ended_in(None, Some(at(990))));
    }
}
