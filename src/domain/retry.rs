//! Whether a failed attempt is tried again by itself, and when.

use jiff::SignedDuration;

use super::failure::{Budget, Reason};

/// What a retry decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    pub reason: Reason,
    /// The container may have run: `at_most_once` forbids another one then.
    pub may_have_started: bool,
    pub at_most_once: bool,
    /// Platform failures of this task so far, this one not counted.
    pub platform_failures: u32,
    pub platform_retries: u32,
    /// Spreads the waits; the same for the same attempt.
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Retry { after: SignedDuration },
    Final,
}

const FIRST_WAIT_MS: u64 = 1_000;
const LONGEST_WAIT_MS: u64 = 30_000;

/// Decides on the next attempt after a failure.
pub fn decide(facts: Facts) -> Decision {
    if facts.at_most_once && facts.may_have_started {
        return Decision::Final;
    }
    match facts.reason.budget() {
        Budget::Platform if facts.platform_failures < facts.platform_retries => {
            Decision::Retry { after: platform_backoff(facts.platform_failures, facts.seed) }
        }
        Budget::Platform | Budget::User | Budget::Never => Decision::Final,
    }
}

/// Doubles from 1 s to 30 s, each spread by up to a fifth so that a broken engine's tasks do not
/// come back all at once.
fn platform_backoff(failures: u32, seed: u64) -> SignedDuration {
    let base = FIRST_WAIT_MS.saturating_mul(1 << failures.min(10)).min(LONGEST_WAIT_MS);
    let spread = seed % (base / 5).max(1);
    SignedDuration::from_millis(i64::try_from(base - spread).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(reason: Reason) -> Facts {
        Facts {
            reason,
            may_have_started: false,
            at_most_once: false,
            platform_failures: 0,
            platform_retries: 3,
            seed: 0,
        }
    }

    #[test]
    fn platform_failures_are_retried_until_their_budget_is_spent() {
        let lost = facts(Reason::NodeLost);
        let waits: Vec<_> =
            (0..5).map(|n| decide(Facts { platform_failures: n, ..lost })).collect();
        let retry = |s| Decision::Retry { after: SignedDuration::from_secs(s) };
        assert_eq!(waits, [retry(1), retry(2), retry(4), Decision::Final, Decision::Final]);
    }

    #[test]
    fn the_wait_stays_between_its_bounds() {
        for failures in 0..64 {
            for seed in [0, 1, 199, 5_999, u64::MAX] {
                let wait = platform_backoff(failures, seed).as_millis();
                assert!((800..=30_000).contains(&wait), "{failures} {seed}: {wait}");
            }
        }
    }

    #[test]
    fn user_failures_are_final() {
        assert_eq!(decide(facts(Reason::ExitNonzero)), Decision::Final);
        assert_eq!(decide(facts(Reason::Cancelled)), Decision::Final);
    }

    #[test]
    fn at_most_once_is_not_started_again() {
        let lost = Facts { at_most_once: true, may_have_started: true, ..facts(Reason::NodeLost) };
        assert_eq!(decide(lost), Decision::Final);
        let pull = Facts {
            at_most_once: true,
            may_have_started: false,
            ..facts(Reason::RegistryTransient)
        };
        assert_ne!(decide(pull), Decision::Final);
    }
}
