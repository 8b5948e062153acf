//! Following a task: no byte of its log lost and none twice, and its exit code is ours.

use std::sync::Arc;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::fake::{Answer, Fake};
use super::{command, finish, signal, supercargo};

const TASK: &str = "GET /api/v1/tasks/7";
const LOGS: &str = "GET /api/v1/tasks/7/logs";
const SUBMIT: &str = "POST /api/v1/tasks";

fn running() -> Answer {
    Answer::json(200, &json!({"id": "7", "state": "running", "attempt": 1}))
}

fn failed() -> Value {
    json!({"id": "7", "state": "failed", "exit_code": 3, "attempt": 1,
           "failure": {"reason": "exit_nonzero", "class": "user", "message": "exited with code 3"}})
}

fn submitted() -> Answer {
    Answer::json(201, &json!({"id": "7", "state": "queued", "attempt": 1}))
}

/// The question for the log, in a list of all questions.
fn log_questions(fake: &Fake) -> Vec<String> {
    let prefix = format!("{LOGS}?follow=true&");
    fake.lines().iter().filter_map(|it| it.strip_prefix(&prefix).map(str::to_owned)).collect()
}

#[tokio::test]
async fn run_prints_the_log_and_exits_with_the_code_of_the_task() {
    let fake = Fake::start().await;
    fake.on(SUBMIT, [submitted()]);
    fake.on(LOGS, [Answer::log(1, 0, "one\ntwo"), Answer::log(1, 7, "")]);
    fake.on(TASK, [Answer::json(200, &failed())]);
    let done = supercargo(&fake, &["run", "--image", "busybox", "--", "false"]).await.exits_with(3);
    assert_eq!(done.stdout, "one\ntwo");
    assert_eq!(done.stderr, "task 7 queued\ntask 7 failed: exited with code 3 (exit_nonzero)\n");

    let submit = &fake.asked()[0];
    assert_eq!(submit.headers["authorization"], "Bearer t0");
    assert_eq!(submit.headers["content-type"], "application/json");
    assert!(submit.headers["idempotency-key"].to_str().unwrap().starts_with("cli-"));
    let body: Value = serde_json::from_slice(&submit.body).unwrap();
    assert_eq!(body, json!({"image": "busybox", "command": ["false"]}));
}

#[tokio::test]
async fn a_broken_connection_goes_on_at_the_byte_where_it_broke() {
    let fake = Fake::start().await;
    fake.on(SUBMIT, [submitted()]);
    fake.on(
        LOGS,
        [
            Answer::log(1, 0, "one\ntw").broken(),
            Answer::log(1, 6, "o\nth").broken(),
            Answer::log(1, 10, "ree\n"),
            Answer::log(1, 14, ""),
        ],
    );
    fake.on(TASK, [Answer::json(200, &json!({"id": "7", "state": "succeeded", "exit_code": 0}))]);
    let done = supercargo(&fake, &["run", "--image", "busybox"]).await.exits_with(0);
    assert_eq!(done.stdout, "one\ntwo\nthree\n");
    assert_eq!(
        log_questions(&fake),
        ["attempt=1&offset=0", "attempt=1&offset=6", "attempt=1&offset=10", "attempt=1&offset=14"]
    );
}

#[tokio::test]
async fn a_restart_on_another_port_is_followed() {
    let fake = Fake::start().await;
    let next = fake.successor().await;
    fake.on(SUBMIT, [submitted()]);
    // A service that stops removes its file. What listens at the default address is not asked then.
    let restart = (fake.withdraw(), next.announce());
    fake.on(
        LOGS,
        [
            Answer::log(1, 0, "one\n").broken().doing(restart.0),
            Answer::bytes(503, "{}"),
            Answer::bytes(503, "{}").doing(restart.1),
        ],
    );
    next.on(LOGS, [Answer::log(1, 4, "two\n"), Answer::log(1, 8, "")]);
    next.on(TASK, [Answer::json(200, &failed())]);
    let done = supercargo(&fake, &["run", "--image", "busybox"]).await.exits_with(3);
    assert_eq!(done.stdout, "one\ntwo\n");
    assert!(done.stderr.contains(": trying again\nthe service is back\n"), "{done:?}");
    assert_eq!(log_questions(&next)[0], "attempt=1&offset=4");
}

#[tokio::test]
async fn a_stream_that_a_stopping_service_ends_is_not_the_end_of_the_log() {
    let fake = Fake::start().await;
    // The first stream ends while the task runs; the second one too, and the task ends before the
    // question for it: what it wrote meanwhile is still to be read.
    fake.on(
        LOGS,
        [
            Answer::log(1, 0, "one\n"),
            Answer::log(1, 4, "two\n"),
            Answer::log(1, 8, "three\n"),
            Answer::log(1, 14, ""),
        ],
    );
    fake.on(TASK, [running(), Answer::json(200, &failed())]);
    let done = supercargo(&fake, &["logs", "-f", "--attempt", "1", "7"]).await.exits_with(0);
    assert_eq!(done.stdout, "one\ntwo\nthree\n");
    assert_eq!(log_questions(&fake).len(), 4);
}

