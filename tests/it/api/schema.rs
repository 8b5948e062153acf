//! The JSON Schema of the workflow document against the reader.

use std::collections::BTreeSet;
use std::path::Path;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Value, json};
use supercargo::domain::spec::Limits;
use supercargo::domain::workflow::parse;
use supercargo::notation;

use crate::test_app;

fn schema() -> Value {
    serde_json::from_str(supercargo::api::workflow_schema()).unwrap()
}

struct Checker {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Checker {
    fn new() -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("https://supercargo.dev/schema/workflow.json", schema()).unwrap();
        let index = compiler.compile("https://supercargo.dev/schema/workflow.json", &mut schemas);
        let index = index.unwrap_or_else(|error| panic!("{error:#}"));
        Self { schemas, index }
    }

    fn check(&self, document: &Value) -> Result<(), String> {
        self.schemas.validate(document, self.index).map_err(|error| format!("{error:#}"))
    }
}

/// The fields that the reader knows at a place: it lists them where a name is like none of them.
fn known(document: &Value) -> BTreeSet<String> {
    let faults = parse(document, &Limits::default()).unwrap_err();
    let lists = faults.iter().find_map(|it| it.detail.split_once("the fields here are "));
    let (_, list) = lists.unwrap_or_else(|| panic!("{faults:?}"));
    list.split(", ").map(str::to_owned).collect()
}

