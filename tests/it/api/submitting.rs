use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::json;
use supercargo::ids::TaskId;

use crate::support::worker::{TestWorker, succeeded};
use crate::test_app;

#[tokio::test]
async fn an_accepted_task_is_the_answer_and_stays_as_it_is() {
    let app = test_app!();
    TestWorker::start(&app.store).await;
    let document = json!({"image": "busybox:1.36", "command": "echo hello", "labels": {"team": "a"}, "priority": 5});
    let answer = app.post("/api/v1/tasks", &document).await;
    insta::assert_snapshot!(answer.stable());
    assert_eq!(answer.header("location"), format!("/api/v1/tasks/{}", answer.id()));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let read = app.get(answer.header("location")).await;
    assert_eq!(read.status, StatusCode::OK);
    assert_eq!(read.json(), answer.json());
}

#[tokio::test]
async fn submitting_wakes_the_queue() {
    let app = test_app!();
    app.submit_any().await;
    // A hint that was given before counts.
    app.wake.until_queued().await;
}

#[tokio::test]
async fn a_request_keeps_the_id_that_it_came_with() {
    let app = test_app!();
    let id = "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11";
    let answer =
        app.call(Method::GET, "/api/v1/tasks/x", &[("x-request-id", id)], Body::empty()).await;
    assert_eq!(answer.header("x-request-id"), id);
    assert_eq!(answer.json()["instance"], format!("urn:request:{id}"));
    // Whatever is one plain word is taken as it is, and nothing else.
    for (given, kept) in [
        ("dag/run.7:3@2+x=y~_", true),
        ("a b", false),
        ("<script>", false),
        ("", false),
        ("é", false),
    ] {
        let headers = [("x-request-id", given)];
        let answer = app.call(Method::GET, "/api/v1/tasks/x", &headers, Body::empty()).await;
        assert_eq!(answer.header("x-request-id") == given, kept, "{answer:?}");
        let instance = format!("urn:request:{}", answer.header("x-request-id"));
        assert_eq!(answer.json()["instance"], instance);
    }
    let long = "x".repeat(129);
    let answer = app.call(Method::GET, "/version", &[("x-request-id", &long)], Body::empty()).await;
    assert_ne!(answer.header("x-request-id"), long);
    let answer = app.get("/api/v1/tasks/x").await;
    let instance = format!("urn:request:{}", answer.header("x-request-id"));
    assert_eq!(answer.json()["instance"], instance);
}

#[tokio::test]
async fn a_batch_is_accepted_whole_or_not_at_all() {
    let app = test_app!();
    let path = "/api/v1/tasks/batch";
    let bad = json!({"tasks": [{"image": "a"}, {"image": "b", "comand": 1}, {"name": "c"}, 4]});
    let answer = app.post(path, &bad).await;
    insta::assert_snapshot!(
        answer.stable().replace(answer.json()["instance"].as_str().unwrap(), "")
    );
    assert_eq!(app.count().await, 0);
    let good = json!({"tasks": [{"image": "a"}, {"image": "b"}, {"image": "c"}]});
    let answer = app.post(path, &good).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let images: Vec<_> = answer.items().iter().map(|it| it["image"].clone()).collect();
    assert_eq!(images, ["a", "b", "c"]);
    assert_eq!(app.count().await, 3);
    let most: Vec<_> = (0..1_001).map(|_| json!({"image": "a"})).collect();
    for (body, expected) in [
        (json!({"tasks": most}), "1001 tasks, at most 1000"),
        (json!({"tasks": []}), "give at least one"),
        (json!({}), "\"tasks\" is required"),
        (json!({"tasks": {}}), "must be a list"),
        (
            json!({"tasks": [{"image": "a"}], "task": 1}),
            "unknown field \"task\": did you mean \"tasks\"?",
        ),
    ] {
        let answer = app.post(path, &body).await;
        assert!(answer.problem().contains(expected), "{}", answer.problem());
    }
    assert_eq!(app.count().await, 3);
}

#[tokio::test]
async fn a_task_can_be_cancelled_in_every_state() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let cancel =
        async |id: TaskId| app.post(&format!("/api/v1/tasks/{id}/cancel"), &json!(null)).await;
    let queued = app.submit_any().await;
    let answer = cancel(queued).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    insta::assert_snapshot!(answer.stable());
    assert_eq!(cancel(queued).await.json(), answer.json());

    let running = app.submit_any().await;
    let claimed = worker.claim_one(running).await;
    worker.run(&claimed).await;
    for _ in 0..2 {
        let answer = cancel(running).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        assert_eq!(
            (&answer.json()["state"], &answer.json()["stop_requested"]),
            (&json!("running"), &json!(true))
        );
        app.wake.until_stop_requested().await;
    }
    worker.finish(&claimed, succeeded(), Vec::new()).await;
    let answer = cancel(running).await;
    assert_eq!(
        (answer.status, &answer.json()["state"]),
        (StatusCode::ACCEPTED, &json!("succeeded"))
    );
}
