use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::view;
use super::wait;
use crate::api::extract::{Caller, TaskPath, no_such_task};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::{Nothing, Params};
use crate::api::state::{App, Shared};
use crate::domain::outcome::OutputValue;
use crate::domain::state::TaskState;
use crate::ids::TaskId;
use crate::store::{OutputRecord, TaskRecord};

/// Get the result of a task
///
/// Exactly the outputs, name → value, without an envelope; files are references with an `href`. A task that
/// declared no outputs and wrote none answers with the last line of its stdout, as a JSON string.
#[utoipa::path(
    get,
    path = "/api/v1/tasks/{id}/result",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The id of the task, or `key:<run_key>`", example = "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"),
    ),
    extensions(("x-problems" = json!(["task_not_found", "task_failed", "task_cancelled", "not_finished"]))),
    responses(
        (status = 200, description = "The task succeeded or was skipped", body = Value, content_type = "application/json",
         examples(
            ("outputs" = (summary = "Outputs", value = json!({"words": 7}))),
            ("last_line" = (summary = "The last line of stdout", value = json!("hello"))),
         )),
    )
)]
pub(in crate::api) async fn get_task_result(
    State(app): State<App>,
    _caller: Caller,
    TaskPath(task): TaskPath,
    _query: Params<Nothing>,
) -> Result<Json<Value>, Problem> {
    let record = app.store.find_task(task).await?.ok_or_else(|| no_such_task(task))?;
    match record.state {
        TaskState::Queued | TaskState::Starting | TaskState::Running | TaskState::Finishing => {
            Err(not_finished(&record))
        }
        TaskState::Failed | TaskState::Cancelled => Err(wait::failed(&app, record).await?),
        TaskState::Succeeded | TaskState::Skipped => {
            let outputs = app.store.list_outputs(task, record.attempt_no).await?;
            result(&app, task, outputs).await.map(Json)
        }
    }
}

pub(super) fn not_finished(task: &TaskRecord) -> Problem {
    let detail = format!(
        "task {:?} is {}: ask again when it is over, or wait for it with GET /api/v1/tasks/{}?wait=50s",
        task.name, task.state, task.task
    );
    Problem::new(ProblemKind::NotFinished, detail).retry_after(Duration::from_secs(1))
}

/// The name that the last line of stdout is stored under, with nothing declared and nothing written.
const LAST_LINE: &str = "last_line";

pub(super) async fn result(
    app: &Shared,
    task: TaskId,
    mut outputs: Vec<OutputRecord>,
) -> Result<Value, Problem> {
    if let [OutputRecord { name, value: OutputValue::Json(value @ Value::String(_)) }] =
        outputs.as_mut_slice()
        && name == LAST_LINE
    {
        let spec = app.store.find_spec(task, None).await?;
        if spec.is_none_or(|it| !it.outputs.contains_key(LAST_LINE)) {
            return Ok(value.take());
        }
    }
    Ok(Value::Object(view::outputs_json(app, task, outputs)))
}
