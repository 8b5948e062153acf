//! Submits that name their work, paths that do, and retries.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::api::{Answer, TestApp};
use crate::support::worker::{TestWorker, failed, succeeded};
use crate::test_app;

const PATH: &str = "/api/v1/tasks";

async fn put(app: &TestApp, key: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let path = format!("{PATH}/key:{key}");
    let mut all = vec![("content-type", "application/json")];
    all.extend(headers);
    app.call(Method::PUT, &path, &all, Body::from(body.to_string())).await
}

#[tokio::test]
async fn a_second_submit_of_the_same_work_is_told_what_became_of_it() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let body = json!({"image": "busybox", "run_key": "etl/1 x"});
    let first = app.post(PATH, &body).await;
    assert_eq!((first.status, &first.json()["run_key"]), (StatusCode::CREATED, &body["run_key"]));
    assert!(first.headers.get("supercargo-duplicate").is_none());
    let live = app.post(PATH, &body).await;
    assert_eq!((live.status, live.header("supercargo-duplicate")), (StatusCode::OK, "attached"));
    assert_eq!(live.id(), first.id());

    worker.complete(first.id(), failed(3, "x"), Vec::new()).await;
    let again = app.post(PATH, &body).await;
    assert_eq!(
        (again.status, again.header("supercargo-duplicate")),
        (StatusCode::ACCEPTED, "retried")
    );
    assert_eq!((again.id(), &again.json()["attempt"]), (first.id(), &json!(2)));
    assert_eq!(again.json()["attempts"][0]["exit_code"], 3);
    worker.complete(first.id(), succeeded(), Vec::new()).await;
    let waited = app.post("/api/v1/tasks?wait=1s", &body).await;
    assert_eq!((waited.status, &waited.json()["state"]), (StatusCode::OK, &json!("succeeded")));

    let with = |on_duplicate: &str| {
        let mut body = body.clone();
        body["on_duplicate"] = json!(on_duplicate);
        body
    };
    let rejected = app.post(PATH, &with("reject")).await;
    assert_eq!(rejected.json()["task_id"], first.json()["id"]);
    let id = first.id().to_string();
    insta::assert_snapshot!(rejected.problem().replace(&id, "[id]"), @r#"409 run_key_taken: the run key "etl/1 x" belongs to task [id], and "on_duplicate" is "reject": use another key, or "attach_if_active" to go on with that task"#);
    let restarted = app.post(PATH, &with("restart")).await;
    assert_eq!(restarted.header("supercargo-duplicate"), "restarted");
    assert_eq!(restarted.status, StatusCode::CREATED);
    assert_ne!(restarted.id(), first.id());
    assert_eq!(app.count().await, 2);
}

#[tokio::test]
async fn many_requests_at_once_for_one_work_make_one_task() {
    let app = test_app!();
    let body = json!({"image": "busybox", "run_key": "w"});
    let answers = join_all((0..64).map(|_| app.post(PATH, &body))).await;
    let made = answers.iter().filter(|it| it.status == StatusCode::CREATED).count();
    let attached = answers.iter().filter(|it| it.status == StatusCode::OK).count();
    assert_eq!((made, attached), (1, 63), "{answers:?}");
    assert_eq!(app.count().await, 1);
}

#[tokio::test]
async fn a_put_attaches_to_the_task_that_there_is() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let body = json!({"image": "busybox"});
    let first = put(&app, "a%2Fb%20c", &[], &body).await;
    assert_eq!((first.status, &first.json()["run_key"]), (StatusCode::CREATED, &json!("a/b c")));
    assert!(first.header("location").ends_with(&first.id().to_string()));
    worker.complete(first.id(), failed(3, "x"), Vec::new()).await;
    let again = put(&app, "a%2Fb%20c", &[], &body).await;
    assert_eq!((again.status, &again.json()["state"]), (StatusCode::OK, &json!("failed")));
    let waited = put(&app, "a%2Fb%20c", &[("prefer", "wait=1")], &body).await;
    assert_eq!(waited.status, StatusCode::FAILED_DEPENDENCY);
    assert_eq!(waited.header("preference-applied"), "wait=1");
    assert_eq!(app.count().await, 1);

    let other =
        put(&app, "a", &[], &json!({"image": "x", "run_key": "b", "on_duplicate": "restart"}))
            .await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        (&other.json()["errors"][0]["pointer"], &other.json()["errors"][1]["pointer"]),
        (&json!("/run_key"), &json!("/on_duplicate"))
    );
    let refused = put(&app, "a", &[], &json!({"image": "x", "on_duplicate": "reject"})).await;
    assert!(refused.problem().contains("PUT attaches"), "{refused:?}");
    let by_id =
        app.call(Method::PUT, &format!("{PATH}/{}", first.id()), &[], Body::from("{}")).await;
    assert!(by_id.problem().starts_with("400 invalid_parameter"), "{by_id:?}");
}

#[tokio::test]
async fn the_key_of_the_request_goes_before_that_of_the_work() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let body = json!({"image": "busybox", "run_key": "w"});
    let first = app.post_with(PATH, &[("idempotency-key", "w.1")], &body).await;
    worker.complete(first.id(), failed(3, "x"), Vec::new()).await;
    // The first try is sent again: nothing happens.
    let again = app.post_with(PATH, &[("idempotency-key", "w.1")], &body).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (StatusCode::OK, "true"));
    assert_eq!(again.json()["state"], "failed");
    // The second try goes on with the work, once.
    for (n, header) in [("supercargo-duplicate", "retried"), ("idempotent-replayed", "true")]
        .into_iter()
        .enumerate()
    {
        let second = app.post_with(PATH, &[("idempotency-key", "w.2")], &body).await;
        assert_eq!(second.header(header.0), header.1, "{n}");
        assert_eq!((second.id(), &second.json()["attempt"]), (first.id(), &json!(2)));
    }
    worker.complete(first.id(), failed(4, "y"), Vec::new()).await;
    let late = app.post_with(PATH, &[("idempotency-key", "w.2")], &body).await;
    assert_eq!((&late.json()["attempt"], &late.json()["exit_code"]), (&json!(2), &json!(4)));
}

