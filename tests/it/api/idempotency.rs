use axum::http::StatusCode;
use futures_util::future::join_all;
use serde_json::json;

use crate::support::worker::{TestWorker, failed};
use crate::test_app;

const PATH: &str = "/api/v1/tasks";
const BATCH: &str = "/api/v1/tasks/batch";

#[tokio::test]
async fn the_same_request_is_the_same_task_whatever_became_of_it() {
    let app = test_app!();
    let key = [("idempotency-key", "etl 1")];
    let first =
        app.post_with(PATH, &key, &json!({"image": "busybox", "env": {"A": "1", "B": "2"}})).await;
    assert_eq!(first.status, StatusCode::CREATED);
    // Another order of the fields is the same document.
    let again =
        app.post_with(PATH, &key, &json!({"env": {"B": "2", "A": "1"}, "image": "busybox"})).await;
    assert_eq!(again.status, StatusCode::OK, "{again:?}");
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.json(), first.json());
    let worker = TestWorker::start(&app.store).await;
    worker.complete(first.id(), failed(3, "x"), Vec::new()).await;
    let body = json!({"image": "busybox", "env": {"A": "1", "B": "2"}});
    let after = app.post_with(PATH, &key, &body).await;
    assert_eq!((after.status, &after.json()["state"]), (StatusCode::OK, &json!("failed")));
    let waited = app.post_with("/api/v1/tasks?wait=1s", &key, &body).await;
    assert_eq!(waited.status, StatusCode::FAILED_DEPENDENCY);
    assert_eq!(waited.header("idempotent-replayed"), "true");
    assert_eq!(app.count().await, 1);
}

#[tokio::test]
async fn the_same_key_for_something_else_names_the_difference() {
    let app = test_app!();
    let key = [("idempotency-key", "k")];
    let first = app
        .post_with(
            PATH,
            &key,
            &json!({"image": "busybox", "command": ["a"], "env": {"PASSWORD": "1"}}),
        )
        .await;
    let other = app
        .post_with(
            PATH,
            &key,
            &json!({"image": "busybox", "command": ["b"], "env": {"PASSWORD": "2"}}),
        )
        .await;
    let id = first.id().to_string();
    insta::assert_snapshot!(other.problem().replace(&id, "[id]"));
    assert_eq!(other.json()["errors"][0]["pointer"], "/command");
    // A default that is spelled out is another document that means the same.
    let spelled =
        json!({"image": "busybox", "command": ["a"], "env": {"PASSWORD": "1"}, "priority": 0});
    let spelled = app.post_with(PATH, &key, &spelled).await;
    assert!(spelled.problem().contains("its body was not the same"), "{spelled:?}");
    assert_eq!(app.count().await, 1);
}

#[tokio::test]
async fn many_at_once_with_one_key_make_one_task() {
    let app = test_app!();
    let key = [("idempotency-key", "k")];
    let body = json!({"image": "busybox"});
    let answers = join_all((0..64).map(|_| app.post_with(PATH, &key, &body))).await;
    let created = answers.iter().filter(|it| it.status == StatusCode::CREATED).count();
    let replayed = answers.iter().filter(|it| it.status == StatusCode::OK).count();
    assert_eq!((created, replayed), (1, 63));
    assert!(answers.iter().all(|it| it.id() == answers[0].id()));
    assert_eq!(app.count().await, 1);
}

#[tokio::test]
async fn keys_that_are_no_keys_are_refused() {
    let app = test_app!();
    let long = "k".repeat(256);
    for key in ["", "\u{e9}", long.as_str()] {
        let answer = app.post_with(PATH, &[("idempotency-key", key)], &json!({"image": "a"})).await;
        assert!(answer.problem().starts_with("400 invalid_idempotency_key"), "{answer:?}");
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    let twice = app.post_with(PATH, &twice, &json!({"image": "a"})).await;
    assert_eq!(twice.status, StatusCode::BAD_REQUEST);
    let longest = "k".repeat(255);
    let longest = [("idempotency-key", longest.as_str())];
    let longest = app.post_with(PATH, &longest, &json!({"image": "a"})).await;
    assert_eq!(longest.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_batch_is_one_request_under_its_key() {
    let app = test_app!();
    let key = [("idempotency-key", "k")];
    let batch = |n: usize| {
        let tasks: Vec<_> =
            (0..n).map(|it| json!({"image": "busybox", "name": it.to_string()})).collect();
        json!({"tasks": tasks})
    };
    let first = app.post_with(BATCH, &key, &batch(5)).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let again = app.post_with(BATCH, &key, &batch(5)).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (StatusCode::OK, "true"));
    assert_eq!(again.items(), first.items());
    // Neither a longer one, nor a shorter one, nor a single task is the same request.
    for other in [batch(6), batch(4)] {
        let answer = app.post_with(BATCH, &key, &other).await;
        assert!(answer.problem().starts_with("422 idempotency_key_reused"), "{answer:?}");
    }
    let single = app.post_with(PATH, &key, &json!({"image": "busybox", "name": "0"})).await;
    assert!(single.problem().starts_with("422 idempotency_key_reused"), "{single:?}");
    assert_eq!(app.count().await, 5);
}

#[tokio::test]
async fn batches_at_once_with_one_key_are_one_batch() {
    let app = test_app!();
    let key = [("idempotency-key", "k")];
    let batch = json!({"tasks": [{"image": "a"}, {"image": "b"}, {"image": "c"}]});
    let answers = join_all((0..16).map(|_| app.post_with(BATCH, &key, &batch))).await;
    let created = answers.iter().filter(|it| it.status == StatusCode::CREATED).count();
    assert_eq!(created, 1, "{answers:?}");
    assert!(answers.iter().all(|it| it.items()[2]["id"] == answers[0].items()[2]["id"]));
    assert_eq!(app.count().await, 3);
}
