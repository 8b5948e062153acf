use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::view::{self, Target};
use crate::api::extract::Caller;
use crate::api::problem::Problem;
use crate::api::query::{Nothing, Params};
use crate::api::state::App;

/// Where tasks can run.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Targets {
    items: Vec<Target>,
}

/// List the targets
///
/// By name, each with how the workers find it.
#[utoipa::path(
    get,
    path = "/api/v1/targets",
    tag = "targets",
    responses((status = 200, description = "The targets", body = Targets))
)]
pub(in crate::api) async fn list_targets(
    State(app): State<App>,
    _caller: Caller,
    _query: Params<Nothing>,
) -> Result<Json<Targets>, Problem> {
    app.catalogue.refresh().await?;
    let known = app.catalogue.current();
    let items = view::targets(&app, known.entries.iter()).await?;
    Ok(Json(Targets { items }))
}
