//! What single and batched submits share: from a document to a task to store, and back to a view of it.

use axum::http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::api::extract::PROJECT;
use crate::api::problem::{Problem, ProblemKind};
use crate::api::state::Shared;
use crate::domain::spec::{Fault, Submission, TaskSpec};
use crate::domain::state::TaskState;
use crate::domain::target::Placement;
use crate::ids::{AttemptId, AttemptNo, RunId, TaskId};
use crate::measures;
use crate::store::{IdempotencyKey, NewTask, Principal, Submitted, Submitter, TaskRecord};

pub(super) fn new_task(submission: Submission, key: Option<IdempotencyKey>) -> NewTask {
    NewTask {
        task: TaskId::generate(),
        run: RunId::generate(),
        attempt: AttemptId::generate(),
        spec_hash: submission.spec.hash(),
        spec: submission.spec,
        key,
        work: submission.work,
    }
}

pub(in crate::api) fn submitter(caller: &Principal) -> Submitter<'_> {
    Submitter { project: PROJECT, token: caller.token, name: &caller.name }
}

/// As precise as the database keeps it, so that every later answer says the same.
pub(in crate::api) fn now(app: &Shared) -> Timestamp {
    let now = app.clock.now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// Counts the tasks that are new.
pub(super) fn count(new: &NewTask, submitted: Submitted) {
    if matches!(submitted, Submitted::Created | Submitted::Restarted(_)) {
        let target = new.spec.target.gauge().to_owned();
        metrics::counter!(measures::TASKS_SUBMITTED, "target" => target).increment(1);
    }
}

/// What the store would answer for a task that it has just accepted, to start after `after_task`.
pub(super) fn fresh(it: NewTask, now: Timestamp, after_task: Option<TaskId>) -> TaskRecord {
    TaskRecord {
        task: it.task,
        run: it.run,
        name: it.spec.name,
        image: it.spec.image,
        target: it.spec.target.to_string(),
        labels: it.spec.labels,
        priority: it.spec.priority,
        state: TaskState::Queued,
        attempt_no: AttemptNo::FIRST,
        exit_code: None,
        failure: None,
        queued_at: now,
        claimed_at: None,
        started_at: None,
        finished_at: None,
        not_before: None,
        stop_requested: false,
        run_key: it.work.map(|it| it.key.as_str().to_owned()),
        after_task,
        engine: None,
    }
}

/// Tells submitted documents apart: by what they say, not by the order of their keys or their spaces.
pub(in crate::api) fn fingerprint(document: &Value) -> [u8; 32] {
    let mut digest = Sha256::new();
    write(document, &mut digest);
    digest.finalize().into()
}

fn write(value: &Value, digest: &mut Sha256) {
    match value {
        Value::Array(items) => {
            digest.update(b"[");
            for item in items {
                write(item, digest);
                digest.update(b",");
            }
            digest.update(b"]");
        }
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort_unstable();
            digest.update(b"{");
            for key in keys {
                write_text(key, digest);
                digest.update(b":");
                write(&fields[key], digest);
                digest.update(b",");
            }
            digest.update(b"}");
        }
        Value::String(text) => write_text(text, digest),
        Value::Number(it) => digest.update(it.to_string()),
        Value::Bool(it) => digest.update(it.to_string()),
        Value::Null => digest.update(b"null"),
    }
}

/// With its length before it, so that no text looks like what surrounds it.
fn write_text(text: &str, digest: &mut Sha256) {
    digest.update(format!("\"{}:", text.len()));
    digest.update(text);
}

