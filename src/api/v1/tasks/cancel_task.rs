use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::view::Task;
use crate::api::extract::{Caller, TaskPath, no_such_task};
use crate::api::problem::Problem;
use crate::api::query::{Nothing, Params};
use crate::api::state::App;
use crate::measures;
use crate::store::Cancelled;

/// Cancel a task
///
/// Works in every state, any number of times. A queued task is cancelled at once; a running one is asked to
/// stop, gets its `timeouts.stop_grace`, and is killed then; a terminal one stays as it is.
#[utoipa::path(
    post,
    path = "/api/v1/tasks/{id}/cancel",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The id of the task, or `key:<run_key>`", example = "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"),
    ),
    extensions(("x-problems" = json!(["task_not_found"]))),
    responses(
        (status = 202, description = "The task as it stands now", body = Task),
    )
)]
pub(in crate::api) async fn cancel_task(
    State(app): State<App>,
    Caller(caller): Caller,
    TaskPath(task): TaskPath,
    _query: Params<Nothing>,
) -> Result<(StatusCode, Json<Task>), Problem> {
    match app.store.cancel(task, &caller.name, app.clock.now()).await? {
        Cancelled::NotFound => return Err(no_such_task(task)),
        Cancelled::AtOnce => {
            measures::task_ended("cancelled");
            app.wake.task_changed(task);
            app.wake.run_is_due();
        }
        // Also where it was requested before: the wake-up may have been lost.
        Cancelled::Requested | Cancelled::Unchanged(_) => {
            app.wake.stop_requested();
            app.wake.task_changed(task);
        }
    }
    let record = app.store.find_task(task).await?.ok_or_else(|| no_such_task(task))?;
    Ok((StatusCode::ACCEPTED, Json(Task::whole(&app, record).await?)))
}
