//! When to let a container write on alone for a moment.
//!
//! An engine that writes a log and gives it to a follower at the same time does both slower than one after
//! the other. What is not read stays in the engine's file. So a reader who is as far as a fast writer
//! pauses, and reads the rest in one go.

use std::time::Duration;

use tokio::time::Instant;

/// A chunk that took longer is not fast.
const FAST: Duration = Duration::from_millis(100);
/// Who is further behind reads on.
const BEHIND_NANOS: i64 = 200_000_000;

/// Knows how far behind the reader is, whatever the clock of the engine says.
#[derive(Debug)]
pub(super) struct Pace {
    begun: Instant,
    /// The least that the time since then was ever ahead of a frame's time.
    least: Option<i64>,
}

impl Pace {
    pub(super) fn begin() -> Self {
        Self { begun: Instant::now(), least: None }
    }

    /// A chunk is full, and it took so long; `at` is the time of its last frame by the engine's clock, in
    /// nanoseconds. Whether to pause.
    pub(super) fn filled(&mut self, took: Duration, at: i64) -> bool {
        let now = i64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.decide(took, now, at)
    }

    fn decide(&mut self, took: Duration, now: i64, at: i64) -> bool {
        let ahead = now.saturating_sub(at);
        let least = self.least.map_or(ahead, |it| it.min(ahead));
        self.least = Some(least);
        took < FAST && ahead.saturating_sub(least) < BEHIND_NANOS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: i64 = 1_000_000;

    #[test]
    fn only_who_is_as_far_as_a_fast_writer_pauses() {
        let quick = Duration::from_millis(10);
        for skew in [0, -3_600_000 * MILLI, 3_600_000 * MILLI] {
            let mut pace = Pace::begin();
            let mut filled =
                |took, now: i64, at: i64| pace.decide(took, now * MILLI, at * MILLI + skew);
            assert!(filled(quick, 1_000, 990));
            assert!(!filled(quick, 2_000, 1_100), "0.9 s behind");
            assert!(!filled(quick, 2_300, 2_050), "0.25 s behind");
            assert!(filled(quick, 2_400, 2_380));
            assert!(!filled(Duration::from_millis(100), 2_500, 2_490), "a slow writer");
        }
    }
}
