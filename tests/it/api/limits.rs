//! What callers may ask for: how often, how much, and what they hear beyond it.

use std::net::IpAddr;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::json;
use supercargo::api::Peer;
use supercargo::auth::Mode;

use crate::support::api::{Answer, TOKEN, TestApp};
use crate::test_app;

/// A request from an address, with a token or without.
async fn from(app: &TestApp, address: &str, token: Option<&str>, path: &str) -> Answer {
    let mut request = Request::builder().uri(path).header("host", "localhost");
    if let Some(token) = token {
        request = request.header("x-api-key", token);
    }
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(Peer(address.parse::<IpAddr>().unwrap()));
    app.send(request).await
}

fn assert_limited(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
    assert!(answer.problem().starts_with("429 rate_limited: "), "{answer:?}");
    assert!((1..=2).contains(&answer.header("retry-after").parse::<u64>().unwrap()));
}

#[tokio::test]
async fn a_token_may_do_so_much_a_second() {
    let app = test_app!(|settings, _| (settings.rate_limit, settings.rate_burst) = (1, 3));
    let tasks = "/api/v1/tasks";
    for address in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        assert_eq!(from(&app, address, Some(TOKEN), tasks).await.status, StatusCode::OK);
    }
    // It is the token that counts, wherever it comes from, and whatever it asks for.
    assert_limited(&from(&app, "10.0.0.4", Some(TOKEN), tasks).await);
    assert_limited(&from(&app, "10.0.0.1", Some(TOKEN), "/metrics").await);
    for _ in 0..10 {
        assert_eq!(from(&app, "10.0.0.1", None, "/livez").await.status, StatusCode::OK);
        assert_eq!(from(&app, "10.0.0.1", None, "/readyz").await.status, StatusCode::OK);
    }
    // What needs no token counts by address.
    for _ in 0..3 {
        assert_eq!(from(&app, "10.0.0.1", None, "/version").await.status, StatusCode::OK);
    }
    assert_limited(&from(&app, "10.0.0.1", None, "/openapi.json").await);
    assert_eq!(from(&app, "10.0.0.2", None, "/version").await.status, StatusCode::OK);
}

#[tokio::test]
async fn without_tokens_an_address_may_do_so_much_a_second() {
    let app = test_app!(|settings, mode| {
        (settings.rate_limit, settings.rate_burst) = (1, 2);
        *mode = Mode::Off;
    });
    for _ in 0..2 {
        assert_eq!(from(&app, "::1", None, "/api/v1/tasks").await.status, StatusCode::OK);
    }
    assert_limited(&from(&app, "::1", None, "/api/v1/tasks").await);
    assert_eq!(from(&app, "127.0.0.1", None, "/api/v1/tasks").await.status, StatusCode::OK);
}

#[tokio::test]
async fn whoever_guesses_tokens_is_slowed_down_and_locks_nobody_out() {
    let app = test_app!(|settings, _| settings.failed_auth_limit = 1);
    let tasks = "/api/v1/tasks";
    assert_eq!(from(&app, "10.0.0.1", Some(TOKEN), tasks).await.status, StatusCode::OK);
    for guess in ["a", "b", "c", "d"] {
        let answer = from(&app, "10.0.0.1", Some(guess), tasks).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{answer:?}");
    }
    assert_eq!(from(&app, "10.0.0.1", None, tasks).await.status, StatusCode::UNAUTHORIZED);
    assert_limited(&from(&app, "10.0.0.1", Some("e"), tasks).await);
    assert_limited(&from(&app, "10.0.0.1", None, tasks).await);
    // The same address, with a token that was good before; and another address.
    assert_eq!(from(&app, "10.0.0.1", Some(TOKEN), tasks).await.status, StatusCode::OK);
    assert_eq!(from(&app, "10.0.0.2", Some("a"), tasks).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn nothing_is_limited_unless_it_is_set() {
    let app = test_app!(|settings, _| settings.failed_auth_limit = 0);
    for _ in 0..100 {
        assert_eq!(from(&app, "10.0.0.1", Some(TOKEN), "/api/v1/tasks").await.status, 200);
        assert_eq!(from(&app, "10.0.0.1", None, "/api/v1/tasks").await.status, 401);
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_in_words() {
    let app = test_app!(|settings, _| settings.header_limit = 4 << 10);
    let large = "x".repeat(4 << 10);
    let cookie = [("cookie", large.as_str())];
    let answer = app.call(Method::GET, "/api/v1/tasks", &cookie, Body::empty()).await;
    assert!(answer.problem().starts_with("431 headers_too_large: "), "{answer:?}");
    assert!(answer.problem().contains("http.header_limit"), "{answer:?}");
    let answer = app.get(&format!("/api/v1/tasks?name={large}")).await;
    assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let answer = app.get(&format!("/api/v1/tasks?name={}", &large[..3 << 10])).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

#[tokio::test]
async fn a_queue_that_is_full_takes_no_more() {
    let app = test_app!(|settings, _| settings.queued_tasks = 3);
    let task = json!({"image": "a"});
    for _ in 0..3 {
        app.submit(&task).await;
    }
    let tasks = json!({"tasks": [task, task]});
    for (path, body) in [("/api/v1/tasks", &task), ("/api/v1/tasks/batch", &tasks)] {
        let answer = app.post(path, body).await;
        assert!(answer.problem().starts_with("503 queue_full: "), "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    }
    assert_eq!(app.count().await, 3);
    // What left the queue makes room, once that was seen.
    let first = app.get("/api/v1/tasks").await.items()[0]["id"].as_str().unwrap().to_owned();
    app.post(&format!("/api/v1/tasks/{first}/cancel"), &json!(null)).await;
    crate::support::until("there is room", std::time::Duration::from_secs(20), async || {
        let answer = app.post("/api/v1/tasks", &task).await;
        (answer.status == StatusCode::CREATED).then_some(())
    })
    .await;
}
