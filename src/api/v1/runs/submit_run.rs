use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::get_run::GetRunQuery;
use super::view::Run;
use super::{path_of, wait};
use crate::api::extract::{Caller, JsonBody, RequestKey, no_such_run};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::Params;
use crate::api::state::{App, Shared};
use crate::api::v1::tasks::submission::{REPLAYED, fingerprint, now, submitter};
use crate::api::wait::{preference_applied, wanted};
use crate::domain::spec::{Fault, ObjectReader};
use crate::domain::workflow;
use crate::ids::RunId;
use crate::store::{IdempotencyKey, NewRun, SubmittedRun};

/// What to run.
#[derive(ToSchema)]
#[schema(as = RunRequest)]
#[expect(dead_code, reason = "the documentation of what is read by hand, to name every fault")]
pub(in crate::api) struct RunRequest {
    /// The document of a workflow, as `/api/v1/schema/workflow.json` describes it.
    #[schema(value_type = std::collections::HashMap<String, Value>)]
    workflow: Value,
    /// Values for the params that the workflow declares.
    #[schema(value_type = Option<std::collections::HashMap<String, Value>>)]
    params: Option<Map<String, Value>>,
}

/// Submit a run
///
/// Accepts a workflow: a graph of containers to run. When the answer comes the run is stored for good and survives
/// restarts of everything involved. Its tasks are made as they become ready.
///
/// With an `Idempotency-Key` the same request makes one run, however often it is sent.
#[utoipa::path(
    post,
    path = "/api/v1/runs",
    tag = "runs",
    params(
        GetRunQuery,
        ("Idempotency-Key" = Option<String>, Header, example = "etl.2026-11-21",
         pattern = "^[!-~]([ -~]{0,253}[!-~])?$", description = "Names this request: 1 to 255 printable ASCII characters."),
        ("Prefer" = Option<String>, Header, example = "wait=50",
         description = "`wait=<seconds>` means the same as the parameter `wait` (RFC 7240)."),
    ),
    request_body(
        content = RunRequest,
        description = "The workflow, and its params. `Content-Type` may be any JSON type or be left out.",
        examples(
            ("1_chain" = (summary = "One after the other", value = json!({
                "workflow": {"name": "chain", "tasks": {
                    "make": {"image": "busybox:latest", "command": ["sh", "-c", "echo '{\"n\": 7}' > $SUPERCARGO_OUTPUT"]},
                    "use": {"image": "busybox:latest", "command": ["echo", "${{ tasks.make.outputs.n }}"]}}}}))),
            ("2_simulated" = (summary = "Without containers, with params", value = json!({
                "workflow": {"name": "fan", "params": {"n": {"type": "integer", "default": 2}},
                    "defaults": {"image": "none", "target": "simulated"},
                    "tasks": {"a": {"env": {"N": "${{ params.n }}"}}, "b": {"matrix": {"i": [1, 2, 3]}, "needs": ["a"]}}},
                "params": {"n": 3}}))),
        )
    ),
    extensions(("x-problems" = json!(["invalid_idempotency_key", "queue_full", "empty_body", "workflow_invalid", "params_invalid", "idempotency_key_reused", "run_failed", "run_cancelled"]))),
    responses(
        (status = 201, description = "Accepted", body = Run,
         headers(("Location" = String, description = "The path of the run"))),
        (status = 200, description = "Accepted before under this key; or, with `wait`, succeeded", body = Run,
         headers(("Idempotent-Replayed" = Option<bool>, description = "`true` for a repetition"))),
        (status = 303, description = "With `wait`: not over yet; `Location` waits on",
         headers(("Location" = String, description = "The same wait for the same run"))),
    )
)]
pub(in crate::api) async fn submit_run(
    State(app): State<App>,
    Caller(caller): Caller,
    Params(query): Params<GetRunQuery>,
    RequestKey(key): RequestKey,
    headers: HeaderMap,
    JsonBody(document): JsonBody,
) -> Result<Response, Problem> {
    let new = read(&app, document, key)?;
    app.admission.admit(1).await?;
    let wait = wanted(query.wait, &headers);
    let now = now(&app);
    let submitted = app.store.submit_run(submitter(&caller), now, &new).await?;
    let (run, status) = match submitted {
        SubmittedRun::Created => (new.run, StatusCode::CREATED),
        SubmittedRun::Replayed(before) => (before, StatusCode::OK),
        SubmittedRun::KeyReused(before) => {
            let key = new.key.map(|it| it.key).unwrap_or_default();
            let detail = format!(
                "the idempotency key {key:?} belongs to an earlier request (run {before}), and its body was \
                 not the same: send the same body again, or use another key"
            );
            return Err(Problem::new(ProblemKind::IdempotencyKeyReused, detail));
        }
    };
    tracing::Span::current().record("run.id", tracing::field::display(run));
    let hint = wait.map(|it| (it, app.wake.subscribe_run(run)));
    app.wake.run_is_due();
    let record = app.store.find_run(run).await?.ok_or_else(|| no_such_run(run))?;
    let mut response = match hint {
        Some((wait, hint)) => match wait::until_terminal(&app, record, hint, wait).await {
            Ok(it) => it,
            Err(problem) => problem.into_response(),
        },
        None => (status, Json(Run::whole(&app, record).await?)).into_response(),
    };
    if status == StatusCode::CREATED && wait.is_none() {
        let location = HeaderValue::try_from(app.public_url.location(&path_of(run))).ok();
        response.headers_mut().extend(location.map(|it| (header::LOCATION, it)));
    }
    if matches!(submitted, SubmittedRun::Replayed(_)) {
        response.headers_mut().insert(REPLAYED.clone(), HeaderValue::from_static("true"));
    }
    response.headers_mut().extend(wait.and_then(|it| preference_applied(&headers, it)));
    Ok(response)
}

