//! The HTTP API: reads requests, asks the store, writes answers. It never calls a backend: it writes what
//! is wanted, and workers see to it.

mod body;
mod compress;
mod conditions;
mod docs;
mod extract;
mod guard;
mod limits;
mod logs;
mod observe;
mod openapi;
pub mod ports;
mod problem;
mod query;
mod state;
mod system;
mod url;
mod v1;

use std::sync::Arc;

use axum::http::header;
use axum::routing::{MethodRouter, get};
use axum::{Router, middleware};
use bytes::Bytes;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use limits::Peer;
pub use openapi::Documents;
pub use ports::{LogSource, ObjectSource, Renderer, Rendering};
pub use problem::{Problem, ProblemKind};
pub use state::{AppState, Lifecycle, Settings};

use state::{App, Shared};

/// Every operation there is.
fn operations() -> OpenApiRouter<App> {
    use v1::targets::{check_target, delete_target, get_target, list_targets, put_target};
    use v1::tasks::{
        cancel_task, get_task, get_task_logs, get_task_output, get_task_result, get_task_sensor,
        get_task_spec, list_task_events, list_task_outputs, list_tasks, poll_task, put_task,
        retry_task, submit_task, submit_tasks,
    };
    use v1::tokens::{create_token, list_tokens, revoke_token};
    let operations = OpenApiRouter::with_openapi(openapi::base())
        // Tasks
        .routes(routes!(submit_task::submit_task, list_tasks::list_tasks))
        .routes(routes!(submit_tasks::submit_tasks))
        .routes(routes!(get_task::get_task, put_task::put_task))
        .routes(routes!(get_task_logs::get_task_logs))
        .routes(routes!(get_task_result::get_task_result))
        .routes(routes!(list_task_outputs::list_task_outputs))
        .routes(routes!(get_task_output::get_task_output))
        .routes(routes!(list_task_events::list_task_events))
        .routes(routes!(get_task_spec::get_task_spec))
        .routes(routes!(cancel_task::cancel_task))
        .routes(routes!(retry_task::retry_task))
        .routes(routes!(get_task_sensor::get_task_sensor))
        .routes(routes!(poll_task::poll_task, poll_task::poll_task_by_post))
        // The deployment's objects
        .routes(routes!(list_targets::list_targets))
        .routes(routes!(
            get_target::get_target,
            put_target::put_target,
            delete_target::delete_target
        ))
        .routes(routes!(check_target::check_target))
        .routes(routes!(create_token::create_token, list_tokens::list_tokens))
        .routes(routes!(revoke_token::revoke_token))
        .routes(routes!(v1::render::render_task::render_task))
        .routes(routes!(v1::schema::get_workflow_schema::get_workflow_schema));
    with_system(operations)
}

/// What operators and probes ask of every process, whatever it does.
fn with_system(operations: OpenApiRouter<App>) -> OpenApiRouter<App> {
    operations
        .routes(routes!(system::get_liveness))
        .routes(routes!(system::get_readiness))
        .routes(routes!(system::get_version))
        .routes(routes!(system::get_metrics))
}

/// The whole service as one router.
pub fn router(state: AppState) -> Router {
    let app: App = Arc::new(Shared::new(state));
    let (router, openapi) = operations().split_for_parts();
    let openapi::Documents { v3_1, v3_0 } = openapi::documents(openapi);
    let router = router
        .route("/openapi.json", json_text(v3_1))
        .route("/openapi-3.0.json", json_text(v3_0))
        .merge(docs::page())
        .fallback(no_such_path);
    served(router, app)
}

/// The router of a process without the role `api`: its health, its version and its metrics.
pub fn probes(state: AppState) -> Router {
    let (router, _) = with_system(OpenApiRouter::new()).split_for_parts();
    served(router.fallback(no_such_role), Arc::new(Shared::new(state)))
}

fn served(routes: Router<App>, app: App) -> Router {
    routes
        .method_not_allowed_fallback(no_such_method)
        .with_state(Arc::clone(&app))
        // The last one added sees a request first:
        // compress → observe (names it, measures it, writes problems) → catch panics → guard (other web sites) → limit → routes
        .layer(middleware::from_fn_with_state(Arc::clone(&app), limits::limit))
        .layer(middleware::from_fn_with_state(app, guard::guard))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(observe::observe))
        .layer(compress::layer())
        .layer(middleware::map_request(compress::take_plain))
}

/// The description of the API as it is served and committed.
pub fn openapi() -> Documents {
    openapi::documents(operations().into_openapi())
}

/// The JSON Schema of the workflow document, as it is served.
pub fn workflow_schema() -> &'static str {
    &openapi::WORKFLOW_SCHEMA
}

/// Answers with this text.
fn json_text(text: String) -> MethodRouter<App> {
    let text = Bytes::from(text);
    get(async move || ([(header::CONTENT_TYPE, "application/json")], text.clone()))
}

async fn no_such_path(uri: axum::http::Uri) -> Problem {
    let detail = format!("there is nothing at {:?}: the paths are listed at /docs", uri.path());
    Problem::new(ProblemKind::NotFound, detail)
}

async fn no_such_role(uri: axum::http::Uri) -> Problem {
    let detail =
        format!("{:?} is not here: this process has no role \"api\"; ask one that has", uri.path());
    Problem::new(ProblemKind::NotFound, detail)
}

async fn no_such_method(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    let detail = format!(
        "{:?} does not take {method}: the header \"Allow\" lists what it takes",
        uri.path()
    );
    Problem::new(ProblemKind::MethodNotAllowed, detail)
}

#[expect(clippy::needless_pass_by_value, reason = "as the layer hands it")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> axum::response::Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    axum::response::IntoResponse::into_response(Problem::internal(format!("panic: {text}")))
}
