use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::domain::plan::Trigger;
use crate::domain::template::{Found, Tasks};

fn read(document: &Value) -> Workflow {
    parse(document, &Limits::default()).unwrap_or_else(|it| panic!("{}", told(&it)))
}

fn told(faults: &[Fault]) -> String {
    let told: Vec<_> =
        faults.iter().map(|it| format!("{} {}: {}", it.pointer, it.code, it.detail)).collect();
    told.join("\n")
}

fn faults(document: &Value) -> String {
    told(&parse(document, &Limits::default()).expect_err("it is at fault"))
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// Every task has ended with these outputs.
struct Outputs(Value);

impl Tasks for Outputs {
    fn output(&self, task: &str, output: &str) -> Found<'_> {
        let found = self.0.get(task).and_then(|it| it.get(output));
        found.map_or(Found::Missing, |it| Found::Value(Cow::Borrowed(it)))
    }

    fn state(&self, _: &str) -> Found<'_> {
        Found::Value(Cow::Owned(json!("succeeded")))
    }

    fn exit_code(&self, _: &str) -> Found<'_> {
        Found::Value(Cow::Owned(json!(0)))
    }

    fn failure(&self, _: &str) -> Found<'_> {
        Found::Value(Cow::Owned(Value::Null))
    }
}

fn etl() -> Value {
    json!({
        "name": "etl", "description": "d", "labels": {"team": "a"}, "timeout": "1h", "max_parallel": 4, "fail_fast": true,
        "params": {
            "n": {"type": "integer", "default": 2}, "mode": {"type": "string", "enum": ["full", "some"], "default": "full"},
            "files": {"type": "array", "schema": {"items": {"type": "string"}}}, "note": {"required": false},
        },
        "env": {"LANG": "C", "RUN": "${{ run.id }}"},
        "defaults": {"image": "busybox:${{ params.n }}", "env": {"A": "1", "B": "2"}, "labels": {"x": "y"}, "target": "simulated", "retries": {"max": 2}},
        "tasks": {
            "extract": {"for_each": "${{ params.files }}", "command": ["cat", "${{ item }}"], "max_parallel": 2, "fail_fast": false},
            "load": {
                "needs": "check", "env": {"B": "3", "ROWS": {"$from": "tasks.extract.outputs.rows"}, "A": null}, "image": "load:1",
                "inputs": [{"from": "tasks.extract.outputs.report", "path": "/in/report.csv"}],
                "when": "params.mode == 'full' and tasks.extract.state == 'succeeded'", "retries": null,
            },
            "check": {"matrix": {"os": ["a", "b"], "v": [1, 2, 3], "exclude": [{"os": "a", "v": 1}], "include": [{"os": "b", "x": true}]},
                "name": "check-${{ matrix.os }}", "allow_failure": true, "trigger": "none_failed"},
        },
        "on_failure": {"tell": {"command": "echo ${{ tasks.load.failure.message|default('?') }}"}},
        "on_exit": {
            "report": {"command": ["echo", "${{ run.state }}", "${{ tasks.tell.state }}"]},
            "after": {"depends_on": ["report"], "when": false},
        },
        "outputs": {"rows": "${{ tasks.extract.outputs.rows }}", "id": "run ${{ run.id }}"},
    })
}

