//! Waiting for the end of a task inside one request, and the answer that says how it ended.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tokio::time::Instant;

pub(super) use crate::api::wait::{LONGEST, LOOK_AGAIN, preference_applied, wanted};

use super::path_of;
use super::view::Task;
use crate::api::extract::no_such_task;
use crate::api::problem::{Problem, ProblemKind};
use crate::api::state::Shared;
use crate::api::wait::see_again;
use crate::domain::state::TaskState;
use crate::measures::{self, Held};
use crate::store::TaskRecord;
use crate::wake::Subscription;

/// Waits until the task is terminal or the time is over, and answers. `hint` must have been taken before
/// `record` was read.
pub(super) async fn until_terminal(
    app: &Shared,
    mut record: TaskRecord,
    mut hint: Subscription,
    wait: Duration,
) -> Result<Response, Problem> {
    let deadline = Instant::now() + wait;
    let _waits = Held::new(metrics::gauge!(measures::HTTP_WAITS));
    while !record.state.is_terminal() && Instant::now() < deadline {
        let look_again = deadline.min(Instant::now() + LOOK_AGAIN);
        tokio::select! {
            () = hint.changed() => {}
            () = tokio::time::sleep_until(look_again) => {}
            () = app.lifecycle.draining().cancelled() => break,
        }
        match app.store.find_task(record.task).await {
            Ok(found) => record = found.ok_or_else(|| no_such_task(record.task))?,
            Err(error) if error.is_transient() => tracing::debug!(%error, "waiting goes on"),
            Err(error) => return Err(error.into()),
        }
    }
    let task = record.task;
    if record.state.is_terminal() {
        match outcome(app, record).await {
            // A 5xx would make clients send the submit again, which was accepted.
            Err(problem) if problem.kind() == ProblemKind::Unavailable => {}
            answer => return answer,
        }
    }
    Ok(see_again(app, &path_of(task), wait))
}

/// How a terminal task ended: 200, or 424 with the whole task and what went wrong. Never 5xx: clients send
/// a request again for that.
async fn outcome(app: &Shared, record: TaskRecord) -> Result<Response, Problem> {
    match record.state {
        TaskState::Failed | TaskState::Cancelled => Err(failed(app, record).await?),
        _ => Ok(Json(Task::whole(app, record).await?).into_response()),
    }
}

/// 424: the task's own failure, not one of the request.
pub(super) async fn failed(app: &Shared, record: TaskRecord) -> Result<Problem, Problem> {
    let (kind, verb) = match record.state {
        TaskState::Cancelled => (ProblemKind::TaskCancelled, "was cancelled"),
        _ => (ProblemKind::TaskFailed, "failed"),
    };
    let cause = record.failure.as_ref().map_or_else(
        || (String::new(), [].as_slice()),
        |it| {
            let known = if it.reason.as_str() == "cancelled" {
                format!(": {}", it.message)
            } else {
                format!(" ({}): {}", it.reason, it.message)
            };
            (known, it.log_tail.as_slice())
        },
    );
    let reason = format!("task {verb}{}{}", cause.0, end_of_log(cause.1));
    let last = cause.1.last().map(|it| format!("; the last line of its log: {it}"));
    let last = last.unwrap_or_default();
    let detail = format!("task {:?} {verb}{}{last}", record.name, cause.0);
    let task = serde_json::to_value(Task::whole(app, record).await?);
    let Ok(Value::Object(members)) = task else {
        return Err(Problem::internal("a task is not an object"));
    };
    Ok(Problem::new(kind, detail).reason(reason).members(members))
}

/// The last lines for the status line, where a deferred `HttpOperator` of Airflow
/// gets all that it shows.
fn end_of_log(tail: &[String]) -> String {
    const LINES: usize = 3;
    const CHARS: usize = 100;
    if tail.is_empty() {
        return String::new();
    }
    let line = |it: &String| match it.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}...", it.get(..end).unwrap_or_default()),
        None => it.clone(),
    };
    let lines: Vec<String> = tail[tail.len().saturating_sub(LINES)..].iter().map(line).collect();
    format!("; its log ends: {}", lines.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_has_the_last_lines_of_the_log() {
        let ends =
            |tail: &[&str]| end_of_log(&tail.iter().map(|&it| it.to_owned()).collect::<Vec<_>>());
        assert_eq!(ends(&[]), "");
        assert_eq!(ends(&["a", "b", "c", "d"]), "; its log ends: b | c | d");
        let long = "\u{e9}".repeat(150);
        assert_eq!(ends(&[&long]), format!("; its log ends: {}...", "\u{e9}".repeat(100)));
    }
}
