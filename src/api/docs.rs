//! The description of the API, and the page that shows it. Everything is in the binary.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, OpenApi, RefOr};
use utoipa::{Modify, OpenApi as _};
use utoipa_swagger_ui::{Config, SwaggerUi};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Supercargo",
        description = "Runs containers for pipelines: submit a task, and get its log, exit code and outputs back.\n\n\
            Every call but those marked open needs a token: `Authorization: Bearer <token>`, `X-API-Key: <token>`, \
            or Basic with the token as the password. The service writes the first token to `admin.token` in its \
            data directory.\n\n\
            Whatever is not a success is a problem document (RFC 9457) with a stable `code` and one line of \
            `detail` that says what to do.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "tasks", description = "One container to run each"),
        (name = "system", description = "For operators and probes"),
    ),
    security(("bearer" = []), ("api_key" = []), ("basic" = [])),
    modifiers(&Schemes)
)]
struct Description;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, openapi: &mut OpenApi) {
        let components = openapi.components.get_or_insert_with(Components::new);
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token, such as the one in `admin.token` of the data directory"));
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
        let key = ApiKeyValue::with_description("X-API-Key", "The same token");
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(key)));
        let basic = HttpBuilder::new()
            .scheme(HttpAuthScheme::Basic)
            .description(Some("Any user name, and the token as the password"));
        components.add_security_scheme("basic", SecurityScheme::Http(basic.build()));
    }
}

/// The part that no operation brings along.
pub(super) fn base() -> OpenApi {
    Description::openapi()
}

/// The page fills in the example of a parameter. One that need not be given must not be there by itself,
/// or trying a call out would use somebody's cursor: its example moves into its schema.
pub(super) fn finish(openapi: &mut OpenApi) {
    for item in openapi.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            operation.parameters.iter_mut().flatten().for_each(move_example);
        }
    }
}

fn move_example(parameter: &mut RefOr<Parameter>) {
    let Ok(mut value) = serde_json::to_value(&*parameter) else { return };
    if value["required"] == true {
        return;
    }
    if let Some(example) = value.as_object_mut().and_then(|it| it.remove("example")) {
        value["schema"]["examples"] = serde_json::json!([example]);
    }
    if let Ok(moved) = serde_json::from_value(value) {
        *parameter = moved;
    }
}

/// No script or style from anywhere else; the page writes styles into its elements, so those are allowed.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/docs/`: Swagger UI, from the binary.
pub(super) fn page<S: Clone + Send + Sync + 'static>() -> Router<S> {
    // Relative, so that a path prefix before the service does not matter.
    let config = Config::new(["../openapi.json"])
        .persist_authorization(true)
        .try_it_out_enabled(true)
        .display_request_duration(true)
        .default_models_expand_depth(0)
        .doc_expansion("list")
        .validator_url("none");
    let page: Router<S> = SwaggerUi::new("/docs").config(config).into();
    page.layer(middleware::from_fn(async |request: Request, next: Next| -> Response {
        let mut response = next.run(request).await;
        let policy = HeaderValue::from_static(POLICY);
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        response
    }))
}