#[test]
fn a_document_becomes_a_graph_and_a_plan() {
    let it = read(&etl());
    let names: Vec<_> = it.graph.nodes().map(|node| it.graph.name(node).to_owned()).collect();
    assert_eq!(names, ["check", "extract", "load", "tell", "after", "report"]);
    let needs = |name: &str| -> Vec<&str> {
        it.graph.needs(it.find(name).unwrap()).iter().map(|it2| it.graph.name(*it2)).collect()
    };
    assert_eq!(needs("load"), ["check", "extract"], "references make edges");
    assert_eq!(needs("tell"), Vec::<&str>::new(), "none to another part of the document");
    assert_eq!(needs("after"), ["report"]);
    assert_eq!(
        it.nodes[0],
        NodePlan {
            trigger: Trigger::NoneFailed,
            condition: false,
            fan_out: FanOut::Items(5),
            max_parallel: None,
            fail_fast: true,
            allow_failure: true,
            stage: Stage::Main,
        }
    );
    assert_eq!(
        it.nodes[1],
        NodePlan {
            fan_out: FanOut::Later,
            max_parallel: Some(2),
            fail_fast: false,
            ..NodePlan::default()
        }
    );
    assert!(it.nodes[2].condition);
    assert_eq!((it.nodes[3].stage, it.nodes[5].stage), (Stage::OnFailure, Stage::OnExit));
    assert_eq!(it.rules, RunRules { max_parallel: Some(4), fail_fast: true });
    assert_eq!(it.timeout, Some(SignedDuration::from_hours(1)));
    assert_eq!(
        it.inputs(NodeId(2)),
        [Input {
            task: "extract".to_owned(),
            output: "report".to_owned(),
            path: "/in/report.csv".to_owned(),
        }]
    );
    assert_eq!(it.output_names().collect::<Vec<_>>(), ["id", "rows"]);
    assert_eq!(parse_stored(&etl()).unwrap().graph, it.graph);
}

#[test]
fn a_task_is_made_of_the_env_the_defaults_and_its_own_fields() {
    let it = read(&etl());
    let params = it.bind(&object(json!({"files": ["f1", "f2"]}))).unwrap();
    assert_eq!(
        Value::Object(params.clone()),
        json!({"n": 2, "mode": "full", "files": ["f1", "f2"], "note": null})
    );
    assert_eq!(it.check(&params, &Limits::default()), []);
    let tasks = Outputs(json!({"extract": {"rows": [1, null]}}));
    let scope = RunScope {
        params: Some(&params),
        run_id: Some("7"),
        run_name: Some("etl"),
        run_state: Some("failed"),
        tasks: &tasks,
        item: None,
    };
    let node = |name: &str| it.find(name).unwrap();
    let items = it.items(node("extract"), &scope).unwrap();
    assert_eq!(items, [json!("f1"), json!("f2")]);
    let spec = |name: &str, item: Option<&Value>| {
        let spec = it.task_spec(node(name), &RunScope { item, ..scope }, &Limits::default());
        let spec = spec.unwrap_or_else(|it| panic!("{name}: {}", told(&it)));
        crate::domain::spec::to_document(&spec)
    };
    let of_item = spec("extract", Some(&items[1]));
    assert_eq!((&of_item["name"], &of_item["command"]), (&json!("extract"), &json!(["cat", "f2"])));
    assert_eq!(of_item["retries"]["max"], 2);
    let load = spec("load", None);
    assert_eq!(load["env"], json!({"B": "3", "LANG": "C", "RUN": "7", "ROWS": "[1,null]"}));
    assert_eq!((&load["image"], &load["labels"]), (&json!("load:1"), &json!({"x": "y"})));
    assert_eq!(
        load.get("retries").map(|it| it["max"].clone()),
        Some(json!(0)),
        "null takes a default away"
    );
    assert_eq!(spec("report", None)["command"], json!(["echo", "failed", "succeeded"]));
    assert_eq!(spec("tell", None)["command"], json!(["echo", "?"]));
    assert_eq!(it.condition(node("load"), &scope), Ok(true));
    assert_eq!(it.condition(node("after"), &scope), Ok(false));
    assert_eq!(it.condition(node("check"), &scope), Ok(true));
    assert_eq!(
        Value::Object(it.result(&scope).unwrap()),
        json!({"id": "run 7", "rows": [1, null]})
    );
    let combinations = it.items(node("check"), &scope).unwrap();
    assert_eq!(
        Value::from(combinations.clone()),
        json!([
            {"os": "a", "v": 2}, {"os": "a", "v": 3}, {"os": "b", "v": 1, "x": true}, {"os": "b", "v": 2, "x": true},
            {"os": "b", "v": 3, "x": true},
        ])
    );
    assert_eq!(spec("check", Some(&combinations[0]))["name"], "check-a");
}

