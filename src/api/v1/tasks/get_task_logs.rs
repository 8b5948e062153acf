use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use utoipa::IntoParams;

use crate::api::extract::{Caller, TaskPath, no_such_task};
use crate::api::problem::{Problem, ProblemDocument, ProblemKind};
use crate::api::query::{Params, QueryReader, ReadQuery};
use crate::api::state::App;
use crate::ids::AttemptNo;
use crate::store;

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct GetTaskLogsQuery {
    /// Go on until the task is over, through further attempts.
    #[param(value_type = Option<bool>, example = true)]
    follow: bool,
    /// Of this attempt, from 1. Default: the latest.
    #[param(value_type = Option<i32>, minimum = 1, example = 1)]
    attempt: Option<AttemptNo>,
    /// From this byte on.
    #[param(value_type = Option<u64>, example = 0)]
    offset: u64,
}

impl ReadQuery for GetTaskLogsQuery {
    fn read(query: &mut QueryReader) -> Self {
        let attempt = |text: &str| {
            let number = text.parse().ok().filter(|it| *it >= 1).map(AttemptNo);
            number.ok_or_else(|| format!("{text:?} is not a whole number from 1"))
        };
        // The store counts in signed numbers.
        let offset = |text: &str| {
            let bytes = text.parse().ok().filter(|it| i64::try_from(*it).is_ok());
            bytes.ok_or_else(|| format!("{text:?} is not a number of bytes"))
        };
        Self {
            follow: query.flag("follow"),
            attempt: query.parsed("attempt", attempt),
            offset: query.parsed("offset", offset).unwrap_or_default(),
        }
    }
}

static ATTEMPT: HeaderName = HeaderName::from_static("supercargo-attempt");
static OFFSET: HeaderName = HeaderName::from_static("supercargo-log-offset");
/// Else nginx keeps a live log to itself.
static BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Get the log of a task
///
/// What the container wrote to stdout and stderr, byte for byte. A log that is still written ends where it
/// is now, or goes on with `follow`; to resume, ask again with `offset` = the offset before + the bytes
/// received.
#[utoipa::path(
    get,
    path = "/api/v1/tasks/{id}/logs",
    tag = "tasks",
    params(
        ("id" = uuid::Uuid, Path, description = "The id of the task", example = "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"),
        GetTaskLogsQuery,
    ),
    responses(
        (status = 200, description = "The log",
         headers(
            ("Supercargo-Attempt" = i32, description = "The attempt that the log begins in"),
            ("Supercargo-Log-Offset" = u64, description = "Of the first byte of the answer"),
         ),
         body = String, content_type = "text/plain", example = "hello\n"),
        (status = 404, description = "There is no such task or attempt", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(in crate::api) async fn get_task_logs(
    State(app): State<App>,
    _caller: Caller,
    TaskPath(task): TaskPath,
    Params(query): Params<GetTaskLogsQuery>,
) -> Result<Response, Problem> {
    let record = app.store.find_task(task).await?.ok_or_else(|| no_such_task(task))?;
    let latest = record.attempt_no;
    if let Some(attempt) = query.attempt.filter(|it| *it > latest) {
        let detail = format!("there is no attempt {attempt}: the latest is {latest}");
        return Err(Problem::new(ProblemKind::AttemptNotFound, detail));
    }
    let follow = query.follow && !record.state.is_terminal();
    // Following goes on into further attempts; else the answer is of the one that its header names.
    let wanted = query.attempt.or_else(|| (!follow).then_some(latest));
    let mut log = app.logs.stream(task, wanted, query.offset, follow);
    if !follow {
        // A failure of the first read can still be told by the status.
        let first = log.next().await.transpose()?;
        log = stream::iter(first.map(Ok)).chain(log).boxed();
    }
    let draining = app.lifecycle.draining().clone();
    let ended = stream::once(async move {
        draining.cancelled().await;
        Err(Interrupted::Draining)
    });
    // Without its proper end a client knows that there is more.
    let log = log.map(|it| it.map_err(Interrupted::Store)).inspect(|it| {
        if let Err(error) = it {
            tracing::warn!(%error, "a log could not be read to its end");
        }
    });
    let log = ending_early(log, ended);
    let attempt = query.attempt.unwrap_or(latest);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (BUFFERING.clone(), HeaderValue::from_static("no")),
        (ATTEMPT.clone(), HeaderValue::from(attempt.0)),
        (OFFSET.clone(), HeaderValue::from(query.offset)),
    ];
    Ok((headers, Body::from_stream(log)).into_response())
}

#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("{0}")]
    Store(store::Error),
    #[error("the process is stopping")]
    Draining,
}

type Piece = Result<Bytes, Interrupted>;

/// The log, broken off by the first item of `early`. What is there already goes first.
fn ending_early(
    log: impl futures_util::Stream<Item = Piece> + Send + 'static,
    early: impl futures_util::Stream<Item = Piece> + Send + 'static,
) -> impl futures_util::Stream<Item = Piece> + Send + 'static {
    let merged = stream::select_with_strategy(
        log.map(Some).chain(stream::once(async { None })),
        early.map(Some),
        |(): &mut ()| stream::PollNext::Left,
    );
    merged.take_while(|it| std::future::ready(it.is_some())).filter_map(std::future::ready)
}
