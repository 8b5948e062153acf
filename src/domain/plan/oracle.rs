//! The trigger rules once more: slow, and close to the words of Airflow's documentation.
//!
//! Which ends let a task run is "Trigger Rules" in Airflow 3's Core Concepts (`core-concepts/dags.rst`), one
//! sentence for each rule. What becomes of a task that does not run, skipped or `upstream_failed`, is not told
//! there; it is from `airflow/ti_deps/deps/trigger_rule_dep.py`.

use super::rules::{TaskEnd, Trigger, Verdict};

/// Airflow's verdict when everything upstream has ended.
pub(super) fn says(trigger: Trigger, ends: &[TaskEnd]) -> Verdict {
    use TaskEnd::{Cancelled, Failed, Skipped, Succeeded, UpstreamFailed};
    // Airflow marks failed what a person stops.
    let failed = |it: &TaskEnd| matches!(it, Failed | Cancelled);
    let failed_or_upstream = |it: &TaskEnd| failed(it) || *it == UpstreamFailed;
    let succeeded = |it: &TaskEnd| *it == Succeeded;
    let skipped = |it: &TaskEnd| *it == Skipped;
    let runs = match trigger {
        // All upstream tasks have succeeded.
        Trigger::AllSuccess => ends.iter().all(succeeded),
        // All upstream tasks are in a failed or upstream_failed state.
        Trigger::AllFailed => ends.iter().all(failed_or_upstream),
        // All upstream tasks are done with their execution. No dependencies at all.
        Trigger::AllDone | Trigger::Always => true,
        // All upstream tasks are in a skipped state.
        Trigger::AllSkipped => ends.iter().all(skipped),
        // At least one upstream task has failed.
        Trigger::OneFailed => ends.iter().any(failed_or_upstream),
        // At least one upstream task has succeeded.
        Trigger::OneSuccess => ends.iter().any(succeeded),
        // At least one upstream task succeeded or failed.
        Trigger::OneDone => ends.iter().any(|it| succeeded(it) || failed(it)),
        // All upstream tasks have not failed or upstream_failed.
        Trigger::NoneFailed => !ends.iter().any(failed_or_upstream),
        // … and at least one upstream task has succeeded.
        Trigger::NoneFailedMinOneSuccess => {
            !ends.iter().any(failed_or_upstream) && ends.iter().any(succeeded)
        }
        // No upstream task is in a skipped state.
        Trigger::NoneSkipped => !ends.iter().any(skipped),
    };
    let because_of_a_failure = match trigger {
        Trigger::AllSuccess | Trigger::NoneFailed | Trigger::NoneFailedMinOneSuccess => {
            ends.iter().any(failed_or_upstream)
        }
        Trigger::OneSuccess => !ends.iter().all(skipped),
        Trigger::AllFailed
        | Trigger::AllDone
        | Trigger::OneFailed
        | Trigger::OneDone
        | Trigger::NoneSkipped
        | Trigger::AllSkipped
        | Trigger::Always => false,
    };
    if ends.is_empty() || runs {
        Verdict::Start
    } else if because_of_a_failure {
        Verdict::UpstreamFailed
    } else {
        Verdict::Skip
    }
}

/// What Airflow says in every case that may still come, if that is the same in all of them.
pub(super) fn says_by_now(trigger: Trigger, needs: &[Option<TaskEnd>]) -> Verdict {
    let Some(open) = needs.iter().position(Option::is_none) else {
        return says(trigger, &needs.iter().copied().flatten().collect::<Vec<_>>());
    };
    if trigger == Trigger::AllDone {
        // That they are done is what it asks for.
        return Verdict::Wait;
    }
    let mut verdicts = TaskEnd::ALL.into_iter().map(|end| {
        let mut needs = needs.to_vec();
        needs[open] = Some(end);
        says_by_now(trigger, &needs)
    });
    let first = verdicts.next().unwrap_or(Verdict::Wait);
    if verdicts.all(|it| it == first) { first } else { Verdict::Wait }
}
