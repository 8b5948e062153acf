use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use supercargo::ids::TaskId;

use crate::support::api::{Answer, TestApp};
use crate::test_app;

async fn submit_raw(app: &TestApp, content_type: &str, body: &str) -> Answer {
    let headers = [("content-type", content_type)];
    app.call(Method::POST, "/api/v1/tasks", &headers, Body::from(body.to_owned())).await
}

#[tokio::test]
async fn documents_that_are_no_task_are_refused_with_the_fix() {
    let app = test_app!();
    let mut lines = Vec::new();
    for document in [
        json!({}),
        json!([]),
        json!({"image": ""}),
        json!({"image": 3}),
        json!({"image": "a b"}),
        json!({"image": "busybox", "comand": ["x"]}),
        json!({"image": "busybox", "command": ["a\u{0}b"]}),
        json!({"image": "busybox", "env": {"BIG": "x".repeat(200 << 10)}}),
        json!({"image": "busybox", "timeouts": {"run": "-5s"}}),
        json!({"image": "busybox", "files": [{"content": "x"}], "priority": "high", "target": "locl"}),
    ] {
        let answer = app.post("/api/v1/tasks", &document).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
        let errors: Vec<Value> = answer.json()["errors"].as_array().unwrap().clone();
        let pointers: Vec<&str> = errors.iter().map(|it| it["pointer"].as_str().unwrap()).collect();
        lines.push(format!("{} {pointers:?}", answer.problem()));
    }
    insta::assert_snapshot!(lines.join("\n"));
    assert_eq!(app.count().await, 0);
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused_with_the_place() {
    let app = test_app!();
    let mut lines = Vec::new();
    for (content_type, body) in [
        ("application/json", "{\"image\": \"a\",\n \"name\": }"),
        ("application/json", "{\"image\": \"a\""),
        ("application/json", "{\"image\": \"\\ud800\"}"),
        ("application/json", ""),
        ("application/json", "  \n"),
        ("text/plain", "image=a"),
        ("text/plain; charset=utf-8", ""),
        ("multipart/form-data; boundary=x", "--x"),
    ] {
        lines.push(submit_raw(&app, content_type, body).await.problem());
    }
    let deep = format!("{{\"image\": {}", "[".repeat(10_000));
    lines.push(submit_raw(&app, "application/json", &deep).await.problem());
    insta::assert_snapshot!(lines.join("\n"));
    let answer = submit_raw(&app, "application/json", "{\n\"image\": x}").await.json();
    assert_eq!((&answer["line"], &answer["column"]), (&json!(2), &json!(10)));
    let packed = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let packed = app.call(Method::POST, "/api/v1/tasks", &packed, Body::from("x")).await;
    assert_eq!(packed.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn every_name_for_json_is_taken() {
    let app = test_app!();
    let body = "{\"image\": \"busybox\"}";
    for content_type in [
        "application/json; charset=utf-8",
        "application/vnd.api+json",
        "APPLICATION/JSON",
        "text/plain; charset=utf-8",
        "text/json",
    ] {
        let answer = submit_raw(&app, content_type, body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{content_type}: {answer:?}");
    }
    let answer = app.call(Method::POST, "/api/v1/tasks", &[], Body::from(body)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_its_length_is_told_or_not() {
    let app = test_app!();
    let body = json!({"image": "busybox", "name": "x".repeat(10 << 20)}).to_string();
    let length = body.len().to_string();
    let told = [("content-length", length.as_str())];
    let told = app.call(Method::POST, "/api/v1/tasks", &told, Body::from(body.clone())).await;
    assert_eq!(told.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(told.problem().contains(&length) && told.problem().contains("8388608"), "{told:?}");
    let pieces: Vec<Result<_, std::io::Error>> =
        body.as_bytes().chunks(1 << 20).map(|it| Ok(it.to_vec())).collect();
    let stream = Body::from_stream(futures_util::stream::iter(pieces));
    let untold = app.call(Method::POST, "/api/v1/tasks", &[], stream).await;
    assert_eq!(untold.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(untold.json()["limit_bytes"], 8 << 20);
}

#[tokio::test]
async fn a_thousand_faults_make_an_answer_of_bounded_size() {
    let app = test_app!();
    let fields: serde_json::Map<String, Value> =
        (0..1_000).map(|n| (format!("{}{n}", "x".repeat(5_000)), json!(1))).collect();
    let answer = app.post("/api/v1/tasks", &Value::Object(fields)).await;
    assert!(answer.problem().contains("999 more faults"), "{}", answer.problem());
    assert!(answer.body.len() < 1 << 20, "{}", answer.body.len());
}

#[tokio::test]
async fn paths_that_lead_nowhere_say_so() {
    let app = test_app!();
    let id = TaskId::generate();
    let mut lines = Vec::new();
    for (method, path) in [
        (Method::GET, "/api/v1/tasks/abc".to_owned()),
        (Method::GET, format!("/api/v1/tasks/{id}")),
        (Method::GET, format!("/api/v1/tasks/{id}?wait=1s")),
        (Method::GET, format!("/api/v1/tasks/{id}/logs")),
        (Method::GET, format!("/api/v1/tasks/{id}/result")),
        (Method::GET, format!("/api/v1/tasks/{id}/outputs")),
        (Method::GET, format!("/api/v1/tasks/{id}/outputs/x")),
        (Method::GET, format!("/api/v1/tasks/{id}/events")),
        (Method::POST, format!("/api/v1/tasks/{id}/cancel")),
        (Method::GET, "/api/v1/task".to_owned()),
        (Method::GET, "/v1/tasks".to_owned()),
        (Method::GET, "/api/v1/tasks/%FF".to_owned()),
        (Method::POST, "/".to_owned()),
        (Method::DELETE, "/api/v1/tasks".to_owned()),
        (Method::GET, format!("/api/v1/tasks/{id}/cancel")),
    ] {
        let answer = app.call(method.clone(), &path, &[], Body::empty()).await;
        lines.push(format!("{method} {}", answer.problem()).replace(&id.to_string(), "[id]"));
    }
    insta::assert_snapshot!(lines.join("\n"));
    let answer = app.call(Method::DELETE, "/api/v1/tasks", &[], Body::empty()).await;
    let allowed: Vec<&str> = answer.header("allow").split(',').collect();
    assert!(allowed.contains(&"GET") && allowed.contains(&"POST"), "{allowed:?}");
}

#[tokio::test]
async fn bad_parameters_are_refused_with_the_fix() {
    let app = test_app!();
    let id = app.submit_any().await;
    let mut lines = Vec::new();
    for query in [
        "?stat=failed",
        "?colour=red",
        "?state=faild",
        "?state=queued,",
        "?label=team",
        "?label=a=1&label=a=2",
        "?limit=0",
        "?limit=1001",
        "?limit=x",
        "?limit=1&limit=2",
        "?cursor=abc",
        "?cursor=%00",
        "?name=a%00b",
        "?submitted_after=yesterday",
    ] {
        let answer = app.get(&format!("/api/v1/tasks{query}")).await;
        lines.push(format!("{query} {}", answer.problem()));
    }
    for query in [
        "?wait=soon",
        "?wait=-1s",
        "/logs?offset=-1",
        "/logs?attempt=0",
        "/logs?attempt=2",
        "/logs?follow=maybe",
        "/result?x=1",
    ] {
        let answer = app.get(&format!("/api/v1/tasks/{id}{query}")).await;
        lines.push(format!("{query} {}", answer.problem()));
    }
    insta::assert_snapshot!(lines.join("\n"));
}
