use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use crate::api::openapi::WORKFLOW_SCHEMA;

/// Get the JSON Schema of the workflow document
///
/// For editors: `# yaml-language-server: $schema=<this address>` as the first line of a file, say.
#[utoipa::path(
    get,
    path = "/api/v1/schema/workflow.json",
    tag = "system",
    security(()),
    responses((status = 200, description = "The schema", body = Object, content_type = "application/schema+json",
        example = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Supercargo workflow"})))
)]
pub(in crate::api) async fn get_workflow_schema() -> Response {
    let text: &'static str = WORKFLOW_SCHEMA.as_str();
    ([(header::CONTENT_TYPE, "application/schema+json")], text).into_response()
}
