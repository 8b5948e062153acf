//! What the API answers where it can't do what was asked: RFC 9457 problem details.
//!
//! [`ProblemKind`] is the catalogue; codes are only ever added. What callers may know is in the body; an
//! internal cause is logged with the id of the request, and never sent. A [`Problem`] becomes a body in
//! the outermost layer ([`super::observe`]), which knows that id.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::ext::ReasonPhrase;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::domain::spec::Fault;
use crate::store;

macro_rules! kinds {
    ($($name:ident $code:literal $status:ident $title:literal;)*) => {
        /// Everything that can be wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemKind {
            $($name,)*
        }

        impl ProblemKind {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Stable: programs decide by it.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

kinds! {
    MalformedJson "malformed_json" BAD_REQUEST "The body is not valid JSON";
    MalformedYaml "malformed_yaml" BAD_REQUEST "The body is not valid YAML";
    MalformedForm "malformed_form" BAD_REQUEST "The body is not a valid form";
    EmptyBody "empty_body" BAD_REQUEST "The request has no body";
    InvalidParameter "invalid_parameter" BAD_REQUEST "A parameter of the request is not valid";
    InvalidIdempotencyKey "invalid_idempotency_key" BAD_REQUEST "The idempotency key is not valid";
    InvalidRequest "invalid_request" BAD_REQUEST "The request can't be read";
    Unauthorized "unauthorized" UNAUTHORIZED "A valid token is needed";
    ForeignOrigin "foreign_origin" FORBIDDEN "The request comes from another web site";
    HostNotAllowed "host_not_allowed" FORBIDDEN "The service does not answer to this host name";
    NotFound "not_found" NOT_FOUND "There is nothing at this path";
    TaskNotFound "task_not_found" NOT_FOUND "There is no such task";
    RunNotFound "run_not_found" NOT_FOUND "There is no such run";
    AttemptNotFound "attempt_not_found" NOT_FOUND "The task has no such attempt";
    ContainerNotFound "container_not_found" NOT_FOUND "The attempt has no log of such a container";
    TokenNotFound "token_not_found" NOT_FOUND "There is no such token";
    TargetNotFound "target_not_found" NOT_FOUND "There is no such target";
    OutputNotFound "output_not_found" NOT_FOUND "The task has no such output";
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED "The path does not take this method";
    NotOver "not_over" NOT_FOUND "The task is not over";
    RequestTimeout "request_timeout" REQUEST_TIMEOUT "The request did not arrive in time";
    RunKeyTaken "run_key_taken" CONFLICT "The run key belongs to another task";
    RunOver "run_over" CONFLICT "The run has ended";
    TargetFixed "target_fixed" CONFLICT "The target is not changed through the API";
    TargetInUse "target_in_use" CONFLICT "Tasks are on the target";
    OutputGone "output_gone" GONE "The output is not stored any more";
    BodyTooLarge "body_too_large" PAYLOAD_TOO_LARGE "The body is too large";
    UnsupportedMediaType "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE "The body is not of a type that is read";
    RangeNotSatisfiable "range_not_satisfiable" RANGE_NOT_SATISFIABLE "The log does not have these bytes";
    SpecInvalid "spec_invalid" UNPROCESSABLE_ENTITY "The task is not valid";
    WorkflowInvalid "workflow_invalid" UNPROCESSABLE_ENTITY "The workflow is not valid";
    ParamsInvalid "params_invalid" UNPROCESSABLE_ENTITY "The params are not valid";
    DocumentInvalid "document_invalid" UNPROCESSABLE_ENTITY "The document is not valid";
    IdempotencyKeyReused "idempotency_key_reused" UNPROCESSABLE_ENTITY "The idempotency key belongs to another request";
    TaskFailed "task_failed" FAILED_DEPENDENCY "The task failed";
    TaskCancelled "task_cancelled" FAILED_DEPENDENCY "The task was cancelled";
    RunFailed "run_failed" FAILED_DEPENDENCY "The run failed";
    RunCancelled "run_cancelled" FAILED_DEPENDENCY "The run was cancelled";
    NotFinished "not_finished" TOO_EARLY "It has not finished";
    RateLimited "rate_limited" TOO_MANY_REQUESTS "Too many requests";
    HeadersTooLarge "headers_too_large" REQUEST_HEADER_FIELDS_TOO_LARGE "The head of the request is too large";
    NoWorker "no_worker" SERVICE_UNAVAILABLE "No worker answered";
    QueueFull "queue_full" SERVICE_UNAVAILABLE "Too many tasks wait";
    Internal "internal" INTERNAL_SERVER_ERROR "The service failed";
    Unavailable "unavailable" SERVICE_UNAVAILABLE "The service can't answer now";
}

impl ProblemKind {
    pub fn type_url(self) -> String {
        format!("https://supercargo.dev/problems/{}", self.code())
    }
}

/// A refusal or a failure on its way to the caller. Small, since every handler returns one.
#[derive(Debug, Clone)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    kind: ProblemKind,
    detail: String,
    reason: Option<String>,
    errors: Vec<FieldError>,
    members: Map<String, Value>,
    headers: HeaderMap,
    internal: Option<String>,
}

/// One fault of the submitted document.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// JSON pointer (RFC 6901) into the submitted document.
    #[schema(examples("/comand"))]
    pub pointer: String,
    /// Stable, for programs.
    #[schema(examples("unknown_field"))]
    pub code: String,
    /// What is wrong, and the fix.
    #[schema(examples("unknown field \"comand\": did you mean \"command\"?"))]
    pub detail: String,
}

