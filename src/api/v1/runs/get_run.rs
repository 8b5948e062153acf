use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use utoipa::IntoParams;

use super::view::Run;
use super::wait;
use crate::api::extract::{Caller, RunPath, no_such_run};
use crate::api::problem::Problem;
use crate::api::query::{Params, QueryReader, ReadQuery};
use crate::api::state::App;
use crate::api::wait::{preference_applied, wanted};

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct GetRunQuery {
    /// Wait so long for the end of the run, 50 s at most. 200: it succeeded; 424: it failed or was cancelled;
    /// 303: not over yet, and HTTP clients go on waiting at the address in `Location`.
    #[param(value_type = Option<String>, pattern = "^([0-9]+|([0-9]+(ms|s|m|h|d))+)$", example = "50s")]
    pub(super) wait: Option<std::time::Duration>,
}

impl ReadQuery for GetRunQuery {
    fn read(query: &mut QueryReader) -> Self {
        Self { wait: query.duration("wait") }
    }
}

/// Get a run
///
/// Its state, and how many of its tasks are in which state. Without `wait` the answer is 200 in every state.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{id}",
    tag = "runs",
    params(
        ("id" = String, Path, description = "The id of the run", example = "0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4"),
        GetRunQuery,
        ("Prefer" = Option<String>, Header, example = "wait=50",
         description = "`wait=<seconds>` means the same as the parameter `wait` (RFC 7240)."),
    ),
    extensions(("x-problems" = json!(["run_not_found", "run_failed", "run_cancelled"]))),
    responses(
        (status = 200, description = "The run; with `wait`, it succeeded", body = Run),
        (status = 303, description = "With `wait`: not over yet; `Location` waits on",
         headers(("Location" = String, description = "The same wait for the same run"))),
    )
)]
pub(in crate::api) async fn get_run(
    State(app): State<App>,
    _caller: Caller,
    RunPath(run): RunPath,
    Params(query): Params<GetRunQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wait = wanted(query.wait, &headers);
    let hint = wait.map(|it| (it, app.wake.subscribe_run(run)));
    let record = app.store.find_run(run).await?.ok_or_else(|| no_such_run(run))?;
    let Some((wait, hint)) = hint else {
        return Ok(Json(Run::whole(&app, record).await?).into_response());
    };
    let mut response = match wait::until_terminal(&app, record, hint, wait).await {
        Ok(it) => it,
        Err(problem) => problem.into_response(),
    };
    response.headers_mut().extend(preference_applied(&headers, wait));
    Ok(response)
}
