//! The two streams of a task stay two, to the byte, over every interruption.

use serde_json::{Value, json};

use super::fake::{Answer, Fake};
use super::{command, finish, supercargo};

const TASK: &str = "GET /api/v1/tasks/7";
const LOGS: &str = "GET /api/v1/tasks/7/logs";
const SUBMIT: &str = "POST /api/v1/tasks";

fn submitted() -> Answer {
    Answer::json(201, &json!({"id": "7", "state": "queued", "attempt": 1}))
}

fn succeeded() -> Answer {
    Answer::json(200, &json!({"id": "7", "state": "succeeded", "exit_code": 0, "attempt": 1}))
}

#[tokio::test]
async fn what_went_to_stderr_goes_to_stderr() {
    let fake = Fake::start().await;
    fake.on(SUBMIT, [submitted()]);
    let log =
        Answer::lines(1, &[(0, "stdout", "one"), (4, "stderr", "two"), (8, "stdout", "three")]);
    fake.on(LOGS, [log, Answer::lines(1, &[])]);
    fake.on(TASK, [succeeded()]);
    for args in [
        &["run", "--quiet", "busybox", "true"][..],
        &["submit", "--follow", "-q", "--image", "busybox"],
    ] {
        let done = supercargo(&fake, args).await.exits_with(0);
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("one\nthree\n", "two\n"));
        fake.on(
            LOGS,
            [
                Answer::lines(
                    1,
                    &[(0, "stdout", "one"), (4, "stderr", "two"), (8, "stdout", "three")],
                ),
                Answer::lines(1, &[]),
            ],
        );
    }
    let asked = fake.asked();
    let log = asked.iter().find(|it| it.line.contains("/logs")).unwrap();
    assert_eq!(log.headers["accept"], "application/x-ndjson");
}

#[tokio::test]
async fn a_break_in_the_middle_of_a_line_loses_none_and_repeats_none() {
    let fake = Fake::start().await;
    fake.on(SUBMIT, [submitted()]);
    let cut = r#"{"stream":"stderr","attempt":1,"offset":4,"line":"tw"#;
    let whole = r#"{"stream":"stdout","attempt":1,"offset":0,"line":"one"}"#;
    let answer = |body: String| {
        Answer::bytes(200, body)
            .header("content-type", "application/x-ndjson")
            .header("supercargo-attempt", "1")
    };
    fake.on(
        LOGS,
        [
            answer(format!("{whole}\n{cut}")).broken(),
            // Begins before the place that was asked for.
            Answer::lines(1, &[(0, "stdout", "one"), (4, "stderr", "two")]).broken(),
            Answer::lines(1, &[(8, "stdout", "three")]),
            Answer::lines(1, &[]),
        ],
    );
    fake.on(TASK, [succeeded()]);
    let done = supercargo(&fake, &["run", "-q", "busybox"]).await.exits_with(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("one\nthree\n", "two\n"));
    let places: Vec<_> = fake
        .lines()
        .into_iter()
        .filter_map(|it| Some(it.split_once("follow=true&")?.1.to_owned()))
        .collect();
    assert_eq!(
        places,
        ["attempt=1&offset=0", "attempt=1&offset=4", "attempt=1&offset=8", "attempt=1&offset=14"]
    );
}

#[tokio::test]
async fn bytes_that_are_no_text_and_lines_that_do_not_end_come_through() {
    let fake = Fake::start().await;
    let body = concat!(
        r#"{"stream":"stdout","attempt":1,"offset":0,"line_base64":"/wB4"}"#,
        "\n",
        r#"{"stream":"stderr","attempt":1,"offset":4,"line":"10%","partial":true}"#,
        "\n",
        r#"{"stream":"stdout","attempt":1,"offset":7,"line":"\ttail\r","partial":true}"#,
        "\n"
    );
    let answer = Answer::bytes(200, body).header("content-type", "application/x-ndjson");
    fake.on(LOGS, [answer]);
    let child = command(fake.data_dir(), &["logs", "7"]).spawn().unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.stdout, b"\xff\x00x\n\ttail\r");
    assert_eq!(output.stderr, b"10%");

    // As JSON it is what the service wrote.
    let done = supercargo(&fake, &["logs", "7", "--output", "json"]).await.exits_with(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), (body, ""));
}

#[tokio::test]
async fn bytes_that_nobody_has_any_more_are_counted() {
    let fake = Fake::start().await;
    fake.on(LOGS, [Answer::lines(1, &[(0, "stdout", "one"), (9, "stdout", "two")])]);
    let done = supercargo(&fake, &["logs", "7"]).await.exits_with(0);
    assert_eq!(done.stdout, "one\ntwo\n");
    assert_eq!(done.stderr, "5 bytes of the log are missing here\n");
    // What was not asked for is not missing.
    let args = ["logs", "7", "--stream", "stdout", "--grep", "o", "--since", "10m", "--tail", "2"];
    let done = supercargo(&fake, &args).await.exits_with(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("one\ntwo\n", ""));
    let asked = fake.lines().pop().unwrap();
    assert_eq!(asked, format!("{LOGS}?tail=2&stream=stdout&since=10m&grep=o"));
}

#[tokio::test]
async fn the_log_of_another_container_and_of_all_of_them_is_asked_for() {
    let fake = Fake::start().await;
    fake.on(LOGS, [Answer::lines(1, &[(0, "stdout", "one")])]);
    let done = supercargo(&fake, &["logs", "7", "--container", "proxy"]).await.exits_with(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("one\n", ""));
    assert_eq!(fake.lines().pop().unwrap(), format!("{LOGS}?offset=0&container=proxy"));

    let line = |container: &str, offset: u64, text: &str| {
        let line = json!({"stream": "stdout", "container": container, "attempt": 1, "offset": offset, "line": text});
        format!("{line}\n")
    };
    let body =
        [line("setup", 0, "a"), line("main", 0, "b"), line("main", 2, "c"), line("setup", 2, "d")];
    let answer = Answer::bytes(200, body.concat()).header("content-type", "application/x-ndjson");
    fake.on(LOGS, [answer]);
    fake.on(TASK, [succeeded()]);
    let done = supercargo(&fake, &["logs", "-f", "7", "--container", "*"]).await.exits_with(0);
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("setup | a\nmain | b\nmain | c\nsetup | d\n", "")
    );
    let asked: Vec<_> = fake.lines().into_iter().filter(|it| it.contains("follow")).collect();
    assert_eq!(asked, [format!("{LOGS}?follow=true&container=*")]);
}

#[tokio::test]
async fn with_json_both_streams_are_an_aside() {
    let fake = Fake::start().await;
    fake.on(SUBMIT, [submitted()]);
    fake.on(
        LOGS,
        [Answer::lines(1, &[(0, "stdout", "one"), (4, "stderr", "two")]), Answer::lines(1, &[])],
    );
    fake.on(TASK, [succeeded()]);
    let args = ["run", "--output", "json", "-q", "busybox"];
    let done = finish(command(fake.data_dir(), &args).spawn().unwrap()).await.exits_with(0);
    assert_eq!(serde_json::from_str::<Value>(&done.stdout).unwrap()["state"], "succeeded");
    assert_eq!(done.stderr, "one\ntwo\n");
}