#[test]
fn every_fault_is_named_at_once() {
    insta::assert_snapshot!(faults(&json!({
        "name": "a b", "descripton": "x", "timeout": "1 hour", "max_parallel": 0, "labels": {"": "x"},
        "params": {"n": {"type": "int"}, "m": {"type": "integer", "default": "x"}, "e": {"enum": [], "requird": true}, "f": 3,
            "s": {"schema": {"type": "array", "items": {"type": "strng", "minimum": "1"}, "anyOf": []}, "default": {"a": 1}},
            "r": {"required": true, "default": 1}},
        "env": {"A": ["x"], "B": "${{ params.k }}"},
        "defaults": {"needs": ["a"], "comand": "x", "timeouts": {"run": "later"}},
        "tasks": {
            "a": {"image": "a", "needs": ["bb", "a", 3, "exit"], "when": 3, "trigger": "all_sucess", "max_parallel": "2"},
            "b": {"image": "a b", "env": {"X": "${{ tasks.c.outputs.x }} ${{ parms.x }}"}, "command": "${{ tasks.a.outputs.x }}", "retry": 3},
            "c-": {"command": "${{ item }} ${{ matrix.x }} ${{ run.state }}"},
            "no": {"image": "a"}, "1a": {"image": "a"}, "x y/z": {"image": "a"},
            "d": {"image": "a", "matrix": {"os": "linux", "exclude": [{"o": 1}], "include": [3]}, "for_each": [1]},
            "e": {"image": "a", "for_each": "tasks.a.outputs.files"},
            "f": {"image": "a", "for_each": {"a": 1}, "when": "item > 1", "needs": {"a": 1}},
            "g": {"image": "a", "matrix": {"os": ["a"]}, "env": {"X": "${{ matrix.so }}"}, "needs": ["a"], "depends_on": ["b"]},
            "h": {"workflow": "other", "params": {"x": 1}},
            "i": {"image": "a", "inputs": [{"from": "tasks.a.state", "path": "in"}, {"form": "x"}, {"from": "tasks.i.outputs.x", "path": "/x"}]},
            "j": "image", "k": {"image": "a", "run_key": "x", "priority": "high", "target": "moon"},
            "l": {"image": "a", "when": "${{ params.m }}", "for_each": "${{ params.m }}"},
        },
        "on_failure": {"a": {"image": "a"}, "tell": {"image": "a", "needs": ["b"], "command": "${{ tasks.exit.state }}"}},
        "on_exit": {"exit": {"image": "a", "command": "${{ tasks.tell.state }}"}},
        "outputs": {"x y": 1, "x": "${{ tasks.exit.outputs.x }}", "y": "${{ item }}"},
    })));
}

#[test]
fn what_is_no_workflow_says_so() {
    let told: Vec<String> = [
        json!([]),
        json!({}),
        json!({"tasks": {}}),
        json!({"tasks": [{"image": "a"}]}),
        json!({"tasks": {"a": {}}}),
        json!({"tasks": {"a": {"image": "a", "env": {"$from": "params.x", "y": 1}}}}),
    ]
    .iter()
    .map(faults)
    .collect();
    insta::assert_snapshot!(told.join("\n\n"));
}

#[test]
fn cycles_are_shown_as_paths() {
    let needs = |list: &[&str]| json!({"image": "a", "needs": list});
    insta::assert_snapshot!(faults(&json!({"tasks": {
        "a": needs(&["b"]), "b": {"image": "a", "env": {"X": "${{ tasks.c.outputs.x }}"}}, "c": needs(&["a"]),
        "d": needs(&["e", "a"]), "e": {"image": "a", "when": "tasks.d.state == 'failed'"}, "f": needs(&["d"]),
        "g": {"image": "a", "command": "${{ tasks.g.outputs.x }}"},
    }})));
}

#[test]
fn what_a_default_gets_wrong_is_said_once_and_where_it_stands() {
    insta::assert_snapshot!(faults(&json!({
        "env": {"A=": "x"}, "defaults": {"image": "a b", "timeouts": {"run": "x", "pull": "y"}, "env": {"B": "${{ matrix.x }}"}},
        "tasks": {"a": {}, "b": {"timeouts": {"pull": "z"}, "image": "b"}, "c": {"env": {"B": "1"}}},
    })));
}

