use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::json;

use crate::support::api::{Answer, TestApp};
use crate::support::worker::TestWorker;
use crate::support::{PATIENCE, until};
use crate::test_app;

async fn open(app: &TestApp, path: &str) -> Answer {
    let request = Request::get(path).header("host", "localhost").body(Body::empty()).unwrap();
    app.send(request).await
}

#[tokio::test]
async fn probes_and_documents_need_no_token() {
    let app = test_app!();
    assert_eq!(open(&app, "/livez").await.text(), "ok\n");
    assert_eq!(open(&app, "/version").await.json()["name"], "supercargo");
    assert_eq!(open(&app, "/openapi.json").await.json()["openapi"], "3.1.0");
    let root = open(&app, "/").await;
    assert_eq!((root.status, root.header("location")), (StatusCode::SEE_OTHER, "/docs/"));
}

#[tokio::test]
async fn a_sick_target_degrades_and_takes_nothing_down() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let ready = open(&app, "/readyz").await;
    assert_eq!(ready.status, StatusCode::OK);
    assert_eq!(ready.json()["status"], "ok");
    assert_eq!(ready.json()["targets"]["local"]["ready"], true);
    worker.report("local", false, Some("connection refused")).await;
    let degraded = until("it is degraded", PATIENCE, async || {
        let answer = open(&app, "/readyz").await;
        (answer.json()["status"] == "degraded").then_some(answer)
    })
    .await;
    assert_eq!(degraded.status, StatusCode::OK);
    assert_eq!(degraded.json()["targets"]["local"]["why"], "connection refused");
}

#[tokio::test]
async fn another_engine_in_the_place_of_the_one_that_has_tasks_is_told() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    worker.run(&worker.claim_one(id).await).await;
    let path = format!("/api/v1/tasks/{id}");
    assert_eq!(app.get(&path).await.json()["conditions"], json!(null));
    worker.report_engine("local", "other", true, None).await;
    let condition = until("the condition shows", PATIENCE, async || {
        app.get(&path).await.json()["conditions"].as_array().map(|it| it[0].clone())
    })
    .await;
    let message = "the engine \"engine\" that has the task does not answer at target \"local\", another one \
         does (\"other\"), which is not asked about it";
    assert_eq!(condition, json!({"type": "target_unavailable", "message": message}));
    let ready = open(&app, "/readyz").await;
    assert_eq!((ready.status, &ready.json()["status"]), (StatusCode::OK, &json!("degraded")));
    assert_eq!(
        ready.json()["targets"]["local"],
        json!({"ready": true, "kind": "docker", "version": "20.10", "engine": "other",
            "why": "another engine answers than the one that has tasks", "since": "2026-11-21T00:00:00Z",
            "unreached": [{"engine": "engine", "tasks": 1}]})
    );
    // It is not that another task waits: only those of the first engine do.
    let next = app.submit_any().await;
    assert_eq!(app.get(&format!("/api/v1/tasks/{next}")).await.json()["conditions"], json!(null));
    // A cancel is taken, and waits with the condition.
    let cancelled = app.post(&format!("{path}/cancel"), &json!({})).await;
    assert_eq!(cancelled.status, StatusCode::ACCEPTED, "{cancelled:?}");
    let task = app.get(&path).await.json();
    assert_eq!((&task["state"], &task["stop_requested"]), (&json!("running"), &json!(true)));
    assert_eq!(task["conditions"][0]["type"], "target_unavailable");
    worker.report("local", true, None).await;
    until("the condition is gone", PATIENCE, async || {
        let conditions = app.get(&path).await.json()["conditions"].clone();
        (conditions == json!(null)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_a_database_everything_that_needs_one_says_so() {
    let app = test_app!();
    let id = app.submit_any().await;
    app.database.take_away().await;
    for answer in [
        app.get("/readyz").await,
        app.get("/api/v1/tasks").await,
        app.get(&format!("/api/v1/tasks/{id}")).await,
        app.post("/api/v1/tasks", &json!({"image": "busybox"})).await,
    ] {
        assert!(answer.problem().starts_with("503 unavailable"), "{answer:?}");
        assert_eq!(answer.header("retry-after"), "1");
        // Why is for the log.
        assert!(!answer.text().contains("connect"), "{answer:?}");
    }
    assert_eq!(open(&app, "/livez").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_page_and_all_that_it_loads_come_from_the_binary() {
    let app = test_app!();
    assert_eq!(open(&app, "/docs").await.header("location"), "/docs/");
    let page = open(&app, "/docs/").await;
    assert_eq!(page.status, StatusCode::OK);
    let html = page.text();
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("script-src 'self'"),
        "{policy}"
    );
    let named: Vec<&str> = html
        .split(['"', '\''])
        .filter(|it| it.contains('.') && !it.contains([' ', '<', '\n']))
        .collect();
    assert!(named.len() >= 5, "{html}");
    for asset in named {
        assert!(!asset.contains("//"), "{asset} is from elsewhere");
        let asset = open(&app, &format!("/docs/{}", asset.trim_start_matches("./"))).await;
        assert_eq!(asset.status, StatusCode::OK, "{asset:?}");
        assert!(!asset.body.is_empty());
    }
    let settings = open(&app, "/docs/swagger-initializer.js").await.text();
    assert!(settings.contains("\"persistAuthorization\": true"), "{settings}");
    assert!(settings.contains("\"../openapi.json\""), "{settings}");
    assert_eq!(open(&app, "/docs/nothing.js").await.status, StatusCode::NOT_FOUND);
}
