use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::document::TaskSpec;
use super::submit_task::SubmitTaskQuery;
use super::view::Task;
use super::{accept, submission, wait};
use crate::api::extract::{Caller, JsonBody, RequestKey, RunKeyPath};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::Params;
use crate::api::state::App;
use crate::domain::spec::{self, Fault, Submission};
use crate::domain::work::{OnDuplicate, RunKey, Work};
use crate::store::IdempotencyKey;

/// Put a task
///
/// The task that does this work, whatever became of it; it is made where there is none. Sent again, nothing
/// happens: safe for clients that repeat requests by themselves.
#[utoipa::path(
    put,
    path = "/api/v1/tasks/{id}",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "`key:` and the run key of the work", pattern = "^key:[ -~]{1,255}$", example = "key:etl.2026-11-21.count"),
        SubmitTaskQuery,
        ("Idempotency-Key" = Option<String>, Header, example = "etl.2026-11-21.count",
         pattern = "^[!-~]([ -~]{0,253}[!-~])?$", description = "Names this request: 1 to 255 printable ASCII characters."),
        ("Prefer" = Option<String>, Header, example = "wait=50",
         description = "`wait=<seconds>` means the same as the parameter `wait` (RFC 7240)."),
    ),
    request_body(
        content = TaskSpec,
        description = "What to run where there is no task yet. Its `run_key` is that of the path, or left out.",
        examples(
            ("1_hello" = (summary = "Hello", value = json!({
                "image": "busybox:latest", "command": ["echo", "hello"]}))),
            ("2_simulated" = (summary = "Without a container", value = json!({
                "name": "simulated", "image": "none", "target": "simulated"}))),
        )
    ),
    extensions(("x-problems" = json!(["invalid_idempotency_key", "queue_full", "empty_body", "spec_invalid", "idempotency_key_reused", "task_failed", "task_cancelled"]))),
    responses(
        (status = 201, description = "Accepted", body = Task,
         headers(("Location" = String, description = "The path of the task"))),
        (status = 200, description = "The task that there is; or, with `wait`, succeeded or skipped", body = Task,
         headers(("Idempotent-Replayed" = Option<bool>, description = "`true` for a repetition under the same `Idempotency-Key`"),
                 ("Supercargo-Duplicate" = Option<String>, description = "`attached`: the task that its work has"))),
        (status = 303, description = "With `wait`: not over yet; `Location` waits on",
         headers(("Location" = String, description = "The same wait for the same task"))),
    )
)]
pub(in crate::api) async fn put_task(
    State(app): State<App>,
    Caller(caller): Caller,
    RunKeyPath(run_key): RunKeyPath,
    Params(query): Params<SubmitTaskQuery>,
    RequestKey(key): RequestKey,
    headers: HeaderMap,
    JsonBody(mut document): JsonBody,
) -> Result<Response, Problem> {
    // As it was sent: what the path adds is not part of it.
    let key =
        key.map(|key| IdempotencyKey { key, fingerprint: submission::fingerprint(&document) });
    if let Some(fields) = document.as_object_mut() {
        fields.entry("run_key").or_insert_with(|| run_key.as_str().into());
    }
    let submission = spec::parse_submission(&document, &app.limits())
        .and_then(|it| under(run_key, it))
        .map_err(|faults| Problem::faults(ProblemKind::SpecInvalid, &faults))?;
    drop(document);
    let wait = wait::wanted(query.wait(), &headers);
    accept::accept(&app, &caller, submission, key, wait, &headers).await
}

/// The path says which work it is; the document may say the same.
fn under(key: RunKey, submission: Submission) -> Result<Submission, Vec<Fault>> {
    let mut faults = Vec::new();
    if let Some(work) = &submission.work {
        if work.key != key {
            faults.push(Fault::new(
                "/run_key",
                "conflict",
                format!(
                    "the path names the work {key:?}, the document {:?}: leave it out here",
                    work.key.as_str(),
                    key = key.as_str()
                ),
            ));
        }
        if !matches!(work.on_duplicate, OnDuplicate::Attach | OnDuplicate::AttachIfActive) {
            faults.push(Fault::new(
                "/on_duplicate",
                "conflict",
                "PUT attaches to the task that there is: leave \"on_duplicate\" out, or use POST",
            ));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Submission { work: Some(Work { key, on_duplicate: OnDuplicate::Attach }), ..submission })
}