fn described(pointer: &str) -> BTreeSet<String> {
    let schema = schema();
    let object = schema.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
    assert_eq!(object["additionalProperties"], false, "{pointer}");
    object["properties"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_schema_has_the_fields_that_are_read() {
    let task = |task: Value| json!({"tasks": {"a": task}});
    let odd = json!({"qqqqqqqqqqqqqqqqqqqq": 1});
    for (pointer, document) in [
        ("", odd.clone()),
        ("/$defs/Task", task(odd.clone())),
        ("/$defs/Param", json!({"params": {"p": odd}, "tasks": {"a": {"image": "a"}}})),
        (
            "/$defs/ParamSchema",
            json!({"params": {"p": {"schema": odd}}, "tasks": {"a": {"image": "a"}}}),
        ),
        ("/$defs/Input", task(json!({"image": "a", "inputs": [odd]}))),
        ("/$defs/Resources", task(json!({"image": "a", "resources": odd}))),
        ("/$defs/Timeouts", task(json!({"image": "a", "timeouts": odd}))),
        ("/$defs/Retries", task(json!({"image": "a", "retries": odd}))),
        ("/$defs/Backoff", task(json!({"image": "a", "retries": {"backoff": odd}}))),
        ("/$defs/InputFile", task(json!({"image": "a", "files": [odd]}))),
        ("/$defs/OutputDeclaration", task(json!({"image": "a", "outputs": {"x": odd}}))),
        ("/$defs/Kubernetes", task(json!({"image": "a", "kubernetes": odd}))),
    ] {
        assert_eq!(described(pointer), known(&document), "{pointer}");
    }
    // What is to run is the same wherever it is said.
    let (task, defaults) = (described("/$defs/Task"), described("/$defs/Defaults"));
    let of_a_task: BTreeSet<String> = [
        "needs",
        "depends_on",
        "when",
        "trigger",
        "matrix",
        "for_each",
        "max_parallel",
        "fail_fast",
        "allow_failure",
        "inputs",
        "workflow",
        "params",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(&task - &defaults, of_a_task);
}

#[test]
fn every_definition_is_used_and_there() {
    let text = supercargo::api::workflow_schema();
    let schema = schema();
    let named: BTreeSet<&str> =
        text.split("\"#/$defs/").skip(1).map(|it| it.split(['"', '/']).next().unwrap()).collect();
    let there: BTreeSet<&str> =
        schema["$defs"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(named, there);
}

/// Whatever the reader takes, an editor takes.
#[test]
fn what_is_read_is_valid() {
    let checker = Checker::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/workflows");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let document = notation::read_yaml(&std::fs::read(&path).unwrap()).unwrap();
        let read = parse(&document, &Limits::default());
        assert!(read.is_ok(), "{}: {read:#?}", path.display());
        assert_eq!(checker.check(&document), Ok(()), "{}", path.display());
        count += 1;
    }
    assert!(count >= 2);
    for document in [
        json!({"tasks": {"a": {"image": "a"}}}),
        json!({"params": {"n": {"type": "integer", "default": 2, "enum": [1, 2], "schema": {"minimum": 1}, "description": "d"}},
            "tasks": {"a": {"image": "a:${{ params.n }}", "priority": {"$from": "params.n"}, "init": "${{ params.n == 2 }}",
                "retries": {"max": "${{ params.n }}", "backoff": {"initial": {"$from": "params.n"}}}, "timeouts": {"run": "${{ params.n }}s"},
                "resources": {"cpu": 1, "memory": "${{ params.n }}Mi", "pids": {"$from": "params.n"}},
                "command": ["x", 1, true, {"$from": "params.n"}], "args": {"$from": "params.n"}, "env": {"A": 1, "B": true, "C": {"$from": "params.n"}},
                "files": [{"path": "/a", "content": {"$from": "params.n"}}], "skip_on_exit_codes": [{"$from": "params.n"}],
                "labels": {"x": "${{ params.n }}"}, "outputs": {"x": {"path": "/${{ params.n }}", "required": true}}, "workdir": null}}}),
        json!({"defaults": {"image": "a", "retries": {"max": 1}}, "tasks": {"a": {"matrix": {"x": [1, "a"], "include": [{"y": 1}]}, "retries": null},
            "b": {"for_each": [1, {"a": 2}], "needs": "a", "when": false}, "c": {"matrix": "${{ tasks.a.outputs.x }}", "when": {"$from": "tasks.a.state == 'failed'"}}}}),
    ] {
        let read = parse(&document, &Limits::default());
        assert!(read.is_ok(), "{document}: {read:#?}");
        assert_eq!(checker.check(&document), Ok(()), "{document}");
    }
}

/// An editor sees what can be seen without knowing names.
#[test]
fn what_is_wrong_in_itself_is_not_valid() {
    let checker = Checker::new();
    for document in [
        json!({}),
        json!({"tasks": {}}),
        json!({"tasks": {"no": {"image": "a"}}}),
        json!({"tasks": {"1": {"image": "a"}}}),
        json!({"tasks": {"a": {"image": "a", "need": "b"}}}),
        json!({"tasks": {"a": {"image": "a", "trigger": "some"}}}),
        json!({"tasks": {"a": {"image": "a", "timeouts": {"run": "1 hour"}}}}),
        json!({"tasks": {"a": {"image": "a", "retries": {"maximum": 1}}}}),
        json!({"tasks": {"a": {"image": "a", "priority": "high"}}}),
        json!({"tasks": {"a": {"image": "a", "env": {"A": ["x"]}}}}),
        json!({"tasks": {"a": {"image": "a", "run_key": "x"}}}),
        json!({"tasks": {"a": {"image": "a", "for_each": "x"}}}),
        json!({"params": {"x": {"type": "int"}}, "tasks": {"a": {"image": "a"}}}),
        json!({"defaults": {"needs": ["a"]}, "tasks": {"a": {"image": "a"}}}),
    ] {
        assert!(checker.check(&document).is_err(), "{document}");
        assert!(parse(&document, &Limits::default()).is_err(), "{document}");
    }
}

#[tokio::test]
async fn the_schema_is_served_to_everybody() {
    let app = test_app!();
    let request = Request::get("/api/v1/schema/workflow.json").header("host", "localhost");
    let answer = app.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/schema+json");
    assert_eq!(answer.text(), supercargo::api::workflow_schema());
}
