use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::existing_attempt;
use super::get_task_spec::AttemptQuery;
use super::view::output_href;
use crate::api::extract::{Caller, TaskPath, no_such_task};
use crate::api::problem::Problem;
use crate::api::query::Params;
use crate::api::state::{App, Shared};
use crate::domain::outcome::OutputValue;
use crate::ids::{AttemptNo, TaskId};
use crate::store::OutputRecord;

/// What a task handed back.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct OutputList {
    items: Vec<TaskOutput>,
}

/// One output.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(in crate::api) enum TaskOutput {
    Json {
        #[schema(examples("words"))]
        name: String,
        value: Value,
        href: String,
    },
    File {
        #[schema(examples("report"))]
        name: String,
        /// Where it was in the container.
        #[schema(examples("/out/report.csv"))]
        path: String,
        size: u64,
        /// Lower-case hex.
        sha256: String,
        #[schema(examples("text/csv"))]
        media_type: String,
        href: String,
    },
}

impl TaskOutput {
    fn new(app: &Shared, task: TaskId, attempt: Option<AttemptNo>, it: OutputRecord) -> Self {
        let mut href = output_href(app, task, &it.name);
        if let Some(attempt) = attempt {
            href.push_str(&format!("?attempt={attempt}"));
        }
        match it.value {
            OutputValue::Json(value) => Self::Json { name: it.name, value, href },
            OutputValue::File(file) => Self::File {
                name: it.name,
                path: file.path,
                size: file.size,
                sha256: file.sha256,
                media_type: file.media_type,
                href,
            },
        }
    }
}

/// List the outputs of a task
///
/// Also those that a failed attempt left. Empty as long as the attempt is not over.
#[utoipa::path(
    get,
    path = "/api/v1/tasks/{id}/outputs",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The id of the task, or `key:<run_key>`", example = "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"),
        AttemptQuery,
    ),
    extensions(("x-problems" = json!(["task_not_found", "attempt_not_found"]))),
    responses(
        (status = 200, description = "The outputs of the attempt, by name", body = OutputList),
    )
)]
pub(in crate::api) async fn list_task_outputs(
    State(app): State<App>,
    _caller: Caller,
    TaskPath(task): TaskPath,
    Params(query): Params<AttemptQuery>,
) -> Result<Json<OutputList>, Problem> {
    let record = app.store.find_task(task).await?.ok_or_else(|| no_such_task(task))?;
    let attempt = existing_attempt(&record, query.attempt)?;
    let outputs = app.store.list_outputs(task, attempt).await?;
    let items =
        outputs.into_iter().map(|it| TaskOutput::new(&app, task, query.attempt, it)).collect();
    Ok(Json(OutputList { items }))
}
