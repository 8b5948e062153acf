use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::mask;
use crate::api::extract::{Caller, JsonBody, trace_context};
use crate::api::ports::Rendering;
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::{Nothing, Params};
use crate::api::state::App;
use crate::api::v1::tasks::document::TaskSpec;
use crate::domain::spec;

/// What would be sent to the engine, or done.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct RenderedTask {
    #[schema(examples("local"))]
    target: String,
    /// `docker`, `kubernetes` or `simulated`.
    #[schema(examples("docker"))]
    kind: &'static str,
    /// Of the container or pod. The id in it is a placeholder, as each attempt has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("sc-5f3a9c1e-00000000000070008000000000000000"))]
    name: Option<String>,
    /// Docker: the body of `POST /containers/create`. The ids of the task, the run and the attempt are
    /// placeholders, and what looks like a secret in the environment is `***`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, examples(json!({"Image": "busybox:latest", "Cmd": ["echo", "hello"]})))]
    create: Option<Value>,
    /// Kubernetes: the pod, from all its templates and the task. Ids are placeholders, and what looks like a secret
    /// in the environment is `***`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, examples(json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "main", "image": "busybox:latest"}]}})))]
    pod: Option<Value>,
    /// Kubernetes: the Secrets of the pod, in the order in which they are made. The last one starts
    /// it. The contents of files are `***`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>, required = false, examples(json!([{"apiVersion": "v1", "kind": "Secret", "stringData": {"attempt": "1"}}])))]
    secrets: Vec<Value>,
    /// Simulated: what it would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, examples(json!({"exit_code": 0, "run_for": "300ms", "log_lines": 3})))]
    simulated: Option<Value>,
    /// The files that are put into the container before it starts.
    #[schema(examples(json!(["/in/a.txt"])))]
    files: Vec<String>,
}

/// Render a task
///
/// Reads a task document as a submit does and answers with exactly what its target would get: for Docker the
/// body of the create call, for Kubernetes the pod and its Secrets. Nothing is launched or stored, and no engine is asked.
#[utoipa::path(
    post,
    path = "/api/v1/render",
    tag = "tasks",
    request_body(content = TaskSpec, description = "As for a submit"),
    extensions(("x-problems" = json!(["empty_body", "spec_invalid"]))),
    responses(
        (status = 200, description = "What its target would get", body = RenderedTask),
    )
)]
pub(in crate::api) async fn render_task(
    State(app): State<App>,
    _: Caller,
    _query: Params<Nothing>,
    headers: axum::http::HeaderMap,
    JsonBody(document): JsonBody,
) -> Result<Json<RenderedTask>, Problem> {
    let submission = spec::parse_submission(&document, &app.limits)
        .map_err(|faults| Problem::faults(ProblemKind::SpecInvalid, &faults))?;
    let mut spec = submission.spec;
    spec.trace = spec.trace.or_else(|| trace_context(&headers));
    // The identity is that of the task as it is, not as it is shown.
    let hash = spec.hash();
    mask::environment(&mut spec.env);
    let files = spec.files.iter().map(|it| it.path.clone()).collect();
    let mut rendered = RenderedTask {
        target: spec.target.clone(),
        kind: "",
        name: None,
        create: None,
        pod: None,
        secrets: Vec::new(),
        simulated: None,
        files,
    };
    match app.renderer.render(&spec, &hash) {
        Some(Rendering::Docker { name, create }) => {
            rendered.kind = "docker";
            (rendered.name, rendered.create) = (Some(name), Some(create));
        }
        Some(Rendering::Kubernetes { name, mut pod, secrets }) => {
            mask::pod(&mut pod);
            rendered.kind = "kubernetes";
            (rendered.name, rendered.pod, rendered.secrets) = (Some(name), Some(pod), secrets);
        }
        Some(Rendering::Refused(why)) => {
            let fault = spec::Fault::new("", "unsupported", why);
            return Err(Problem::faults(ProblemKind::SpecInvalid, &[fault]));
        }
        Some(Rendering::Simulated(script)) => {
            rendered.kind = "simulated";
            rendered.simulated = Some(script);
        }
        None => {
            let cause = format!("the target {:?} has no rendering", spec.target);
            return Err(Problem::internal(cause));
        }
    }
    Ok(Json(rendered))
}
