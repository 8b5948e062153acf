use axum::Json;
use axum::extract::{Path, State};

use super::view::{self, Target};
use crate::api::extract::Caller;
use crate::api::problem::Problem;
use crate::api::query::{Nothing, Params};
use crate::api::state::App;

/// Get a target
///
/// With how the workers find it. `document` is what can be put: what is secret is `***` in it.
#[utoipa::path(
    get,
    path = "/api/v1/targets/{name}",
    tag = "targets",
    params(("name" = String, Path, description = "Its name", example = "simulated")),
    extensions(("x-problems" = json!(["target_not_found"]))),
    responses((status = 200, description = "The target", body = Target))
)]
pub(in crate::api) async fn get_target(
    State(app): State<App>,
    _caller: Caller,
    Path(name): Path<String>,
    _query: Params<Nothing>,
) -> Result<Json<Target>, Problem> {
    app.catalogue.refresh().await?;
    let known = app.catalogue.current();
    let entry = super::find(&known, &name)?;
    let mut targets = view::targets(&app, [(&name, entry)].into_iter()).await?;
    let target = targets.pop().ok_or_else(|| Problem::internal("no view of one target"))?;
    Ok(Json(target))
}