/// The answer to a key that was used for something else. The first document is not kept, but what was
/// read from it is: the fields that differ are named, their values are not.
pub(super) async fn key_reused(
    app: &Shared,
    key: &str,
    first: TaskId,
    spec: Option<&TaskSpec>,
) -> Result<Problem, Problem> {
    let stored = app.store.find_spec(first, Some(AttemptNo::FIRST)).await?;
    let differing = match (&stored, spec) {
        (Some(stored), Some(spec)) => differing_fields(stored, spec),
        _ => Vec::new(),
    };
    let difference = if differing.is_empty() {
        "its body was not the same".to_owned()
    } else {
        format!("it differs in {}", differing.join(", "))
    };
    let faults: Vec<Fault> = differing
        .iter()
        .map(|it| Fault::new(format!("/{it}"), "differs", "not what the first request said"))
        .collect();
    let detail = format!(
        "the idempotency key {key:?} belongs to an earlier request (task {first}), and {difference}: send \
         the same body again, or use another key"
    );
    Ok(Problem::new(ProblemKind::IdempotencyKeyReused, detail).errors(&faults))
}

/// The answer to a submit that wanted to be the first of its work.
pub(super) fn run_key_taken(it: &NewTask, first: TaskId) -> Problem {
    let key = it.work.as_ref().map_or("", |it| it.key.as_str());
    let detail = format!(
        "the run key {key:?} belongs to task {first}, and \"on_duplicate\" is \"reject\": use another key, or \
         \"attach_if_active\" to go on with that task"
    );
    let members = [("task_id".to_owned(), Value::String(first.to_string()))].into_iter().collect();
    Problem::new(ProblemKind::RunKeyTaken, detail).members(members)
}

/// Says what became of a submit whose key, of the request or of the work, was known.
pub(in crate::api) static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
pub(super) static DUPLICATE: HeaderName = HeaderName::from_static("supercargo-duplicate");

pub(super) fn duplicate_header(it: Submitted) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = match it {
        Submitted::Created | Submitted::KeyReused(_) | Submitted::Rejected(_) => return None,
        Submitted::Replayed(_) => (&REPLAYED, "true"),
        Submitted::Attached(_) => (&DUPLICATE, "attached"),
        Submitted::Retried(_) => (&DUPLICATE, "retried"),
        Submitted::Restarted(_) => (&DUPLICATE, "restarted"),
    };
    Some((name.clone(), HeaderValue::from_static(value)))
}

/// Wakes up who has to act on what was stored.
pub(super) fn announce(app: &Shared, it: Submitted, placement: &Placement) {
    if !placement.is_named() {
        app.wake.queued_for_labels();
    }
    match it {
        Submitted::Created => app.wake.queued(),
        Submitted::Retried(task) => {
            app.wake.queued();
            app.wake.task_changed(task);
        }
        Submitted::Restarted(before) => {
            app.wake.queued();
            app.wake.stop_requested();
            app.wake.task_changed(before);
        }
        Submitted::Replayed(_)
        | Submitted::KeyReused(_)
        | Submitted::Attached(_)
        | Submitted::Rejected(_) => {}
    }
}

fn differing_fields(a: &TaskSpec, b: &TaskSpec) -> Vec<String> {
    let (Ok(Value::Object(a)), Ok(Value::Object(b))) =
        (serde_json::to_value(a), serde_json::to_value(b))
    else {
        return Vec::new();
    };
    let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    // Each try of a caller has a place of its own in a trace.
    let counts = |it: &&&String| it.as_str() != "trace" && a.get(**it) != b.get(**it);
    keys.iter().filter(counts).map(|it| (*it).clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn order_and_spaces_do_not_matter_and_everything_else_does() {
        let parse = |text: &str| fingerprint(&serde_json::from_str(text).unwrap());
        assert_eq!(
            parse(r#"{"a":1,"b":{"c":[1,2],"d":null}}"#),
            parse(r#" {"b": {"d":null, "c":[ 1,2]}, "a":1}"#)
        );
        let all = [
            json!({"a": 1}),
            json!({"a": "1"}),
            json!({"a": 1.0}),
            json!({"a": [1]}),
            json!({"a": null}),
            json!({}),
            json!([1, 2]),
            json!([[1], 2]),
            json!([2, 1]),
            json!("a"),
            json!({"a": {"b": 1}}),
            json!({"a": true}),
            json!(["a", "b"]),
            json!(["a\",\"b"]),
            json!(["a,\"1:b"]),
        ];
        let prints: std::collections::HashSet<_> = all.iter().map(fingerprint).collect();
        assert_eq!(prints.len(), all.len());
    }
}
