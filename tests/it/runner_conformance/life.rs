use std::sync::Arc;

use serde_json::json;
use supercargo::domain::exit::ExitStatus;
use supercargo::ids::{AttemptId, InstallationId};
use supercargo::runner::{
    Disposal, EngineId, EngineState, KillAck, KillMode, Observation, RunnerError, SandboxKey,
    WaitError,
};

use crate::support::sandbox::{endless, log, task, task_with, text};
use crate::support::subject::Subject;
use crate::support::{eventually, within};

/// A node sends SIGTERM, and SIGKILL two seconds behind it, whatever it is asked for.
fn is_killed(status: &ExitStatus) -> bool {
    matches!(status, ExitStatus::Code { code: 137 | 143, oom_killed: false })
}

pub(super) async fn absent_is_said_only_by_the_same_engine(subject: Arc<Subject>) {
    let key = SandboxKey { installation: subject.installation, attempt: AttemptId::generate() };
    let observed = subject.runner.inspect(&key, &subject.engine).await.unwrap();
    assert_eq!(observed, Observation::Absent);
    let other = EngineId("another".to_owned());
    let error = subject.runner.inspect(&key, &other).await.unwrap_err();
    let RunnerError::OtherEngine { expected, found } = error else { panic!("{error:?}") };
    assert_eq!((expected, found), (other, subject.engine.clone()));
}

pub(super) async fn an_engine_that_is_down_says_nothing(subject: Arc<Subject>) {
    let attempt = subject.attempt(task("true", &[]));
    subject.engine_down().await;
    let runner = &*subject.runner;
    let inspected = within("inspect", runner.inspect(&attempt.key, &attempt.engine)).await;
    assert!(matches!(inspected, Err(RunnerError::Unavailable(_))), "{inspected:?}");
    assert!(matches!(runner.list_owned().await, Err(RunnerError::Unavailable(_))));
    assert!(matches!(
        runner.kill(&attempt.key, KillMode::Force).await,
        Err(RunnerError::Unavailable(_))
    ));
    for disposal in [Disposal::Remove, Disposal::Keep] {
        let result = runner.cleanup(&attempt.key, disposal).await;
        assert!(matches!(result, Err(RunnerError::Unavailable(_))), "{result:?}");
    }
    subject.engine_up().await;
    assert_eq!(runner.inspect(&attempt.key, &attempt.engine).await.unwrap(), Observation::Absent);
}

pub(super) async fn the_state_of_the_engine_is_told(subject: Arc<Subject>) {
    let state = || subject.runner.engine().borrow().clone();
    assert!(matches!(state(), EngineState::Ready { id, .. } if id == subject.engine));
    subject.engine_down().await;
    assert!(matches!(state(), EngineState::Down { why, .. } if !why.is_empty()));
    subject.engine_up().await;
    assert!(matches!(state(), EngineState::Ready { id, .. } if id == subject.engine));
}

pub(super) async fn wait_goes_on_while_the_engine_is_away(subject: Arc<Subject>) {
    let attempt = subject.attempt(endless());
    let launched = attempt.launch(&*subject.runner).await;
    let waiting = within("wait", subject.runner.wait(&attempt.key, &launched.handle));
    let meanwhile = async {
        subject.engine_down().await;
        subject.engine_up().await;
        subject.runner.kill(&attempt.key, KillMode::Force).await.unwrap()
    };
    let (report, ack) = tokio::join!(waiting, meanwhile);
    assert_eq!(ack, KillAck::Sent);
    assert!(is_killed(&report.unwrap().status));
}

pub(super) async fn vanished_is_not_an_exit(subject: Arc<Subject>) {
    let attempt = subject.attempt(endless());
    let launched = attempt.launch(&*subject.runner).await;
    let waiting = within("wait", subject.runner.wait(&attempt.key, &launched.handle));
    let (result, ()) = tokio::join!(waiting, subject.remove_behind_its_back(&attempt.key));
    // The engine may tell of the death before it forgets the container.
    match result {
        Err(WaitError::Vanished) => {}
        Ok(report) => assert!(is_killed(&report.status), "{report:?}"),
        Err(other) => panic!("{other:?}"),
    }
    let again = within("wait", subject.runner.wait(&attempt.key, &launched.handle)).await;
    assert!(matches!(again, Err(WaitError::Vanished)), "{again:?}");
    let observed = subject.runner.inspect(&attempt.key, &attempt.engine).await.unwrap();
    assert_eq!(observed, Observation::Absent);
}

pub(super) async fn wait_works_before_after_and_concurrently(subject: Arc<Subject>) {
    let attempt = subject
        .attempt(task("sleep 0.3; exit 4", &[("FAKE_RUN_FOR", "300ms"), ("FAKE_EXIT", "4")]));
    let launched = attempt.launch(&*subject.runner).await;
    let other = subject.another().await;
    let (a, b, c) = tokio::join!(
        attempt.exit_code(&*subject.runner, &launched.handle),
        attempt.exit_code(&*subject.runner, &launched.handle),
        attempt.exit_code(&*other, &launched.handle),
    );
    let after = attempt.exit_code(&*subject.runner, &launched.handle).await;
    assert_eq!([a, b, c, after], [Some(4); 4]);
}

