//! Results, outputs, logs and events.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::json;
use supercargo::domain::outcome::{Output, OutputValue, StoredFile};
use supercargo::ids::TaskId;

use crate::support::api::{PANICS, TestApp};
use crate::support::worker::{TestWorker, failed, json_output, succeeded};
use crate::test_app;

const SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn report() -> Output {
    file("objects/1")
}

fn file(object_key: &str) -> Output {
    let value = OutputValue::File(StoredFile {
        object_key: object_key.to_owned(),
        media_type: "text/html".to_owned(),
        size: 5,
        sha256: SHA256.to_owned(),
        path: "/out/report.html".to_owned(),
    });
    Output { name: "report".to_owned(), value }
}

async fn completed(app: &TestApp, document: serde_json::Value, outputs: Vec<Output>) -> TaskId {
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit(&document).await;
    worker.complete(id, succeeded(), outputs).await;
    id
}

#[tokio::test]
async fn the_result_is_the_outputs_without_an_envelope() {
    let app = test_app!();
    let outputs = vec![json_output("words", json!({"n": 7})), report()];
    let id = completed(&app, json!({"image": "a", "name": "count"}), outputs).await;
    let result = app.get(&format!("/api/v1/tasks/{id}/result")).await;
    insta::assert_snapshot!(result.stable());
    let task = app.get(&format!("/api/v1/tasks/{id}")).await;
    assert_eq!(task.json()["outputs"], result.json());
    let list = app.get(&format!("/api/v1/tasks/{id}/outputs")).await;
    insta::assert_snapshot!(list.stable());
}

#[tokio::test]
async fn the_last_line_is_the_result_where_nothing_was_declared() {
    let app = test_app!();
    let last_line = || vec![json_output("last_line", json!("hello"))];
    let result = async |id: TaskId| app.get(&format!("/api/v1/tasks/{id}/result")).await;
    let bare = completed(&app, json!({"image": "a"}), last_line()).await;
    let answer = result(bare).await;
    assert_eq!(
        (answer.text(), answer.header("content-type")),
        ("\"hello\"".to_owned(), "application/json")
    );
    let declared = json!({"image": "a", "outputs": {"last_line": {"from": "last_line"}}});
    let declared = completed(&app, declared, last_line()).await;
    assert_eq!(result(declared).await.json(), json!({"last_line": "hello"}));
    let none = completed(&app, json!({"image": "a"}), Vec::new()).await;
    assert_eq!(result(none).await.json(), json!({}));
}

#[tokio::test]
async fn a_result_is_not_there_before_the_end_nor_after_a_failure() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    let path = format!("/api/v1/tasks/{id}/result");
    let early = app.get(&path).await;
    insta::assert_snapshot!(early.problem().replace(&id.to_string(), "[id]"));
    assert_eq!(early.header("retry-after"), "1");
    let output = app.get(&format!("/api/v1/tasks/{id}/outputs/x")).await;
    assert_eq!(output.status, StatusCode::TOO_EARLY);
    worker.complete(id, failed(3, "no such file"), vec![json_output("part", json!(1))]).await;
    let late = app.get(&path).await;
    insta::assert_snapshot!(late.problem());
    let reason = "task failed (exit_nonzero): exited with code 3; its log ends: no such file";
    assert_eq!(late.reason.as_deref(), Some(reason));
    assert_eq!(late.json()["exit_code"], 3);
    // What it left is there all the same.
    assert_eq!(app.get(&format!("/api/v1/tasks/{id}/outputs/part")).await.text(), "1");
}