#[test]
fn what_is_filled_in_later_is_checked_later() {
    let document = json!({
        "params": {"image": {"type": "string"}, "run": {}, "list": {}, "t": {"default": "local"}},
        "tasks": {
            "a": {"image": "${{ params.image }}", "timeouts": {"run": "${{ params.run }}"}, "priority": {"$from": "params.run"},
                "target": "${{ params.t }}", "command": "${{ tasks.b.outputs.argv }}"},
            "b": {"image": "b", "for_each": "${{ params.list }}", "files": [{"path": "/f", "content": "${{ item.text }}"}],
                "retries": {"backoff": {"initial": "1h", "max": "${{ params.run }}"}}, "labels": {"x": "${{ item }}"}},
        },
    });
    let it = read(&document);
    let bind = |params: Value| it.bind(&object(params));
    assert_eq!(
        told(&bind(json!({"run": 1, "lst": 2, "image": 3})).unwrap_err()),
        "/params/lst unknown_param: the workflow has no param \"lst\": did you mean \"list\"?\n\
         /params/image wrong_type: must be of type string, not a number: 3\n\
         /params/list required: the param \"list\" has no default: give it a value"
    );
    let params = bind(json!({"run": "x", "list": 3, "image": "a b", "t": "moon"})).unwrap();
    insta::assert_snapshot!(told(&it.check(&params, &Limits::default())));

    let params = bind(json!({"run": "5s", "list": [], "image": "a"})).unwrap();
    let tasks = Outputs(json!({"b": {"argv": ["x", 1]}}));
    let item = json!({"text": {"a": 1}});
    let scope =
        RunScope { params: Some(&params), tasks: &tasks, item: Some(&item), ..RunScope::UNKNOWN };
    let faults = it.task_spec(NodeId(0), &scope, &Limits::default()).unwrap_err();
    assert_eq!(
        told(&faults),
        "/tasks/a/priority wrong_type: \"priority\" must be a whole number, not a string"
    );
    let faults = it.task_spec(NodeId(1), &scope, &Limits::default()).unwrap_err();
    assert!(
        told(&faults).starts_with("/tasks/b/retries/backoff out_of_range"),
        "{}",
        told(&faults)
    );
    let later = it.task_spec(NodeId(1), &RunScope::UNKNOWN, &Limits::default()).unwrap_err();
    assert_eq!(later.len(), 3, "{}", told(&later));
}