pub(super) async fn a_dropped_wait_changes_nothing(subject: Arc<Subject>) {
    let attempt = subject.attempt(endless());
    let launched = attempt.launch(&*subject.runner).await;
    for _ in 0..3 {
        let waiting = subject.runner.wait(&attempt.key, &launched.handle);
        let short = tokio::time::timeout(std::time::Duration::from_millis(30), waiting).await;
        assert!(short.is_err(), "{short:?}");
    }
    let observed = subject.runner.inspect(&attempt.key, &attempt.engine).await.unwrap();
    assert!(matches!(observed, Observation::Running { .. }), "{observed:?}");
}

pub(super) async fn a_graceful_kill_is_answered_by_the_task(subject: Arc<Subject>) {
    let script = "trap 'echo it was told; exit 7' TERM; echo line 1; while :; do sleep 0.1; done";
    let fake = [("FAKE_RUN_FOR", "1h"), ("FAKE_ON_TERM", "7"), ("FAKE_LOG_LINES", "1")];
    let attempt = subject.attempt(task(script, &fake));
    let launched = attempt.launch(&*subject.runner).await;
    eventually("the trap is set", || async {
        !log(&*subject.runner, &launched.handle, None, false).await.is_empty()
    })
    .await;
    let ack = subject.runner.kill(&attempt.key, KillMode::Graceful).await.unwrap();
    assert_eq!(ack, KillAck::Sent);
    let code = attempt.exit_code(&*subject.runner, &launched.handle).await;
    if subject.is_kubernetes() {
        // Older nodes don't hand on the code of a pod that was stopped by its deadline.
        assert!(matches!(code, Some(7) | None), "{code:?}");
        let said = text(&log(&*subject.runner, &launched.handle, None, false).await);
        assert_eq!(said, "line 1\nit was told\n");
    } else {
        assert_eq!(code, Some(7));
    }
}

pub(super) async fn a_task_may_ignore_the_graceful_kill_and_not_the_other(subject: Arc<Subject>) {
    let script = "trap '' TERM; echo line 1; while :; do sleep 0.1; done";
    let fake = [("FAKE_RUN_FOR", "1h"), ("FAKE_IGNORE_TERM", "1"), ("FAKE_LOG_LINES", "1")];
    let attempt = subject.attempt(task(script, &fake));
    let launched = attempt.launch(&*subject.runner).await;
    eventually("the trap is set", || async {
        !log(&*subject.runner, &launched.handle, None, false).await.is_empty()
    })
    .await;
    assert_eq!(subject.runner.kill(&attempt.key, KillMode::Graceful).await.unwrap(), KillAck::Sent);
    let observed = subject.runner.inspect(&attempt.key, &attempt.engine).await.unwrap();
    assert!(matches!(observed, Observation::Running { .. }), "{observed:?}");
    assert_eq!(subject.runner.kill(&attempt.key, KillMode::Force).await.unwrap(), KillAck::Sent);
    let code = attempt.exit_code(&*subject.runner, &launched.handle).await;
    assert!(code == Some(137) || (subject.is_kubernetes() && code.is_none()), "{code:?}");
}

pub(super) async fn a_kill_of_what_does_not_run_says_so(subject: Arc<Subject>) {
    let attempt = subject.attempt(task("true", &[]));
    for mode in [KillMode::Graceful, KillMode::Force] {
        assert_eq!(subject.runner.kill(&attempt.key, mode).await.unwrap(), KillAck::AlreadyGone);
    }
    let launched = attempt.launch(&*subject.runner).await;
    attempt.exit_code(&*subject.runner, &launched.handle).await;
    for mode in [KillMode::Graceful, KillMode::Force] {
        assert_eq!(subject.runner.kill(&attempt.key, mode).await.unwrap(), KillAck::AlreadyGone);
    }
    assert_eq!(attempt.exit_code(&*subject.runner, &launched.handle).await, Some(0));
}

pub(super) async fn cleanup_is_idempotent_and_leaves_nothing(subject: Arc<Subject>) {
    let attempt = subject.attempt(endless());
    attempt.launch(&*subject.runner).await;
    let other = subject.another().await;
    // Two at once, of a running one, and once more after it.
    let (a, b) = tokio::join!(
        subject.runner.cleanup(&attempt.key, Disposal::Remove),
        other.cleanup(&attempt.key, Disposal::Remove),
    );
    a.unwrap();
    b.unwrap();
    let observed = subject.runner.inspect(&attempt.key, &attempt.engine).await.unwrap();
    assert_eq!(observed, Observation::Absent);
    for disposal in [Disposal::Remove, Disposal::Keep] {
        subject.runner.cleanup(&attempt.key, disposal).await.unwrap();
    }
    assert_eq!(subject.runner.list_owned().await.unwrap(), []);
}