#[tokio::test]
async fn the_log_goes_on_with_the_next_attempt_also_over_a_break() {
    let fake = Fake::start().await;
    fake.on(SUBMIT, [submitted()]);
    fake.on(
        LOGS,
        [
            Answer::log(1, 0, "first try\n"),
            Answer::log(1, 10, ""),
            Answer::log(2, 0, "second").broken(),
            Answer::log(2, 6, " try\n"),
            Answer::log(2, 11, ""),
        ],
    );
    let mut ended = failed();
    ended["attempt"] = json!(2);
    let second = json!({"id": "7", "state": "running", "attempt": 2});
    fake.on(TASK, [Answer::json(200, &second), Answer::json(200, &ended)]);
    let done = supercargo(&fake, &["run", "--image", "busybox"]).await.exits_with(3);
    assert_eq!(done.stdout, "first try\nsecond try\n");
    assert_eq!(
        log_questions(&fake),
        [
            "attempt=1&offset=0",
            "attempt=1&offset=10",
            "attempt=2&offset=0",
            "attempt=2&offset=6",
            "attempt=2&offset=11"
        ]
    );
}

#[tokio::test]
async fn every_attempt_of_a_task_that_is_over_can_be_read_from_the_first_on() {
    let fake = Fake::start().await;
    fake.on(
        LOGS,
        [
            Answer::log(1, 0, "one\n"),
            Answer::log(1, 4, ""),
            Answer::log(2, 0, ""),
            Answer::log(3, 0, "three\n"),
            Answer::log(3, 6, ""),
        ],
    );
    let mut ended = failed();
    ended["attempt"] = json!(3);
    fake.on(TASK, [Answer::json(200, &ended)]);
    let done = supercargo(&fake, &["logs", "-f", "--attempt", "1", "7"]).await.exits_with(0);
    assert_eq!(done.stdout, "one\nthree\n");
}

#[tokio::test]
async fn without_a_number_the_log_is_that_of_the_latest_attempt() {
    let fake = Fake::start().await;
    fake.on(LOGS, [Answer::log(4, 0, "four\n"), Answer::log(4, 5, "")]);
    let mut ended = failed();
    ended["attempt"] = json!(4);
    fake.on(TASK, [Answer::json(200, &ended)]);
    let done = supercargo(&fake, &["logs", "-f", "7"]).await.exits_with(0);
    assert_eq!(done.stdout, "four\n");
    assert_eq!(log_questions(&fake)[0], "attempt=4&offset=0");
}

#[tokio::test]
async fn a_log_that_is_not_there_is_an_error_and_not_an_empty_one() {
    let fake = Fake::start().await;
    fake.on(
        LOGS,
        [Answer::json(404, &json!({"detail": "there is no attempt 5: the latest is 4"}))],
    );
    let done = supercargo(&fake, &["logs", "-f", "--attempt", "5", "7"]).await.exits_with(2);
    assert_eq!(done.stderr, "error: there is no attempt 5: the latest is 4\n");
    fake.on(LOGS, [Answer::log(1, 0, "one\n")]);
    let done = supercargo(&fake, &["logs", "-f", "--attempt", "5", "7"]).await.exits_with(5);
    assert_eq!(done.stdout, "");
}

#[tokio::test]
async fn bytes_that_come_again_are_not_printed_again() {
    let fake = Fake::start().await;
    fake.on(
        LOGS,
        [
            Answer::log(1, 0, "one\ntw").broken(),
            Answer::log(1, 2, "e\ntwo\n"),
            Answer::log(1, 8, ""),
        ],
    );
    fake.on(TASK, [Answer::json(200, &failed())]);
    let done = supercargo(&fake, &["logs", "-f", "--attempt", "1", "7"]).await.exits_with(0);
    assert_eq!(done.stdout, "one\ntwo\n");
}

#[tokio::test]
async fn a_task_that_never_started_has_an_empty_log_and_still_an_end() {
    let fake = Fake::start().await;
    fake.on(SUBMIT, [submitted()]);
    fake.on(LOGS, [Answer::log(1, 0, "")]);
    fake.on(TASK, [running(), Answer::json(200, &json!({"id": "7", "state": "cancelled"}))]);
    let done = supercargo(&fake, &["run", "--image", "busybox"]).await.exits_with(3);
    assert_eq!(done.stdout, "");
    assert!(done.stderr.ends_with("task 7 cancelled\n"));
}

