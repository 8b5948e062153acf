use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use utoipa::IntoParams;

use super::document::TaskSpec;
use super::view::Task;
use super::{accept, submission, wait};
use crate::api::extract::{Caller, JsonBody, RequestKey};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::{Params, QueryReader, ReadQuery};
use crate::api::state::App;
use crate::domain::spec;
use crate::store::IdempotencyKey;

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct SubmitTaskQuery {
    /// Wait so long for the end of the task, 50 s at most. 200: it succeeded or was skipped; 424: it failed
    /// or was cancelled; 303: not over yet, and HTTP clients go on waiting at the address in `Location`.
    #[param(value_type = Option<String>, pattern = "^([0-9]+|([0-9]+(ms|s|m|h|d))+)$", example = "50s")]
    wait: Option<std::time::Duration>,
}

impl SubmitTaskQuery {
    pub(super) const fn wait(&self) -> Option<std::time::Duration> {
        self.wait
    }
}

impl ReadQuery for SubmitTaskQuery {
    fn read(query: &mut QueryReader) -> Self {
        Self { wait: query.duration("wait") }
    }
}

/// Submit a task
///
/// Accepts one container to run. When the answer comes the task is stored for good and survives restarts of
/// everything involved.
///
/// With an `Idempotency-Key` the same request makes one task, however often it is sent: a repetition is
/// answered with the same task as it stands now and `Idempotent-Replayed: true`.
///
/// A `run_key` in the document names the work instead: `on_duplicate` says what a second submit of the same
/// work means, and `Supercargo-Duplicate` in the answer what became of it.
#[utoipa::path(
    post,
    path = "/api/v1/tasks",
    tag = "tasks",
    params(
        SubmitTaskQuery,
        ("Idempotency-Key" = Option<String>, Header, example = "etl.2026-11-21.count",
         pattern = "^[!-~]([ -~]{0,253}[!-~])?$", description = "Names this request: 1 to 255 printable ASCII characters."),
        ("Prefer" = Option<String>, Header, example = "wait=50",
         description = "`wait=<seconds>` means the same as the parameter `wait` (RFC 7240)."),
    ),
    request_body(
        content = TaskSpec,
        description = "What to run. Only `image` is required. `Content-Type` may be any JSON type or be left out.",
        examples(
            ("1_hello" = (summary = "Hello", value = json!({
                "image": "busybox:latest", "command": ["echo", "hello"]}))),
            ("2_json_output" = (summary = "Hands back JSON", value = json!({
                "name": "count", "image": "busybox:latest",
                "command": ["sh", "-c", "echo '{\"words\": 7}' > $SUPERCARGO_OUTPUT"],
                "labels": {"team": "a"}}))),
            ("3_files" = (summary = "A file in, a file out", value = json!({
                "name": "upper", "image": "busybox:latest",
                "command": ["sh", "-c", "mkdir -p /out && tr a-z A-Z < /in/a.txt > /out/report.txt"],
                "files": [{"path": "/in/a.txt", "content": "hello\n"}],
                "outputs": {"report": {"path": "/out/report.txt", "required": true}}}))),
            ("4_failing" = (summary = "Fails with exit code 3", value = json!({
                "name": "failing", "image": "busybox:latest",
                "command": ["sh", "-c", "echo no such file >&2; exit 3"]}))),
            ("5_limits" = (summary = "With limits and time-outs", value = json!({
                "name": "bounded", "image": "busybox:latest", "command": "sleep 1",
                "env": {"LANG": "C"}, "workdir": "/", "user": "1000", "init": true,
                "resources": {"cpu": "500m", "memory": "64Mi", "pids": 100},
                "timeouts": {"queue": "1h", "run": "30s", "stop_grace": "5s"},
                "skip_on_exit_codes": [99], "platform_retries": 3,
                "retries": {"max": 2, "backoff": {"initial": "1s", "max": "1m"}, "on_exit_codes": [75]}}))),
            ("6_simulated" = (summary = "Without a container", value = json!({
                "name": "simulated", "image": "none", "target": "simulated"}))),
        )
    ),
    extensions(("x-problems" = json!(["invalid_idempotency_key", "queue_full", "empty_body", "run_key_taken", "spec_invalid", "idempotency_key_reused", "task_failed", "task_cancelled"]))),
    responses(
        (status = 201, description = "Accepted", body = Task,
         headers(("Location" = String, description = "The path of the task"),
                 ("Supercargo-Duplicate" = Option<String>, description = "`restarted`: it takes the place of another task"))),
        (status = 200, description = "Accepted before under this key; or the task that its work has; or, with `wait`, succeeded or skipped", body = Task,
         headers(("Idempotent-Replayed" = Option<bool>, description = "`true` for a repetition"),
                 ("Supercargo-Duplicate" = Option<String>, description = "`attached`: the task that its work has"))),
        (status = 202, description = "The task of this work did not succeed: it has a new attempt", body = Task,
         headers(("Location" = String, description = "The path of the task"),
                 ("Supercargo-Duplicate" = String, description = "`retried`"))),
        (status = 303, description = "With `wait`: not over yet; `Location` waits on",
         headers(("Location" = String, description = "The same wait for the same task"))),
    )
)]
pub(in crate::api) async fn submit_task(
    State(app): State<App>,
    Caller(caller): Caller,
    Params(query): Params<SubmitTaskQuery>,
    RequestKey(key): RequestKey,
    headers: HeaderMap,
    JsonBody(document): JsonBody,
) -> Result<Response, Problem> {
    let submission = spec::parse_submission(&document, &app.limits())
        .map_err(|faults| Problem::faults(ProblemKind::SpecInvalid, &faults))?;
    let key =
        key.map(|key| IdempotencyKey { key, fingerprint: submission::fingerprint(&document) });
    drop(document);
    let wait = wait::wanted(query.wait(), &headers);
    accept::accept(&app, &caller, submission, key, wait, &headers).await
}
