//! Who gets a compressed answer, and who must not.

use std::io::Read as _;

use axum::body::Body;
use axum::http::Method;
use serde_json::{Value, json};

use crate::support::api::{Answer, TestApp};
use crate::test_app;

async fn get(app: &TestApp, path: &str, accepted: &str) -> Answer {
    app.call(Method::GET, path, &[("accept-encoding", accepted)], Body::empty()).await
}

fn unpacked(answer: &Answer) -> Vec<u8> {
    let coding = answer.headers.get("content-encoding").map(|it| it.to_str().unwrap());
    let mut bytes = Vec::new();
    match coding {
        None => bytes.extend_from_slice(&answer.body),
        Some("gzip") => {
            flate2::read::GzDecoder::new(&*answer.body).read_to_end(&mut bytes).unwrap();
        }
        Some("zstd") => bytes = zstd::decode_all(&*answer.body).unwrap(),
        Some(other) => panic!("{other}"),
    }
    bytes
}

#[tokio::test]
async fn a_large_answer_is_compressed_for_who_takes_it() {
    let app = test_app!();
    let tasks = json!({"tasks": vec![json!({"image": "a"}); 50]});
    app.post("/api/v1/tasks/batch", &tasks).await;
    let path = "/api/v1/tasks?limit=50";
    let plain = get(&app, path, "identity").await;
    assert!(!plain.headers.contains_key("content-encoding"), "{plain:?}");
    for (accepted, coding) in
        [("gzip, deflate", "gzip"), ("zstd", "zstd"), ("gzip;q=0.5, zstd", "zstd")]
    {
        let packed = get(&app, path, accepted).await;
        assert_eq!(packed.header("content-encoding"), coding);
        assert!(packed.header("vary").contains("accept-encoding"), "{packed:?}");
        assert!(
            packed.body.len() * 4 < plain.body.len(),
            "{} {}",
            packed.body.len(),
            plain.body.len()
        );
        let json: Value = serde_json::from_slice(&unpacked(&packed)).unwrap();
        assert_eq!(json, plain.json());
    }
    for accepted in ["br", "gzip;q=0", "*;q=0", "br, identity; q=0.0"] {
        let answer = get(&app, path, accepted).await;
        assert_eq!(answer.status.as_u16(), 200, "{accepted}: {answer:?}");
        assert!(!answer.headers.contains_key("content-encoding"), "{accepted}: {answer:?}");
    }
    // A description of the API, and a page.
    assert_eq!(get(&app, "/openapi.json", "gzip").await.header("content-encoding"), "gzip");
}

#[tokio::test]
async fn small_answers_and_streams_are_as_they_are() {
    let app = test_app!();
    let id = app.submit_any().await;
    let log: &'static [u8] = Vec::leak(b"the same line\n".repeat(10_000));
    app.logs.texts.lock().unwrap().insert((id, 1), log);
    for path in
        [format!("/api/v1/tasks/{id}"), format!("/api/v1/tasks/{id}/logs"), "/version".to_owned()]
    {
        let answer = get(&app, &path, "gzip, zstd").await;
        assert!(answer.status.is_success(), "{answer:?}");
        assert!(!answer.headers.contains_key("content-encoding"), "{path}");
    }
    let answer = get(&app, &format!("/api/v1/tasks/{id}/logs"), "gzip").await;
    assert_eq!(answer.body, log);
}
