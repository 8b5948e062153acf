use std::sync::Arc;

use supercargo::domain::exit::ExitStatus;
use supercargo::domain::failure::Reason;
use supercargo::ids::Fence;
use supercargo::runner::{Disposal, EngineId, KillAck, KillMode, LaunchError, Observation};
use tokio_util::sync::CancellationToken;

use crate::support::sandbox::{Attempt, Steps, endless, log, task, task_with, text};
use crate::support::subject::Subject;
use crate::support::within;

/// Says a line each time that it runs.
fn once() -> supercargo::domain::spec::TaskSpec {
    task("echo line 1", &[("FAKE_LOG_LINES", "1")])
}

async fn ran_once(subject: &Subject, attempt: &Attempt) {
    let observed = subject.runner.inspect(&attempt.key, &attempt.engine).await.unwrap();
    let handle = match observed {
        Observation::Running { handle, .. } | Observation::Exited { handle, .. } => handle,
        other => panic!("{other:?}"),
    };
    assert_eq!(attempt.exit_code(&*subject.runner, &handle).await, Some(0));
    assert_eq!(text(&log(&*subject.runner, &handle, None, false).await), "line 1\n");
}

pub(super) async fn launch_runs_the_task_and_its_exit_code_is_read(subject: Arc<Subject>) {
    let attempt = subject.attempt(task("exit 3", &[("FAKE_EXIT", "3")]));
    let steps = Steps::default();
    let cancel = CancellationToken::new();
    let launched =
        within("launch", subject.runner.launch(&attempt.request(), &steps, &cancel)).await.unwrap();
    assert!(!launched.already);
    assert_eq!(steps.heard.lock().unwrap().last(), Some(&"started"));
    let report = within("wait", subject.runner.wait(&attempt.key, &launched.handle)).await.unwrap();
    assert_eq!(report.status, ExitStatus::Code { code: 3, oom_killed: false });
    assert!(report.started_at.unwrap() <= report.finished_at.unwrap());
    let observed = subject.runner.inspect(&attempt.key, &attempt.engine).await.unwrap();
    assert_eq!(observed, Observation::Exited { handle: launched.handle, report });
}

pub(super) async fn launch_twice_starts_once(subject: Arc<Subject>) {
    let attempt = subject.attempt(endless());
    let first = attempt.launch(&*subject.runner).await;
    let second = attempt.launch(&*subject.another().await).await;
    assert!(!first.already && second.already);
    assert_eq!(first.handle, second.handle);
}

pub(super) async fn concurrent_launches_start_once(subject: Arc<Subject>) {
    let attempt = subject.attempt(once());
    let other = subject.another().await;
    let (a, b, c) = tokio::join!(
        attempt.try_launch(&*subject.runner),
        attempt.try_launch(&*other),
        attempt.try_launch(&*subject.runner),
    );
    let handles: Vec<_> = [a, b, c].into_iter().map(|it| it.unwrap().handle).collect();
    assert!(handles.windows(2).all(|it| it[0] == it[1]));
    ran_once(&subject, &attempt).await;
}

pub(super) async fn launch_after_the_exit_does_not_run_it_again(subject: Arc<Subject>) {
    let attempt = subject.attempt(once());
    let launched = attempt.launch(&*subject.runner).await;
    attempt.exit_code(&*subject.runner, &launched.handle).await;
    let again = attempt.launch(&*subject.another().await).await;
    assert!(again.already);
    ran_once(&subject, &attempt).await;
}

/// The guard against it is out: the case above must be able to fail.
#[cfg(feature = "failpoints")]
pub(super) async fn without_a_look_before_the_start_it_runs_again(subject: Arc<Subject>) {
    use supercargo::failpoints::{Guard, without};
    let attempt = subject.attempt(once());
    let launched = attempt.launch(&*subject.runner).await;
    attempt.exit_code(&*subject.runner, &launched.handle).await;
    let out = without(Guard::InspectBeforeStart);
    let again = attempt.launch(&*subject.runner).await;
    drop(out);
    if subject.is_kubernetes() {
        // A pod runs once: the backend itself is the guard.
        assert!(again.already);
        return ran_once(&subject, &attempt).await;
    }
    assert!(!again.already);
    attempt.exit_code(&*subject.runner, &again.handle).await;
    if let Some(starts) = subject.simulated_starts(&attempt) {
        assert_eq!(starts, 2);
    } else {
        let log = text(&log(&*subject.runner, &again.handle, None, false).await);
        assert_eq!(log, "line 1\nline 1\n");
    }
}

