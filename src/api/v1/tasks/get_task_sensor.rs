use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::get_task_result::result;
use super::view::{self, Failure};
use crate::api::extract::{Caller, TaskPath};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::{Nothing, Params};
use crate::api::state::App;
use crate::domain::state::TaskState;
use crate::ids::TaskId;

/// How a task ended.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct TaskSensor {
    /// It succeeded or was skipped.
    ok: bool,
    /// Also `unknown`, where there is no such task.
    #[schema(schema_with = sensor_state_schema)]
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<uuid::Uuid>, examples("0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"))]
    id: Option<TaskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples(0))]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    /// Of a task that is `ok`: its outputs, as `GET /tasks/{id}/result` gives them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>, examples(json!({"words": 7})))]
    result: Option<Value>,
}

const UNKNOWN: &str = "unknown";

fn sensor_state_schema() -> utoipa::openapi::schema::Object {
    let ends = TaskState::ALL.into_iter().filter(|it| it.is_terminal()).map(TaskState::as_str);
    view::text_enum(ends.chain([UNKNOWN]), "succeeded")
}

/// Sensors ask again at once after an error other than 404.
const HELD_BACK: Duration = Duration::from_secs(1);

/// Ask whether a task is over
///
/// Made for Airflow's `HttpSensor`: 404 as long as the task is not over, then 200 whatever became of it. A task
/// that is not there is 200, too: a sensor would wait for it for ever. Any other error is held back for a
/// second.
#[utoipa::path(
    get,
    path = "/api/v1/tasks/{id}/sensor",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The id of the task, or `key:<run_key>`", example = "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"),
    ),
    extensions(("x-problems" = json!(["not_over"]))),
    responses(
        (status = 200, description = "The task is over, or there is none", body = TaskSensor),
    )
)]
pub(in crate::api) async fn get_task_sensor(State(app): State<App>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    match sense(&app, &mut parts).await {
        Ok(it) => Json(it).into_response(),
        Err(problem) => {
            if problem.kind() != ProblemKind::NotOver {
                tokio::select! {
                    () = tokio::time::sleep(HELD_BACK) => {}
                    () = app.lifecycle.draining().cancelled() => {}
                }
            }
            problem.into_response()
        }
    }
}

async fn sense(app: &App, parts: &mut Parts) -> Result<TaskSensor, Problem> {
    Caller::from_request_parts(parts, app).await?;
    Params::<Nothing>::from_request_parts(parts, app).await?;
    let record = match TaskPath::from_request_parts(parts, app).await {
        Ok(TaskPath(task)) => app.store.find_task(task).await?,
        Err(problem) if problem.kind() == ProblemKind::TaskNotFound => None,
        Err(problem) => return Err(problem),
    };
    let Some(record) = record else {
        return Ok(TaskSensor {
            ok: false,
            state: UNKNOWN,
            id: None,
            exit_code: None,
            failure: None,
            result: None,
        });
    };
    if !record.state.is_terminal() {
        let detail = format!("task {:?} is {}", record.name, record.state);
        return Err(Problem::new(ProblemKind::NotOver, detail));
    }
    let ok = matches!(record.state, TaskState::Succeeded | TaskState::Skipped);
    let result = if ok {
        let outputs = app.store.list_outputs(record.task, record.attempt_no).await?;
        Some(result(app, record.task, outputs).await?)
    } else {
        None
    };
    Ok(TaskSensor {
        ok,
        state: record.state.as_str(),
        id: Some(record.task),
        exit_code: record.exit_code,
        failure: record.failure.map(Into::into),
        result,
    })
}