/// More are counted, not listed.
const ERRORS_LISTED: usize = 100;
const DETAIL_CHARS: usize = 1_000;
const REASON_CHARS: usize = 400;

impl Problem {
    pub fn new(kind: ProblemKind, detail: impl AsRef<str>) -> Self {
        Self(Box::new(Parts {
            kind,
            detail: one_line(detail.as_ref(), DETAIL_CHARS),
            reason: None,
            errors: Vec::new(),
            members: Map::new(),
            headers: HeaderMap::new(),
            internal: None,
        }))
    }

    /// A fault of ours: the cause goes to the log alone.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        let mut it = Self::new(
            ProblemKind::Internal,
            "the service failed; its log tells why, under the id in \"instance\"",
        );
        it.0.internal = Some(cause.to_string());
        it
    }

    /// Something that we depend on is away: asking again later is right.
    pub fn unavailable(detail: impl AsRef<str>, cause: impl std::fmt::Display) -> Self {
        let mut it =
            Self::new(ProblemKind::Unavailable, detail).retry_after(Duration::from_secs(1));
        it.0.internal = Some(cause.to_string());
        it
    }

    /// The detail is the first fault in one line; `errors` lists them all.
    pub fn faults(kind: ProblemKind, faults: &[Fault]) -> Self {
        let first = faults.first().map_or_else(|| kind.title().to_owned(), place);
        let detail = match faults.len() {
            0 | 1 => first,
            2 => {
                format!("{} (and 1 more fault, see \"errors\")", one_line(&first, DETAIL_CHARS / 2))
            }
            n => format!(
                "{} (and {} more faults, see \"errors\")",
                one_line(&first, DETAIL_CHARS / 2),
                n - 1
            ),
        };
        Self::new(kind, detail).errors(faults)
    }

    #[must_use]
    pub fn errors(mut self, faults: &[Fault]) -> Self {
        let error = |it: &Fault| FieldError {
            pointer: it.pointer.clone(),
            code: it.code.to_owned(),
            detail: one_line(&it.detail, DETAIL_CHARS),
        };
        self.0.errors = faults.iter().take(ERRORS_LISTED).map(error).collect();
        self
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)))
    }

    /// Members of the body beside those of every problem.
    #[must_use]
    pub fn members(mut self, members: Map<String, Value>) -> Self {
        self.0.members = members;
        self
    }

    /// What stands in the status line, where it is not the detail.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.0.reason = Some(reason.into());
        self
    }

    pub fn kind(&self) -> ProblemKind {
        self.0.kind
    }

    /// The cause that only the log may show.
    pub(super) fn cause(&self) -> Option<&str> {
        self.0.internal.as_deref()
    }

    /// The body, as the caller sees it.
    pub(super) fn body(&self, request_id: &str) -> Vec<u8> {
        let it = &*self.0;
        let body = Rendered {
            r#type: it.kind.type_url(),
            title: it.kind.title(),
            status: it.kind.status().as_u16(),
            code: it.kind.code(),
            detail: &it.detail,
            errors: &it.errors,
            instance: format!("urn:request:{request_id}"),
            members: &it.members,
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }

    pub(super) fn reason_phrase(&self) -> Option<ReasonPhrase> {
        let text = self.0.reason.as_deref().unwrap_or(&self.0.detail);
        ReasonPhrase::try_from(status_line_text(text)).ok()
    }
}

