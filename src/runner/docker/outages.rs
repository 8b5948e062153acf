//! When the engine was away, as far as this process saw it. Pure.

use std::collections::VecDeque;

use jiff::Timestamp;

const KEPT: usize = 64;

/// From the last sign of life to the first one after it, in the engine's own time.
#[derive(Debug, Clone, Copy)]
struct Outage {
    from: Timestamp,
    to: Timestamp,
    /// It certainly was another process of the engine that came back, and had taken its containers along.
    restarted: bool,
}

impl Outage {
    fn has(&self, started: Option<Timestamp>, finished: Option<Timestamp>) -> bool {
        match (started, finished) {
            (_, Some(finished)) => self.from <= finished && finished <= self.to,
            (Some(started), None) => started <= self.to,
            (None, None) => false,
        }
    }
}

/// The latest outages.
#[derive(Debug, Clone, Default)]
pub(super) struct Outages(VecDeque<Outage>);

impl Outages {
    pub(super) fn add(&mut self, from: Timestamp, to: Timestamp, restarted: bool) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Outage { from, to, restarted });
    }

    /// Whether a container that ran from `started` ended when the engine went down with what it had.
    pub(super) fn ended_in(&self, started: Option<Timestamp>, finished: Option<Timestamp>) -> bool {
        self.0.iter().any(|it| it.restarted && it.has(started, finished))
    }

    /// Whether it ended while the engine was not seen, whatever became of the engine. What was only concluded
    /// from when the engine came up does not count.
    pub(super) fn unseen_in(&self, finished: Option<Timestamp>) -> bool {
        let seen = self.0.iter().filter(|it| it.from > Timestamp::UNIX_EPOCH);
        finished.is_some() && seen.into_iter().any(|it| it.has(None, finished))
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
        outages.add(at(10), at(20), true);
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
        outages.add(Timestamp::UNIX_EPOCH, at(5), true);
        outages.add(at(10), at(20), false);
        for (second, expected) in [(3, false), (9, false), (10, true), (20, true), (21, false)] {
            assert_eq!(outages.unseen_in(Some(at(second))), expected, "{second}");
        }
        assert!(!outages.unseen_in(None) && !outages.ended_in(None, Some(at(10))));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut outages = Outages::default();
        for second in 0..100 {
            outages.add(at(second * 10), at(second * 10 + 1), true);
        }
        assert!(!outages.ended_in(None, Some(at(0))) && outages.ended_in(None, Some(at(990))));
    }
}
