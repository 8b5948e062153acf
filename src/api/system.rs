//! What operators and probes ask, at the root.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::conditions::Live;
use super::extract::Caller;
use super::problem::Problem;
use super::state::App;
use crate::store::TargetHealth;

/// Is the process alive
///
/// Asks nothing of anybody else.
#[utoipa::path(get, path = "/livez", tag = "system", security(()),
    responses((status = 200, description = "It is", body = String, content_type = "text/plain", example = "ok\n")))]
pub(super) async fn get_liveness() -> &'static str {
    "ok\n"
}

/// How ready the service is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `degraded`: requests are taken, and tasks of some target wait.
    #[schema(examples("ok"))]
    status: &'static str,
    /// What this process does.
    #[schema(examples(json!(["api", "scheduler", "worker"])))]
    roles: Vec<String>,
    targets: BTreeMap<String, TargetReadiness>,
}

/// An engine that has tasks of a target, and that no worker reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct UnreachedEngine {
    /// As the engine calls itself.
    #[schema(examples("7TKQ:OSSK:UJLQ:J3RS:RNU5:RTJK:UVHJ:WZ2V:ZWGB:WZ2L:3GMX:VVVH"))]
    engine: String,
    /// How many tasks wait for it.
    tasks: i64,
}

/// How the workers find a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct TargetReadiness {
    ready: bool,
    #[schema(examples("docker"))]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("20.10.24"))]
    version: Option<String>,
    /// The engine that answers, as it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("7TKQ:OSSK:UJLQ:J3RS:RNU5:RTJK:UVHJ:WZ2V:ZWGB:WZ2L:3GMX:VVVH"))]
    engine: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// Engines that have tasks and do not answer here, as where another engine has taken their place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreached: Vec<UnreachedEngine>,
}

/// Longer than a healthy database ever takes, shorter than the patience of probes.
const DATABASE_PATIENCE: Duration = Duration::from_secs(2);

/// Is the service ready
///
/// 200 as long as requests can be taken: a target that can't be reached shows as `degraded` and takes
/// nothing down. 503 without a database, or while the process stops.
#[utoipa::path(get, path = "/readyz", tag = "system", security(()), extensions(("x-problems" = json!(["unavailable"]))),
    responses(
        (status = 200, description = "Requests are taken", body = Readiness),
    ))]
pub(super) async fn get_readiness(State(app): State<App>) -> Result<Json<Readiness>, Problem> {
    if app.lifecycle.draining().is_cancelled() {
        return Err(Problem::unavailable("the process is stopping", "draining"));
    }
    if !app.lifecycle.has_schema() {
        return Err(Problem::unavailable("the database is not migrated yet", "starting"));
    }
    match tokio::time::timeout(DATABASE_PATIENCE, app.store.ping()).await {
        Ok(answer) => answer?,
        Err(_) => return Err(Problem::unavailable("the database does not answer", "time-out")),
    }
    let live = app.live.load().await?;
    let targets = summary(&live);
    let known = &app.catalogue.current().targets;
    // Nothing waits for one that drains, unless something is still on it.
    let drains = |name: &str| known.get(name).is_some_and(|it| !it.enabled);
    let counts = |name: &str| !drains(name) || live.engines.iter().any(|it| it.target == name);
    let is_well = |it: &TargetReadiness| it.ready && it.unreached.is_empty();
    let healthy =
        !targets.is_empty() && targets.iter().all(|(name, it)| is_well(it) || !counts(name));
    Ok(Json(Readiness {
        status: if healthy { "ok" } else { "degraded" },
        roles: app.settings.roles.clone(),
        targets,
    }))
}

/// A target is as ready as the worker that finds it best.
fn summary(live: &Live) -> BTreeMap<String, TargetReadiness> {
    let mut targets: BTreeMap<String, TargetReadiness> = BTreeMap::new();
    for (name, health) in live.workers.iter().flatten() {
        if targets.get(name).is_none_or(|it| health.ready && !it.ready) {
            targets.insert(name.clone(), health.into());
        }
    }
    for (name, target) in &mut targets {
        target.unreached = live
            .unreached(name)
            .map(|it| UnreachedEngine { engine: it.engine.clone(), tasks: it.tasks })
            .collect();
        if target.ready && !target.unreached.is_empty() {
            target.why = Some("another engine answers than the one that has tasks".to_owned());
        }
    }
    targets
}

impl From<&TargetHealth> for TargetReadiness {
    fn from(it: &TargetHealth) -> Self {
        Self {
            ready: it.ready,
            kind: it.kind.clone(),
            version: it.version.clone(),
            engine: it.engine.clone(),
            why: it.why.clone(),
            since: it.since,
            unreached: Vec::new(),
        }
    }
}

/// What runs here.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "as the API names it")]
pub(super) struct Version {
    #[schema(examples("supercargo"))]
    name: &'static str,
    #[schema(examples("0.1.0"))]
    version: &'static str,
    /// The versions of the API that are served.
    #[schema(examples(json!(["v1"])))]
    api: [&'static str; 1],
}

/// Get the version
#[utoipa::path(get, path = "/version", tag = "system", security(()),
    responses((status = 200, description = "What runs here", body = Version)))]
pub(super) async fn get_version() -> Json<Version> {
    Json(Version { name: "supercargo", version: env!("CARGO_PKG_VERSION"), api: ["v1"] })
}

/// Get the metrics
///
/// For Prometheus, in its text form. Needs a token unless the deployment opens it.
#[utoipa::path(get, path = "/metrics", tag = "system",
    responses((status = 200, description = "The metrics of this process", body = String, content_type = "text/plain",
        example = "# TYPE supercargo_http_request_duration_seconds histogram\n")))]
pub(super) async fn get_metrics(State(app): State<App>, _: MetricsCaller) -> Response {
    let text = (app.metrics)();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The witness that a request may read the metrics.
#[derive(Debug)]
pub(super) struct MetricsCaller;

impl axum::extract::FromRequestParts<App> for MetricsCaller {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        app: &App,
    ) -> Result<Self, Problem> {
        if !app.settings.metrics_open {
            Caller::from_request_parts(parts, app).await?;
        }
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::WorkerTargets;

    #[test]
    fn one_worker_that_reaches_a_target_is_enough() {
        let worker = |ready: bool| -> WorkerTargets {
            let health = TargetHealth {
                kind: "docker".to_owned(),
                ready,
                engine: None,
                version: None,
                why: (!ready).then(|| "refused".to_owned()),
                since: None,
            };
            [("local".to_owned(), health)].into_iter().collect()
        };
        let summary = |workers: &[WorkerTargets]| {
            summary(&Live { workers: workers.to_vec(), ..Live::default() })
        };
        for workers in [[worker(true), worker(false)], [worker(false), worker(true)]] {
            assert!(summary(&workers)["local"].ready);
        }
        assert_eq!(summary(&[worker(false)])["local"].why.as_deref(), Some("refused"));
    }
}
