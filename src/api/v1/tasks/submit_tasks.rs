use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::document::TaskSpec;
use super::submission::{self, REPLAYED};
use super::view::Task;
use crate::api::extract::{Caller, JsonBody, RequestKey, no_such_task, trace_context};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::{Nothing, Params};
use crate::api::state::{App, Shared};
use crate::domain::spec::{self, Fault, Limits, ObjectReader, Submission};
use crate::failpoints::{self, Point};
use crate::ids::TaskId;
use crate::store::{IdempotencyKey, NewTask, Submitted, TaskRecord};

/// Several tasks to run.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation of what `read_batch` reads")]
pub(in crate::api) struct TaskBatch {
    #[schema(min_items = 1, max_items = 1000)]
    tasks: Vec<TaskSpec>,
}

/// The accepted tasks, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct SubmittedTasks {
    items: Vec<Task>,
}

/// Submit several tasks
///
/// All of them are accepted or none: 1,000 at most in one call. They do not depend on each other. An
/// `Idempotency-Key` names the whole batch.
#[utoipa::path(
    post,
    path = "/api/v1/tasks/batch",
    tag = "tasks",
    params(
        ("Idempotency-Key" = Option<String>, Header, example = "etl.2026-11-21.all",
         pattern = "^[!-~]([ -~]{0,253}[!-~])?$", description = "Names this request: 1 to 255 printable ASCII characters."),
    ),
    request_body(
        content = TaskBatch,
        description = "What to run",
        examples(
            ("1_two" = (summary = "Two tasks", value = json!({"tasks": [
                {"image": "busybox:latest", "command": ["echo", "one"]},
                {"image": "busybox:latest", "command": ["echo", "two"]}]}))),
            ("2_simulated" = (summary = "Without containers", value = json!({"tasks": [
                {"name": "a", "image": "none", "target": "simulated"},
                {"name": "b", "image": "none", "target": "simulated"}]}))),
        )
    ),
    extensions(("x-problems" = json!(["invalid_idempotency_key", "queue_full", "empty_body", "run_key_taken", "spec_invalid", "idempotency_key_reused"]))),
    responses(
        (status = 201, description = "Accepted", body = SubmittedTasks),
        (status = 200, description = "Accepted before under this key, or every one the task that its work has", body = SubmittedTasks,
         headers(("Idempotent-Replayed" = Option<bool>, description = "`true` for a repetition"))),
    )
)]
pub(in crate::api) async fn submit_tasks(
    State(app): State<App>,
    Caller(caller): Caller,
    _query: Params<Nothing>,
    RequestKey(key): RequestKey,
    headers: HeaderMap,
    JsonBody(document): JsonBody,
) -> Result<Response, Problem> {
    let submissions = read_batch(&document, &app.limits(), app.settings.batch_limit)
        .map_err(|faults| Problem::faults(ProblemKind::SpecInvalid, &faults))?;
    let print = key.is_some().then(|| submission::fingerprint(&document));
    drop(document);
    let trace = trace_context(&headers);
    let key_of = |index: usize| Some(item_key(key.as_deref()?, print?, index));
    let now = submission::now(&app);
    let new: Vec<NewTask> = submissions
        .into_iter()
        .enumerate()
        .map(|(index, mut it)| {
            it.spec.trace = it.spec.trace.or_else(|| trace.clone());
            submission::new_task(it, key_of(index))
        })
        .collect();
    app.admission.admit(new.len()).await?;
    failpoints::at(Point::SubmitRead);
    let submitted = app.store.submit(submission::submitter(&caller), now, &new).await?;
    for (task, submitted) in new.iter().zip(&submitted) {
        match submitted {
            Submitted::KeyReused(first) => {
                let key = key.as_deref().unwrap_or_default();
                return Err(submission::key_reused(&app, key, *first, None).await?);
            }
            Submitted::Rejected(first) => return Err(submission::run_key_taken(task, *first)),
            Submitted::Created
            | Submitted::Replayed(_)
            | Submitted::Attached(_)
            | Submitted::Retried(_)
            | Submitted::Restarted(_) => {}
        }
    }
    for (task, submitted) in new.iter().zip(&submitted) {
        submission::count(task, *submitted);
    }
    if submitted.iter().all(|it| *it == Submitted::Created) {
        if new.iter().any(|it| !it.spec.target.is_named()) {
            app.wake.queued_for_labels();
        }
        app.wake.queued();
        let records = new.into_iter().map(|it| submission::fresh(it, now, None)).collect();
        return Ok((StatusCode::CREATED, views(&app, records).await).into_response());
    }
    for (task, it) in new.iter().zip(&submitted) {
        submission::announce(&app, *it, &task.spec.target);
    }
    let ids: Vec<TaskId> =
        new.iter().zip(&submitted).map(|(task, it)| known_task(*it).unwrap_or(task.task)).collect();
    let created = submitted.iter().any(|it| known_task(*it).is_none());
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let records = in_order(&ids, app.store.find_tasks(&ids).await?)?;
    let mut response = (status, views(&app, records).await).into_response();
    if submitted.iter().all(|it| matches!(it, Submitted::Replayed(_))) {
        response.headers_mut().insert(&REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// The task that there was before.
const fn known_task(it: Submitted) -> Option<TaskId> {
    match it {
        Submitted::Replayed(task) | Submitted::Attached(task) | Submitted::Retried(task) => {
            Some(task)
        }
        Submitted::Created
        | Submitted::Restarted(_)
        | Submitted::KeyReused(_)
        | Submitted::Rejected(_) => None,
    }
}

/// Nobody reads more.
const FAULTS: usize = 1_000;

fn read_batch(
    document: &Value,
    limits: &Limits,
    most: usize,
) -> Result<Vec<Submission>, Vec<Fault>> {
    let mut faults = Vec::new();
    if let Some(mut batch) = ObjectReader::open(document, String::new(), &mut faults) {
        match batch.list("tasks").map(<[Value]>::len) {
            Some(0) => {
                batch.fault("tasks", "invalid_value", "\"tasks\" is empty: give at least one");
            }
            Some(n) if n > most => batch.fault(
                "tasks",
                "too_large",
                format!("{n} tasks, at most {most} are taken at once: send several batches"),
            ),
            None if batch.value("tasks").is_none() => {
                batch.fault("tasks", "required", "\"tasks\" is required: a list of task documents");
            }
            _ => {}
        }
        batch.finish();
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let items = document.get("tasks").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut specs: Vec<Submission> = Vec::with_capacity(items.len());
    let mut keys = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        if faults.len() >= FAULTS {
            break;
        }
        match spec::parse_submission(item, limits) {
            Ok(it) => {
                if let Some(work) = &it.work
                    && let Some(first) = keys.insert(work.key.clone(), index)
                {
                    faults.push(Fault::new(
                        format!("/tasks/{index}/run_key"),
                        "duplicate",
                        format!(
                            "task {first} of this batch has the run key {:?}, too: one task does one piece of work",
                            work.key.as_str()
                        ),
                    ));
                }
                specs.push(it);
            }
            Err(found) => faults.extend(
                found
                    .into_iter()
                    .map(|it| Fault { pointer: format!("/tasks/{index}{}", it.pointer), ..it }),
            ),
        }
    }
    if faults.is_empty() { Ok(specs) } else { Err(faults) }
}

/// The key of one task of a batch. The first has the key of the request itself, so that the same key on a
/// single submit is noticed; the others have one that no request can name. Each fingerprint is of the
/// whole batch and the place in it: another batch matches none.
fn item_key(key: &str, batch: [u8; 32], index: usize) -> IdempotencyKey {
    let key = if index == 0 { key.to_owned() } else { format!("{key}\u{1f}{index}") };
    let fingerprint =
        Sha256::new().chain_update(batch).chain_update(index.to_be_bytes()).finalize().into();
    IdempotencyKey { key, fingerprint }
}

fn in_order(ids: &[TaskId], records: Vec<TaskRecord>) -> Result<Vec<TaskRecord>, Problem> {
    let found: HashMap<TaskId, TaskRecord> = records.into_iter().map(|it| (it.task, it)).collect();
    ids.iter().map(|it| found.get(it).cloned().ok_or_else(|| no_such_task(*it))).collect()
}

async fn views(app: &Shared, records: Vec<TaskRecord>) -> Json<SubmittedTasks> {
    let mut items = Vec::with_capacity(records.len());
    for record in records {
        items.push(Task::brief(app, record).await);
    }
    Json(SubmittedTasks { items })
}
