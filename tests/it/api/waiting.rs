use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::json;
use supercargo::domain::outcome::Outcome;
use supercargo::domain::state::TaskState;

use crate::support::worker::{TestWorker, failed, json_output, succeeded};
use crate::support::{PATIENCE, until};
use crate::test_app;

#[tokio::test]
async fn a_wait_that_is_over_too_soon_leads_to_the_same_wait() {
    let app = test_app!();
    let answer = app.post("/api/v1/tasks?wait=20ms", &json!({"image": "busybox"})).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let location = answer.header("location").to_owned();
    assert!(
        location.ends_with("?wait=20ms") && location.starts_with("/api/v1/tasks/"),
        "{location}"
    );
    assert!(answer.body.is_empty());
    let again = app.get(&location).await;
    assert_eq!(
        (again.status, again.header("location")),
        (StatusCode::SEE_OTHER, location.as_str())
    );
    assert_eq!(app.count().await, 1);
}

#[tokio::test]
async fn the_end_of_a_task_answers_at_once() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    let claimed = worker.claim_one(id).await;
    let path = format!("/api/v1/tasks/{id}?wait=50s");
    let started = Instant::now();
    let (answer, ()) = tokio::join!(app.get(&path), async {
        worker.run(&claimed).await;
        app.wake.task_changed(id);
        worker.finish(&claimed, succeeded(), vec![json_output("words", json!(7))]).await;
        app.wake.task_changed(id);
    });
    assert!(started.elapsed() < Duration::from_secs(20));
    insta::assert_snapshot!(answer.stable());
}

#[tokio::test]
async fn a_wake_up_that_gets_lost_costs_a_second() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    let path = format!("/api/v1/tasks/{id}");
    let prefer = [("prefer", "respond-async, wait=30")];
    let waiting = app.call(axum::http::Method::GET, &path, &prefer, axum::body::Body::empty());
    let (answer, ()) = tokio::join!(waiting, worker.complete(id, succeeded(), Vec::new()));
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("preference-applied"), "wait=30");
}

#[tokio::test]
async fn a_failed_task_is_424_with_the_task_and_the_cause() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    worker.complete(id, failed(3, "no such file"), Vec::new()).await;
    let answer = app.get(&format!("/api/v1/tasks/{id}?wait=1s")).await;
    assert_eq!(answer.status, StatusCode::FAILED_DEPENDENCY);
    let instance = answer.json()["instance"].as_str().unwrap().to_owned();
    insta::assert_snapshot!(answer.stable().replace(&instance, ""));
    // Without a wait the same task is no failure of the request.
    assert_eq!(app.get(&format!("/api/v1/tasks/{id}")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_cancelled_task_is_424_and_a_skipped_one_200() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let cancelled = app.submit_any().await;
    app.post(&format!("/api/v1/tasks/{cancelled}/cancel"), &json!(null)).await;
    let answer = app.get(&format!("/api/v1/tasks/{cancelled}?wait=1s")).await;
    assert_eq!(answer.reason.as_deref(), Some("task was cancelled: cancelled before it started"));
    assert!(answer.problem().starts_with("424 task_cancelled"), "{answer:?}");
    let skipped = app.submit_any().await;
    let outcome = Outcome {
        state: TaskState::Skipped,
        exit_code: Some(99),
        failure: None,
        unconfirmed: false,
    };
    worker.complete(skipped, outcome, Vec::new()).await;
    let answer = app.get(&format!("/api/v1/tasks/{skipped}?wait=1s")).await;
    assert_eq!((answer.status, &answer.json()["state"]), (StatusCode::OK, &json!("skipped")));
}

#[tokio::test]
async fn waiting_ends_when_the_process_stops() {
    let app = test_app!();
    let id = app.submit_any().await;
    let path = format!("/api/v1/tasks/{id}?wait=50s");
    let started = Instant::now();
    let (answer, ()) = tokio::join!(app.get(&path), async { app.lifecycle.drain() });
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(app.get("/readyz").await.problem().contains("stopping"));
}

#[tokio::test]
async fn a_database_that_goes_away_after_the_submit_does_not_make_it_a_failure() {
    let app = test_app!();
    let body = json!({"image": "busybox"});
    let waiting = app.post("/api/v1/tasks?wait=2s", &body);
    let (answer, ()) = tokio::join!(waiting, async {
        app.wake.until_queued().await;
        app.database.take_away().await;
    });
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
}

#[tokio::test]
async fn what_holds_a_task_up_is_told() {
    let app = test_app!();
    let id = app.submit_any().await;
    let path = format!("/api/v1/tasks/{id}");
    let conditions = async || app.get(&path).await.json()["conditions"].clone();
    assert_eq!(conditions().await[0]["type"], "no_worker");
    let worker = TestWorker::start(&app.store).await;
    worker.report("local", false, Some("connection refused")).await;
    until("the condition shows", PATIENCE, async || {
        (conditions().await[0]["type"] == "target_unavailable").then_some(())
    })
    .await;
    assert_eq!(
        conditions().await[0],
        json!({"type": "target_unavailable", "message": "target \"local\" can't be asked: connection refused",
               "since": "2026-11-21T00:00:00Z"})
    );
    worker.report("local", true, None).await;
    until("the condition is gone", PATIENCE, async || conditions().await.is_null().then_some(()))
        .await;
    let claimed = worker.claim_one(id).await;
    worker.requeue(&claimed, "2099-01-01T00:00:00Z".parse().unwrap()).await;
    let task = app.get(&path).await.json();
    assert_eq!(task["conditions"][0]["type"], "retrying");
    assert_eq!(task["conditions"][0]["not_before"], "2099-01-01T00:00:00Z");
    assert_eq!((&task["attempt"], &task["attempts"][0]["number"]), (&json!(2), &json!(1)));
    assert_eq!(task["attempts"][0]["failure"]["class"], "platform");
}
