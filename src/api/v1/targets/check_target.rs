use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::api::extract::Caller;
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::{Nothing, Params};
use crate::api::state::{App, Shared};
use crate::domain::target;
use crate::ids::TargetCheckId;
use crate::store::AnsweredCheck;
use crate::targets::Origin;

/// What a worker found out about a target.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct TargetCheck {
    reachable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("connection refused"))]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("20.10.24"))]
    version: Option<String>,
    /// As the engine calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("7TKQ:OSSK:UJLQ:J3RS:RNU5:RTJK:UVHJ:WZ2V:ZWGB:WZ2L:3GMX:VVVH"))]
    engine: Option<String>,
    permissions: Permissions,
    /// What works, and is worth a second look.
    #[schema(examples(json!(["live-restore is off: a restart of the engine ends the containers that run"])))]
    warnings: Vec<String>,
    checked_at: Timestamp,
    /// The machine of the worker that answered.
    #[schema(examples("worker-3"))]
    checked_by: String,
}

/// What the credentials may do there.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Permissions {
    /// Empty: everything that is needed.
    missing: Vec<MissingPermission>,
}

/// Something that the credentials may not do.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct MissingPermission {
    #[schema(examples("create"))]
    verb: String,
    #[schema(examples("pods"))]
    resource: String,
    /// Empty: of the whole cluster.
    #[schema(examples("etl"))]
    namespace: String,
    /// What does not work without.
    #[schema(examples("start a task"))]
    needed_for: String,
}

impl From<AnsweredCheck> for TargetCheck {
    fn from(it: AnsweredCheck) -> Self {
        let target::TargetCheck { reachable, why, version, engine, missing, warnings } = it.check;
        let missing = missing
            .into_iter()
            .map(|it| MissingPermission {
                verb: it.verb,
                resource: it.resource,
                namespace: it.namespace,
                needed_for: it.needed_for,
            })
            .collect();
        Self {
            reachable,
            why,
            version,
            engine,
            permissions: Permissions { missing },
            warnings,
            checked_at: it.checked_at,
            checked_by: it.checked_by,
        }
    }
}

/// A worker that hears of it takes a second, and an engine that hangs 15.
const PATIENCE: Duration = Duration::from_secs(20);
const LATER: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Check a target
///
/// A worker asks the engine now: whether it answers, which version it has, and what the credentials may not do.
/// The answer takes up to 20 s where the engine hangs.
#[utoipa::path(
    post,
    path = "/api/v1/targets/{name}/check",
    tag = "targets",
    params(("name" = String, Path, description = "Its name", example = "simulated")),
    extensions(("x-problems" = json!(["target_not_found", "no_worker"]))),
    responses((status = 200, description = "What the worker found", body = TargetCheck))
)]
pub(in crate::api) async fn check_target(
    State(app): State<App>,
    _caller: Caller,
    Path(name): Path<String>,
    _query: Params<Nothing>,
) -> Result<Json<TargetCheck>, Problem> {
    app.catalogue.refresh().await?;
    let known = app.catalogue.current();
    let entry = super::find(&known, &name)?;
    let no_worker = |why: &str| Problem::new(ProblemKind::NoWorker, why).retry_after(LATER);
    if app.store.live_targets(app.settings.lease.as_secs_f64()).await?.is_empty() {
        return Err(no_worker("no worker runs now: start one, and ask again"));
    }
    // A worker may have another document of the same name in its own configuration.
    let revision = entry.revision.filter(|_| entry.origin == Origin::Api);
    let id = app.store.ask_check(&name, revision).await?;
    app.wake.targets_changed();
    let answer = wait(&app, id).await;
    app.store.end_check(id).await?;
    answer?.map(|it| Json(it.into())).ok_or_else(|| {
        no_worker(&format!(
            "no worker that has the target {name:?} answered within {} s: does one run, and reach the database?",
            PATIENCE.as_secs()
        ))
    })
}

async fn wait(app: &Shared, id: TargetCheckId) -> Result<Option<AnsweredCheck>, Problem> {
    let asked = Instant::now();
    while asked.elapsed() < PATIENCE && !app.lifecycle.draining().is_cancelled() {
        if let Some(answer) = app.store.find_answer(id).await? {
            return Ok(Some(answer));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(None)
}