/// What a run is called whose workflow has no name.
const UNNAMED: &str = "workflow";

fn read(app: &Shared, mut document: Value, key: Option<String>) -> Result<NewRun, Problem> {
    let key = key.map(|key| IdempotencyKey { key, fingerprint: fingerprint(&document) });
    let mut faults = Vec::new();
    if let Some(mut body) = ObjectReader::open(&document, String::new(), &mut faults) {
        match body.value("workflow") {
            Some(Value::Object(_)) => {}
            Some(Value::String(_)) => body.fault(
                "workflow",
                "not_supported",
                "workflows are not stored by name yet: send the document itself",
            ),
            Some(other) => {
                body.wrong::<()>("workflow", "the document of a workflow", other);
            }
            None => body.fault("workflow", "required", "\"workflow\" is required: its document"),
        }
        body.map("params");
        body.finish();
    }
    if !faults.is_empty() {
        return Err(Problem::faults(ProblemKind::WorkflowInvalid, &faults));
    }
    let workflow_document = document["workflow"].take();
    let params = document["params"].take();
    let below = |at: &str, faults: Vec<Fault>| -> Vec<Fault> {
        let longer = |it: Fault| Fault { pointer: format!("{at}{}", it.pointer), ..it };
        faults.into_iter().map(longer).collect()
    };
    let limits = app.limits();
    let read = workflow::parse(&workflow_document, &limits)
        .map_err(|it| Problem::faults(ProblemKind::WorkflowInvalid, &below("/workflow", it)))?;
    // They are read already, and not delivered yet.
    let with_inputs = read.graph.nodes().filter(|it| !read.inputs(*it).is_empty());
    let faults: Vec<Fault> = with_inputs
        .map(|it| {
            let detail = format!(
                "task {:?}: files as \"inputs\" are not supported yet: hand a value over by a reference",
                read.graph.name(it)
            );
            Fault::new("/workflow", "not_supported", detail)
        })
        .collect();
    if !faults.is_empty() {
        return Err(Problem::faults(ProblemKind::WorkflowInvalid, &faults));
    }
    let given = params.as_object().cloned().unwrap_or_default();
    let params =
        read.bind(&given).map_err(|it| Problem::faults(ProblemKind::ParamsInvalid, &it))?;
    let faults = read.check(&params, &limits);
    if !faults.is_empty() {
        return Err(Problem::faults(ProblemKind::WorkflowInvalid, &below("/workflow", faults)));
    }
    let now = now(app);
    Ok(NewRun {
        run: RunId::generate(),
        name: read.name.clone().unwrap_or_else(|| UNNAMED.to_owned()),
        labels: read.labels.clone(),
        deadline: read.timeout.and_then(|it| now.checked_add(it).ok()),
        document: workflow_document,
        params,
        key,
    })
}
