use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use utoipa::IntoParams;

use super::view::Task;
use super::wait;
use crate::api::extract::{Caller, TaskPath, no_such_task};
use crate::api::problem::Problem;
use crate::api::query::{Params, QueryReader, ReadQuery};
use crate::api::state::App;

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct GetTaskQuery {
    /// Wait so long for the end of the task, 50 s at most. 200: it succeeded or was skipped; 424: it failed
    /// or was cancelled; 303: not over yet, and HTTP clients go on waiting at the address in `Location`.
    #[param(value_type = Option<String>, pattern = "^([0-9]+|([0-9]+(ms|s|m|h|d))+)$", example = "50s")]
    wait: Option<std::time::Duration>,
}

impl ReadQuery for GetTaskQuery {
    fn read(query: &mut QueryReader) -> Self {
        Self { wait: query.duration("wait") }
    }
}

/// Get a task
///
/// Its state, attempts, outputs and what holds it up. Without `wait` the answer is 200 in every state.
#[utoipa::path(
    get,
    path = "/api/v1/tasks/{id}",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The id of the task, or `key:<run_key>`", example = "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"),
        GetTaskQuery,
        ("Prefer" = Option<String>, Header, example = "wait=50",
         description = "`wait=<seconds>` means the same as the parameter `wait` (RFC 7240)."),
    ),
    extensions(("x-problems" = json!(["task_not_found", "task_failed", "task_cancelled"]))),
    responses(
        (status = 200, description = "The task; with `wait`, it succeeded or was skipped", body = Task),
        (status = 303, description = "With `wait`: not over yet; `Location` waits on",
         headers(("Location" = String, description = "The same wait for the same task"))),
    )
)]
pub(in crate::api) async fn get_task(
    State(app): State<App>,
    _caller: Caller,
    TaskPath(task): TaskPath,
    Params(query): Params<GetTaskQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wait = wait::wanted(query.wait, &headers);
    let hint = wait.map(|it| (it, app.wake.subscribe(task)));
    let record = app.store.find_task(task).await?.ok_or_else(|| no_such_task(task))?;
    let Some((wait, hint)) = hint else {
        return Ok(Json(Task::whole(&app, record).await?).into_response());
    };
    let mut response = match wait::until_terminal(&app, record, hint, wait).await {
        Ok(it) => it,
        Err(problem) => problem.into_response(),
    };
    response.headers_mut().extend(wait::preference_applied(&headers, wait));
    Ok(response)
}