#[test]
fn a_list_that_is_none_is_a_fault_of_its_task() {
    let document = json!({"params": {"l": {}}, "tasks": {
        "a": {"image": "a", "for_each": "${{ params.l }}", "when": "${{ params.l }}"}, "b": {"image": "b", "matrix": "${{ params.l }}"},
    }});
    let it = read(&document);
    let mut shown = Vec::new();
    for list in [
        json!("x"),
        json!({"a": 1}),
        json!(null),
        json!(vec![0; MOST_ITEMS + 1]),
        json!({"a": vec![0; 400], "b": vec![0; 400]}),
    ] {
        let params = object(json!({"l": list}));
        let scope = RunScope { params: Some(&params), ..RunScope::UNKNOWN };
        for fault in [
            it.items(NodeId(0), &scope).err(),
            it.items(NodeId(1), &scope).err(),
            it.condition(NodeId(0), &scope).err(),
        ] {
            shown.extend(fault.map(|it| told(&[it])));
        }
    }
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn a_matrix_is_that_of_github() {
    for (matrix, items) in [
        (json!({"a": [1, 2], "b": ["x"]}), json!([{"a": 1, "b": "x"}, {"a": 2, "b": "x"}])),
        (json!({"include": [{"a": 1}, {"b": 2}]}), json!([{"a": 1}, {"b": 2}])),
        // The example of its documentation.
        (
            json!({"fruit": ["apple", "pear"], "animal": ["cat", "dog"], "include": [
                {"color": "green"}, {"color": "pink", "animal": "cat"}, {"fruit": "apple", "shape": "circle"},
                {"fruit": "banana"}, {"fruit": "banana", "animal": "cat"}]}),
            json!([
                {"animal": "cat", "color": "pink", "fruit": "apple", "shape": "circle"}, {"animal": "cat", "color": "pink", "fruit": "pear"},
                {"animal": "dog", "color": "green", "fruit": "apple", "shape": "circle"}, {"animal": "dog", "color": "green", "fruit": "pear"},
                {"fruit": "banana"}, {"animal": "cat", "fruit": "banana"},
            ]),
        ),
    ] {
        let it = read(&json!({"tasks": {"a": {"image": "a", "matrix": matrix}}}));
        let found = it.items(NodeId(0), &RunScope::UNKNOWN).unwrap();
        assert_eq!(it.nodes[0].fan_out, FanOut::Items(found.len() as u32));
        assert_eq!(Value::from(found), items, "{matrix}");
    }
}

#[test]
fn params_are_read_off_a_command_line_by_their_type() {
    let it = read(
        &json!({"params": {"s": {"type": "string"}, "i": {"type": "integer"}, "l": {"type": "array"}, "x": {}},
        "tasks": {"a": {"image": "a"}}}),
    );
    for (name, text, value) in [
        ("s", "5", json!("5")),
        ("i", "5", json!(5)),
        ("i", "x", json!("x")),
        ("l", "[1]", json!([1])),
        ("x", "5", json!("5")),
    ] {
        assert_eq!(it.params.read_text(name, text), value);
    }
}

#[test]
fn thousands_of_faults_are_cut() {
    let tasks: Map<String, Value> =
        (0..5_000).map(|it| (format!("t{it}"), json!({"needs": ["nobody"]}))).collect();
    assert_eq!(parse(&json!({"tasks": tasks}), &Limits::default()).unwrap_err().len(), FAULTS);
}

proptest! {
    /// Whatever stands in the fields, somebody is told.
    #[test]
    fn no_document_panics(values in prop::collection::vec((prop::sample::select(KEYS.to_vec()), value()), 0..6),
                          top in prop::collection::vec((prop::sample::select(TOP.to_vec()), value()), 0..4)) {
        let task: Map<String, Value> = values.into_iter().map(|(key, it)| (key.to_owned(), it)).collect();
        let mut document: Map<String, Value> = top.into_iter().map(|(key, it)| (key.to_owned(), it)).collect();
        document.insert("tasks".to_owned(), json!({"a": task, "b": {"image": "b"}}));
        if let Ok(it) = parse(&Value::Object(document), &Limits::default()) {
            let tasks = Outputs(json!({"b": {"x": [1]}}));
            let params = it.bind(&Map::new()).unwrap_or_default();
            let scope = RunScope { params: Some(&params), run_id: Some("1"), run_name: Some("n"), run_state: Some("failed"),
                tasks: &tasks, item: Some(&Value::Null) };
            for node in it.graph.nodes() {
                let _ = (it.task_spec(node, &scope, &Limits::default()), it.items(node, &scope), it.condition(node, &scope));
            }
            let _ = (it.check(&params, &Limits::default()), it.result(&scope));
        }
    }
}

const KEYS: &[&str] = &[
    "image",
    "command",
    "env",
    "needs",
    "when",
    "matrix",
    "for_each",
    "trigger",
    "inputs",
    "files",
    "outputs",
    "labels",
    "resources",
    "target",
    "retries",
    "timeouts",
    "max_parallel",
    "kubernetes",
    "name",
];
const TOP: &[&str] =
    &["params", "env", "defaults", "outputs", "on_exit", "on_failure", "labels", "timeout", "name"];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2_i64..4).prop_map(Value::from),
        prop::sample::select(vec![
            "a",
            "b",
            "local",
            "${{ params.p }}",
            "${{ tasks.b.outputs.x }}",
            "${{ item }}",
            "x ${{ run.id }}",
            "1s",
            "${{",
            "all_done",
        ])
        .prop_map(Value::from),
        Just(json!({"$from": "tasks.b.outputs.x"})),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let key = prop::sample::select(vec![
            "a", "include", "exclude", "type", "default", "path", "from", "content", "image",
            "labels", "p",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..3).prop_map(|it| Value::Object(
                it.into_iter().map(|(key, it)| (key.to_owned(), it)).collect()
            )),
        ]
    })
}