#[derive(Serialize)]
struct Rendered<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    instance: String,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.0.kind.status();
        response.headers_mut().extend(self.0.headers.clone());
        response.extensions_mut().insert(self);
        response
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        if error.is_transient() {
            return Self::unavailable("the database can't be asked now: try again", error);
        }
        Self::internal(error)
    }
}

/// A fault deep in a document is named with its place.
fn place(fault: &Fault) -> String {
    match fault.pointer.strip_prefix('/') {
        Some(path) if path.contains('/') => format!("{path}: {}", fault.detail),
        _ => fault.detail.clone(),
    }
}

/// No line breaks or other control characters, and not longer than `most` characters.
fn one_line(text: &str, most: usize) -> String {
    let mut line: String =
        text.chars().take(most).map(|it| if it.is_control() { ' ' } else { it }).collect();
    if line.len() < text.len() {
        line.push('…');
    }
    line
}

/// Printable ASCII: what every client reads the same in a status line.
fn status_line_text(text: &str) -> Vec<u8> {
    let printable = |it: char| if it.is_ascii_graphic() || it == ' ' { it } else { '?' };
    text.chars().take(REASON_CHARS).map(printable).map(|it| it as u8).collect()
}

/// The body of every answer that is not a success (RFC 9457), as `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemDocument {
    /// Says more about this kind of problem.
    #[schema(format = "uri", examples("https://supercargo.dev/problems/spec_invalid"))]
    r#type: String,
    #[schema(examples("The task is not valid"))]
    title: String,
    #[schema(examples(422))]
    status: u16,
    /// Stable, for programs.
    #[schema(schema_with = code_schema)]
    code: String,
    /// One line for people: what is wrong, and the fix.
    #[schema(examples("unknown field \"comand\": did you mean \"command\"?"))]
    detail: String,
    /// Every fault of the document, where there is one.
    #[schema(required = false)]
    errors: Vec<FieldError>,
    /// Where `malformed_json` is.
    #[schema(required = false, minimum = 0, examples(2))]
    line: u32,
    #[schema(required = false, minimum = 0, examples(10))]
    column: u32,
    /// The most that is taken, where it is `body_too_large`.
    #[schema(required = false, examples(8_388_608))]
    limit_bytes: u64,
    /// The task that has the run key, where it is `run_key_taken`.
    #[schema(required = false, examples("0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"))]
    task_id: uuid::Uuid,
    /// Names this request; the log of the service has the same id.
    #[schema(examples("urn:request:0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"))]
    instance: String,
}

fn code_schema() -> utoipa::openapi::schema::Object {
    utoipa::openapi::schema::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::Type::String)
        .enum_values(Some(ProblemKind::ALL.iter().map(|it| it.code())))
        .description(Some("Stable, for programs."))
        .examples(["spec_invalid"])
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue() {
        let lines: Vec<String> = ProblemKind::ALL
            .iter()
            .map(|it| format!("{} {}: {}", it.status().as_u16(), it.code(), it.title()))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn the_detail_names_the_first_fault_and_counts_the_others() {
        let faults = [
            Fault::new("/env/A", "wrong_type", "the value of \"A\" must be text"),
            Fault::new("/image", "required", "\"image\" is required"),
        ];
        let problem = Problem::faults(ProblemKind::SpecInvalid, &faults);
        let detail = "env/A: the value of \"A\" must be text (and 1 more fault, see \"errors\")";
        assert_eq!(problem.0.detail, detail);
        assert_eq!(
            Problem::faults(ProblemKind::SpecInvalid, &faults[1..]).0.detail,
            "\"image\" is required"
        );
    }

    #[test]
    fn a_status_line_can_not_be_broken_out_of() {
        let problem = Problem::new(ProblemKind::TaskFailed, "a\r\nSet-Cookie: é");
        assert_eq!(problem.0.detail, "a  Set-Cookie: é");
        let phrase = problem.reason("x\r\ny\u{0}é").reason_phrase();
        assert_eq!(phrase.map(|it| it.as_bytes().to_vec()), Some(b"x??y??".to_vec()));
    }

    #[test]
    fn an_internal_cause_is_not_in_the_body() {
        let body = Problem::internal("password=x").body("");
        assert!(!String::from_utf8(body).unwrap().contains("password"));
    }
}
