use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa::ToSchema;

use super::view::Task;
use super::{existing_attempt, submission};
use crate::api::extract::{Caller, OptionalJsonBody, TaskPath, no_such_task};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::{Nothing, Params};
use crate::api::state::App;
use crate::domain::spec::{Fault, ObjectReader};
use crate::ids::{AttemptId, AttemptNo};
use crate::store::Reopening;

/// Which attempt did not end as it should.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation of what `read_from_attempt` reads")]
pub(in crate::api) struct RetryRequest {
    /// Only if this is the last attempt of the task: a request that is sent twice does nothing the second
    /// time.
    #[schema(required = false, minimum = 1, examples(1))]
    from_attempt: i32,
}

/// Retry a task
///
/// Opens a new attempt of a task that failed or was cancelled or skipped, with fresh budgets. A task that
/// lives or succeeded stays as it is, and so does one whose last attempt is not `from_attempt`.
#[utoipa::path(
    post,
    path = "/api/v1/tasks/{id}/retry",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The id of the task, or `key:<run_key>`", example = "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"),
    ),
    request_body(content = Option<RetryRequest>, description = "May be left out"),
    extensions(("x-problems" = json!(["task_not_found", "attempt_not_found", "run_over", "spec_invalid", "document_invalid"]))),
    responses(
        (status = 202, description = "The task as it stands now", body = Task),
    )
)]
pub(in crate::api) async fn retry_task(
    State(app): State<App>,
    Caller(caller): Caller,
    TaskPath(task): TaskPath,
    _query: Params<Nothing>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<(StatusCode, Json<Task>), Problem> {
    let from_attempt = body.as_ref().map(read_from_attempt).transpose()?.flatten();
    let reopening = Reopening {
        attempt: AttemptId::generate(),
        spec: None,
        from_attempt,
        message: format!("asked for by {}", caller.name),
    };
    if app.store.retry(task, &reopening, submission::now(&app)).await? {
        app.wake.queued();
        app.wake.task_changed(task);
    }
    let record = app.store.find_task(task).await?.ok_or_else(|| no_such_task(task))?;
    existing_attempt(&record, from_attempt)?;
    let run = app.store.find_run(record.run).await?.filter(|it| it.state.is_terminal());
    if record.state.may_be_retried() && run.is_some() {
        let detail = format!(
            "task {:?} belongs to run {}, which has ended: submit the run again",
            record.name, record.run
        );
        return Err(Problem::new(ProblemKind::RunOver, detail));
    }
    Ok((StatusCode::ACCEPTED, Json(Task::whole(&app, record).await?)))
}

fn read_from_attempt(body: &serde_json::Value) -> Result<Option<AttemptNo>, Problem> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut number = None;
    if let Some(mut reader) = ObjectReader::open(body, String::new(), &mut faults) {
        number = reader.integer("from_attempt", 1, i32::MAX.into());
        reader.finish();
    }
    if !faults.is_empty() {
        return Err(Problem::faults(ProblemKind::DocumentInvalid, &faults));
    }
    Ok(number.and_then(|it| i32::try_from(it).ok()).map(AttemptNo))
}
