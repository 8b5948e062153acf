//! What is made for callers that can't do more than repeat a request: sensors and pages.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use supercargo::domain::outcome::Outcome;
use supercargo::ids::TaskId;

use crate::support::api::{Answer, TestApp};
use crate::support::worker::{TestWorker, failed, json_output, succeeded};
use crate::support::{PATIENCE, until};
use crate::test_app;

const PATH: &str = "/api/v1/tasks";
const HELD_BACK: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_sensor_hears_nothing_until_the_end_and_never_an_error_after_it() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let sense = async |id: TaskId| app.get(&format!("{PATH}/{id}/sensor")).await;
    let good = app.submit_any().await;
    // One that is held back is never there sooner, however busy the machine is.
    until("an answer that is waited for is not held back", PATIENCE, async || {
        let asked = Instant::now();
        let waiting = sense(good).await;
        let told = "404 not_over: task \"count\" is queued";
        assert!(waiting.problem().starts_with(told), "{waiting:?}");
        (asked.elapsed() < HELD_BACK).then_some(())
    })
    .await;
    worker.complete(good, succeeded(), vec![json_output("words", json!(7))]).await;
    let bad = app.submit_any().await;
    worker.complete(bad, failed(3, "no such file"), Vec::new()).await;
    let gone = app.submit_any().await;
    app.store.cancel(gone, "tester", jiff::Timestamp::now()).await.unwrap();
    let unknown = TaskId::generate();
    let mut told = String::new();
    for id in [good, bad, gone, unknown] {
        told += &sense(id).await.stable();
        told += "\n";
    }
    told += &app.get(&format!("{PATH}/key:nobody/sensor")).await.stable();
    insta::assert_snapshot!(told);
}

#[tokio::test]
async fn what_a_sensor_can_not_use_is_held_back() {
    let app = test_app!();
    let id = app.submit_any().await;
    let asked = Instant::now();
    let path = format!("{PATH}/{id}/sensor");
    let refused =
        app.call(Method::GET, &path, &[("authorization", "Bearer no")], Body::empty()).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(asked.elapsed() >= HELD_BACK, "{:?}", asked.elapsed());
    let asked = Instant::now();
    let wrong = app.get(&format!("{path}?x=1")).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(asked.elapsed() >= HELD_BACK, "{:?}", asked.elapsed());
}

fn log(app: &TestApp, id: TaskId, attempt: i32, text: &'static str) {
    app.logs.texts.lock().unwrap().insert((id, attempt), text.as_bytes());
    app.wake.task_changed(id);
}

async fn next(app: &TestApp, page: &Value) -> Answer {
    // As HttpOperator does: the method and the body of the first call stay.
    let body = Body::from("{\"image\": \"busybox\"}");
    let path = page["next"].as_str().unwrap_or_else(|| panic!("no next: {page}"));
    app.call(Method::POST, path, &[("content-type", "text/plain")], body).await
}

#[tokio::test]
async fn pages_bring_every_line_once_and_the_result_with_the_last() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let task = app.post(PATH, &json!({"image": "busybox"})).await;
    let id = task.id();
    log(&app, id, 1, "");
    let poll = task.json()["links"]["poll"].as_str().unwrap().to_owned();
    let nothing = app.get(&format!("{poll}?wait=20ms")).await.json();
    assert_eq!((&nothing["state"], &nothing["lines"]), (&json!("queued"), &json!([])));

    let claimed = worker.claim_one(id).await;
    worker.run(&claimed).await;
    let changed = next(&app, &nothing).await.json();
    assert_eq!((&changed["state"], &changed["lines"]), (&json!("running"), &json!([])));
    // A line that is not whole yet waits for its end.
    log(&app, id, 1, "a\nb\r\nhalf");
    let first = next(&app, &changed).await.json();
    assert_eq!(first["lines"], json!(["a", "b\r"]));
    let (second, ()) = tokio::join!(next(&app, &first), async {
        log(&app, id, 1, "a\nb\r\nhalf a line\n\nlast");
    });
    assert_eq!(second.json()["lines"], json!(["half a line", ""]));
    worker.finish(&claimed, succeeded(), vec![json_output("words", json!(7))]).await;
    let last = next(&app, &second.json()).await.json();
    assert_eq!((&last["lines"], &last["state"]), (&json!(["last"]), &json!("succeeded")));
    assert_eq!((&last["result"], last.get("next")), (&json!({"words": 7}), None));
}

#[tokio::test]
async fn the_pages_of_a_failed_task_end_in_its_failure() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    log(&app, id, 1, "try\n");
    log(&app, id, 2, "again\nno such file");
    let claimed = worker.claim_one(id).await;
    worker.requeue(&claimed, jiff::Timestamp::now()).await;
    let first = app.get(&format!("{PATH}/{id}/poll?wait=1s")).await.json();
    assert_eq!((&first["lines"], &first["attempt"]), (&json!(["try"]), &json!(1)));
    worker.complete(id, failed(3, "no such file"), Vec::new()).await;
    let second = next(&app, &first).await.json();
    assert_eq!(
        (&second["lines"], &second["attempt"]),
        (&json!(["again", "no such file"]), &json!(2))
    );
    let end = next(&app, &second).await;
    assert_eq!(end.status, StatusCode::FAILED_DEPENDENCY);
    assert_eq!(
        end.reason.as_deref(),
        Some("task failed (exit_nonzero): exited with code 3; its log ends: no such file")
    );
    assert_eq!(end.json()["failure"]["log_tail"], json!(["no such file"]));
    let bad = app.get(&format!("{PATH}/{id}/poll?cursor=x")).await;
    assert!(bad.problem().starts_with("400 invalid_parameter: cursor:"), "{bad:?}");
}

#[tokio::test]
async fn a_page_of_a_cancelled_task_without_a_log_is_its_end() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    log(&app, id, 1, "");
    worker.complete(id, Outcome::cancelled("cancelled while it ran"), Vec::new()).await;
    let end = app.get(&format!("{PATH}/{id}/poll")).await;
    assert!(end.problem().starts_with("424 task_cancelled"), "{end:?}");
}
