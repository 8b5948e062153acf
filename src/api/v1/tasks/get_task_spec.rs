use axum::Json;
use axum::extract::State;
use serde_json::Value;
use utoipa::IntoParams;

use super::document::TaskSpec;
use super::existing_attempt;
use crate::api::extract::{Caller, TaskPath, no_such_task};
use crate::api::problem::Problem;
use crate::api::query::{Params, QueryReader, ReadQuery};
use crate::api::state::App;
use crate::domain::spec::to_document;
use crate::ids::AttemptNo;

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct AttemptQuery {
    /// Of this attempt, from 1. Default: the latest.
    #[param(value_type = Option<i32>, minimum = 1, example = 1)]
    pub(super) attempt: Option<AttemptNo>,
}

impl ReadQuery for AttemptQuery {
    fn read(query: &mut QueryReader) -> Self {
        Self { attempt: query.parsed("attempt", super::read_attempt) }
    }
}

/// Get the document of a task
///
/// What an attempt ran, with every default filled in. Submitted again, it runs the same.
#[utoipa::path(
    get,
    path = "/api/v1/tasks/{id}/spec",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The id of the task, or `key:<run_key>`", example = "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"),
        AttemptQuery,
    ),
    extensions(("x-problems" = json!(["task_not_found", "attempt_not_found"]))),
    responses(
        (status = 200, description = "The document", body = TaskSpec),
    )
)]
pub(in crate::api) async fn get_task_spec(
    State(app): State<App>,
    _caller: Caller,
    TaskPath(task): TaskPath,
    Params(query): Params<AttemptQuery>,
) -> Result<Json<Value>, Problem> {
    let record = app.store.find_task(task).await?.ok_or_else(|| no_such_task(task))?;
    let attempt = existing_attempt(&record, query.attempt)?;
    let spec = app.store.find_spec(task, Some(attempt)).await?.ok_or_else(|| no_such_task(task))?;
    Ok(Json(to_document(&spec)))
}
