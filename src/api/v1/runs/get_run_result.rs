use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::{path_of, wait};
use crate::api::extract::{Caller, RunPath, no_such_run};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::{Nothing, Params};
use crate::api::state::App;
use crate::domain::state::RunState;

/// Get the result of a run
///
/// Exactly the `outputs` that its workflow declares, name → value, without an envelope.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{id}/result",
    tag = "runs",
    params(
        ("id" = String, Path, description = "The id of the run", example = "0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4"),
    ),
    extensions(("x-problems" = json!(["run_not_found", "run_failed", "run_cancelled", "not_finished"]))),
    responses(
        (status = 200, description = "The run succeeded", body = Value, content_type = "application/json",
         example = json!({"words": 7})),
    )
)]
pub(in crate::api) async fn get_run_result(
    State(app): State<App>,
    _caller: Caller,
    RunPath(run): RunPath,
    _query: Params<Nothing>,
) -> Result<Json<Value>, Problem> {
    let record = app.store.find_run(run).await?.ok_or_else(|| no_such_run(run))?;
    match record.state {
        RunState::Queued | RunState::Running | RunState::Paused => {
            let detail = format!(
                "run {run} is {}: ask again when it is over, or wait for it with GET {}?wait=50s",
                record.state,
                path_of(run)
            );
            Err(Problem::new(ProblemKind::NotFinished, detail).retry_after(Duration::from_secs(1)))
        }
        RunState::Failed | RunState::Cancelled => Err(wait::failed(&app, record)?),
        RunState::Succeeded => {
            let result = app.store.find_run_result(run).await?.unwrap_or_default();
            Ok(Json(Value::Object(result)))
        }
    }
}
