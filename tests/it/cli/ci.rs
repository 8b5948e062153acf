//! What a CI system gets: exit codes, a JUnit file, and its own marks where it reads them.

use std::path::Path;
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::fake::{Answer, Fake};
use super::{Done, command, finish, signal, supercargo};

const TASK: &str = "GET /api/v1/tasks/7";
const LOGS: &str = "GET /api/v1/tasks/7/logs";
const EVENTS: &str = "GET /api/v1/tasks/7/events";
const SUBMIT: &str = "POST /api/v1/tasks";

fn submitted() -> Answer {
    Answer::json(201, &json!({"id": "7", "name": "count", "state": "queued", "attempt": 1}))
}

fn ended(state: &str, exit_code: Option<i64>) -> Value {
    let mut task = json!({"id": "7", "name": "count", "state": state, "attempt": 1,
        "timings": {"started_at": "2026-11-21T09:00:00Z", "finished_at": "2026-11-21T09:00:01.5Z"}});
    if let Some(code) = exit_code {
        task["exit_code"] = json!(code);
    }
    if matches!(state, "failed" | "cancelled") {
        task["failure"] = json!({"reason": "exit_nonzero", "class": "user",
            "message": "exited with code 3", "log_tail": ["::error::boo"]});
    }
    task
}

async fn service(state: &str, exit_code: Option<i64>) -> Fake {
    let fake = Fake::start().await;
    fake.on(SUBMIT, [submitted()]);
    fake.on(
        LOGS,
        [
            Answer::lines(1, &[(0, "stdout", "one"), (4, "stderr", "::error::boo")]),
            Answer::lines(1, &[]),
        ],
    );
    fake.on(TASK, [Answer::json(200, &ended(state, exit_code))]);
    fake
}

async fn run_in(fake: &Fake, vars: &[(&str, &str)], args: &[&str]) -> Done {
    let mut command = command(fake.data_dir(), args);
    command.envs(vars.iter().copied());
    finish(command.spawn().unwrap()).await
}

#[tokio::test]
async fn the_exit_code_says_how_it_ended() {
    for (state, exit_code, code) in [
        ("succeeded", Some(0), 0),
        ("skipped", Some(99), 0),
        ("failed", Some(3), 3),
        ("failed", Some(137), 137),
        ("failed", Some(0), 1),
        ("failed", None, 1),
        ("cancelled", Some(143), 3),
        ("cancelled", None, 3),
    ] {
        for args in [
            &["run", "a"][..],
            &["submit", "--wait", "--follow", "--image", "a"],
            &["submit", "--wait", "--image", "a"],
            &["run", "--attach", "7"],
            &["get", "7", "--wait"],
            &["wait", "7"],
        ] {
            let fake = service(state, exit_code).await;
            let done = supercargo(&fake, args).await;
            assert_eq!(done.code, Some(code), "{state} {exit_code:?} {args:?}: {done:?}");
        }
    }
}