pub(super) async fn another_spec_under_the_same_key_is_refused(subject: Arc<Subject>) {
    let attempt = subject.attempt(once());
    attempt.launch(&*subject.runner).await;
    let other = attempt.with_spec(task("exit 1", &[("FAKE_EXIT", "1")]));
    let error = other.try_launch(&*subject.runner).await.unwrap_err();
    assert!(
        matches!(&error, LaunchError::Refused(it) if it.reason == Reason::CreateConfigError),
        "{error:?}"
    );
    ran_once(&subject, &attempt).await;
}

pub(super) async fn a_created_one_is_started_by_the_next_launch(subject: Arc<Subject>) {
    let attempt = subject.attempt(once());
    subject.lose_next_create();
    let error = attempt.try_launch(&*subject.runner).await.unwrap_err();
    assert!(matches!(error, LaunchError::Indeterminate(_)), "{error:?}");
    let observed = subject.runner.inspect(&attempt.key, &attempt.engine).await.unwrap();
    assert_eq!(observed, Observation::Created);
    let launched = attempt.launch(&*subject.another().await).await;
    assert!(!launched.already);
    ran_once(&subject, &attempt).await;
}

pub(super) async fn a_start_whose_answer_is_lost_happens_once(subject: Arc<Subject>) {
    let attempt = subject.attempt(once());
    subject.lose_next_start();
    let error = attempt.try_launch(&*subject.runner).await.unwrap_err();
    assert!(matches!(error, LaunchError::Indeterminate(_)), "{error:?}");
    let launched = attempt.launch(&*subject.another().await).await;
    assert!(launched.already);
    ran_once(&subject, &attempt).await;
}

async fn late_start(subject: &Subject, disposal: Disposal) -> Attempt {
    let attempt = subject.attempt(once());
    let other = subject.another().await;
    let mut held = subject.hold_next_start();
    let late = attempt.try_launch(&*subject.runner);
    let meanwhile = async {
        held.arrived().await;
        other.cleanup(&attempt.key, disposal).await.unwrap();
        held.release();
    };
    let (result, ()) = tokio::join!(late, meanwhile);
    let error = result.unwrap_err();
    assert!(
        matches!(&error, LaunchError::Refused(it) if it.reason == Reason::DeletedExternally),
        "{error:?}"
    );
    let observed = subject.runner.inspect(&attempt.key, &attempt.engine).await.unwrap();
    assert_eq!(observed, Observation::Absent);
    attempt
}

pub(super) async fn one_that_was_put_aside_is_not_started_by_a_late_start(subject: Arc<Subject>) {
    let attempt = late_start(&subject, Disposal::Keep).await;
    let owned = subject.runner.list_owned().await.unwrap();
    let found: Vec<_> = owned.iter().map(|it| (it.attempt, it.kept)).collect();
    // A pod that was never started is not worth keeping: it would wait for ever.
    let expected = if subject.is_kubernetes() { vec![] } else { vec![(attempt.key.attempt, true)] };
    assert_eq!(found, expected);
}

pub(super) async fn one_that_was_removed_is_not_started_by_a_late_start(subject: Arc<Subject>) {
    late_start(&subject, Disposal::Remove).await;
    assert_eq!(subject.runner.list_owned().await.unwrap(), []);
}

pub(super) async fn one_that_was_adopted_is_not_started_by_a_late_start(subject: Arc<Subject>) {
    let attempt = subject.attempt(once());
    let other = subject.another().await;
    let mut held = subject.hold_next_start();
    let late = attempt.try_launch(&*subject.runner);
    let meanwhile = async {
        held.arrived().await;
        let next = attempt.taken_over(Fence(2));
        let observed = other.adopt(&next.key, &next.engine, Fence(2)).await.unwrap();
        // Put under another name, or removed: a pod has but one.
        assert!(matches!(observed, Observation::Created | Observation::Absent), "{observed:?}");
        let launched = next.launch(&*other).await;
        assert!(!launched.already);
        // It has ended, and its end is not written yet.
        assert_eq!(next.exit_code(&*other, &launched.handle).await, Some(0));
        held.release();
    };
    let (result, ()) = tokio::join!(late, meanwhile);
    let error = result.unwrap_err();
    assert!(
        matches!(&error, LaunchError::Refused(it) if it.reason == Reason::DeletedExternally),
        "{error:?}"
    );
    ran_once(&subject, &attempt).await;
}

