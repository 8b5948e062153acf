//! Whether a failed attempt is tried again by itself, and when.

use jiff::SignedDuration;

use super::failure::{Budget, Reason};
use super::spec::Retries;

/// What a retry decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub reason: Reason,
    pub exit_code: Option<i32>,
    /// The container may have run: `at_most_once` forbids another one then.
    pub may_have_started: bool,
    /// Nobody could say that the container has ended.
    pub unconfirmed: bool,
    pub at_most_once: bool,
    /// Failures of each kind so far, this one not counted.
    pub user_failures: u32,
    pub platform_failures: u32,
    pub retries: &'a Retries,
    pub platform_retries: u32,
    /// Spreads the waits; the same for the same attempt.
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Another attempt, at the cost of this budget.
    Retry {
        after: SignedDuration,
        budget: Budget,
    },
    Final,
}

const FIRST_PLATFORM_WAIT: SignedDuration = SignedDuration::from_secs(1);
const LONGEST_PLATFORM_WAIT: SignedDuration = SignedDuration::from_secs(30);

/// Decides on the next attempt after a failure.
pub fn decide(facts: Facts<'_>) -> Decision {
    if facts.at_most_once && facts.may_have_started {
        return Decision::Final;
    }
    if facts.unconfirmed && !facts.retries.on_unconfirmed {
        return Decision::Final;
    }
    let budget = facts.reason.budget();
    let after = match budget {
        Budget::Platform if facts.platform_failures < facts.platform_retries => {
            backoff(facts.platform_failures, FIRST_PLATFORM_WAIT, LONGEST_PLATFORM_WAIT, facts.seed)
        }
        Budget::User if facts.user_failures < facts.retries.max && code_allows(facts) => backoff(
            facts.user_failures,
            facts.retries.backoff_initial,
            facts.retries.backoff_max,
            facts.seed,
        ),
        Budget::Platform | Budget::User | Budget::Never => return Decision::Final,
    };
    Decision::Retry { after, budget }
}

/// `on_exit_codes` speaks of ends by the task's own doing: one that we stopped has no code of its own.
fn code_allows(facts: Facts<'_>) -> bool {
    let codes = &facts.retries.on_exit_codes;
    let own_code = facts.exit_code.filter(|_| facts.reason != Reason::Timeout);
    codes.is_empty() || own_code.is_some_and(|it| codes.contains(&it))
}

/// Doubles from the first wait to the longest, each spread by up to a fifth so that the tasks of a broken
/// engine or service do not come back all at once.
fn backoff(
    failures: u32,
    initial: SignedDuration,
    longest: SignedDuration,
    seed: u64,
) -> SignedDuration {
    let millis = |it: SignedDuration| u64::try_from(it.as_millis()).unwrap_or(0);
    let base = millis(initial).saturating_mul(1 << failures.min(40)).min(millis(longest));
    let spread = seed % (base / 5).max(1);
    SignedDuration::from_millis(i64::try_from(base - spread).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(reason: Reason, retries: &Retries) -> Facts<'_> {
        Facts {
            reason,
            exit_code: None,
            may_have_started: false,
            unconfirmed: false,
            at_most_once: false,
            user_failures: 0,
            platform_failures: 0,
            retries,
            platform_retries: 3,
            seed: 0,
        }
    }

    fn retry(seconds: i64, budget: Budget) -> Decision {
        Decision::Retry { after: SignedDuration::from_secs(seconds), budget }
    }

    #[test]
    fn platform_failures_are_retried_until_their_budget_is_spent() {
        let none = Retries::default();
        let lost = facts(Reason::NodeLost, &none);
        let waits: Vec<_> =
            (0..5).map(|n| decide(Facts { platform_failures: n, ..lost })).collect();
        let retry = |it| retry(it, Budget::Platform);
        assert_eq!(waits, [retry(1), retry(2), retry(4), Decision::Final, Decision::Final]);
    }

    #[test]
    fn the_wait_stays_between_its_bounds() {
        for failures in 0..64 {
            for seed in [0, 1, 199, 5_999, u64::MAX] {
                let wait = backoff(failures, FIRST_PLATFORM_WAIT, LONGEST_PLATFORM_WAIT, seed);
                assert!((800..=30_000).contains(&wait.as_millis()), "{failures} {seed}: {wait}");
            }
        }
        assert!(backoff(3, SignedDuration::ZERO, SignedDuration::ZERO, 7).is_zero());
    }

    #[test]
    fn the_users_budget_is_the_tasks_own() {
        let none = Retries::default();
        assert_eq!(decide(facts(Reason::ExitNonzero, &none)), Decision::Final);
        let two = Retries {
            max: 2,
            backoff_initial: SignedDuration::from_secs(10),
            backoff_max: SignedDuration::from_secs(15),
            ..none
        };
        let failed = facts(Reason::ExitNonzero, &two);
        let waits: Vec<_> = (0..3).map(|n| decide(Facts { user_failures: n, ..failed })).collect();
        assert_eq!(waits, [retry(10, Budget::User), retry(15, Budget::User), Decision::Final]);
        // The budgets are apart.
        assert_eq!(decide(Facts { platform_failures: 9, ..failed }), retry(10, Budget::User));
        let lost = Facts { user_failures: 9, ..facts(Reason::NodeLost, &two) };
        assert_eq!(decide(lost), retry(1, Budget::Platform));
        // What trying again can't help stays.
        assert_eq!(decide(facts(Reason::CommandNotFound, &two)), Decision::Final);
        assert_eq!(decide(facts(Reason::Cancelled, &two)), Decision::Final);
    }

    #[test]
    fn exit_codes_narrow_what_is_tried_again() {
        let only = Retries { max: 1, on_exit_codes: vec![75, 137], ..Retries::default() };
        let with = |reason, exit_code| decide(Facts { exit_code, ..facts(reason, &only) });
        assert_eq!(with(Reason::ExitNonzero, Some(75)), retry(1, Budget::User));
        assert_eq!(with(Reason::ExitNonzero, Some(3)), Decision::Final);
        assert_eq!(with(Reason::OomKilled, Some(137)), retry(1, Budget::User));
        // We ended it, with a code of our making.
        assert_eq!(with(Reason::Timeout, Some(137)), Decision::Final);
        assert_eq!(with(Reason::Timeout, None), Decision::Final);
    }

    #[test]
    fn at_most_once_is_not_started_again() {
        let plenty = Retries { max: 5, ..Retries::default() };
        for reason in [Reason::NodeLost, Reason::ExitNonzero] {
            let once = Facts { at_most_once: true, ..facts(reason, &plenty) };
            assert_eq!(decide(Facts { may_have_started: true, ..once }), Decision::Final);
        }
        let pull = Facts { at_most_once: true, ..facts(Reason::RegistryTransient, &plenty) };
        assert_eq!(decide(pull), retry(1, Budget::Platform));
    }

    #[test]
    fn an_unconfirmed_end_is_final_unless_the_task_takes_the_risk() {
        let careful = Retries { max: 5, ..Retries::default() };
        let timeout = Facts { unconfirmed: true, ..facts(Reason::Timeout, &careful) };
        assert_eq!(decide(timeout), Decision::Final);
        let daring = Retries { on_unconfirmed: true, ..careful.clone() };
        assert_eq!(decide(Facts { retries: &daring, ..timeout }), retry(1, Budget::User));
    }
}
