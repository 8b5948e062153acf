//! The description of the API against what the service does.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use supercargo::domain::spec::{Limits, parse};

use crate::support::declared::description;
use crate::test_app;

fn document() -> Value {
    description().document.clone()
}

/// `(method, path, operation)`.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            all.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    all
}

#[test]
fn the_operations_are_stable() {
    let lines: Vec<String> = operations(&document())
        .iter()
        .map(|(method, path, it)| {
            format!("{method} {path} {}", it["operationId"].as_str().unwrap())
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn every_operation_needs_a_token_unless_it_is_listed_here() {
    const OPEN: [&str; 4] = ["/livez", "/readyz", "/version", "/api/v1/schema/workflow.json"];
    let app = test_app!();
    let document = document();
    assert!(!document["security"].as_array().unwrap().is_empty());
    for (method, path, operation) in operations(&document) {
        let uri =
            path.replace("{id}", "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11").replace("{name}", "x");
        let request =
            Request::builder().method(method.as_str()).uri(uri).header("host", "localhost");
        let answer = app.send(request.body(Body::empty()).unwrap()).await;
        let open = OPEN.contains(&path.as_str());
        assert_eq!(answer.status != StatusCode::UNAUTHORIZED, open, "{method} {path}: {answer:?}");
        assert_eq!(operation.get("security").is_some(), open, "{method} {path}");
    }
}

#[test]
fn every_example_of_a_task_parses() {
    let mut count = 0;
    for (_, path, operation) in operations(&document()) {
        let body = &operation["requestBody"]["content"]["application/json"];
        let schema = body["schema"]["$ref"].as_str().unwrap_or_default();
        if !schema.ends_with("/TaskSpec") && !schema.ends_with("/TaskBatch") {
            continue;
        }
        for (name, example) in body["examples"].as_object().into_iter().flatten() {
            let value = &example["value"];
            let tasks = value["tasks"].as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            for task in tasks {
                count += 1;
                parse(&task, &Limits::default())
                    .unwrap_or_else(|it| panic!("{path} {name}: {it:?}"));
            }
        }
    }
    assert!(count >= 6, "{count}");
}

#[test]
fn every_task_document_of_the_examples_parses() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tasks");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let task: Value = serde_json::from_str(&text).unwrap();
        count += 1;
        parse(&task, &Limits::default()).unwrap_or_else(|it| panic!("{}: {it:?}", path.display()));
        let described = description().validate("/components/schemas/TaskSpec", &task);
        described.unwrap_or_else(|it| panic!("{}: {it}", path.display()));
    }
    assert!(count >= 5, "{count}");
}

#[test]
fn the_committed_documents_are_current() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi");
    let written = supercargo::api::openapi();
    for (name, document) in [("openapi.json", written.v3_1), ("openapi-3.0.json", written.v3_0)] {
        let committed = std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
        assert!(committed == document, "openapi/{name} is old: run `make prepare`");
    }
}

#[tokio::test]
async fn both_versions_are_served_to_everybody() {
    let app = test_app!();
    let written = supercargo::api::openapi();
    for (path, version, document) in
        [("/openapi.json", "3.1.0", written.v3_1), ("/openapi-3.0.json", "3.0.3", written.v3_0)]
    {
        let request = Request::get(path).header("host", "localhost").body(Body::empty()).unwrap();
        let answer = app.send(request).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.text(), document);
        assert_eq!(answer.json()["openapi"], version);
    }
}

