use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::view::Run;
use crate::api::extract::{Caller, RunPath, no_such_run};
use crate::api::problem::Problem;
use crate::api::query::{Nothing, Params};
use crate::api::state::App;
use crate::store::{Wanted, WantedRun};

/// Cancel a run
///
/// Works in every state, any number of times. What waits is cancelled, what runs is asked to stop as a cancel of
/// the task would; the tasks of `on_exit` run then. A run that has ended stays as it is.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{id}/cancel",
    tag = "runs",
    params(
        ("id" = String, Path, description = "The id of the run", example = "0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4"),
    ),
    extensions(("x-problems" = json!(["run_not_found"]))),
    responses(
        (status = 202, description = "The run as it stands now", body = Run),
    )
)]
pub(in crate::api) async fn cancel_run(
    State(app): State<App>,
    Caller(caller): Caller,
    RunPath(run): RunPath,
    _query: Params<Nothing>,
) -> Result<(StatusCode, Json<Run>), Problem> {
    match app.store.want_run(run, Wanted::Cancel, &caller.name).await? {
        WantedRun::NotFound => return Err(no_such_run(run)),
        WantedRun::Noted | WantedRun::Unchanged => app.wake.run_is_due(),
        WantedRun::Ended => {}
    }
    let record = app.store.find_run(run).await?.ok_or_else(|| no_such_run(run))?;
    Ok((StatusCode::ACCEPTED, Json(Run::whole(&app, record).await?)))
}