#[tokio::test]
async fn a_file_comes_with_its_type_checksum_and_name_and_is_never_a_page() {
    let app = test_app!();
    let id =
        completed(&app, json!({"image": "a"}), vec![json_output("n", json!([1])), report()]).await;
    let path = format!("/api/v1/tasks/{id}/outputs/report");
    let gone = app.get(&path).await;
    assert!(gone.problem().starts_with("410 output_gone"), "{gone:?}");
    app.objects.objects.lock().unwrap().insert("objects/1".to_owned(), b"hello");
    let file = app.get(&path).await;
    assert_eq!((file.status, file.text()), (StatusCode::OK, "hello".to_owned()));
    for (name, value) in [
        ("content-type", "text/html"),
        ("content-length", "5"),
        ("etag", &format!("\"{SHA256}\"")),
        ("repr-digest", "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:"),
        ("content-disposition", "attachment; filename=\"report.html\""),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(file.header(name), value);
    }
    assert!(file.header("content-security-policy").starts_with("sandbox"));
    let known = [("if-none-match", file.header("etag"))];
    let known = app.call(Method::GET, &path, &known, Body::empty()).await;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED);
    let json = app.get(&format!("/api/v1/tasks/{id}/outputs/n")).await;
    assert_eq!((json.text(), json.header("content-type")), ("[1]".to_owned(), "application/json"));
    let missing = app.get(&format!("/api/v1/tasks/{id}/outputs/nothing")).await;
    assert_eq!(
        missing.problem(),
        "404 output_not_found: the task has no output \"nothing\": it has n, report"
    );
}

#[tokio::test]
async fn a_panic_is_a_problem_of_one_request() {
    let app = test_app!();
    let id = completed(&app, json!({"image": "a"}), vec![file(PANICS)]).await;
    let answer = app.get(&format!("/api/v1/tasks/{id}/outputs/report")).await;
    assert!(answer.problem().starts_with("500 internal"), "{answer:?}");
    assert!(!answer.text().contains("asked for"), "{answer:?}");
    assert_eq!(app.count().await, 1);
}

#[tokio::test]
async fn a_log_is_served_byte_for_byte() {
    let app = test_app!();
    let id = app.submit_any().await;
    let path = format!("/api/v1/tasks/{id}/logs");
    app.logs.texts.lock().unwrap().insert((id, 1), b"one\n\xff\x00two\n");
    let whole = app.get(&path).await;
    assert_eq!(&whole.body[..], b"one\n\xff\x00two\n");
    for (name, value) in [
        ("content-type", "text/plain; charset=utf-8"),
        ("supercargo-attempt", "1"),
        ("supercargo-log-offset", "0"),
        ("x-content-type-options", "nosniff"),
        ("x-accel-buffering", "no"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(whole.header(name), value);
    }
    let rest = app.get(&format!("{path}?offset=6&attempt=1")).await;
    assert_eq!((rest.text(), rest.header("supercargo-log-offset")), ("two\n".to_owned(), "6"));
    assert_eq!(app.get(&format!("{path}?offset=1000")).await.text(), "");
}

#[tokio::test]
async fn a_log_that_is_cut_short_does_not_look_whole() {
    let app = test_app!();
    let id = app.submit_any().await;
    let path = format!("/api/v1/tasks/{id}/logs");
    app.logs.texts.lock().unwrap().insert((id, 1), b"one\n");
    assert!(!app.get(&path).await.broken);
    let follow = format!("{path}?follow");
    let (followed, ()) = tokio::join!(app.get(&follow), async { app.lifecycle.drain() });
    assert_eq!((followed.status, followed.broken), (StatusCode::OK, true));
}

#[tokio::test]
async fn events_and_milestones_are_told_in_order() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    let first = worker.claim_one(id).await;
    worker.requeue(&first, "2020-01-01T00:00:00Z".parse().unwrap()).await;
    worker.complete(id, failed(3, "x"), Vec::new()).await;
    let answer = app.get(&format!("/api/v1/tasks/{id}/events")).await;
    let lines: Vec<String> = answer
        .items()
        .iter()
        .map(|it| {
            assert!(it["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
            let text = |key: &str| it[key].as_str().unwrap().to_owned();
            format!("{} {} {}: {}", it["attempt"], text("source"), text("reason"), text("message"))
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}
