use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::test_app;

const PATH: &str = "/api/v1/render";

#[tokio::test]
async fn a_task_is_shown_as_its_engine_would_get_it() {
    let app = test_app!();
    let task = json!({
        "image": "busybox:1.36", "entrypoint": ["sh", "-c"], "command": ["echo hello"],
        "env": {"LANG": "C", "API_TOKEN": "hush", "DB": "postgres://me:hush@db/x"},
        "files": [{"path": "/in/a.txt", "content": "hush"}], "user": "1000", "labels": {"team": "a"},
        "resources": {"cpu": "500m", "memory": "64Mi", "pids": 20}, "run_key": "etl.7",
    });
    let answer = app.post(PATH, &task).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert!(!answer.text().contains("hush"), "{answer:?}");
    let mut shown = answer.json();
    // What the installation is called, and the hash that tells this task from others.
    let labels = shown["create"]["Labels"].as_object_mut().unwrap();
    let hash = labels.insert("supercargo.dev/spec".to_owned(), json!("[hash]")).unwrap();
    labels.insert("supercargo.dev/installation".to_owned(), json!("[id]"));
    let name = shown["name"].as_str().unwrap().to_owned();
    assert!(
        name.starts_with("sc-") && name.ends_with("-00000000000070008000000000000000"),
        "{name}"
    );
    shown["name"] = json!("[name]");
    insta::assert_snapshot!(serde_json::to_string_pretty(&sorted(shown)).unwrap());
    // It is the identity of the task, not of what is shown of it.
    let mut other = task.clone();
    other["env"]["API_TOKEN"] = json!("other");
    let other = app.post(PATH, &other).await.json();
    assert_ne!(other["create"]["Labels"]["supercargo.dev/spec"], hash);
    assert_eq!(app.count().await, 0, "nothing is stored");
}

fn sorted(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(fields) => {
            let fields: std::collections::BTreeMap<_, _> =
                fields.into_iter().map(|(key, it)| (key, sorted(it))).collect();
            fields.into_iter().collect()
        }
        other => other,
    }
}

#[tokio::test]
async fn a_simulated_task_says_what_it_would_do() {
    let app = test_app!();
    let form =
        "image=none&target=simulated&env.FAKE_EXIT=3&env.FAKE_RUN_FOR=300ms&env.FAKE_LOG_LINES=2";
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let answer = app.call(Method::POST, PATH, &headers, Body::from(form)).await;
    insta::assert_snapshot!(answer.stable());
    let bad = json!({"image": "none", "target": "simulated", "env": {"FAKE_EXIT": "x"}});
    let answer = app.post(PATH, &bad).await.json();
    assert!(
        answer["simulated"]["refused"].as_str().unwrap().starts_with("FAKE_EXIT=\"x\""),
        "{answer}"
    );
}

#[tokio::test]
async fn what_would_be_refused_is_refused_here_too() {
    let app = test_app!();
    let answer = app.post(PATH, &json!({"image": "a", "comand": "x", "target": "locl"})).await;
    assert!(answer.problem().contains("and 1 more fault"), "{answer:?}");
}
