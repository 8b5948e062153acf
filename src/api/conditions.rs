//! Why a task that is not over does not go on: computed from what workers say, never stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::domain::state::TaskState;
use crate::domain::target::{Placement, Target};
use crate::store::{self, EngineInUse, Store, TargetHealth, TaskRecord, WorkerTargets};
use crate::targets::Catalogue;

/// Something that holds a live task up. It is not an end: the task goes on when it has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Condition {
    /// `target_unavailable`, `target_disabled`, `no_worker`, `retrying` or `waiting_for_task`.
    #[serde(rename = "type")]
    #[schema(examples("target_unavailable"))]
    kind: &'static str,
    #[schema(examples("target \"local\" can't be asked: connection refused"))]
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// The next attempt does not start before.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<Timestamp>,
}

/// What the live workers say of their targets, and which engines have tasks.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) workers: Vec<WorkerTargets>,
    pub(super) engines: Vec<EngineInUse>,
}

impl Live {
    /// Of the engines that have tasks of a target, those that no worker reaches.
    pub(super) fn unreached<'a>(
        &'a self,
        target: &'a str,
    ) -> impl Iterator<Item = &'a EngineInUse> + 'a {
        self.engines
            .iter()
            .filter(move |it| it.target == target && !reached(&self.workers, target, &it.engine))
    }
}

fn reached(workers: &[WorkerTargets], target: &str, engine: &str) -> bool {
    let health = workers.iter().filter_map(|it| it.get(target));
    health.filter(|it| it.ready).any(|it| it.engine.as_deref() == Some(engine))
}

/// Asked for at most once a second.
#[derive(Debug)]
pub(super) struct LiveTargets {
    store: Store,
    catalogue: Catalogue,
    lease: Duration,
    cached: Mutex<Option<(Instant, Arc<Live>)>>,
}

const FRESH: Duration = Duration::from_secs(1);

impl LiveTargets {
    pub(super) fn new(store: Store, catalogue: Catalogue, lease: Duration) -> Self {
        Self { store, catalogue, lease, cached: Mutex::new(None) }
    }

    pub(super) async fn load(&self) -> Result<Arc<Live>, store::Error> {
        // Held over the query: one asks, the others wait for that answer.
        let mut cached = self.cached.lock().await;
        if let Some((since, live)) = &*cached
            && since.elapsed() < FRESH
        {
            return Ok(Arc::clone(live));
        }
        let workers = self.store.live_targets(self.lease.as_secs_f64()).await?;
        let engines = self.store.engines_in_use().await?;
        let live = Arc::new(Live { workers, engines });
        *cached = Some((Instant::now(), Arc::clone(&live)));
        Ok(live)
    }

    /// The conditions of a task. They are help, not data: without an answer there are none.
    pub(super) async fn conditions(&self, task: &TaskRecord, now: Timestamp) -> Vec<Condition> {
        if task.state.is_terminal() {
            return Vec::new();
        }
        match self.load().await {
            Ok(live) => conditions(task, &live.workers, &self.catalogue.current().targets, now),
            Err(error) => {
                tracing::debug!(%error, "the targets of the workers can't be read");
                Vec::new()
            }
        }
    }
}

/// The ready targets of one task, or those that it may wait for: what keeps every one of them from it.
fn of_targets(
    task: &TaskRecord,
    workers: &[WorkerTargets],
    known: &BTreeMap<String, Target>,
) -> Option<Condition> {
    let condition =
        |kind, message, since| Some(Condition { kind, message, since, not_before: None });
    let placement = Placement::of_text(&task.target);
    let queued = task.state == TaskState::Queued;
    let (names, what) = match &placement {
        Placement::Named(name) => (vec![name.as_str()], format!("target {name:?}")),
        Placement::Labels(_) => {
            let fits = known.iter().filter(|(name, it)| placement.matches(name, it));
            let names: Vec<&str> = fits.map(|(name, _)| name.as_str()).collect();
            if names.is_empty() {
                return condition(
                    "no_worker",
                    format!("no target has the labels {placement}"),
                    None,
                );
            }
            (names, format!("each target with the labels {placement}"))
        }
    };
    let enabled = |name: &str| known.get(name).is_none_or(|it| it.enabled);
    let open: Vec<&str> = names.into_iter().filter(|it| !queued || enabled(it)).collect();
    if open.is_empty() {
        let message = format!("{what} is disabled: nothing new is started there");
        return condition("target_disabled", message, None);
    }
    let health: Vec<&TargetHealth> =
        workers.iter().flat_map(|it| open.iter().filter_map(|name| it.get(*name))).collect();
    if health.is_empty() {
        let what = match &placement {
            Placement::Named(name) => format!("the target {name:?}"),
            Placement::Labels(_) => format!("a target with the labels {placement}"),
        };
        return condition("no_worker", format!("no worker that runs now has {what}"), None);
    }
    if health.iter().all(|it| !it.ready) {
        let why = health.iter().find_map(|it| it.why.as_deref()).unwrap_or("it is not ready");
        let since = health.iter().filter_map(|it| it.since).max();
        return condition("target_unavailable", format!("{what} can't be asked: {why}"), since);
    }
    let target = &task.target;
    let engine = task.engine.as_ref().filter(|engine| !reached(workers, target, engine))?;
    let other = health.iter().find(|it| it.ready).and_then(|it| it.engine.as_deref());
    condition(
        "target_unavailable",
        format!(
            "the engine {engine:?} that has the task does not answer at target {target:?}, another one does \
             ({:?}), which is not asked about it",
            other.unwrap_or_default()
        ),
        None,
    )
}

pub(super) fn conditions(
    task: &TaskRecord,
    workers: &[WorkerTargets],
    known: &BTreeMap<String, Target>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut found: Vec<Condition> = of_targets(task, workers, known).into_iter().collect();
    if let Some(not_before) = task.not_before.filter(|it| *it > now) {
        found.push(Condition {
            kind: "retrying",
            message: format!(
                "attempt {} waits after the failure of the one before",
                task.attempt_no
            ),
            since: None,
            not_before: Some(not_before),
        });
    }
    if let Some(before) = task.after_task.filter(|_| task.state == TaskState::Queued) {
        found.push(Condition {
            kind: "waiting_for_task",
            message: format!(
                "it starts after the end of task {before}, which it takes the place of"
            ),
            since: None,
            not_before: None,
        });
    }
    found
}
