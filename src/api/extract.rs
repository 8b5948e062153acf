//! What handlers ask of a request. Every rejection is a [`Problem`].

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;
use serde_json::Value;

use super::problem::{Problem, ProblemKind};
use super::state::{App, Settings};
use crate::auth;
use crate::domain::work::{RunKey, is_key};
use crate::ids::TaskId;
use crate::store::Principal;

/// The witness that a request carries a valid token: a handler that takes one can't be reached without.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Principal);

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        match app.auth.authenticate(&parts.headers).await {
            Ok(principal) => {
                tracing::Span::current().record("principal", principal.name.as_str());
                Ok(Self(principal))
            }
            Err(auth::Error::Store(error)) => Err(error.into()),
            Err(error @ (auth::Error::Missing { .. } | auth::Error::Invalid { .. })) => {
                let problem = Problem::new(ProblemKind::Unauthorized, error.to_string());
                Err(problem.header(header::WWW_AUTHENTICATE, error.challenge()))
            }
        }
    }
}

/// The id of a task in the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct TaskPath(pub(super) TaskId);

impl FromRequestParts<App> for TaskPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, app).await.map_err(bad_path)?;
        task_id(app, &id).await.map(Self)
    }
}

/// The key of a piece of work in the path, where a task may not exist yet.
#[derive(Debug, Clone)]
pub(super) struct RunKeyPath(pub(super) RunKey);

impl FromRequestParts<App> for RunKeyPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, app).await.map_err(bad_path)?;
        let Some(key) = id.strip_prefix(KEY_PREFIX) else {
            let detail = format!(
                "{id:?} can't be put: the service makes the ids of tasks; PUT takes \"{KEY_PREFIX}<run_key>\", \
                 a name of your own for the work"
            );
            return Err(Problem::new(ProblemKind::InvalidParameter, detail));
        };
        let key = RunKey::parse(key)
            .map_err(|it| Problem::new(ProblemKind::InvalidParameter, format!("{key:?}: {it}")))?;
        Ok(Self(key))
    }
}

/// The id of a task and the name of one of its outputs in the path.
#[derive(Debug, Clone)]
pub(super) struct OutputPath {
    pub(super) task: TaskId,
    pub(super) name: String,
}

impl FromRequestParts<App> for OutputPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, app).await;
        let Path((id, name)) = path.map_err(bad_path)?;
        Ok(Self { task: task_id(app, &id).await?, name })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err hands it")]
fn bad_path(rejection: axum::extract::rejection::PathRejection) -> Problem {
    Problem::new(ProblemKind::NotFound, rejection.body_text())
}

/// Stands before the key of a piece of work where a path takes the id of a task.
const KEY_PREFIX: &str = "key:";

/// Keys are scoped by project; there is one so far.
pub(super) const PROJECT: &str = "default";

async fn task_id(app: &App, text: &str) -> Result<TaskId, Problem> {
    if let Some(key) = text.strip_prefix(KEY_PREFIX) {
        return app.store.find_run_key(PROJECT, key).await?.ok_or_else(|| {
            let detail = format!(
                "there is no task with the run key {key:?}: none was submitted under it, or retention removed it"
            );
            Problem::new(ProblemKind::TaskNotFound, detail)
        });
    }
    text.parse().map_err(|_| {
        let detail = format!(
            "{text:?} is not the id of a task: ids look like 0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11, and \
             \"{KEY_PREFIX}<run_key>\" names a task by its work"
        );
        Problem::new(ProblemKind::TaskNotFound, detail)
    })
}

pub(super) fn no_such_task(task: TaskId) -> Problem {
    let detail =
        format!("there is no task {task}: it was never submitted here, or retention removed it");
    Problem::new(ProblemKind::TaskNotFound, detail)
}

/// The key that names this request.
#[derive(Debug, Clone)]
pub(super) struct RequestKey(pub(super) Option<String>);

pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

impl<S: Sync> FromRequestParts<S> for RequestKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let bytes = value.as_bytes();
        match std::str::from_utf8(bytes) {
            Ok(text) if is_key(text) && values.next().is_none() => Ok(Self(Some(text.to_owned()))),
            _ => Err(Problem::new(
                ProblemKind::InvalidIdempotencyKey,
                "Idempotency-Key must be there once, with 1 to 255 printable ASCII characters",
            )),
        }
    }
}

/// A JSON body, whatever name the client gives to its type.
#[derive(Debug)]
pub(super) struct JsonBody(pub(super) Value);

