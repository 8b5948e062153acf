//! One answer of each kind of problem, as the service words it.

use serde_json::{Value, json};

use crate::api::problem::{Problem, ProblemKind};

const REQUEST: uuid::Uuid = uuid::uuid!("0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11");

pub(super) fn example(kind: ProblemKind) -> Value {
    let mut problem = Problem::new(kind, detail(kind));
    if let Value::Object(members) = members(kind) {
        problem = problem.members(members);
    }
    serde_json::from_slice(&problem.body(&REQUEST.to_string())).unwrap_or_default()
}

fn detail(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::MalformedJson => {
            "the body is not valid JSON: expected value at line 2 column 10"
        }
        ProblemKind::MalformedYaml => {
            "the body is not valid YAML: mapping values are not allowed here at line 2 column 10"
        }
        ProblemKind::MalformedForm => "the form is not UTF-8 at \"name=%FF\"",
        ProblemKind::RateLimited => "more than 100 requests a second with this token: again in 1 s",
        ProblemKind::HeadersTooLarge => {
            "the path and the headers have 70000 bytes, at most 65536 are taken: leave out cookies and the like, \
             or raise http.header_limit in the configuration"
        }
        ProblemKind::QueueFull => {
            "1000000 tasks wait already (limits.queued_tasks): nothing was stored; send it again later"
        }
        ProblemKind::EmptyBody => {
            "the request has no body: send a JSON object such as {\"image\": \"busybox:latest\"}"
        }
        ProblemKind::InvalidParameter => "unknown parameter \"stat\": did you mean \"state\"?",
        ProblemKind::InvalidIdempotencyKey => {
            "Idempotency-Key must be there once, with 1 to 255 printable ASCII characters"
        }
        ProblemKind::InvalidRequest => "the body broke off: connection reset",
        ProblemKind::Unauthorized => {
            "no token was given: send \"Authorization: Bearer <token>\"; the admin token is in \
             /var/lib/supercargo/admin.token on the machine of the service"
        }
        ProblemKind::ForeignOrigin => {
            "the origin \"https://evil.example\" is not this service: a web page of another site may not send \
             requests here; add its origin to the allowed origins of the configuration if it is yours"
        }
        ProblemKind::HostNotAllowed => {
            "the host name \"evil.example\" is not allowed: add it to the allowed hosts of the configuration"
        }
        ProblemKind::NotFound => "Invalid URL: Invalid UTF-8 in `id`",
        ProblemKind::TaskNotFound => {
            "there is no task 0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11: it was never submitted here, or retention \
             removed it"
        }
        ProblemKind::RunNotFound => {
            "there is no run 0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4: it was never submitted here, or retention \
             removed it"
        }
        ProblemKind::RunOver => {
            "run 0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4 has ended: there is nothing to pause or to resume"
        }
        ProblemKind::WorkflowInvalid => {
            "tasks/b/needs/0: there is no task \"aa\": did you mean \"a\"?"
        }
        ProblemKind::ParamsInvalid => "\"n\" must be a whole number, not a string",
        ProblemKind::RunFailed => {
            "run 0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4 of \"etl\" failed: task \"load\": exited with code 3"
        }
        ProblemKind::RunCancelled => {
            "run 0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4 of \"etl\" was cancelled"
        }
        ProblemKind::AttemptNotFound => "there is no attempt 2: the latest is 1",
        ProblemKind::ContainerNotFound => {
            "the attempt has no log of a container \"proxy\": it has [\"main\", \"setup\"]"
        }
        ProblemKind::TokenNotFound => {
            "there is no token with the id \"0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11\": GET /api/v1/tokens lists them"
        }
        ProblemKind::TargetNotFound => "there is no target \"prd\": did you mean \"prod\"?",
        ProblemKind::TargetFixed => {
            "the target \"local\" is defined in the configuration ([docker] of the default): change it there"
        }
        ProblemKind::TargetInUse => {
            "3 tasks wait for the target \"prod\" or run on it: disable it with \"enabled\": false, and delete it \
             when they are over"
        }
        ProblemKind::NoWorker => {
            "no worker that has the target \"prod\" answered within 20 s: does one run, and reach the database?"
        }
        ProblemKind::OutputNotFound => "the task has no output \"words\": it has report",
        ProblemKind::MethodNotAllowed => {
            "\"/api/v1/tasks\" does not take DELETE: the header \"Allow\" lists what it takes"
        }
        ProblemKind::NotOver => "task \"count\" is running",
        ProblemKind::RequestTimeout => "nothing more of the body came for 30 s",
        ProblemKind::RunKeyTaken => {
            "the run key \"etl.2026-11-21.count\" belongs to task 0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11, and \
             \"on_duplicate\" is \"reject\": use another key, or \"attach_if_active\" to go on with that task"
        }
        ProblemKind::OutputGone => {
            "the file \"/out/report.csv\" was stored once, and is not there any more"
        }
        ProblemKind::BodyTooLarge => {
            "the body has 9000000 bytes, at most 8388608 are taken: leave large input to a volume or an object \
             store, or raise the limit in the configuration"
        }
        ProblemKind::UnsupportedMediaType => {
            "the body is multipart/form-data: send JSON, with \"Content-Type: application/json\""
        }
        ProblemKind::RangeNotSatisfiable => {
            "the log has 1000 bytes now, and none of those that Range names"
        }
        ProblemKind::SpecInvalid => "unknown field \"comand\": did you mean \"command\"?",
        ProblemKind::DocumentInvalid => "unknown field \"nmae\": did you mean \"name\"?",
        ProblemKind::IdempotencyKeyReused => {
            "the idempotency key \"etl.2026-11-21.count\" belongs to an earlier request (task \
             0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11), and it differs in image: send the same body again, or use \
             another key"
        }
        ProblemKind::TaskFailed => {
            "task \"count\" failed (exit_nonzero): exited with code 3; the last line of its log: no such file"
        }
        ProblemKind::TaskCancelled => "task \"count\" was cancelled: asked for by airflow",
        ProblemKind::NotFinished => {
            "task \"count\" is running: ask again when it is over, or wait for it with GET \
             /api/v1/tasks/0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11?wait=50s"
        }
        ProblemKind::Internal => {
            "the service failed; its log tells why, under the id in \"instance\""
        }
        ProblemKind::Unavailable => "the database can't be asked now: try again",
    }
}