#[tokio::test]
async fn every_example_can_be_tried_as_it_is() {
    let app = test_app!();
    for (method, path, operation) in operations(&document()) {
        let examples = &operation["requestBody"]["content"]["application/json"]["examples"];
        for (name, example) in examples.as_object().into_iter().flatten() {
            // Each is tried on its own: a key in the path is that of one piece of work.
            let target = name.replace('_', "-");
            let path = path.replace("{id}", &format!("key:{name}")).replace("{name}", &target);
            let verb = Method::from_bytes(method.as_bytes()).unwrap();
            let json = [("content-type", "application/json")];
            let body = Body::from(example["value"].to_string());
            let answer = app.call(verb, &path, &json, body).await;
            assert_eq!(answer.status, StatusCode::CREATED, "{method} {path} {name}: {answer:?}");
        }
        // What the page fills in by itself must not make a request fail.
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let required = parameter["required"] == true;
            assert_eq!(parameter.get("example").is_some(), required, "{path} {parameter}");
            let described = required || parameter["schema"]["examples"].is_array();
            assert!(described && parameter["description"].is_string(), "{path} {parameter}");
        }
    }
    let query = "?state=failed,cancelled&label=team=a&name=count&target=local&limit=20&submitted_after=2026-11-21T00:00:00Z\
        &submitted_before=2030-01-01T00:00:00Z&cursor=AZnSpIweezOaUj9vajocEQ";
    assert_eq!(app.get(&format!("/api/v1/tasks{query}")).await.status, StatusCode::OK);
}

/// The fields that the parser knows at a place: it lists them where a name is like none of them.
fn known_fields(wrap: impl Fn(Value) -> Value) -> BTreeSet<String> {
    let faults = parse(&wrap(json!({"qqqqqqqqqqqqqqqqqqqq": 1})), &Limits::default()).unwrap_err();
    let detail = &faults.iter().find(|it| it.code == "unknown_field").unwrap().detail;
    let (_, list) = detail.split_once("the fields here are ").unwrap();
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_described_task_has_the_fields_that_are_read() {
    let document = document();
    let described = |name: &str| -> BTreeSet<String> {
        let schema = &document["components"]["schemas"][name];
        schema["properties"].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(described("TaskSpec"), known_fields(|it| it));
    assert_eq!(described("Resources"), known_fields(|it| json!({"resources": it})));
    assert_eq!(described("Timeouts"), known_fields(|it| json!({"timeouts": it})));
    assert_eq!(described("Retries"), known_fields(|it| json!({"retries": it})));
    assert_eq!(described("Backoff"), known_fields(|it| json!({"retries": {"backoff": it}})));
    assert_eq!(described("InputFile"), known_fields(|it| json!({"files": [it]})));
    assert_eq!(described("OutputDeclaration"), known_fields(|it| json!({"outputs": {"a": it}})));
    assert_eq!(document["components"]["schemas"]["TaskSpec"]["required"], json!(["image"]));
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let text = document.to_string();
    let names: BTreeSet<&str> = text
        .split("\"#/components/schemas/")
        .skip(1)
        .map(|it| it.split('"').next().unwrap())
        .collect();
    for name in names {
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
    let paths: Vec<_> = operations(&document).into_iter().map(|(method, ..)| method).collect();
    assert!(paths.iter().all(|it| Method::from_bytes(it.as_bytes()).is_ok()));
}

#[test]
fn optional_members_are_left_out_and_never_null() {
    let text = document().to_string();
    assert!(!text.contains("\"null\"") && !text.contains("propertyNames"));
    let schemas = &document()["components"]["schemas"];
    assert_eq!(schemas["Task"]["properties"]["failure"]["$ref"], "#/components/schemas/Failure");
    assert_eq!(schemas["Task"]["properties"]["exit_code"]["type"], "integer");
    assert_eq!(schemas["TaskSpec"]["properties"]["env"]["examples"], json!([{"LANG": "C"}]));
    assert_eq!(schemas["TaskSpec"]["properties"]["skip_on_exit_codes"]["examples"], json!([[99]]));
    assert!(schemas["TaskProblem"]["allOf"].as_array().unwrap().len() >= 2);
}

#[tokio::test]
async fn answers_have_no_nulls_and_only_described_members() {
    let app = test_app!();
    let id = app.submit_any().await;
    let document = document();
    let described =
        document["components"]["schemas"]["Task"]["properties"].as_object().unwrap().clone();
    let task = app.get(&format!("/api/v1/tasks/{id}")).await;
    assert!(!task.text().contains("null"), "{task:?}");
    for key in task.json().as_object().unwrap().keys() {
        assert!(described.contains_key(key), "{key} is not described");
    }
}