impl FromRequest<App> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let OptionalJsonBody(body) = OptionalJsonBody::from_request(request, app).await?;
        body.map(Self).ok_or_else(|| {
            Problem::new(
                ProblemKind::EmptyBody,
                "the request has no body: send a JSON object such as {\"image\": \"busybox:latest\"}",
            )
        })
    }
}

/// The same, where there need not be one.
#[derive(Debug)]
pub(super) struct OptionalJsonBody(pub(super) Option<Value>);

impl FromRequest<App> for OptionalJsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let kind = body_kind(&parts.headers);
        let bytes = read_body(&parts.headers, body, &app.settings).await?;
        let text = bytes.trim_ascii_start();
        // Of a body that is not there the type says nothing.
        if text.is_empty() {
            return Ok(Self(None));
        }
        let kind = kind?;
        if kind == BodyKind::Text && text.first() != Some(&b'{') {
            return Err(unsupported("text/plain whose text is not a JSON object"));
        }
        serde_json::from_slice(&bytes).map(|it| Self(Some(it))).map_err(|it| malformed(&it))
    }
}

fn malformed(error: &serde_json::Error) -> Problem {
    let members = [("line", error.line()), ("column", error.column())];
    let members = members.into_iter().map(|(key, it)| (key.to_owned(), it.into())).collect();
    let detail = format!("the body is not valid JSON: {error}");
    Problem::new(ProblemKind::MalformedJson, detail).members(members)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyKind {
    Json,
    /// aiohttp's name for text that was handed to it as it is.
    Text,
}

fn body_kind(headers: &HeaderMap) -> Result<BodyKind, Problem> {
    if let Some(coding) = headers.get(header::CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(unsupported("compressed (Content-Encoding)"));
    }
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(BodyKind::Json) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "" | "application/json" | "text/json" => Ok(BodyKind::Json),
        it if it.ends_with("+json") => Ok(BodyKind::Json),
        "text/plain" => Ok(BodyKind::Text),
        "application/x-www-form-urlencoded" => Err(unsupported(
            "application/x-www-form-urlencoded (what curl -d and a dict as data of an HttpOperator send)",
        )),
        other => Err(unsupported(other)),
    }
}

fn unsupported(what: &str) -> Problem {
    let detail = format!("the body is {what}: send JSON, with \"Content-Type: application/json\"");
    Problem::new(ProblemKind::UnsupportedMediaType, detail)
}

/// So much of a body that is too large is read and dropped: most clients only read the answer then.
const DRAINED: usize = 64 << 20;

async fn read_body(
    headers: &HeaderMap,
    body: Body,
    settings: &Settings,
) -> Result<Vec<u8>, Problem> {
    let (limit, idle) = (settings.body_limit, settings.body_timeout);
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|it| it.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or_default();
    let mut stream = body.into_data_stream();
    if declared > limit {
        // A client that asked first has not sent anything yet.
        if !headers.contains_key(header::EXPECT) {
            drain(&mut stream, idle).await;
        }
        return Err(too_large(declared, limit));
    }
    let mut bytes = Vec::with_capacity(declared);
    while let Some(piece) = next_piece(&mut stream, idle).await? {
        if bytes.len() + piece.len() > limit {
            drain(&mut stream, idle).await;
            return Err(too_large(limit + 1, limit));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

async fn next_piece(
    stream: &mut BodyDataStream,
    idle: Duration,
) -> Result<Option<bytes::Bytes>, Problem> {
    match tokio::time::timeout(idle, stream.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(piece))) => Ok(Some(piece)),
        Ok(Some(Err(error))) => {
            Err(Problem::new(ProblemKind::InvalidRequest, format!("the body broke off: {error}")))
        }
        Err(_) => Err(Problem::new(
            ProblemKind::RequestTimeout,
            format!("nothing more of the body came for {} s", idle.as_secs()),
        )),
    }
}

async fn drain(stream: &mut BodyDataStream, idle: Duration) {
    let mut left = DRAINED;
    while let Ok(Some(piece)) = next_piece(stream, idle).await {
        match left.checked_sub(piece.len()) {
            Some(it) => left = it,
            None => return,
        }
    }
}

fn too_large(size: usize, limit: usize) -> Problem {
    let size = if size == limit + 1 { format!("more than {limit}") } else { size.to_string() };
    let detail = format!(
        "the body has {size} bytes, at most {limit} are taken: leave large input to a volume or an object \
         store, or raise the limit in the configuration"
    );
    let members = [("limit_bytes".to_owned(), limit.into())].into_iter().collect();
    Problem::new(ProblemKind::BodyTooLarge, detail).members(members)
}