#[tokio::test]
async fn a_junit_file_is_written_however_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("junit.xml");
    let junit = file.to_str().unwrap();
    let taken = || {
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        text
    };
    let fake = service("failed", Some(3)).await;
    supercargo(&fake, &["run", "--junit", junit, "a"]).await.exits_with(3);
    let text = taken();
    for part in [
        r#"<testcase name="count" classname="supercargo" time="1.500">"#,
        r#"<property name="id" value="7"/>"#,
        r#"<failure message="exited with code 3" type="exit_nonzero">"#,
        "<system-out>one\n::error::boo\n</system-out>",
        r#"tests="1" failures="1" errors="0" skipped="0""#,
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }

    let fake = service("succeeded", Some(0)).await;
    supercargo(&fake, &["submit", "--junit", junit, "--image", "a"]).await.exits_with(0);
    assert!(taken().contains(r#"failures="0" errors="0""#));
    supercargo(&fake, &["wait", "--junit", junit, "7"]).await.exits_with(0);
    assert!(taken().contains(r#"<property name="state" value="succeeded"/>"#));

    fake.on(LOGS, [Answer::lines(1, &[(0, "stdout", "one")]).open()]);
    let args = ["run", "--junit", junit, "--timeout", "1500ms", "a"];
    supercargo(&fake, &args).await.exits_with(4);
    let text = taken();
    assert!(text.contains("type=\"timed_out_waiting\"") && text.contains("one\n"), "{text}");

    let problem = json!({"detail": "image is empty", "code": "spec_invalid"});
    fake.on(SUBMIT, [Answer::json(422, &problem)]);
    supercargo(&fake, &["run", "--junit", junit, "--name", "n", "a"]).await.exits_with(2);
    let text = taken();
    assert!(text.contains(r#"name="n""#) && text.contains("image is empty"), "{text}");

    // One that can't be written is told before anything runs.
    let fake = service("failed", Some(3)).await;
    let done = supercargo(&fake, &["run", "--junit", "/nowhere/j.xml", "a"]).await.exits_with(2);
    assert!(done.stderr.contains("there is no folder /nowhere: make it first"), "{done:?}");
    assert!(fake.asked().is_empty(), "something was asked for: {:?}", fake.lines());
}

#[tokio::test]
async fn on_github_nothing_in_a_log_is_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let summary = folder.path().join("summary.md");
    std::fs::write(&summary, "before\n").unwrap();
    let vars = [("GITHUB_ACTIONS", "true"), ("GITHUB_STEP_SUMMARY", summary.to_str().unwrap())];
    let fake = service("failed", Some(3)).await;
    let done = run_in(&fake, &vars, &["run", "a"]).await.exits_with(3);
    assert_eq!(done.stdout, "one\n", "stdout is the task's");
    let lines: Vec<&str> = done.stderr.lines().collect();
    let token = lines[2].strip_prefix("::stop-commands::").unwrap();
    assert!(token.len() >= 32, "{token}");
    let resumed = format!("::{token}::");
    assert_eq!(
        lines,
        [
            "task 7 queued",
            "::group::log of count (7)",
            lines[2],
            "::error::boo",
            &resumed,
            "::endgroup::",
            "task 7 failed after 1.50 s: exited with code 3 (exit_nonzero)",
            "::error title=count%3A failed::exited with code 3%0A%0Aone%0A::error::boo%0A%0Atask 7",
        ]
    );
    assert_eq!(
        std::fs::read_to_string(&summary).unwrap(),
        "before\n| Task | State | Exit code | Time | |\n|---|---|---|---|---|\n\
         | count `7` | failed | 3 | 1.5 s | exited with code 3 |\n\n"
    );

    let fake = service("succeeded", Some(0)).await;
    let other = run_in(&fake, &vars, &["run", "-q", "a"]).await.exits_with(0);
    assert!(!other.stderr.contains("::error title"), "{other:?}");
    assert!(!other.stderr.contains(token), "a token is used once");

    let done = run_in(&fake, &vars, &["logs", "7"]).await.exits_with(0);
    assert!(done.stderr.contains("::stop-commands::"), "{done:?}");
}

#[tokio::test]
async fn on_gitlab_a_log_is_a_section() {
    let fake = service("failed", Some(3)).await;
    let done = run_in(&fake, &[("GITLAB_CI", "true")], &["run", "-q", "a"]).await.exits_with(3);
    assert_eq!(done.stdout, "one\n");
    let (start, end) = (done.stderr.find("section_start:"), done.stderr.find("section_end:"));
    let line = done.stderr.find("::error::boo");
    assert!(start < line && line < end && start.is_some(), "{done:?}");
}

#[tokio::test]
async fn the_ci_is_not_taken_for_another() {
    let fake = service("failed", Some(3)).await;
    let done = run_in(&fake, &[("CI", "true")], &["run", "-q", "a"]).await.exits_with(3);
    assert_eq!(done.stderr, "::error::boo\n");
}

/// A task that is pulled, runs, and ends once the last of its changes was looked at.
#[tokio::test]
async fn changes_of_state_are_told_a_line_each() {
    let fake = Fake::start().await;
    let (over, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut queued = json!({"id": "7", "name": "count", "state": "queued", "attempt": 1});
    // That it is held up is news, also where the first answer says so.
    queued["conditions"] = json!([{"type": "target_unavailable", "message": "connection refused"}]);
    fake.on(SUBMIT, [Answer::json(201, &queued)]);
    let log = Answer::lines(1, &[]).behind(&gate);
    fake.on(LOGS, [log, Answer::lines(1, &[])]);
    let event = |reason: &str| json!({"items": [{"attempt": 1, "reason": reason, "message": "pulls \"a\""}]});
    fake.on(
        EVENTS,
        [
            Answer::json(200, &event("submitted")),
            Answer::json(200, &event("pulling")),
            Answer::json(200, &event("pulling")),
            Answer::json(200, &event("started")),
        ],
    );
    let at = |state: &str| json!({"id": "7", "state": state, "attempt": 1});
    let mut waits = at("queued");
    waits["conditions"] = json!([{"type": "target_unavailable", "message": "connection refused"}]);
    let release = Arc::clone(&gate);
    let running = Answer::json(200, &at("running")).doing(move || release.notify_one());
    fake.on(
        TASK,
        [
            Answer::json(200, &waits),
            Answer::json(200, &at("starting")),
            Answer::json(200, &at("starting")),
            running.tells(&over),
            Answer::json(200, &ended("succeeded", Some(0))),
        ],
    );
    let done = supercargo(&fake, &["run", "a"]).await.exits_with(0);
    let expected = "task 7 queued\n\
        task 7 target unavailable: connection refused\n\
        task 7 pulling: pulls \"a\"\n\
        task 7 running\n\
        task 7 succeeded after 1.50 s\n";
    assert_eq!(done.stderr, expected);
}

#[tokio::test]
async fn a_ci_that_cancels_its_job_is_like_ctrl_c() {
    for (extra, code, said) in [
        (&[][..], 130, "task 7 goes on: `supercargo run --attach 7` comes back to it"),
        (&["--cancel-on-interrupt"], 3, "cancelling task 7"),
    ] {
        let fake = service("cancelled", None).await;
        let streaming = Arc::new(Notify::new());
        fake.on(LOGS, [Answer::lines(1, &[]).open().tells(&streaming), Answer::lines(1, &[])]);
        fake.on("POST /api/v1/tasks/7/cancel", [Answer::json(202, &ended("cancelled", None))]);
        let folder = tempfile::tempdir().unwrap();
        let junit = folder.path().join("j.xml");
        let args = [&["run", "--junit", junit.to_str().unwrap()], extra, &["a"]].concat();
        let child = command(fake.data_dir(), &args).spawn().unwrap();
        streaming.notified().await;
        signal(&child, Signal::TERM);
        let done = finish(child).await.exits_with(code);
        assert!(done.stderr.contains(said), "{done:?}");
        assert!(has_error(&junit), "{done:?}");
        let cancels = fake.lines().iter().filter(|it| it.contains("cancel")).count();
        assert_eq!(cancels, extra.len());
    }
}

fn has_error(junit: &Path) -> bool {
    std::fs::read_to_string(junit).unwrap().contains(r#"errors="1""#)
}

#[tokio::test]
async fn an_interrupt_before_the_answer_says_how_to_find_out() {
    let fake = Fake::start().await;
    let (asked, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    fake.on(SUBMIT, [submitted().tells(&asked).behind(&gate)]);
    let child = command(fake.data_dir(), &["run", "a"]).spawn().unwrap();
    asked.notified().await;
    signal(&child, Signal::INT);
    let done = finish(child).await.exits_with(130);
    let key = fake.asked()[0].headers["idempotency-key"].to_str().unwrap().to_owned();
    assert!(done.stderr.contains(&format!("--idempotency-key {key}")), "{done:?}");
}
