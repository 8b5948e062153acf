use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::document::TargetDocument;
use super::view::{self, Target};
use crate::api::extract::{Caller, JsonBody};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::{Nothing, Params};
use crate::api::state::App;
use crate::domain::spec::{Fault, Limits};
use crate::domain::target::{self, Backend, SIMULATED};
use crate::store::PutTarget;

/// How often somebody else may put the same target at the same time.
const TRIES: usize = 5;

/// Put a target
///
/// Makes it, or replaces what it was as a whole. Tasks can name it at once; workers connect to it within a second,
/// and whether they reach it is in `GET` and in the check. What runs there goes on. Secrets are written and never
/// shown: `***` in their place keeps what is stored, as long as the way to the cluster is the same.
#[utoipa::path(
    put,
    path = "/api/v1/targets/{name}",
    tag = "targets",
    params(("name" = String, Path, pattern = "^[a-z0-9][a-z0-9-]{0,62}$", example = "second",
        description = "1 to 63 of a-z, 0-9 and `-`")),
    request_body(content = TargetDocument, description = "What it is", examples(
        ("1_docker" = (summary = "A Docker engine", value = json!({
            "kind": "docker", "host": "unix:///var/run/docker.sock", "labels": {"zone": "a"}}))),
        ("2_in_cluster" = (summary = "The cluster that the service runs in", value = json!({
            "kind": "kubernetes", "in_cluster": true, "namespace": "etl", "concurrency": 50}))),
        ("3_kubeconfig" = (summary = "A cluster by kubeconfig", value = json!({
            "kind": "kubernetes", "kubeconfig": {"path": "/etc/supercargo/kubeconfig", "context": "prod"},
            "namespace": "etl", "labels": {"gpu": "yes"}}))),
        ("4_token" = (summary = "A cluster by token", value = json!({
            "kind": "kubernetes", "server": "https://10.0.0.1:6443", "token_file": "/var/run/secrets/token",
            "ca": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "pod_security": "restricted"}))),
        ("5_drain" = (summary = "Nothing new is started", value = json!({
            "kind": "simulated", "enabled": false}))),
    )),
    extensions(("x-problems" = json!(["empty_body", "document_invalid", "target_fixed"]))),
    responses(
        (status = 201, description = "It is new", body = Target),
        (status = 200, description = "It was there, and is as the document says now", body = Target),
    )
)]
pub(in crate::api) async fn put_target(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    _query: Params<Nothing>,
    JsonBody(document): JsonBody,
) -> Result<(StatusCode, Json<Target>), Problem> {
    if name != SIMULATED {
        target::check_name(&name)
            .map_err(|it| Problem::new(ProblemKind::InvalidParameter, format!("name: {it}")))?;
    }
    for _ in 0..TRIES {
        app.catalogue.refresh().await?;
        let known = app.catalogue.current();
        let entry = known.entries.get(&name);
        if let Some(entry) = entry {
            super::refuse_fixed(&name, entry)?;
        }
        let target = target::parse(&document, entry.map(|it| &it.target))
            .and_then(|it| known_to_pods(it, &app.limits))
            .map_err(|faults| Problem::faults(ProblemKind::DocumentInvalid, &faults))?;
        let revision = entry.and_then(|it| it.revision);
        let status = match app.store.put_target(&name, &target, revision).await? {
            PutTarget::Created => StatusCode::CREATED,
            PutTarget::Replaced => StatusCode::OK,
            PutTarget::Configured => {
                let detail = super::configured(&name, None);
                return Err(Problem::new(ProblemKind::TargetFixed, detail));
            }
            PutTarget::Changed => continue,
        };
        tracing::info!(target.name = name, by = caller.name, "a target was put");
        app.catalogue.refresh().await?;
        app.wake.targets_changed();
        let known = app.catalogue.current();
        let entry = super::find(&known, &name)?;
        let mut targets = view::targets(&app, [(&name, entry)].into_iter()).await?;
        let target = targets.pop().ok_or_else(|| Problem::internal("no view of one target"))?;
        return Ok((status, Json(target)));
    }
    let detail = format!("others change the target {name:?} at the same time: try again");
    Err(Problem::unavailable(detail, "the target changed at each try"))
}

/// A worker could not connect to one whose pod template is none.
fn known_to_pods(target: target::Target, limits: &Limits) -> Result<target::Target, Vec<Fault>> {
    let Backend::Kubernetes(it) = &target.backend else { return Ok(target) };
    let template = it.pod_template.as_ref();
    let faults = template.map(|it| limits.check_template(it, "/pod_template")).unwrap_or_default();
    if faults.is_empty() { Ok(target) } else { Err(faults) }
}
