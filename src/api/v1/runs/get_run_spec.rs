use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::extract::{Caller, RunPath, no_such_run};
use crate::api::problem::Problem;
use crate::api::query::{Nothing, Params};
use crate::api::state::App;

/// What a run was submitted with.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct RunSpec {
    /// The document, as it was submitted.
    #[schema(value_type = std::collections::HashMap<String, Value>, examples(json!({"name": "etl", "tasks": {"a": {"image": "busybox:latest"}}})))]
    workflow: Value,
    /// With the defaults of those that were left out.
    #[schema(value_type = std::collections::HashMap<String, Value>, examples(json!({"n": 2})))]
    params: Map<String, Value>,
}

/// Get what a run runs
///
/// The document of its workflow, and its params.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{id}/spec",
    tag = "runs",
    params(
        ("id" = String, Path, description = "The id of the run", example = "0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4"),
    ),
    extensions(("x-problems" = json!(["run_not_found"]))),
    responses((status = 200, description = "The document and the params", body = RunSpec))
)]
pub(in crate::api) async fn get_run_spec(
    State(app): State<App>,
    _caller: Caller,
    RunPath(run): RunPath,
    _query: Params<Nothing>,
) -> Result<Json<RunSpec>, Problem> {
    let (workflow, params) =
        app.store.find_run_document(run).await?.ok_or_else(|| no_such_run(run))?;
    Ok(Json(RunSpec { workflow, params }))
}
