use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::extract::{Caller, TaskPath, no_such_task};
use crate::api::problem::Problem;
use crate::api::query::{Nothing, Params};
use crate::api::state::App;
use crate::ids::AttemptNo;
use crate::store::{AttemptRecord, EventRecord, TaskRecord};

/// What happened to a task, the oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct TaskEvents {
    items: Vec<TaskEvent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::api) struct TaskEvent {
    at: Timestamp,
    #[schema(value_type = i32, examples(1))]
    attempt: AttemptNo,
    /// Who saw it: `api`, `scheduler`, `worker`, or the kind of the backend.
    #[schema(examples("worker"))]
    source: String,
    /// Stable, for programs.
    #[schema(examples("started"))]
    reason: String,
    /// For people.
    #[schema(examples("the container runs"))]
    message: String,
}

/// List the events of a task
///
/// Pulls, adoptions, requests to stop and the like, merged with the milestones of each attempt: submitted,
/// claimed, started, finished.
#[utoipa::path(
    get,
    path = "/api/v1/tasks/{id}/events",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The id of the task, or `key:<run_key>`", example = "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"),
    ),
    extensions(("x-problems" = json!(["task_not_found"]))),
    responses(
        (status = 200, description = "What happened, the oldest first", body = TaskEvents),
    )
)]
pub(in crate::api) async fn list_task_events(
    State(app): State<App>,
    _caller: Caller,
    TaskPath(task): TaskPath,
    _query: Params<Nothing>,
) -> Result<Json<TaskEvents>, Problem> {
    let record = app.store.find_task(task).await?.ok_or_else(|| no_such_task(task))?;
    let attempts = app.store.list_attempts(task);
    let stored = app.store.list_events(task);
    let (attempts, stored) = futures_util::try_join!(attempts, stored)?;
    Ok(Json(TaskEvents { items: merge(&record, &attempts, stored) }))
}

/// Milestones are not stored as events: the columns tell them.
fn merge(
    record: &TaskRecord,
    attempts: &[AttemptRecord],
    stored: Vec<EventRecord>,
) -> Vec<TaskEvent> {
    let mut events = vec![milestone(
        record.queued_at,
        AttemptNo::FIRST,
        "api",
        "submitted",
        format!("accepted for target {:?}", record.target),
    )];
    events.extend(stored.into_iter().map(|it| TaskEvent {
        at: it.at,
        attempt: it.attempt_no,
        source: it.source,
        reason: it.reason,
        message: it.message,
    }));
    for it in attempts {
        started(&mut events, it.attempt_no, it.claimed_at, it.started_at);
        events.push(finished(it));
    }
    if attempts.iter().all(|it| it.attempt_no != record.attempt_no) {
        started(&mut events, record.attempt_no, record.claimed_at, record.started_at);
    }
    // Clocks of engines and of ours differ a little: an attempt comes after the one before it, its end last.
    let rank = |it: &TaskEvent| match it.reason.as_str() {
        "submitted" => 0,
        "finished" => 2,
        _ => 1,
    };
    events.sort_by_key(|it| (it.attempt, it.at, rank(it)));
    events
}

fn started(
    events: &mut Vec<TaskEvent>,
    attempt: AttemptNo,
    claimed_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
) {
    let claimed = "a worker took the task";
    events.extend(
        claimed_at.map(|at| milestone(at, attempt, "worker", "claimed", claimed.to_owned())),
    );
    let started = "the container runs";
    events.extend(
        started_at.map(|at| milestone(at, attempt, "worker", "started", started.to_owned())),
    );
}

fn finished(it: &AttemptRecord) -> TaskEvent {
    let message = match (&it.failure, it.exit_code) {
        (Some(failure), _) => format!("{} ({}): {}", it.state, failure.reason, failure.message),
        (None, Some(code)) => format!("{} with exit code {code}", it.state),
        (None, None) => it.state.to_string(),
    };
    milestone(it.finished_at, it.attempt_no, "worker", "finished", message)
}

fn milestone(
    at: Timestamp,
    attempt: AttemptNo,
    source: &str,
    reason: &str,
    message: String,
) -> TaskEvent {
    TaskEvent { at, attempt, source: source.to_owned(), reason: reason.to_owned(), message }
}
