//! The outermost layer: names each request, measures it, tells the log how it went, and writes the body
//! of every [`Problem`].
//!
//! One line of the log for each request, when its head is answered: `request answered` at `info`, at
//! `debug` for probes and `/metrics`. Around it, and around every other line that the request causes, is
//! the span `request` with `method`, `route`, `request.id`, `task.id` and `principal`.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tracing::Instrument as _;
use tracing::field::Empty;
use uuid::Uuid;

use super::limits::is_probe;
use super::problem::{Problem, ProblemKind};
use crate::measures::{self, Held};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) async fn observe(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str).to_owned();
    let open = Held::new(metrics::gauge!(measures::HTTP_OPEN, "route" => route.clone()));
    let id = request_id(request.headers());
    let span = tracing::info_span!(
        "request", %method, route, request.id = id, principal = Empty, task.id = Empty,
    );
    async move {
        let mut response = next.run(request).await;
        let problem = problem_of(&mut response);
        if let Some(problem) = &problem {
            write_problem(problem, &id, &mut response);
        }
        finish_headers(&route, &id, &mut response);
        let status = response.status();
        let elapsed = started.elapsed();
        report(&route, status, elapsed, problem.as_ref());
        metrics::histogram!(
            measures::HTTP_DURATION,
            "route" => route, "method" => method_label(&method), "status" => status.as_str().to_owned(),
        )
        .record(elapsed);
        response.map(|body| Body::new(Counted { body, _open: open }))
    }
    .instrument(span)
    .await
}

/// The body of an answer, whose request counts as open until its end.
struct Counted {
    body: Body,
    _open: Held,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

const REQUEST_ID_CHARS: usize = 128;

/// The caller's own name for the request, where it is a plain word, or else ours. It is echoed, and stands
/// in the log and in `instance` of a problem.
fn request_id(headers: &HeaderMap) -> String {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"-._~:/+=@".contains(&it);
    let given = headers
        .get(&REQUEST_ID)
        .and_then(|it| it.to_str().ok())
        .filter(|it| (1..=REQUEST_ID_CHARS).contains(&it.len()) && it.bytes().all(is_plain));
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
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

fn write_problem(problem: &Problem, id: &str, response: &mut Response) {
    *response.body_mut() = Body::from(problem.body(id));
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(phrase) = problem.reason_phrase() {
        response.extensions_mut().insert(phrase);
    }
}

fn finish_headers(route: &str, request_id: &str, response: &mut Response) {
    let headers = response.headers_mut();
    headers.extend(HeaderValue::from_str(request_id).ok().map(|it| (REQUEST_ID.clone(), it)));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if route.starts_with("/api/") && !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

fn report(route: &str, status: StatusCode, elapsed: Duration, problem: Option<&Problem>) {
    let status = status.as_u16();
    // To the microsecond.
    let latency_ms = (elapsed.as_secs_f64() * 1e6).round() / 1e3;
    let code = problem.map(|it| it.kind().code());
    let cause = problem.and_then(Problem::cause);
    match problem.map(Problem::kind) {
        Some(ProblemKind::Internal) => {
            tracing::error!(status, latency_ms, code, cause, "request failed");
        }
        Some(ProblemKind::Unavailable) => {
            tracing::warn!(status, latency_ms, code, cause, "request could not be answered");
        }
        _ if is_probe(route) || route == "/metrics" => {
            tracing::debug!(status, latency_ms, code, "request answered");
        }
        _ => tracing::info!(status, latency_ms, code, "request answered"),
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
