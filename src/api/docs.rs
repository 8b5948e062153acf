//! The page that shows the description of the API. Everything that it loads is in the binary.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use utoipa_swagger_ui::Config;

use super::problem::{Problem, ProblemKind};
use super::state::App;

/// No script or style from anywhere else; the page writes styles into its elements, so those are allowed.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/docs/`: Swagger UI, from the binary.
pub(super) fn page() -> Router<App> {
    // Relative, so that a path prefix before the service does not matter.
    let config = Config::new(["../openapi.json"])
        .persist_authorization(true)
        .try_it_out_enabled(true)
        .display_request_duration(true)
        .default_models_expand_depth(0)
        .doc_expansion("list")
        .validator_url("none");
    let config = Arc::new(config);
    let index = Arc::clone(&config);
    Router::new()
        .route("/", get(go_to_page))
        .route("/docs", get(go_to_page))
        .route("/docs/", get(async move || asset("index.html", index)))
        .route("/docs/{*file}", get(async move |Path(file): Path<String>| asset(&file, config)))
}

async fn go_to_page(State(app): State<App>) -> Redirect {
    Redirect::to(&app.public_url.location("/docs/"))
}

fn asset(file: &str, config: Arc<Config<'static>>) -> Result<Response, Problem> {
    match utoipa_swagger_ui::serve(file, config) {
        Ok(Some(it)) => {
            let headers = [
                (header::CONTENT_TYPE, it.content_type),
                (header::CONTENT_SECURITY_POLICY, POLICY.to_owned()),
                // It changes with the binary, and is asked for by people.
                (header::CACHE_CONTROL, "no-cache".to_owned()),
            ];
            Ok((headers, Bytes::from(it.bytes.into_owned())).into_response())
        }
        Ok(None) => {
            Err(Problem::new(ProblemKind::NotFound, format!("the page has no file {file:?}")))
        }
        Err(error) => Err(Problem::internal(error)),
    }
}
