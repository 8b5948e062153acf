use axum::extract::{Path, State};
use axum::http::StatusCode;

use crate::api::extract::Caller;
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::{Nothing, Params};
use crate::api::state::App;

/// Revoke a token
///
/// It works no more: here at once, at other processes of the service within 10 s. To revoke it again does
/// nothing.
#[utoipa::path(
    delete,
    path = "/api/v1/tokens/{id}",
    tag = "tokens",
    params(
        ("id" = String, Path, description = "The id of the token", example = "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"),
    ),
    extensions(("x-problems" = json!(["token_not_found"]))),
    responses(
        (status = 204, description = "It is revoked"),
    )
)]
pub(in crate::api) async fn revoke_token(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    _query: Params<Nothing>,
) -> Result<StatusCode, Problem> {
    let none = || {
        let detail = format!("there is no token with the id {id:?}: GET /api/v1/tokens lists them");
        Problem::new(ProblemKind::TokenNotFound, detail)
    };
    let token = id.parse().map_err(|_| none())?;
    if !app.store.revoke_token(token).await? {
        return Err(none());
    }
    app.auth.forget();
    tracing::info!(token.id = id, by = caller.name, "a token was revoked");
    Ok(StatusCode::NO_CONTENT)
}