#[tokio::test]
async fn with_json_the_log_is_an_aside() {
    let fake = Fake::start().await;
    fake.on(SUBMIT, [submitted()]);
    fake.on(LOGS, [Answer::log(1, 0, "one\n"), Answer::log(1, 4, "")]);
    fake.on(TASK, [Answer::json(200, &failed())]);
    let args = ["run", "--image", "busybox", "--output", "json", "--quiet"];
    let done = supercargo(&fake, &args).await.exits_with(3);
    assert_eq!(serde_json::from_str::<Value>(&done.stdout).unwrap(), failed());
    assert_eq!(done.stderr, "one\n");
}

#[tokio::test]
async fn an_interrupt_leaves_the_task_running_and_says_how_to_come_back() {
    let fake = Fake::start().await;
    let streaming = Arc::new(Notify::new());
    fake.on(TASK, [running()]);
    fake.on(LOGS, [Answer::log(1, 0, "one\n").open().tells(&streaming)]);
    let child = command(fake.data_dir(), &["run", "--attach", "7"]).spawn().unwrap();
    streaming.notified().await;
    signal(&child, Signal::INT);
    let done = finish(child).await.exits_with(130);
    assert!(done.stderr.contains("task 7 goes on: `supercargo run --attach 7`"), "{done:?}");
    assert!(!fake.lines().iter().any(|it| it.contains("cancel")));
}

#[tokio::test]
async fn an_interrupt_cancels_the_task_where_that_is_asked_for() {
    let fake = Fake::start().await;
    let streaming = Arc::new(Notify::new());
    fake.on(
        TASK,
        [running(), Answer::json(200, &json!({"id": "7", "state": "cancelled", "exit_code": 143}))],
    );
    fake.on(
        LOGS,
        [
            Answer::log(1, 0, "one\n").open().tells(&streaming),
            Answer::log(1, 4, "bye\n"),
            Answer::log(1, 8, ""),
        ],
    );
    fake.on(
        "POST /api/v1/tasks/7/cancel",
        [Answer::json(202, &json!({"id": "7", "state": "running"}))],
    );
    let args = ["run", "--attach", "7", "--cancel-on-interrupt"];
    let child = command(fake.data_dir(), &args).spawn().unwrap();
    streaming.notified().await;
    signal(&child, Signal::INT);
    let done = finish(child).await.exits_with(3);
    assert!(done.stdout.ends_with("bye\n"), "{done:?}");
    assert!(done.stderr.contains("cancelling task 7\n"), "{done:?}");
}

#[tokio::test]
async fn a_second_interrupt_leaves_the_task_to_its_end() {
    let fake = Fake::start().await;
    let (streaming, again) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    fake.on(TASK, [running()]);
    fake.on(
        LOGS,
        [
            Answer::log(1, 0, "one\n").open().tells(&streaming),
            Answer::log(1, 4, "").open().tells(&again),
        ],
    );
    fake.on(
        "POST /api/v1/tasks/7/cancel",
        [Answer::json(202, &json!({"id": "7", "state": "running"}))],
    );
    let args = ["run", "--attach", "7", "--cancel-on-interrupt"];
    let child = command(fake.data_dir(), &args).spawn().unwrap();
    streaming.notified().await;
    signal(&child, Signal::INT);
    again.notified().await;
    signal(&child, Signal::INT);
    let done = finish(child).await.exits_with(130);
    let said = "task 7 ends without being watched: `supercargo run --attach 7` comes back to it\n";
    assert!(done.stderr.ends_with(said), "{done:?}");
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_command_in_silence() {
    let fake = Fake::start().await;
    let (asked, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    // More than a pipe holds: for a moment others may have its end too, by a fork that is no exec yet.
    let log = Answer::bytes(200, vec![b'\n'; 1 << 20]);
    fake.on(LOGS, [log.tells(&asked).behind(&gate)]);
    let mut child = command(fake.data_dir(), &["logs", "7"]).spawn().unwrap();
    asked.notified().await;
    drop(child.stdout.take());
    gate.notify_one();
    let done = finish(child).await.exits_with(141);
    assert_eq!(done.stderr, "");
}

#[tokio::test]
async fn following_ends_after_the_time_that_was_given() {
    let fake = Fake::start().await;
    fake.on(TASK, [running()]);
    fake.on(LOGS, [Answer::log(1, 0, "one\n").open()]);
    let args = ["run", "--attach", "7", "--timeout", "1ms"];
    let done = supercargo(&fake, &args).await.exits_with(4);
    assert!(done.stderr.contains("goes on: `supercargo run --attach 7`"), "{done:?}");
}
