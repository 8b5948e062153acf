//! What handlers ask of a request. Every rejection is a [`Problem`].

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

pub(super) use super::body::{JsonBody, OptionalJsonBody};
use super::limits::Peer;
use super::problem::{Problem, ProblemKind};
use super::state::App;
use crate::auth;
use crate::domain::trace::TraceContext;
use crate::domain::work::{RunKey, is_key};
use crate::ids::{RunId, TaskId};
use crate::store::Principal;

/// The witness that a request carries a valid token: a handler that takes one can't be reached without.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Principal);

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<Peer>();
        if !app.auth.was_seen(&parts.headers) {
            app.rates.may_try(peer)?;
        }
        match app.auth.authenticate(&parts.headers).await {
            Ok(principal) => {
                app.rates.request(&principal, peer)?;
                tracing::Span::current().record("principal", principal.name.as_str());
                Ok(Self(principal))
            }
            Err(auth::Error::Store(error)) => Err(error.into()),
            Err(error @ (auth::Error::Missing { .. } | auth::Error::Invalid { .. })) => {
                app.rates.failure(peer)?;
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
        let task = task_id(app, &id).await?;
        tracing::Span::current().record("task.id", tracing::field::display(task));
        Ok(Self(task))
    }
}

/// The id of a run in the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunPath(pub(super) RunId);

impl FromRequestParts<App> for RunPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, app).await.map_err(bad_path)?;
        let run = id.parse().map_err(|_| {
            let detail = format!(
                "{id:?} is not the id of a run: ids look like 0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4"
            );
            Problem::new(ProblemKind::RunNotFound, detail)
        })?;
        tracing::Span::current().record("run.id", tracing::field::display(run));
        Ok(Self(run))
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
        let task = task_id(app, &id).await?;
        tracing::Span::current().record("task.id", tracing::field::display(task));
        Ok(Self { task, name })
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
        let none = |why: &str| {
            let detail = format!("there is no task with the run key {key:?}: {why}");
            Problem::new(ProblemKind::TaskNotFound, detail)
        };
        // No submit takes such a key, and not everything is text to the database.
        RunKey::parse(key).map_err(|it| none(&it))?;
        let found = app.store.find_run_key(PROJECT, key).await?;
        return found.ok_or_else(|| none("none was submitted under it, or retention removed it"));
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

pub(super) fn no_such_run(run: RunId) -> Problem {
    let detail =
        format!("there is no run {run}: it was never submitted here, or retention removed it");
    Problem::new(ProblemKind::RunNotFound, detail)
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

/// Where the caller's trace goes on, if it has one. Headers that are not valid are none, as the standard
/// says.
pub(super) fn trace_context(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all("traceparent").iter();
    let parent = parents.next()?.to_str().ok()?;
    if parents.next().is_some() {
        return None;
    }
    let states: Option<Vec<&str>> =
        headers.get_all("tracestate").iter().map(|it| it.to_str().ok()).collect();
    let state = states.filter(|it| !it.is_empty()).map(|it| it.join(","));
    TraceContext::parse(parent.trim(), state.as_deref())
}
