use serde_json::{Value, json};

use super::*;

fn spec(document: Value) -> TaskSpec {
    parse(&document, &Limits::default()).unwrap()
}

/// `pointer code: detail`, a line for each fault.
fn faults(document: Value) -> String {
    let faults = parse(&document, &Limits::default()).unwrap_err();
    faults.iter().map(|it| format!("{} {}: {}\n", it.pointer, it.code, it.detail)).collect()
}

#[test]
fn the_smallest_task_gets_every_default() {
    let spec = spec(json!({"image": "registry:5000/team/busybox:1.36"}));
    assert_eq!(spec.name, "busybox");
    assert_eq!(spec.target.to_string(), "local");
    assert_eq!((spec.command, spec.entrypoint), (None, None));
    assert_eq!(spec.platform_retries, 3);
    assert_eq!(spec.timeouts, Timeouts::default());
    assert_eq!(spec.cleanup, Cleanup::Always);
}

#[test]
fn a_command_is_a_list_or_is_split_as_a_shell_does() {
    let split =
        spec(json!({"image": "a", "command": "sh -c 'echo \"a b\"'", "args": ["x", 1, true]}));
    assert_eq!(split.command.unwrap(), ["sh", "-c", "echo \"a b\"", "x", "1", "true"]);
    assert_eq!(spec(json!({"image": "a", "command": []})).command, Some(vec![]));
    assert!(faults(json!({"image": "a", "command": "sh -c 'x"})).contains("quote"));
}

#[test]
fn every_fault_is_reported_at_once() {
    insta::assert_snapshot!(faults(json!({
        "image": "", "comand": "x", "env": {"A": null, "B=": "x", "N": "a\u{0}"}, "command": ["a\u{0}", {}],
        "files": [{"path": "in/../a"}, {"content": "x"}, 3],
        "resources": {"cpu": "-1", "memory": "512m", "pids": 0, "gpu": 1},
        "timeouts": {"run": "-5s", "pull": 10}, "target": "locl", "pull_policy": "allways",
        "platform_retries": -1, "skip_on_exit_codes": [0, 256, "x"], "at_most_once": "yes",
        "outputs": {"a b": {}, "c": {"path": "x"}, "d": {"path": "/x", "from": "last_line"}, "e": {"from": "stdout"}},
        "labels": {"": "x", "l": []}, "priority": 99999, "cleanup": "later", "user": "", "workdir": "rel",
    })));
}

#[test]
fn a_document_that_is_no_object_is_a_fault() {
    assert_eq!(faults(json!([])), " wrong_type: the document must be an object, not a list\n");
}

#[test]
fn sizes_are_bounded() {
    let env = faults(json!({"image": "a", "env": {"BIG": "x".repeat(200 << 10)}}));
    assert!(env.starts_with("/env/BIG too_large"), "{env}");
    let arg = faults(json!({"image": "a", "command": ["x".repeat(200 << 10)]}));
    assert!(arg.starts_with("/command too_large"), "{arg}");
    let file = json!({"path": "/a", "content": "x".repeat(5 << 20)});
    assert!(faults(json!({"image": "a", "files": [file]})).starts_with("/files too_large"));
}

#[test]
fn files_hold_any_bytes() {
    let files = spec(json!({"image": "a", "files": [
        {"path": "/in/a", "content": "a\u{0}b", "mode": "0755"},
        {"path": "/in/b", "content_base64": "/wAB"},
    ]}))
    .files;
    assert_eq!(files[0].content, b"a\0b");
    assert_eq!((files[0].mode, files[1].mode), (0o755, 0o644));
    assert_eq!(files[1].content, [255, 0, 1]);
}

#[test]
fn a_stored_spec_reads_back_the_same() {
    let spec = spec(json!({
        "image": "a", "command": "x", "files": [{"path": "/f", "content": "a\u{0}"}],
        "timeouts": {"run": "1h30m", "queue": "5m"}, "outputs": {"r": {"path": "/r", "required": true}, "j": {}},
        "resources": {"cpu": 0.5, "memory": "64Mi"}, "labels": {"n": 1}, "cleanup": "never",
    }));
    let text = serde_json::to_string(&spec).unwrap();
    let back: TaskSpec = serde_json::from_str(&text).unwrap();
    assert_eq!(back, spec);
    assert_eq!(back.hash(), spec.hash());
}
