//! The outermost layer: names each request, measures it, tells the log how it went, and writes the body
//! of every [`Problem`].

use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;
use uuid::Uuid;

use super::problem::{Problem, ProblemKind};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const DURATION: &str = "supercargo_http_request_duration_seconds";

/// Tells the recorder what is measured here.
pub(super) fn describe_metrics() {
    metrics::describe_histogram!(
        DURATION,
        metrics::Unit::Seconds,
        "From the head of a request to the head of its answer, by route, method and status"
    );
}

pub(super) async fn observe(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str).to_owned();
    let (id, given) = request_id(request.headers());
    let span = tracing::info_span!(
        "request", %method, route, request.id = %id, principal = tracing::field::Empty,
    );
    async move {
        let mut response = next.run(request).await;
        let problem = problem_of(&mut response);
        if let Some(problem) = &problem {
            write_problem(problem, id, &mut response);
        }
        finish_headers(&route, &given, &mut response);
        let status = response.status();
        let elapsed = started.elapsed();
        report(&method, status, elapsed, problem.as_ref());
        metrics::histogram!(
            DURATION,
            "route" => route, "method" => method_label(&method), "status" => status.as_str().to_owned(),
        )
        .record(elapsed);
        response
    }
    .instrument(span)
    .await
}

/// Our name for the request, and what is echoed: the caller's own id where it is one line of text.
fn request_id(headers: &HeaderMap) -> (Uuid, HeaderValue) {
    let given = headers.get(&REQUEST_ID);
    let given = given.filter(|it| (1..=128).contains(&it.len()) && it.to_str().is_ok()).cloned();
    let parsed = given.as_ref().and_then(|it| Uuid::try_parse_ascii(it.as_bytes()).ok());
    let id = parsed.unwrap_or_else(Uuid::now_v7);
    let given = given.or_else(|| HeaderValue::from_str(&id.to_string()).ok());
    (id, given.unwrap_or(HeaderValue::from_static("")))
}

/// The problem that a handler answered with. Refusals of the framework that are not ours become one.
fn problem_of(response: &mut Response) -> Option<Problem> {
    let problem = response.extensions_mut().remove::<Problem>();
    let foreign = problem.is_none()
        && (response.status().is_client_error() || response.status().is_server_error())
        && !response.headers().contains_key(header::CONTENT_TYPE);
    if !foreign {
        return problem;
    }
    let status = response.status();
    let kind = ProblemKind::ALL.iter().copied().find(|it| it.status() == status);
    let kind = kind.unwrap_or(if status.is_server_error() {
        ProblemKind::Internal
    } else {
        ProblemKind::InvalidRequest
    });
    *response.status_mut() = kind.status();
    Some(Problem::new(kind, kind.title()))
}

fn write_problem(problem: &Problem, id: Uuid, response: &mut Response) {
    *response.body_mut() = Body::from(problem.body(id));
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(phrase) = problem.reason_phrase() {
        response.extensions_mut().insert(phrase);
    }
}

fn finish_headers(route: &str, request_id: &HeaderValue, response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(&REQUEST_ID, request_id.clone());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if route.starts_with("/api/") && !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

fn report(
    method: &Method,
    status: StatusCode,
    elapsed: std::time::Duration,
    problem: Option<&Problem>,
) {
    let (status, elapsed_us) =
        (status.as_u16(), u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
    let code = problem.map(|it| it.kind().code());
    let cause = problem.and_then(Problem::cause);
    match problem.map(Problem::kind) {
        Some(ProblemKind::Internal) => {
            tracing::error!(status, elapsed_us, code, cause, "request failed");
        }
        Some(ProblemKind::Unavailable) => {
            tracing::warn!(status, elapsed_us, code, cause, "request could not be answered");
        }
        None if !matches!(*method, Method::GET | Method::HEAD) => {
            tracing::info!(status, elapsed_us, "request answered");
        }
        _ => tracing::debug!(status, elapsed_us, code, "request answered"),
    }
}

/// Any token can stand for a method; labels are a closed set.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}
