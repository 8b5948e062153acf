use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::extract::Caller;
use crate::api::problem::Problem;
use crate::api::query::{Nothing, Params};
use crate::api::state::App;
use crate::ids::TokenId;
use crate::store::TokenRecord;

/// The tokens that are valid.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Tokens {
    items: Vec<Token>,
}

/// A token, without itself.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Token {
    #[schema(value_type = uuid::Uuid, examples("0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"))]
    id: TokenId,
    #[schema(examples("airflow"))]
    name: String,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

impl From<TokenRecord> for Token {
    fn from(it: TokenRecord) -> Self {
        Self { id: it.token, name: it.name, created_at: it.created_at, expires_at: it.expires_at }
    }
}

/// List the tokens
///
/// Those that are valid, the newest first. The tokens themselves are not stored.
#[utoipa::path(
    get,
    path = "/api/v1/tokens",
    tag = "tokens",
    responses((status = 200, description = "The tokens", body = Tokens))
)]
pub(in crate::api) async fn list_tokens(
    State(app): State<App>,
    _caller: Caller,
    _query: Params<Nothing>,
) -> Result<Json<Tokens>, Problem> {
    let tokens = app.store.list_tokens().await?;
    Ok(Json(Tokens { items: tokens.into_iter().map(Into::into).collect() }))
}
