//! Tokens, and keeping web pages of other sites out.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use base64::Engine as _;
use supercargo::auth::Mode;

use crate::support::api::{TOKEN, TestApp};
use crate::test_app;

#[tokio::test]
async fn a_token_is_needed_and_taken_in_three_ways() {
    let app = test_app!();
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("airflow:{TOKEN}"));
    for (name, value) in [
        ("authorization", format!("Bearer {TOKEN}")),
        ("authorization", format!("Basic {basic}")),
        ("x-api-key", TOKEN.to_owned()),
    ] {
        let request =
            Request::get("/api/v1/tasks").header(name, value).body(Body::empty()).unwrap();
        assert_eq!(app.send(request).await.status, StatusCode::OK, "{name}");
    }
    let none = app.send(Request::get("/api/v1/tasks").body(Body::empty()).unwrap()).await;
    insta::assert_snapshot!(none.problem());
    assert_eq!(none.header("www-authenticate"), "Bearer realm=\"supercargo\"");
    let bad = [("authorization", "Bearer sc_wrong")];
    let bad = app.call(Method::GET, "/api/v1/tasks", &bad, Body::empty()).await;
    insta::assert_snapshot!(bad.problem());
    assert!(bad.header("www-authenticate").contains("invalid_token"));
}

#[tokio::test]
async fn without_authentication_only_loopback_names_are_answered() {
    let app = test_app!(|_, mode| *mode = Mode::Off);
    let get = async |path: &str, host: Option<&str>| {
        let mut request = Request::get(path);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        app.send(request.body(Body::empty()).unwrap()).await
    };
    for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"] {
        assert_eq!(get("/api/v1/tasks", Some(host)).await.status, StatusCode::OK, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example:8080", "10.0.0.1", ""] {
        let answer = get("/api/v1/tasks", Some(host)).await;
        assert!(answer.problem().starts_with("403 host_not_allowed"), "{host}: {answer:?}");
    }
    assert_eq!(get("/api/v1/tasks", None).await.status, StatusCode::FORBIDDEN);
    // Probes call a pod by its address.
    assert_eq!(get("/livez", Some("10.0.0.1:8080")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn with_allowed_hosts_no_other_is_answered() {
    let app = test_app!(|settings, _| settings.allowed_hosts = vec!["cargo.example".to_owned()]);
    for (host, expected) in [
        ("cargo.example", StatusCode::OK),
        ("cargo.example:8443", StatusCode::OK),
        ("localhost:8080", StatusCode::FORBIDDEN),
        ("evil.example", StatusCode::FORBIDDEN),
    ] {
        let request = Request::get("/api/v1/tasks").header("host", host).header("x-api-key", TOKEN);
        let answer = app.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, expected, "{host}");
    }
}

async fn post_from(app: &TestApp, headers: &[(&str, &str)]) -> StatusCode {
    let body = Body::from("{\"image\": \"busybox\"}");
    let answer = app.call(Method::POST, "/api/v1/tasks", headers, body).await;
    if answer.status == StatusCode::FORBIDDEN {
        assert!(answer.problem().starts_with("403 foreign_origin"), "{answer:?}");
    }
    assert!(!answer.headers.keys().any(|it| it.as_str().starts_with("access-control-")));
    answer.status
}

#[tokio::test]
async fn pages_of_other_sites_are_kept_out() {
    // With and without tokens: a browser may hold one.
    for off in [false, true] {
        let app = test_app!(|settings, mode| {
            settings.allowed_origins = vec!["https://console.example".to_owned()];
            if off {
                *mode = Mode::Off;
            }
        });
        for (headers, expected) in [
            (&[][..], 201),
            (&[("origin", "http://localhost:8080")], 201),
            (&[("origin", "http://LOCALHOST:8080"), ("sec-fetch-site", "same-origin")], 201),
            (&[("origin", "https://console.example")], 201),
            (&[("origin", "https://console.example"), ("sec-fetch-site", "same-site")], 201),
            (&[("origin", "http://evil.example")], 403),
            (&[("origin", "http://localhost:8081")], 403),
            (&[("origin", "http://localhost")], 403),
            (&[("origin", "null")], 403),
            (&[("origin", "")], 403),
            (&[("origin", "http://localhost:8080"), ("origin", "http://evil.example")], 403),
            (&[("sec-fetch-site", "cross-site")], 403),
            (&[("sec-fetch-site", "same-site")], 403),
            (&[("sec-fetch-site", "none")], 201),
            (&[("origin", "https://console.example"), ("sec-fetch-site", "cross-site")], 403),
        ] {
            assert_eq!(post_from(&app, headers).await, expected, "{headers:?}");
        }
        let read = [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")];
        let read = app.call(Method::GET, "/api/v1/tasks", &read, Body::empty()).await;
        assert_eq!(read.status, StatusCode::OK);
        assert!(!read.headers.keys().any(|it| it.as_str().starts_with("access-control-")));
    }
}

#[tokio::test]
async fn behind_a_proxy_the_public_address_is_our_own() {
    let app = test_app!(
        |settings, _| settings.public_url = Some("https://cargo.example/api-host".to_owned())
    );
    let own = [("origin", "https://cargo.example")];
    assert_eq!(post_from(&app, &own).await, StatusCode::CREATED);
    // Without TLS it is another origin.
    assert_eq!(post_from(&app, &[("origin", "http://cargo.example")]).await, StatusCode::FORBIDDEN);
    let answer = app.post("/api/v1/tasks", &serde_json::json!({"image": "busybox"})).await;
    let path = format!("/api-host/api/v1/tasks/{}", answer.id());
    assert_eq!(answer.header("location"), path);
    assert_eq!(answer.json()["links"]["self"], format!("https://cargo.example{path}"));
}

#[tokio::test]
async fn the_metrics_are_as_open_as_configured() {
    let get = |name: &'static str| {
        Request::get("/metrics").header(name, TOKEN).body(Body::empty()).unwrap()
    };
    let closed = test_app!();
    assert_eq!(closed.send(get("x-nothing")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(closed.send(get("x-api-key")).await.text(), "# the metrics\n");
    let open = test_app!(|settings, _| settings.metrics_open = true);
    assert_eq!(open.send(get("x-nothing")).await.status, StatusCode::OK);
}
