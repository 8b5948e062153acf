use std::sync::Arc;

use futures_util::StreamExt as _;
use serde_json::json;
use supercargo::domain::spec::TaskSpec;
use supercargo::runner::LogStream;

use crate::support::sandbox::{endless, log, task, task_with, text};
use crate::support::subject::Subject;
use crate::support::within;

const LINES: usize = 300;

fn lines() -> TaskSpec {
    let script = format!("i=1; while [ $i -le {LINES} ]; do echo line $i; i=$((i+1)); done");
    task(&script, &[("FAKE_LOG_LINES", &LINES.to_string())])
}

fn expected() -> String {
    (1..=LINES).map(|index| format!("line {index}\n")).collect::<Vec<_>>().concat()
}

pub(super) async fn the_log_is_whole_and_the_same_each_time(subject: Arc<Subject>) {
    let attempt = subject.attempt(lines());
    let launched = attempt.launch(&*subject.runner).await;
    attempt.exit_code(&*subject.runner, &launched.handle).await;
    let first = log(&*subject.runner, &launched.handle, None, false).await;
    assert_eq!(text(&first), expected());
    assert_eq!(log(&*subject.another().await, &launched.handle, None, false).await, first);
    assert_eq!(log(&*subject.runner, &launched.handle, None, true).await, first);
}

pub(super) async fn a_followed_log_ends_with_the_exit(subject: Arc<Subject>) {
    let script = "i=1; while [ $i -le 5 ]; do echo line $i; i=$((i+1)); sleep 0.1; done";
    let attempt =
        subject.attempt(task(script, &[("FAKE_LOG_LINES", "5"), ("FAKE_RUN_FOR", "500ms")]));
    let launched = attempt.launch(&*subject.runner).await;
    let followed = log(&*subject.runner, &launched.handle, None, true).await;
    assert_eq!(text(&followed), "line 1\nline 2\nline 3\nline 4\nline 5\n");
    assert_eq!(attempt.exit_code(&*subject.runner, &launched.handle).await, Some(0));
    assert_eq!(log(&*subject.runner, &launched.handle, None, false).await, followed);
}

pub(super) async fn a_log_resumes_without_loss_or_repetition(subject: Arc<Subject>) {
    let attempt = subject.attempt(lines());
    let launched = attempt.launch(&*subject.runner).await;
    attempt.exit_code(&*subject.runner, &launched.handle).await;
    let all = log(&*subject.runner, &launched.handle, None, false).await;
    for index in [0, 1, LINES / 2, LINES - 1] {
        for follow in [false, true] {
            let since = all[index].at;
            let rest = log(&*subject.runner, &launched.handle, Some(since), follow).await;
            let expected: Vec<_> = all.iter().filter(|it| it.at >= since).cloned().collect();
            assert_eq!(rest, expected, "from {index}");
        }
    }
    let after = all.iter().map(|it| it.at).max().unwrap() + 1;
    assert_eq!(log(&*subject.runner, &launched.handle, Some(after), false).await, []);
}

pub(super) async fn the_end_of_a_log_is_read_alone(subject: Arc<Subject>) {
    let attempt = subject.attempt(lines());
    let launched = attempt.launch(&*subject.runner).await;
    attempt.exit_code(&*subject.runner, &launched.handle).await;
    let all = log(&*subject.runner, &launched.handle, None, false).await;
    for count in [1, 2, LINES - 1, LINES, LINES + 1, 10 * LINES] {
        let end = subject.runner.log_end(&launched.handle, count).map(|it| it.unwrap());
        let end: Vec<_> = within("the end of the log", end.collect()).await;
        assert_eq!(end, all[LINES.saturating_sub(count)..], "the last {count}");
    }
}

pub(super) async fn the_streams_are_told_apart(subject: Arc<Subject>) {
    let script = "echo line 1; echo line 2; echo line 3 >&2";
    let attempt =
        subject.attempt(task(script, &[("FAKE_LOG_LINES", "3"), ("FAKE_STDERR_EVERY", "3")]));
    let launched = attempt.launch(&*subject.runner).await;
    attempt.exit_code(&*subject.runner, &launched.handle).await;
    let frames = log(&*subject.runner, &launched.handle, None, false).await;
    if subject.is_kubernetes() {
        // Its API has one stream of both, in the order in which its node came to read them.
        assert!(frames.iter().all(|it| it.stream == LogStream::Stdout));
        let text = text(&frames);
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["line 1", "line 2", "line 3"]);
        return;
    }
    let of = |stream| -> String {
        let frames: Vec<_> = frames.iter().filter(|it| it.stream == stream).cloned().collect();
        text(&frames)
    };
    assert_eq!(of(LogStream::Stdout), "line 1\nline 2\n");
    assert_eq!(of(LogStream::Stderr), "line 3\n");
}

pub(super) async fn a_followed_log_breaks_off_with_an_error_when_the_engine_goes(
    subject: Arc<Subject>,
) {
    for spec in [
        endless(),
        task_with(
            "echo line 1; while :; do sleep 1; done",
            &[("FAKE_RUN_FOR", "1h"), ("FAKE_LOG_LINES", "1")],
            &json!({"init": true}),
        ),
    ] {
        let attempt = subject.attempt(spec);
        let launched = attempt.launch(&*subject.runner).await;
        let mut frames = subject.runner.logs(&launched.handle, None, true);
        if attempt.spec.env.contains_key("FAKE_LOG_LINES") {
            within("a line", frames.next()).await.unwrap().unwrap();
        }
        let (next, ()) = tokio::join!(within("the end", frames.next()), subject.engine_down());
        assert!(next.unwrap().is_err());
        assert!(frames.next().await.is_none());
        subject.engine_up().await;
    }
}

pub(super) async fn an_empty_log_is_empty(subject: Arc<Subject>) {
    let attempt = subject.attempt(task("true", &[]));
    let launched = attempt.launch(&*subject.runner).await;
    assert_eq!(log(&*subject.runner, &launched.handle, None, true).await, []);
    assert_eq!(log(&*subject.runner, &launched.handle, None, false).await, []);
}
