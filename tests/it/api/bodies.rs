//! One document in three notations, and what each can get wrong.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::support::api::{Answer, TestApp};
use crate::test_app;

const FORM: &str = "application/x-www-form-urlencoded";

async fn post(app: &TestApp, path: &str, content_type: &str, body: &str) -> Answer {
    let headers = [("content-type", content_type)];
    app.call(Method::POST, path, &headers, Body::from(body.to_owned())).await
}

#[tokio::test]
async fn a_task_is_the_same_in_every_notation() {
    let app = test_app!();
    let json = json!({
        "image": "busybox:1.36", "name": "same", "command": ["sh", "-c", "exit 3"], "env": {"A": "1.20", "B": "no"},
        "init": true, "priority": -5, "labels": {"team": "a"}, "resources": {"cpu": "0.5", "pids": 20},
        "skip_on_exit_codes": [99], "outputs": {"r": {"path": "/out/r", "required": true}},
    })
    .to_string();
    let yaml = "image: busybox:1.36\nname: same\ncommand: [sh, -c, exit 3]\nenv: {A: 1.20, B: no}\ninit: true\n\
        priority: -5\nlabels:\n  team: a\nresources: {cpu: 0.5, pids: 20}\nskip_on_exit_codes:\n- 99\n\
        outputs:\n  r:\n    path: /out/r\n    required: true\n";
    let form = "image=busybox:1.36&name=same&command=sh&command=-c&command=exit+3&env.A=1.20&env.B=no&init=true\
        &priority=-5&labels.team=a&resources.cpu=0.5&resources.pids=20&skip_on_exit_codes=99\
        &outputs.r.path=/out/r&outputs.r.required=true";
    let mut specs = Vec::new();
    for (content_type, body) in [
        ("application/json", json.as_str()),
        // What `curl -d` calls it.
        (FORM, json.as_str()),
        ("application/yaml", yaml),
        ("application/x-yaml", yaml),
        ("text/yaml; charset=utf-8", yaml),
        (FORM, form),
    ] {
        let answer = post(&app, "/api/v1/tasks", content_type, body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{content_type}: {answer:?}");
        let spec = app.get(&format!("/api/v1/tasks/{}/spec", answer.id())).await;
        specs.push(spec.json());
    }
    assert_eq!(specs[0]["env"]["A"], "1.20");
    for spec in &specs {
        assert_eq!(spec, &specs[0]);
    }
}

#[tokio::test]
async fn a_batch_is_taken_as_yaml_and_not_as_a_form() {
    let app = test_app!();
    let batch = "tasks:\n- image: a\n- &b\n  image: b\n  env: {N: 1}\n- {<<: *b, name: c}\n";
    let answer = post(&app, "/api/v1/tasks/batch", "application/yaml", batch).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let names: Vec<Value> = answer.items().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let answer = post(&app, "/api/v1/tasks/batch", FORM, "image=a").await;
    assert!(answer.problem().starts_with("422 spec_invalid: \"tasks\" is required"), "{answer:?}");
}

#[tokio::test]
async fn what_a_notation_gets_wrong_is_said_with_its_place() {
    let app = test_app!();
    let mut lines = Vec::new();
    for (content_type, body) in [
        ("application/json", "{\"image\": \"a\",\n \"env\": {\"A\": 1, \"A\": 2}}"),
        ("application/json", "{\"image\": \"a\", \"image\": \"a\"}"),
        ("application/yaml", "image: a\nimage: b\n"),
        ("application/yaml", "image: [a\n"),
        ("application/yaml", "image: a\npriority: high\ncomand: x\n"),
        ("application/yaml", "- image: a\n"),
        ("application/yaml", "just text"),
        ("application/yaml", " \n"),
        (FORM, "image=%FF"),
        (FORM, "comand=x&image=a"),
        // A dict in the data of an HttpOperator: its inner dicts are gone.
        (FORM, "image=a&env=LANG&resources=cpu&resources=memory"),
        (FORM, "image=a&priority=high"),
        ("application/xml", "<image/>"),
    ] {
        lines.push(post(&app, "/api/v1/tasks", content_type, body).await.problem());
    }
    insta::assert_snapshot!(lines.join("\n"));
    let answer = post(&app, "/api/v1/tasks", "application/yaml", "image: a\nimage: b\n").await;
    assert_eq!((&answer.json()["line"], &answer.json()["column"]), (&json!(2), &json!(1)));
    assert_eq!(app.count().await, 0);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let app = test_app!(|settings, _| settings.body_timeout = Duration::from_millis(50));
    let half = stream::iter([Ok::<_, std::io::Error>("{\"image\":")]);
    let body = Body::from_stream(half.chain(stream::pending()));
    let answer = app.call(Method::POST, "/api/v1/tasks", &[], body).await;
    assert!(answer.problem().starts_with("408 request_timeout: "), "{answer:?}");
    assert_eq!(app.count().await, 0);
}

#[tokio::test]
async fn the_trace_of_the_caller_is_kept_with_the_task() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let app = test_app!();
    let trace = async |headers: &[(&str, &str)], body: Value| {
        let answer = app.post_with("/api/v1/tasks", headers, &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        let spec = app.get(&format!("/api/v1/tasks/{}/spec", answer.id())).await.json();
        let text = |key: &str| spec.get(key).map(|it| it.as_str().unwrap().to_owned());
        text("traceparent").map(|it| (it, text("tracestate")))
    };
    let task = json!({"image": "a"});
    let parent = ("traceparent", PARENT);
    assert_eq!(trace(&[parent], task.clone()).await, Some((PARENT.to_owned(), None)));
    let two = [parent, ("tracestate", "a=1"), ("tracestate", "b=2")];
    let both = Some((PARENT.to_owned(), Some("a=1,b=2".to_owned())));
    assert_eq!(trace(&two, task.clone()).await, both);
    // As the standard says, what is not valid is as good as not there.
    assert_eq!(trace(&[("traceparent", "00-0-0-01")], task.clone()).await, None);
    assert_eq!(trace(&[parent, parent], task.clone()).await, None);
    assert_eq!(trace(&[("tracestate", "a=1")], task.clone()).await, None);
    // The document goes first, and there a slip is a fault.
    let other = PARENT.replace("4bf92f35", "00000001");
    let named = json!({"image": "a", "traceparent": other});
    assert_eq!(trace(&[parent], named).await, Some((other, None)));
    let bad = app.post("/api/v1/tasks", &json!({"image": "a", "traceparent": "x"})).await;
    assert!(bad.problem().contains("not a W3C traceparent"), "{bad:?}");
    let batch = json!({"tasks": [{"image": "a"}, {"image": "b"}]});
    let batch = app.post_with("/api/v1/tasks/batch", &[parent], &batch).await;
    for task in batch.items() {
        let path = format!("/api/v1/tasks/{}/spec", task["id"].as_str().unwrap());
        assert_eq!(app.get(&path).await.json()["traceparent"], PARENT);
    }
}

#[tokio::test]
async fn a_repetition_from_another_place_in_a_trace_is_the_same_request() {
    let app = test_app!();
    let send = async |span: &str| {
        let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{span}-01");
        let headers = [("idempotency-key", "k"), ("traceparent", parent.as_str())];
        app.post_with("/api/v1/tasks", &headers, &json!({"image": "a"})).await
    };
    let first = send("00f067aa0ba902b7").await;
    let second = send("00f067aa0ba902b8").await;
    assert_eq!((first.status, second.status), (StatusCode::CREATED, StatusCode::OK));
    assert_eq!(first.id(), second.id());
}