#[tokio::test]
async fn a_path_takes_the_key_of_the_work_for_the_id() {
    let app = test_app!();
    let made = app.post(PATH, &json!({"image": "busybox", "run_key": "k: 1/x"})).await;
    let path = format!("{PATH}/key:k%3A%201%2Fx");
    assert_eq!(app.get(&path).await.id(), made.id());
    for rest in ["/events", "/outputs", "/spec", "/sensor"] {
        let answer = app.get(&format!("{path}{rest}")).await;
        assert!(answer.status.is_success() || answer.problem().contains("not_over"), "{answer:?}");
    }
    let cancelled = app.call(Method::POST, &format!("{path}/cancel"), &[], Body::empty()).await;
    assert_eq!((cancelled.status, cancelled.id()), (StatusCode::ACCEPTED, made.id()));
    // What can't be a key is none that anybody has.
    for key in ["", "%00", "a%00b", "%C3%BC", &"x".repeat(256)] {
        let never = app.get(&format!("{PATH}/key:{key}")).await;
        assert!(never.problem().starts_with("404 task_not_found"), "{key}: {never:?}");
    }
    let unknown = app.get(&format!("{PATH}/key:nobody")).await;
    assert!(unknown.problem().starts_with("404 task_not_found"), "{unknown:?}");
}

#[tokio::test]
async fn a_retry_is_of_the_attempt_that_its_caller_has_seen() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit(&json!({"image": "busybox", "labels": {"a": 1}})).await;
    let path = format!("{PATH}/{id}/retry");
    let live = app.call(Method::POST, &path, &[], Body::empty()).await;
    assert_eq!((live.status, &live.json()["attempt"]), (StatusCode::ACCEPTED, &json!(1)));
    worker.complete(id, failed(3, "x"), Vec::new()).await;
    for _ in 0..3 {
        let retried = app.post(&path, &json!({"from_attempt": 1})).await;
        let told = (&retried.json()["attempt"], &retried.json()["state"]);
        assert_eq!(told, (&json!(2), &json!("queued")), "{retried:?}");
    }
    worker.complete(id, succeeded(), Vec::new()).await;
    let over = app.post(&path, &json!({})).await;
    assert_eq!((&over.json()["attempt"], &over.json()["state"]), (&json!(2), &json!("succeeded")));
    let events = app.get(&format!("{PATH}/{id}/events")).await.items();
    assert!(events.iter().any(|it| it["reason"] == "retry_requested"), "{events:?}");

    let bad = app.post(&path, &json!({"from_atempt": 1})).await;
    assert_eq!(
        bad.json()["errors"][0]["detail"],
        "unknown field \"from_atempt\": did you mean \"from_attempt\"?"
    );
    let beyond = app.post(&path, &json!({"from_attempt": 9})).await;
    assert!(beyond.problem().starts_with("404 attempt_not_found"), "{beyond:?}");
    let unknown =
        app.post(&format!("{PATH}/0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11/retry"), &json!({})).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_document_of_an_attempt_can_be_submitted_again() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let body =
        json!({"image": "busybox", "run_key": "w", "command": "echo 1", "retries": {"max": 1}});
    let id = app.submit(&body).await;
    worker.complete(id, failed(3, "x"), Vec::new()).await;
    app.post(PATH, &json!({"image": "busybox", "run_key": "w", "command": "echo 2"})).await;
    let spec = async |query: &str| app.get(&format!("{PATH}/{id}/spec{query}")).await;
    let (first, second) = (spec("?attempt=1").await.json(), spec("").await.json());
    assert_eq!(
        (&first["command"], &second["command"]),
        (&json!(["echo", "1"]), &json!(["echo", "2"]))
    );
    assert_eq!(first["retries"]["max"], 1);
    let copy = app.submit(&first).await;
    assert_eq!(app.get(&format!("{PATH}/{copy}/spec")).await.json(), first);
    let none = spec("?attempt=3").await;
    assert!(none.problem().starts_with("404 attempt_not_found"), "{none:?}");
}

#[tokio::test]
async fn a_batch_names_each_work_once() {
    let app = test_app!();
    let of = |key: &str| json!({"image": "busybox", "run_key": key});
    let twice =
        app.post("/api/v1/tasks/batch", &json!({"tasks": [of("a"), of("b"), of("a")]})).await;
    assert_eq!(twice.json()["errors"][0]["pointer"], "/tasks/2/run_key", "{twice:?}");
    assert_eq!(app.count().await, 0);
    let first = app.post("/api/v1/tasks/batch", &json!({"tasks": [of("a"), of("b")]})).await;
    let second = app.post("/api/v1/tasks/batch", &json!({"tasks": [of("c"), of("b")]})).await;
    assert_eq!((first.status, second.status), (StatusCode::CREATED, StatusCode::CREATED));
    assert_eq!(second.items()[1]["id"], first.items()[1]["id"]);
    let third = app.post("/api/v1/tasks/batch", &json!({"tasks": [of("b"), of("a")]})).await;
    assert_eq!((third.status, app.count().await), (StatusCode::OK, 3));
}
