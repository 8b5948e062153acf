use axum::extract::{Path, State};
use axum::http::StatusCode;

use crate::api::extract::Caller;
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::{Nothing, Params};
use crate::api::state::App;
use crate::store::DeletedTarget;

/// Delete a target
///
/// Only one that no task waits for by its name or runs on: disable it before, and what is there ends in peace.
#[utoipa::path(
    delete,
    path = "/api/v1/targets/{name}",
    tag = "targets",
    params(("name" = String, Path, description = "Its name", example = "second")),
    extensions(("x-problems" = json!(["target_not_found", "target_fixed", "target_in_use"]))),
    responses((status = 204, description = "It is gone"))
)]
pub(in crate::api) async fn delete_target(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    _query: Params<Nothing>,
) -> Result<StatusCode, Problem> {
    app.catalogue.refresh().await?;
    let known = app.catalogue.current();
    super::refuse_fixed(&name, super::find(&known, &name)?)?;
    match app.store.delete_target(&name).await? {
        // Somebody else was faster.
        DeletedTarget::Done | DeletedTarget::NotFound => {}
        DeletedTarget::Configured => {
            let detail = super::configured(&name, None);
            return Err(Problem::new(ProblemKind::TargetFixed, detail));
        }
        DeletedTarget::InUse(tasks) => {
            let detail = format!(
                "{tasks} tasks wait for the target {name:?} or run on it: disable it with \"enabled\": false, and \
                 delete it when they are over"
            );
            return Err(Problem::new(ProblemKind::TargetInUse, detail));
        }
    }
    tracing::info!(target.name = name, by = caller.name, "a target was deleted");
    app.catalogue.refresh().await?;
    app.wake.targets_changed();
    Ok(StatusCode::NO_CONTENT)
}