/// What stands beside the members of every problem.
fn members(kind: ProblemKind) -> Value {
    match kind {
        ProblemKind::MalformedJson => json!({"line": 2, "column": 10}),
        ProblemKind::BodyTooLarge => json!({"limit_bytes": 8_388_608}),
        ProblemKind::RunKeyTaken => json!({"task_id": REQUEST}),
        ProblemKind::SpecInvalid => {
            json!({"errors": [{"pointer": "/comand", "code": "unknown_field", "detail": detail(kind)}]})
        }
        ProblemKind::DocumentInvalid => {
            json!({"errors": [{"pointer": "/nmae", "code": "unknown_field", "detail": detail(kind)}]})
        }
        ProblemKind::IdempotencyKeyReused => json!({"errors": [
            {"pointer": "/image", "code": "differs", "detail": "not what the first request said"}]}),
        ProblemKind::TaskFailed => json!({
            "id": REQUEST, "run_id": "0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4", "name": "count",
            "image": "busybox:latest", "state": "failed", "target": "local", "attempt": 1, "exit_code": 3,
            "failure": {"reason": "exit_nonzero", "class": "user", "message": "exited with code 3",
                "log_tail": ["no such file"]},
            "outputs": {}, "labels": {"team": "a"}, "priority": 0, "attempts": [],
            "timings": {"queued_at": "2026-11-21T09:30:00Z", "claimed_at": "2026-11-21T09:30:00.004Z",
                "started_at": "2026-11-21T09:30:00.3Z", "finished_at": "2026-11-21T09:30:01.2Z"},
            "links": links()}),
        ProblemKind::TaskCancelled => json!({
            "id": REQUEST, "run_id": "0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4", "name": "count",
            "image": "busybox:latest", "state": "cancelled", "target": "local", "attempt": 1,
            "failure": {"reason": "cancelled", "class": "control", "message": "asked for by airflow",
                "log_tail": []},
            "outputs": {}, "labels": {}, "priority": 0, "attempts": [],
            "timings": {"queued_at": "2026-11-21T09:30:00Z", "finished_at": "2026-11-21T09:30:01.2Z"},
            "links": links()}),
        _ => Value::Null,
    }
}

fn links() -> Value {
    let names =
        ["logs", "result", "outputs", "events", "spec", "cancel", "retry", "poll", "sensor"];
    let path = format!("/api/v1/tasks/{REQUEST}");
    let links = names.iter().map(|it| ((*it).to_owned(), format!("{path}/{it}").into()));
    let mut links: serde_json::Map<String, Value> = links.collect();
    links.insert("self".to_owned(), path.into());
    Value::Object(links)
}
