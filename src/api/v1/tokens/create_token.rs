use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::extract::{Caller, JsonBody};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::{Nothing, Params};
use crate::api::state::App;
use crate::auth;
use crate::domain::spec::{Fault, ObjectReader};
use crate::ids::TokenId;

/// A token to make.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation of what `read` reads")]
pub(in crate::api) struct TokenRequest {
    /// Who will use it: it stands in the events of tasks and in the log of the service.
    #[schema(min_length = 1, max_length = 255, examples("airflow"))]
    name: String,
    /// Such as `30d`. Default: never.
    #[schema(required = false, pattern = "^([0-9]+(ms|s|m|h|d))+$", examples("90d"))]
    expires_in: String,
}

/// A token that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct CreatedToken {
    #[schema(value_type = uuid::Uuid, examples("0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"))]
    id: TokenId,
    #[schema(examples("airflow"))]
    name: String,
    /// The token itself. It is shown here and never again.
    #[schema(examples("sc_NxW0Ev2nJmY0v4b7oC8mT1dKZ8lq3aX9rS5uG6hP2eQ"))]
    token: String,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

/// Create a token
#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    tag = "tokens",
    request_body(content = TokenRequest, description = "Whose it is", examples(
        ("1_forever" = (summary = "Until it is revoked", value = json!({"name": "airflow"}))),
        ("2_expires" = (summary = "For a while", value = json!({"name": "ci", "expires_in": "90d"}))),
    )),
    extensions(("x-problems" = json!(["empty_body", "spec_invalid", "document_invalid"]))),
    responses(
        (status = 201, description = "The token, for this once", body = CreatedToken),
    )
)]
pub(in crate::api) async fn create_token(
    State(app): State<App>,
    Caller(caller): Caller,
    _query: Params<Nothing>,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<CreatedToken>), Problem> {
    let (name, expires_at) = read(&body, app.clock.now())
        .map_err(|faults| Problem::faults(ProblemKind::DocumentInvalid, &faults))?;
    let (secret, token) = auth::new_token(&name).map_err(Problem::internal)?;
    let made = app.store.create_token(&token, expires_at).await?;
    tracing::info!(token.name = name, by = caller.name, "a token was made");
    let created = CreatedToken {
        id: made.token,
        name: made.name,
        token: secret,
        created_at: made.created_at,
        expires_at: made.expires_at,
    };
    Ok((StatusCode::CREATED, Json(created)))
}

const NAME_CHARS: usize = 255;

fn read(body: &Value, now: Timestamp) -> Result<(String, Option<Timestamp>), Vec<Fault>> {
    let mut faults = Vec::new();
    let mut read = (String::new(), None);
    if let Some(mut reader) = ObjectReader::open(body, String::new(), &mut faults) {
        let name = reader.text("name").unwrap_or_default();
        let fit = !name.is_empty() && name.chars().count() <= NAME_CHARS;
        if !fit || name.chars().any(char::is_control) {
            let detail = format!(
                "\"name\" says who uses the token: 1 to {NAME_CHARS} characters, no control characters"
            );
            reader.fault("name", "required", detail);
        }
        let expires = reader.duration("expires_in").map(|it| now.checked_add(it));
        let expires = match expires {
            Some(Err(_)) => {
                reader.fault("expires_in", "out_of_range", "too far away: leave it out for never");
                None
            }
            Some(Ok(at)) if at <= now => {
                reader.fault(
                    "expires_in",
                    "out_of_range",
                    "it would have expired already: write \"90d\"",
                );
                None
            }
            Some(Ok(at)) => Some(at),
            None => None,
        };
        reader.finish();
        read = (name.to_owned(), expires);
    }
    if faults.is_empty() { Ok(read) } else { Err(faults) }
}
