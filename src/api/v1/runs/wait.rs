//! Waiting for the end of a run inside one request, and the answer that says how it ended.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tokio::time::Instant;

use super::path_of;
use super::view::Run;
use crate::api::extract::no_such_run;
use crate::api::problem::{Problem, ProblemKind};
use crate::api::state::Shared;
use crate::api::wait::{LOOK_AGAIN, see_again};
use crate::domain::state::RunState;
use crate::measures::{self, Held};
use crate::store::RunRecord;
use crate::wake::Subscription;

/// Waits until the run is terminal or the time is over, and answers. `hint` must have been taken before
/// `record` was read.
pub(super) async fn until_terminal(
    app: &Shared,
    mut record: RunRecord,
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
        match app.store.find_run(record.run).await {
            Ok(found) => record = found.ok_or_else(|| no_such_run(record.run))?,
            Err(error) if error.is_transient() => tracing::debug!(%error, "waiting goes on"),
            Err(error) => return Err(error.into()),
        }
    }
    let run = record.run;
    match record.state {
        RunState::Succeeded => Ok(Json(Run::brief(app, record)).into_response()),
        RunState::Failed | RunState::Cancelled => Err(failed(app, record)?),
        RunState::Queued | RunState::Running | RunState::Paused => {
            Ok(see_again(app, &path_of(run), wait))
        }
    }
}

/// 424: the run's own failure, not one of the request.
pub(super) fn failed(app: &Shared, record: RunRecord) -> Result<Problem, Problem> {
    let (kind, verb) = match record.state {
        RunState::Cancelled => (ProblemKind::RunCancelled, "was cancelled"),
        _ => (ProblemKind::RunFailed, "failed"),
    };
    let cause = record.failure.as_ref().map(|it| format!(": {}", it.message)).unwrap_or_default();
    let reason = format!("run {verb}{cause}");
    let detail = format!("run {} of {:?} {verb}{cause}", record.run, record.name);
    let Ok(Value::Object(members)) = serde_json::to_value(Run::brief(app, record)) else {
        return Err(Problem::internal("a run is not an object"));
    };
    Ok(Problem::new(kind, detail).reason(reason).members(members))
}
