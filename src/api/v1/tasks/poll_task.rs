use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use futures_util::StreamExt as _;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::get_task_result::result;
use super::view::state_schema;
use super::{path_of, wait};
use crate::api::extract::{Caller, TaskPath, no_such_task};
use crate::api::problem::Problem;
use crate::api::query::{Params, QueryReader, ReadQuery};
use crate::api::state::{App, Shared};
use crate::domain::state::TaskState;
use crate::ids::AttemptNo;
use crate::store::TaskRecord;

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct PollTaskQuery {
    /// Where the page before ended: `cursor` of that page. Default: the beginning.
    #[param(value_type = Option<String>, pattern = r"^[1-9][0-9]{0,8}\.[0-9]{1,18}(\.(queued|starting|running|finishing|succeeded|failed|skipped|cancelled))?$", example = "1.0")]
    cursor: Option<Cursor>,
    /// How long the request may be held until there is something new, 50 s at most. Default: 20 s.
    #[param(value_type = Option<String>, pattern = "^([0-9]+|([0-9]+(ms|s|m|h|d))+)$", example = "20s")]
    wait: Option<Duration>,
}

impl ReadQuery for PollTaskQuery {
    fn read(query: &mut QueryReader) -> Self {
        Self { cursor: query.parsed("cursor", str::parse), wait: query.duration("wait") }
    }
}

/// A place in the log of a task, and what its reader knows: `<attempt>.<offset>.<state>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    attempt: AttemptNo,
    offset: u64,
    /// None: the reader knows of none.
    state: Option<TaskState>,
}

impl Cursor {
    const START: Self = Self { attempt: AttemptNo::FIRST, offset: 0, state: None };
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.attempt, self.offset)?;
        self.state.map_or(Ok(()), |it| write!(f, ".{it}"))
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, '.');
        let mut number = || parts.next().and_then(|it| it.parse::<u64>().ok());
        let attempt = number().and_then(|it| i32::try_from(it).ok()).filter(|it| *it >= 1);
        let offset = number().filter(|it| i64::try_from(*it).is_ok());
        let state = match parts.next() {
            None => Some(None),
            Some(text) => TaskState::parse(text).map(Some),
        };
        match (attempt, offset, state) {
            (Some(attempt), Some(offset), Some(state)) => {
                Ok(Self { attempt: AttemptNo(attempt), offset, state })
            }
            _ => Err(format!("{text:?} is not a cursor: take the one of the page before")),
        }
    }
}

/// A piece of a task's life.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct TaskPoll {
    #[schema(schema_with = state_schema)]
    state: &'static str,
    /// The attempt that the lines are of.
    #[schema(value_type = i32, examples(1))]
    attempt: AttemptNo,
    /// What was logged since the page before, whole lines without their ends. What is not UTF-8 is replaced:
    /// `GET /tasks/{id}/logs` has every byte.
    #[schema(examples(json!(["line 1", "line 2"])))]
    lines: Vec<String>,
    /// Where this page ends.
    #[schema(examples("1.14.running"))]
    cursor: String,
    /// The path of the next page. Left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples(
        "/api/v1/tasks/0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11/poll?cursor=1.14.running"
    ))]
    next: Option<String>,
    /// On the last page: the outputs, as `GET /tasks/{id}/result` gives them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>, examples(json!({"words": 7})))]
    result: Option<Value>,
}

/// So much log is a full page.
const FULL: usize = 1 << 20;
/// What comes so soon after the first piece goes with it.
const LINGER: Duration = Duration::from_millis(200);
const DEFAULT_WAIT: Duration = Duration::from_secs(20);

/// Follow a task, page by page
///
/// The log since `cursor` and the state, as soon as there is something new, and `next`, the path of the page
/// after this one. Made for the `pagination_function` of Airflow's `HttpOperator`, which shows a live log so.
/// The last page of a task that succeeded or was skipped has its `result`; after the last line of one that
/// failed or was cancelled comes 424, as from a wait.
#[utoipa::path(
    get,
    path = "/api/v1/tasks/{id}/poll",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The id of the task, or `key:<run_key>`", example = "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"),
        PollTaskQuery,
    ),
    extensions(("x-problems" = json!(["task_not_found", "task_failed", "task_cancelled"]))),
    responses(
        (status = 200, description = "What is new, or that nothing is", body = TaskPoll),
    )
)]
pub(in crate::api) async fn poll_task(
    State(app): State<App>,
    _caller: Caller,
    TaskPath(task): TaskPath,
    Params(query): Params<PollTaskQuery>,
) -> Result<Json<TaskPoll>, Problem> {
    let wait = query.wait.unwrap_or(DEFAULT_WAIT).min(wait::LONGEST);
    let deadline = Instant::now() + wait;
    let mut cursor = query.cursor.unwrap_or(Cursor::START);
    let mut hint = app.wake.subscribe(task);
    let mut lingered = false;
    loop {
        // The record first, the log then: what an ended attempt wrote is all there.
        let record = app.store.find_task(task).await?.ok_or_else(|| no_such_task(task))?;
        let known = *cursor.state.get_or_insert(record.state);
        let piece = read(&app, &record, cursor).await?;
        let goes_over = piece.ended && record.attempt_no > cursor.attempt;
        if goes_over && piece.lines.is_empty() {
            cursor = Cursor { attempt: cursor.attempt.next(), offset: 0, ..cursor };
            continue;
        }
        let over = piece.ended && !goes_over && record.state.is_terminal();
        let complete = over || goes_over || piece.full || lingered;
        let changed = piece.lines.is_empty() && record.state != known;
        let now = Instant::now();
        let draining = app.lifecycle.draining();
        if complete || changed || now >= deadline || draining.is_cancelled() {
            return page(&app, record, cursor, piece, over).await.map(Json);
        }
        // The first lines wait a moment for those after them.
        lingered = !piece.lines.is_empty();
        let pause = if lingered { LINGER } else { wait::LOOK_AGAIN };
        tokio::select! {
            () = hint.changed(), if !lingered => {}
            () = tokio::time::sleep_until(deadline.min(now + pause)) => {}
            () = draining.cancelled() => {}
        }
    }
}