pub(super) async fn cleanup_after_half_a_launch_leaves_nothing(subject: Arc<Subject>) {
    let attempt = subject.attempt(endless());
    subject.lose_next_create();
    attempt.try_launch(&*subject.runner).await.unwrap_err();
    subject.runner.cleanup(&attempt.key, Disposal::Remove).await.unwrap();
    assert_eq!(subject.runner.list_owned().await.unwrap(), []);
}

pub(super) async fn a_kept_one_is_absent_and_listed_and_its_log_stays(subject: Arc<Subject>) {
    let attempt = subject.attempt(task("echo line 1", &[("FAKE_LOG_LINES", "1")]));
    let launched = attempt.launch(&*subject.runner).await;
    attempt.exit_code(&*subject.runner, &launched.handle).await;
    for _ in 0..2 {
        subject.runner.cleanup(&attempt.key, Disposal::Keep).await.unwrap();
        let observed = subject.runner.inspect(&attempt.key, &attempt.engine).await.unwrap();
        assert_eq!(observed, Observation::Absent);
        let owned = subject.runner.list_owned().await.unwrap();
        assert_eq!(owned.len(), 1);
        assert!(
            owned[0].kept
                && owned[0].attempt == attempt.key.attempt
                && owned[0].task == attempt.task
        );
    }
    assert_eq!(text(&log(&*subject.runner, &launched.handle, None, false).await), "line 1\n");
    subject.runner.cleanup(&attempt.key, Disposal::Remove).await.unwrap();
    assert_eq!(subject.runner.list_owned().await.unwrap(), []);
}

pub(super) async fn a_running_one_is_not_put_aside(subject: Arc<Subject>) {
    let attempt = subject.attempt(endless());
    attempt.launch(&*subject.runner).await;
    subject.runner.cleanup(&attempt.key, Disposal::Keep).await.unwrap_err();
    let observed = subject.runner.inspect(&attempt.key, &attempt.engine).await.unwrap();
    assert!(matches!(observed, Observation::Running { .. }), "{observed:?}");
}

pub(super) async fn list_owned_has_this_installation_only(subject: Arc<Subject>) {
    let attempts = [subject.attempt(task("true", &[])), subject.attempt(endless())];
    for attempt in &attempts {
        attempt.launch(&*subject.runner).await;
    }
    let mut owned = subject.runner.list_owned().await.unwrap();
    owned.sort_by_key(|it| it.attempt);
    let found: Vec<_> = owned.iter().map(|it| (it.attempt, it.task, it.kept)).collect();
    assert_eq!(found, attempts.each_ref().map(|it| (it.key.attempt, it.task, false)));
    // Nothing of it is another installation's to see or to touch.
    let other = InstallationId::generate();
    let key = SandboxKey { installation: other, attempt: attempts[1].key.attempt };
    assert_eq!(subject.runner.kill(&key, KillMode::Force).await.unwrap(), KillAck::AlreadyGone);
    subject.runner.cleanup(&key, Disposal::Remove).await.unwrap();
    let observed = subject.runner.inspect(&attempts[1].key, &subject.engine).await.unwrap();
    assert!(matches!(observed, Observation::Running { .. }), "{observed:?}");
}

pub(super) async fn death_for_memory_is_told(subject: Arc<Subject>) {
    let more = json!({"resources": {"memory": "16Mi"}});
    let attempt = subject.attempt(task_with("exec tail /dev/zero", &[("FAKE_OOM", "1")], &more));
    let launched = attempt.launch(&*subject.runner).await;
    let report = within("wait", subject.runner.wait(&attempt.key, &launched.handle)).await.unwrap();
    assert_eq!(report.status, ExitStatus::Code { code: 137, oom_killed: true });
}

pub(super) async fn another_worker_adopts(subject: Arc<Subject>) {
    let script = "echo line 1; while :; do sleep 1; done";
    let more = json!({"init": true});
    let fake = [("FAKE_RUN_FOR", "1h"), ("FAKE_LOG_LINES", "1")];
    let attempt = subject.attempt(task_with(script, &fake, &more));
    let launched = attempt.launch(&*subject.runner).await;
    let other = subject.another().await;
    let observed = other.inspect(&attempt.key, &attempt.engine).await.unwrap();
    let Observation::Running { handle, .. } = observed else { panic!("{observed:?}") };
    assert_eq!(handle, launched.handle);
    // What is stored is JSON.
    let stored = serde_json::to_string(&handle).unwrap();
    let handle = serde_json::from_str(&stored).unwrap();
    eventually("its log is read", || async {
        !log(&*other, &handle, None, false).await.is_empty()
    })
    .await;
    assert_eq!(other.kill(&attempt.key, KillMode::Force).await.unwrap(), KillAck::Sent);
    assert!(matches!(attempt.exit_code(&*other, &handle).await, Some(137 | 143)));
}
