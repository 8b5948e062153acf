use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::view::Run;
use crate::api::extract::{Caller, RunPath, no_such_run};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::{Nothing, Params};
use crate::api::state::App;
use crate::api::state::Shared;
use crate::ids::RunId;
use crate::store::{Principal, Wanted, WantedRun};

/// Pause a run
///
/// No further task of it starts; those that run go on. A run that is paused already stays so.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{id}/pause",
    tag = "runs",
    params(
        ("id" = String, Path, description = "The id of the run", example = "0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4"),
    ),
    extensions(("x-problems" = json!(["run_not_found", "run_over"]))),
    responses(
        (status = 202, description = "The run as it stands now", body = Run),
    )
)]
pub(in crate::api) async fn pause_run(
    State(app): State<App>,
    Caller(caller): Caller,
    RunPath(run): RunPath,
    _query: Params<Nothing>,
) -> Result<(StatusCode, Json<Run>), Problem> {
    want(&app, &caller, run, Wanted::Pause).await
}

/// Resume a run
///
/// Goes on with a run that was paused. One that was not stays as it is.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{id}/resume",
    tag = "runs",
    params(
        ("id" = String, Path, description = "The id of the run", example = "0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4"),
    ),
    extensions(("x-problems" = json!(["run_not_found", "run_over"]))),
    responses(
        (status = 202, description = "The run as it stands now", body = Run),
    )
)]
pub(in crate::api) async fn resume_run(
    State(app): State<App>,
    Caller(caller): Caller,
    RunPath(run): RunPath,
    _query: Params<Nothing>,
) -> Result<(StatusCode, Json<Run>), Problem> {
    want(&app, &caller, run, Wanted::Run).await
}

async fn want(
    app: &Shared,
    caller: &Principal,
    run: RunId,
    wanted: Wanted,
) -> Result<(StatusCode, Json<Run>), Problem> {
    match app.store.want_run(run, wanted, &caller.name).await? {
        WantedRun::NotFound => return Err(no_such_run(run)),
        WantedRun::Ended => {
            let detail = format!("run {run} has ended: there is nothing to pause or to resume");
            return Err(Problem::new(ProblemKind::RunOver, detail));
        }
        WantedRun::Noted | WantedRun::Unchanged => app.wake.run_is_due(),
    }
    let record = app.store.find_run(run).await?.ok_or_else(|| no_such_run(run))?;
    Ok((StatusCode::ACCEPTED, Json(Run::whole(app, record).await?)))
}