/// The same for clients that keep to POST, as `HttpOperator` does; the body is not read.
#[utoipa::path(
    post,
    path = "/api/v1/tasks/{id}/poll",
    tag = "tasks",
    operation_id = "poll_task_by_post",
    params(
        ("id" = String, Path, description = "The id of the task, or `key:<run_key>`", example = "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"),
        PollTaskQuery,
    ),
    extensions(("x-problems" = json!(["task_not_found", "task_failed", "task_cancelled"]))),
    responses(
        (status = 200, description = "What is new, or that nothing is", body = TaskPoll),
    )
)]
pub(in crate::api) async fn poll_task_by_post(
    app: State<App>,
    caller: Caller,
    task: TaskPath,
    query: Params<PollTaskQuery>,
) -> Result<Json<TaskPoll>, Problem> {
    poll_task(app, caller, task, query).await
}

/// What was read of the log of one attempt.
struct Piece {
    lines: Vec<String>,
    /// Behind the last of the lines.
    offset: u64,
    /// A page holds no more.
    full: bool,
    /// The attempt is over, and these are the last of its lines.
    ended: bool,
}

/// Reads the lines that are there. `record` was read before: of an attempt that was over then, all is there.
async fn read(app: &Shared, record: &TaskRecord, cursor: Cursor) -> Result<Piece, Problem> {
    let attempt_over = record.attempt_no > cursor.attempt || record.state.is_terminal();
    let mut log = app.logs.stream(record.task, Some(cursor.attempt), cursor.offset, false);
    let mut bytes = Vec::new();
    let mut at_end = true;
    while let Some(piece) = log.next().await {
        bytes.extend_from_slice(&piece?);
        if bytes.len() >= FULL {
            at_end = false;
            break;
        }
    }
    let ended = attempt_over && at_end;
    let whole = match bytes.iter().rposition(|it| *it == b'\n') {
        _ if ended => bytes.len(),
        Some(at) => at + 1,
        // One line fills the page: it goes out in pieces.
        None if !at_end => bytes.len(),
        None => 0,
    };
    bytes.truncate(whole);
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.strip_suffix('\n').unwrap_or(&text);
    let lines =
        if text.is_empty() { Vec::new() } else { lines.split('\n').map(str::to_owned).collect() };
    Ok(Piece { lines, offset: cursor.offset + whole as u64, full: !at_end, ended })
}

/// The page that ends where `piece` does.
async fn page(
    app: &Shared,
    record: TaskRecord,
    cursor: Cursor,
    piece: Piece,
    over: bool,
) -> Result<TaskPoll, Problem> {
    let failed = matches!(record.state, TaskState::Failed | TaskState::Cancelled);
    if over && failed && piece.lines.is_empty() {
        return Err(wait::failed(app, record).await?);
    }
    let result = if over && !failed {
        let outputs = app.store.list_outputs(record.task, record.attempt_no).await?;
        Some(result(app, record.task, outputs).await?)
    } else {
        None
    };
    let end = Cursor { offset: piece.offset, state: Some(record.state), ..cursor };
    let next = (!over || failed)
        .then(|| app.public_url.link(&format!("{}/poll?cursor={end}", path_of(record.task))));
    Ok(TaskPoll {
        state: record.state.as_str(),
        attempt: cursor.attempt,
        lines: piece.lines,
        cursor: end.to_string(),
        next,
        result,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_as_written() {
        let cursor = |attempt, offset, state| Cursor { attempt: AttemptNo(attempt), offset, state };
        for it in [Cursor::START, cursor(3, 1 << 40, Some(TaskState::Running))] {
            assert_eq!(it.to_string().parse(), Ok(it));
        }
        for bad in ["", "1", "0.0", "1.-1", "1.1.idle", "1.1.running.x", "1.99999999999999999999"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
