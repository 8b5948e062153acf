use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::support::{PATIENCE, until};
use crate::test_app;

const PATH: &str = "/api/v1/tokens";

#[tokio::test]
async fn a_token_works_until_it_is_revoked_and_is_shown_once() {
    let app = test_app!();
    let made = app.post(PATH, &json!({"name": "ci", "expires_in": "30d"})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    let list = async |bearer: &str| {
        app.call(Method::GET, PATH, &[("authorization", bearer)], Body::empty()).await
    };
    let listed = list(&bearer).await;
    assert_eq!(listed.status, StatusCode::OK);
    let names: Vec<_> = listed.items().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["ci", "tester"]);
    assert!(!listed.text().contains(&token), "the token is shown again");
    let task = json!({"image": "busybox"});
    let by = app.post_with("/api/v1/tasks", &[("authorization", &bearer)], &task).await;
    assert_eq!(by.status, StatusCode::CREATED);

    let revoke =
        async || app.call(Method::DELETE, &format!("{PATH}/{id}"), &[], Body::empty()).await;
    assert_eq!(revoke().await.status, StatusCode::NO_CONTENT);
    assert_eq!(revoke().await.status, StatusCode::NO_CONTENT);
    assert_eq!(list(&bearer).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(app.get(PATH).await.items().len(), 1);
    let unknown = app.call(Method::DELETE, &format!("{PATH}/x"), &[], Body::empty()).await;
    assert!(unknown.problem().starts_with("404 token_not_found"), "{unknown:?}");
}

#[tokio::test]
async fn a_token_that_expired_is_none() {
    let app = test_app!();
    let made = app.post(PATH, &json!({"name": "short", "expires_in": "1ms"})).await;
    let bearer = format!("Bearer {}", made.json()["token"].as_str().unwrap());
    let answer = app.call(Method::GET, PATH, &[("authorization", &bearer)], Body::empty()).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_that_was_used_a_moment_ago_expires_all_the_same() {
    let app = test_app!();
    let made = app.post(PATH, &json!({"name": "short", "expires_in": "3s"})).await;
    let bearer = format!("Bearer {}", made.json()["token"].as_str().unwrap());
    let status = async || {
        app.call(Method::GET, PATH, &[("authorization", &bearer)], Body::empty()).await.status
    };
    assert_eq!(status().await, StatusCode::OK);
    until("the token has expired", PATIENCE, async || {
        (status().await == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_bad_token_request_names_its_faults() {
    let app = test_app!();
    let bad = app.post(PATH, &json!({"nam": "x", "expires_in": "soon"})).await;
    assert_eq!(bad.status, StatusCode::UNPROCESSABLE_ENTITY);
    let pointers: Vec<_> =
        bad.json()["errors"].as_array().unwrap().iter().map(|it| it["pointer"].clone()).collect();
    assert_eq!(pointers, ["/name", "/expires_in", "/nam"]);
    let dead = app.post(PATH, &json!({"name": "x", "expires_in": "0s"})).await;
    assert_eq!(dead.json()["errors"][0]["pointer"], "/expires_in", "{dead:?}");
}
