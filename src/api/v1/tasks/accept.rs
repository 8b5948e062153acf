//! Accepting one task: what a submit comes to, and the answer to it.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::view::Task;
use super::{path_of, submission, wait};
use crate::api::extract::{no_such_task, trace_context};
use crate::api::problem::Problem;
use crate::api::state::Shared;
use crate::domain::spec::Submission;
use crate::failpoints::{self, Point};
use crate::ids::TaskId;
use crate::store::{IdempotencyKey, Principal, Submitted};

pub(super) async fn accept(
    app: &Shared,
    caller: &Principal,
    mut submission: Submission,
    key: Option<IdempotencyKey>,
    wait: Option<Duration>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    submission.spec.trace = submission.spec.trace.or_else(|| trace_context(headers));
    app.admission.admit(1).await?;
    let now = submission::now(app);
    let new = submission::new_task(submission, key);
    let submitter = submission::submitter(caller);
    failpoints::at(Point::SubmitRead);
    let submitted = app.store.submit(submitter, now, std::slice::from_ref(&new)).await?;
    let submitted = submitted
        .first()
        .copied()
        .ok_or_else(|| Problem::internal("the store said nothing of the task"))?;
    let (id, status) = match submitted {
        Submitted::Created | Submitted::Restarted(_) => (new.task, StatusCode::CREATED),
        Submitted::Replayed(known) | Submitted::Attached(known) => (known, StatusCode::OK),
        Submitted::Retried(known) => (known, StatusCode::ACCEPTED),
        Submitted::KeyReused(first) => {
            let key = new.key.as_ref().map_or("", |it| &it.key);
            return Err(submission::key_reused(app, key, first, Some(&new.spec)).await?);
        }
        Submitted::Rejected(first) => return Err(submission::run_key_taken(&new, first)),
    };
    tracing::Span::current().record("task.id", tracing::field::display(id));
    submission::count(&new, submitted);
    submission::announce(app, submitted, &new.spec.target);
    let hint = wait.map(|it| (it, app.wake.subscribe(id)));
    let record = match submitted {
        Submitted::Created => submission::fresh(new, now, None),
        Submitted::Restarted(before) => submission::fresh(new, now, Some(before)),
        Submitted::Replayed(_)
        | Submitted::Attached(_)
        | Submitted::Retried(_)
        | Submitted::KeyReused(_)
        | Submitted::Rejected(_) => {
            app.store.find_task(id).await?.ok_or_else(|| no_such_task(id))?
        }
    };
    let mut response = match hint {
        Some((wait, hint)) => match wait::until_terminal(app, record, hint, wait).await {
            Ok(it) => it,
            Err(problem) => problem.into_response(),
        },
        None if status == StatusCode::CREATED => {
            let task = Json(Task::brief(app, record).await);
            located(app, id, (status, task).into_response())
        }
        None => {
            let task = Json(Task::whole(app, record).await?);
            let response = (status, task).into_response();
            if status == StatusCode::OK { response } else { located(app, id, response) }
        }
    };
    response.headers_mut().extend(submission::duplicate_header(submitted));
    response.headers_mut().extend(wait.and_then(|it| wait::preference_applied(headers, it)));
    Ok(response)
}

fn located(app: &Shared, task: TaskId, mut response: Response) -> Response {
    let location = app.public_url.location(&path_of(task));
    let location = HeaderValue::try_from(location).map(|it| (header::LOCATION, it));
    response.headers_mut().extend(location);
    response
}
