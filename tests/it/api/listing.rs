use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::api::TestApp;
use crate::support::worker::{TestWorker, failed, succeeded};
use crate::test_app;

async fn names(app: &TestApp, query: &str) -> Vec<String> {
    let answer = app.get(&format!("/api/v1/tasks{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.items().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn filters_select() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let done = app
        .submit(&json!({"image": "a", "name": "done", "labels": {"team": "a", "env": "x=1"}}))
        .await;
    worker.complete(done, succeeded(), Vec::new()).await;
    let broken =
        app.submit(&json!({"image": "a", "name": "broken", "labels": {"team": "a"}})).await;
    worker.complete(broken, failed(1, "x"), Vec::new()).await;
    let running =
        app.submit(&json!({"image": "a", "name": "running", "labels": {"team": "b"}})).await;
    let claimed = worker.claim_one(running).await;
    worker.run(&claimed).await;
    app.submit(&json!({"image": "a", "name": "waiting", "target": "simulated"})).await;
    let queued_at =
        app.get(&format!("/api/v1/tasks/{running}")).await.json()["timings"]["queued_at"].clone();
    let queued_at = queued_at.as_str().unwrap();
    for (query, expected) in [
        ("", &["waiting", "running", "broken", "done"][..]),
        ("?state=succeeded", &["done"]),
        ("?state=failed,cancelled", &["broken"]),
        ("?state=failed&state=running", &["running", "broken"]),
        ("?state=queued", &["waiting"]),
        ("?label=team=a", &["broken", "done"]),
        ("?label=team=a&label=env=x=1", &["done"]),
        ("?label=team=c", &[]),
        ("?name=running", &["running"]),
        ("?target=simulated", &["waiting"]),
        ("?submitted_before=2020-01-01T00:00:00Z", &[]),
        ("?submitted_after=2020-01-01T00:00:00Z&limit=2", &["waiting", "running"]),
        ("?limit=1", &["waiting"]),
    ] {
        assert_eq!(names(&app, query).await, expected, "{query}");
    }
    let since = names(&app, &format!("?submitted_after={queued_at}")).await;
    assert!(since.contains(&"running".to_owned()), "{since:?}");
}

#[tokio::test]
async fn lists_leave_attempts_and_outputs_out() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    worker.complete(id, succeeded(), Vec::new()).await;
    let item = &app.get("/api/v1/tasks").await.items()[0];
    assert_eq!(item["state"], "succeeded");
    assert!(item.get("attempts").is_none() && item.get("outputs").is_none(), "{item}");
}

#[tokio::test]
async fn pages_show_each_task_once_while_new_ones_come() {
    let app = test_app!();
    // Batches: many tasks of the same millisecond.
    let batch: Vec<Value> =
        (0..125).map(|_| json!({"image": "a", "labels": {"set": "1"}})).collect();
    let mut expected = Vec::new();
    for _ in 0..2 {
        let answer = app.post("/api/v1/tasks/batch", &json!({"tasks": batch})).await;
        expected.extend(answer.items().into_iter().map(|it| it["id"].as_str().unwrap().to_owned()));
    }
    expected.reverse();
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = app.get(&format!("/api/v1/tasks?label=set=1&limit=40{cursor}")).await;
        seen.extend(page.items().into_iter().map(|it| it["id"].as_str().unwrap().to_owned()));
        app.submit(&json!({"image": "a", "labels": {"set": "1"}})).await;
        match page.json()["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 250);
    assert_eq!(seen, expected);
    // A page that is exactly full is the last one where nothing follows.
    let exact = app.get("/api/v1/tasks?limit=257").await;
    assert_eq!(exact.items().len(), 257);
    assert!(exact.json().get("next_cursor").is_none());
}
