use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use utoipa::IntoParams;

use super::document::TaskSpec;
use super::submission::{self, PROJECT};
use super::view::{Task, TaskProblem};
use super::{path_of, wait};
use crate::api::extract::{Caller, JsonBody, RequestKey, no_such_task};
use crate::api::problem::{Problem, ProblemDocument, ProblemKind};
use crate::api::query::{Params, QueryReader, ReadQuery};
use crate::api::state::App;
use crate::domain::spec;
use crate::store::{IdempotencyKey, Submitted};

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct SubmitTaskQuery {
    /// Wait so long for the end of the task, 50 s at most. 200: it succeeded or was skipped; 424: it failed
    /// or was cancelled; 303: not over yet, and HTTP clients go on waiting at the address in `Location`.
    #[param(value_type = Option<String>, example = "50s")]
    wait: Option<std::time::Duration>,
}

impl ReadQuery for SubmitTaskQuery {
    fn read(query: &mut QueryReader) -> Self {
        Self { wait: query.duration("wait") }
    }
}

pub(super) static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Submit a task
///
/// Accepts one container to run. When the answer comes the task is stored for good and survives restarts of
/// everything involved.
///
/// With an `Idempotency-Key` the same request makes one task, however often it is sent: a repetition is
/// answered with the same task as it stands now and `Idempotent-Replayed: true`.
#[utoipa::path(
    post,
    path = "/api/v1/tasks",
    tag = "tasks",
    params(
        SubmitTaskQuery,
        ("Idempotency-Key" = Option<String>, Header, example = "etl.2026-11-21.count",
         description = "Names this request: 1 to 255 printable ASCII characters."),
        ("Prefer" = Option<String>, Header, example = "wait=50",
         description = "`wait=<seconds>` means the same as the parameter `wait` (RFC 7240)."),
    ),
    request_body(
        content = TaskSpec,
        description = "What to run. Only `image` is required. `Content-Type` may be any JSON type or be left out.",
        examples(
            ("1_hello" = (summary = "Hello", value = json!({
                "image": "busybox:latest", "command": ["echo", "hello"]}))),
            ("2_json_output" = (summary = "Hands back JSON", value = json!({
                "name": "count", "image": "busybox:latest",
                "command": ["sh", "-c", "echo '{\"words\": 7}' > $SUPERCARGO_OUTPUT"],
                "labels": {"team": "a"}}))),
            ("3_files" = (summary = "A file in, a file out", value = json!({
                "name": "upper", "image": "busybox:latest",
                "command": ["sh", "-c", "mkdir -p /out && tr a-z A-Z < /in/a.txt > /out/report.txt"],
                "files": [{"path": "/in/a.txt", "content": "hello\n"}],
                "outputs": {"report": {"path": "/out/report.txt", "required": true}}}))),
            ("4_failing" = (summary = "Fails with exit code 3", value = json!({
                "name": "failing", "image": "busybox:latest",
                "command": ["sh", "-c", "echo no such file >&2; exit 3"]}))),
            ("5_limits" = (summary = "With limits and time-outs", value = json!({
                "name": "bounded", "image": "busybox:latest", "command": "sleep 1",
                "env": {"LANG": "C"}, "workdir": "/", "user": "1000", "init": true,
                "resources": {"cpu": "500m", "memory": "64Mi", "pids": 100},
                "timeouts": {"queue": "1h", "run": "30s", "stop_grace": "5s"},
                "skip_on_exit_codes": [99], "platform_retries": 3}))),
            ("6_simulated" = (summary = "Without a container", value = json!({
                "name": "simulated", "image": "none", "target": "simulated"}))),
        )
    ),
    responses(
        (status = 201, description = "Accepted", body = Task,
         headers(("Location" = String, description = "The path of the task"))),
        (status = 200, description = "Accepted before under this key; or, with `wait`, succeeded or skipped", body = Task,
         headers(("Idempotent-Replayed" = Option<bool>, description = "`true` for a repetition"))),
        (status = 303, description = "With `wait`: not over yet; `Location` waits on",
         headers(("Location" = String, description = "The same wait for the same task"))),
        (status = 400, description = "Not JSON, or a bad parameter", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON by its type", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "The task is not valid, or the key belongs to another request", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 424, description = "With `wait`: the task failed or was cancelled; the body is the task and the problem", body = TaskProblem, content_type = "application/problem+json"),
    )
)]
pub(in crate::api) async fn submit_task(
    State(app): State<App>,
    Caller(caller): Caller,
    Params(query): Params<SubmitTaskQuery>,
    RequestKey(key): RequestKey,
    headers: HeaderMap,
    JsonBody(document): JsonBody,
) -> Result<Response, Problem> {
    let wait = wait::wanted(query.wait, &headers);
    let spec = spec::parse(&document, &app.limits)
        .map_err(|faults| Problem::faults(ProblemKind::SpecInvalid, &faults))?;
    let idempotency = key
        .clone()
        .map(|key| IdempotencyKey { key, fingerprint: submission::fingerprint(&document) });
    drop(document);
    let now = submission::now(&app);
    let new = submission::new_task(spec, idempotency);
    let submitted =
        app.store.submit(PROJECT, caller.token, now, std::slice::from_ref(&new)).await?;
    let (id, replayed) = match submitted.first() {
        Some(Submitted::Replayed(before)) => (*before, true),
        Some(Submitted::KeyReused(first)) => {
            let key = key.as_deref().unwrap_or_default();
            return Err(submission::key_reused(&app, key, *first, Some(&new.spec)).await?);
        }
        Some(Submitted::Created) => (new.task, false),
        None => return Err(Problem::internal("the store said nothing of the task")),
    };
    let hint = wait.map(|it| (it, app.wake.subscribe(id)));
    let record = if replayed {
        app.store.find_task(id).await?.ok_or_else(|| no_such_task(id))?
    } else {
        app.wake.queued();
        submission::fresh(new, now)
    };
    let mut response = match hint {
        Some((wait, hint)) => match wait::until_terminal(&app, record, hint, wait).await {
            Ok(it) => it,
            Err(problem) => problem.into_response(),
        },
        None if replayed => Json(Task::whole(&app, record).await?).into_response(),
        None => {
            let location = app.public_url.location(&path_of(id));
            let location = HeaderValue::try_from(location).map(|it| (header::LOCATION, it));
            let task = Json(Task::brief(&app, record).await);
            let mut response = (StatusCode::CREATED, task).into_response();
            response.headers_mut().extend(location);
            response
        }
    };
    if replayed {
        response.headers_mut().insert(&REPLAYED, HeaderValue::from_static("true"));
    }
    response.headers_mut().extend(wait.and_then(|it| wait::preference_applied(&headers, it)));
    Ok(response)
}
