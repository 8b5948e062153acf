//! Waiting for the end of a task inside one request, and the answer that says how it ended.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use jiff::SignedDuration;
use serde_json::Value;
use tokio::time::Instant;

use super::path_of;
use super::view::Task;
use crate::api::extract::no_such_task;
use crate::api::problem::{Problem, ProblemKind};
use crate::api::state::Shared;
use crate::domain::quantity::format_duration;
use crate::domain::state::TaskState;
use crate::ids::TaskId;
use crate::measures::{self, Held};
use crate::store::TaskRecord;
use crate::wake::Subscription;

/// Load balancers cut requests at 60 s.
pub(super) const LONGEST: Duration = Duration::from_secs(50);
/// The wake-up is a hint and may be missing.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long the caller wants to wait: `?wait=50s`, or else `Prefer: wait=50`.
pub(super) fn wanted(query: Option<Duration>, headers: &HeaderMap) -> Option<Duration> {
    query.or_else(|| prefer_wait(headers)).filter(|it| !it.is_zero()).map(|it| it.min(LONGEST))
}

/// RFC 7240. A preference that can't be read is none.
fn prefer_wait(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all("prefer").iter().filter_map(|it| it.to_str().ok());
    let mut preferences = lines.flat_map(|it| it.split([',', ';'])).map(str::trim);
    let seconds: u32 = preferences.find_map(|it| {
        let (name, value) = it.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("wait")
            .then(|| value.trim().trim_matches('"').parse().ok())?
    })?;
    Some(Duration::from_secs(seconds.into()))
}

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
    Ok(see_again(app, task, wait))
}

/// 303 to the same wait: followed as a GET by HTTP clients, so that a call lasts as long as the task.
fn see_again(app: &Shared, task: TaskId, wait: Duration) -> Response {
    let wait = SignedDuration::try_from(wait).map(format_duration).unwrap_or_default();
    let location = app.public_url.location(&format!("{}?wait={wait}", path_of(task)));
    let location = HeaderValue::try_from(location).ok();
    let mut response = StatusCode::SEE_OTHER.into_response();
    response.headers_mut().extend(location.map(|it| (header::LOCATION, it)));
    response
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

pub(super) fn preference_applied(
    headers: &HeaderMap,
    wait: Duration,
) -> Option<(HeaderName, HeaderValue)> {
    prefer_wait(headers)?;
    let value = HeaderValue::try_from(format!("wait={}", wait.as_secs())).ok()?;
    Some((HeaderName::from_static("preference-applied"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(prefer: &'static str) -> HeaderMap {
        [(HeaderName::from_static("prefer"), HeaderValue::from_static(prefer))]
            .into_iter()
            .collect()
    }

    #[test]
    fn a_status_line_has_the_last_lines_of_the_log() {
        let ends =
            |tail: &[&str]| end_of_log(&tail.iter().map(|&it| it.to_owned()).collect::<Vec<_>>());
        assert_eq!(ends(&[]), "");
        assert_eq!(ends(&["a", "b", "c", "d"]), "; its log ends: b | c | d");
        let long = "\u{e9}".repeat(150);
        assert_eq!(ends(&[&long]), format!("; its log ends: {}...", "\u{e9}".repeat(100)));
    }

    #[test]
    fn the_wait_is_read_from_either_place_and_bounded() {
        let seconds = Duration::from_secs;
        assert_eq!(wanted(None, &headers("respond-async, wait=20")), Some(seconds(20)));
        assert_eq!(wanted(Some(seconds(5)), &headers("wait=20")), Some(seconds(5)));
        assert_eq!(wanted(Some(seconds(3_600)), &HeaderMap::new()), Some(LONGEST));
        assert_eq!(wanted(Some(Duration::ZERO), &HeaderMap::new()), None);
        assert_eq!(wanted(None, &headers("wait=soon")), None);
        assert_eq!(wanted(None, &headers("handling=strict")), None);
    }
}