pub(super) async fn what_was_adopted_is_found_and_removed_by_its_key(subject: Arc<Subject>) {
    let attempt = subject.attempt(endless());
    attempt.launch(&*subject.runner).await;
    let other = subject.another().await;
    for fence in [Fence(2), Fence(3)] {
        let observed = other.adopt(&attempt.key, &attempt.engine, fence).await.unwrap();
        assert!(matches!(observed, Observation::Running { .. }), "{observed:?}");
    }
    let again = attempt.taken_over(Fence(3)).launch(&*other).await;
    assert!(again.already);
    // A holder before has made another one, late, which it may not start.
    let may_not = Steps { may_not_start: true, ..Steps::default() };
    let late = subject.runner.launch(&attempt.request(), &may_not, &CancellationToken::new()).await;
    // Where the name is still taken, it finds what there is.
    let made = match late {
        Err(LaunchError::Cancelled) => 1,
        Ok(late) if late.already => 0,
        other => panic!("{other:?}"),
    };
    let observed = other.inspect(&attempt.key, &attempt.engine).await.unwrap();
    assert!(matches!(observed, Observation::Running { .. }), "{observed:?}");
    assert_eq!(other.kill(&attempt.key, KillMode::Force).await.unwrap(), KillAck::Sent);
    other.wait(&attempt.key, &again.handle).await.unwrap();
    assert_eq!(subject.runner.list_owned().await.unwrap().len(), 1 + made);
    for _ in 0..2 {
        other.cleanup(&attempt.key, Disposal::Remove).await.unwrap();
    }
    assert_eq!(subject.runner.list_owned().await.unwrap(), []);
}

pub(super) async fn whoever_is_not_sure_to_be_the_holder_starts_nothing(subject: Arc<Subject>) {
    let attempt = subject.attempt(once());
    let may_not = Steps { may_not_start: true, ..Steps::default() };
    let launched =
        subject.runner.launch(&attempt.request(), &may_not, &CancellationToken::new()).await;
    assert!(matches!(launched, Err(LaunchError::Cancelled)), "{launched:?}");
    let observed = subject.runner.inspect(&attempt.key, &attempt.engine).await.unwrap();
    assert_eq!(observed, Observation::Created);
    attempt.launch(&*subject.runner).await;
    ran_once(&subject, &attempt).await;
}

pub(super) async fn another_engine_launches_nothing(subject: Arc<Subject>) {
    let mut attempt = subject.attempt(once());
    attempt.engine = EngineId("another".to_owned());
    let error = attempt.try_launch(&*subject.runner).await.unwrap_err();
    assert!(matches!(error, LaunchError::Unavailable(_)), "{error:?}");
    assert_eq!(subject.runner.list_owned().await.unwrap(), []);
}

pub(super) async fn an_engine_that_is_down_is_unavailable_to_a_launch(subject: Arc<Subject>) {
    let attempt = subject.attempt(once());
    subject.engine_down().await;
    let error = attempt.try_launch(&*subject.runner).await.unwrap_err();
    assert!(matches!(error, LaunchError::Unavailable(_)), "{error:?}");
    subject.engine_up().await;
    attempt.launch(&*subject.runner).await;
    ran_once(&subject, &attempt).await;
}

pub(super) async fn a_cancelled_launch_starts_nothing(subject: Arc<Subject>) {
    let attempt = subject.attempt(once());
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error =
        subject.runner.launch(&attempt.request(), &Steps::default(), &cancel).await.unwrap_err();
    assert!(matches!(error, LaunchError::Cancelled), "{error:?}");
    assert_eq!(subject.runner.list_owned().await.unwrap(), []);
}

pub(super) async fn a_start_that_fails_is_refused_and_stays_an_end(subject: Arc<Subject>) {
    for (entrypoint, code, reason) in [
        ("/no/such", "127", Reason::CommandNotFound),
        ("/etc", "126", Reason::CommandNotExecutable),
    ] {
        let more = serde_json::json!({"entrypoint": [entrypoint]});
        let attempt = subject.attempt(task_with("", &[("FAKE_START_FAILS", code)], &more));
        for _ in 0..2 {
            let error = attempt.try_launch(&*subject.runner).await.unwrap_err();
            assert!(matches!(&error, LaunchError::Refused(it) if it.reason == reason), "{error:?}");
        }
        let observed = subject.runner.inspect(&attempt.key, &attempt.engine).await.unwrap();
        let Observation::Exited { report, .. } = observed else { panic!("{observed:?}") };
        assert!(matches!(report.status, ExitStatus::StartFailed { .. }), "{report:?}");
        assert_eq!(report.status.code().unwrap().to_string(), code);
    }
}
