use std::sync::Arc;

use serde_json::{Map, Value, json};
use supercargo::runner::{FileResult, JsonFile};

use crate::support::sandbox::{Attempt, Sink, task, task_with, wanted};
use crate::support::subject::Subject;
use crate::support::within;

/// As the task declares them: a backend may have to know before.
fn declared(outputs: &[(&str, &str)]) -> Value {
    let outputs = outputs.iter().map(|&(name, path)| (name.to_owned(), json!({"path": path})));
    json!({"outputs": outputs.collect::<Map<_, _>>()})
}

async fn ended(subject: &Subject, attempt: &Attempt) -> supercargo::runner::Handle {
    let launched = attempt.launch(&*subject.runner).await;
    assert_eq!(attempt.exit_code(&*subject.runner, &launched.handle).await, Some(0));
    launched.handle
}

pub(super) async fn the_output_file_is_collected(subject: Arc<Subject>) {
    let json = r#"{"words":7}"#;
    let script = format!("printf '{json}' > $SUPERCARGO_OUTPUT");
    let attempt = subject.attempt(task(&script, &[("FAKE_OUTPUT", json)]));
    let handle = ended(&subject, &attempt).await;
    let collect = subject.runner.collect(&handle, &wanted(&[]), &Sink::default()).await;
    assert_eq!(collect.unwrap().json, JsonFile::Bytes(json.as_bytes().to_vec()));
}

pub(super) async fn no_output_file_is_absent(subject: Arc<Subject>) {
    let attempt = subject.attempt(task("true", &[]));
    let handle = ended(&subject, &attempt).await;
    let collected = subject.runner.collect(&handle, &wanted(&[]), &Sink::default()).await.unwrap();
    assert_eq!((collected.json, collected.files.len()), (JsonFile::Absent, 0));
}

pub(super) async fn a_large_output_file_is_told_by_its_size(subject: Arc<Subject>) {
    let json = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000));
    let script = format!("printf '{json}' > $SUPERCARGO_OUTPUT");
    let attempt = subject.attempt(task(&script, &[("FAKE_OUTPUT", &json)]));
    let handle = ended(&subject, &attempt).await;
    let size = json.len() as u64;
    for (limit, expected) in [
        (size - 1, JsonFile::TooLarge { size }),
        (size, JsonFile::Bytes(json.clone().into_bytes())),
    ] {
        let mut request = wanted(&[]);
        request.json_limit = limit;
        let collected = subject.runner.collect(&handle, &request, &Sink::default()).await.unwrap();
        assert_eq!(collected.json, expected);
    }
}

pub(super) async fn files_are_stored_or_told_missing_or_too_large(subject: Arc<Subject>) {
    let script = "mkdir -p /out; printf a,b > /out/small.csv; printf 1234567890 > /out/large.txt";
    let files = r#"{"/out/small.csv": "a,b", "/out/large.txt": "1234567890"}"#;
    let outputs = [
        ("small", "/out/small.csv"),
        ("large", "/out/large.txt"),
        ("none", "/out/none"),
        ("deep", "/no/x"),
    ];
    let attempt = subject.attempt(task_with(script, &[("FAKE_FILES", files)], &declared(&outputs)));
    let handle = ended(&subject, &attempt).await;
    let mut request = wanted(&outputs);
    request.file_limit = 9;
    let sink = Sink::default();
    let collected =
        within("collect", subject.runner.collect(&handle, &request, &sink)).await.unwrap();
    assert_eq!(collected.files["large"], FileResult::TooLarge { size: 10 });
    assert_eq!(collected.files["none"], FileResult::Missing);
    assert_eq!(collected.files["deep"], FileResult::Missing);
    let FileResult::Stored(stored) = &collected.files["small"] else { panic!("{collected:?}") };
    assert_eq!((stored.size, stored.path.as_str()), (3, "/out/small.csv"));
    assert_eq!(sink.0.lock().unwrap()["small"], b"a,b");
}

pub(super) async fn collecting_again_stores_the_same(subject: Arc<Subject>) {
    let script = "mkdir -p /out; printf x > /out/f";
    let outputs = [("f", "/out/f")];
    let fake = [("FAKE_FILES", r#"{"/out/f": "x"}"#)];
    let attempt = subject.attempt(task_with(script, &fake, &declared(&outputs)));
    let handle = ended(&subject, &attempt).await;
    let request = wanted(&outputs);
    let sink = Sink::default();
    let first = subject.runner.collect(&handle, &request, &sink).await.unwrap();
    let again = subject.another().await.collect(&handle, &request, &sink).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(sink.0.lock().unwrap().len(), 1);
}
