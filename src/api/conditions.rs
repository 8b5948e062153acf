//! Why a task that is not over does not go on: computed from what workers say, never stored.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::domain::state::TaskState;
use crate::store::{self, EngineInUse, Store, TargetHealth, TaskRecord, WorkerTargets};

/// Something that holds a live task up. It is not an end: the task goes on when it has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Condition {
    /// `target_unavailable`, `no_worker`, `retrying` or `waiting_for_task`.
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
    lease: Duration,
    cached: Mutex<Option<(Instant, Arc<Live>)>>,
}

const FRESH: Duration = Duration::from_secs(1);

impl LiveTargets {
    pub(super) fn new(store: Store, lease: Duration) -> Self {
        Self { store, lease, cached: Mutex::new(None) }
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
            Ok(live) => conditions(task, &live.workers, now),
            Err(error) => {
                tracing::debug!(%error, "the targets of the workers can't be read");
                Vec::new()
            }
        }
    }
}

pub(super) fn conditions(
    task: &TaskRecord,
    workers: &[WorkerTargets],
    now: Timestamp,
) -> Vec<Condition> {
    let mut found = Vec::new();
    let health: Vec<&TargetHealth> = workers.iter().filter_map(|it| it.get(&task.target)).collect();
    let target = &task.target;
    if health.is_empty() {
        found.push(Condition {
            kind: "no_worker",
            message: format!("no worker that runs now has the target {target:?}"),
            since: None,
            not_before: None,
        });
    } else if health.iter().all(|it| !it.ready) {
        let why = health.iter().find_map(|it| it.why.as_deref()).unwrap_or("it is not ready");
        found.push(Condition {
            kind: "target_unavailable",
            message: format!("target {target:?} can't be asked: {why}"),
            since: health.iter().filter_map(|it| it.since).max(),
            not_before: None,
        });
    } else if let Some(engine) = &task.engine
        && !reached(workers, target, engine)
    {
        let other = health.iter().find(|it| it.ready).and_then(|it| it.engine.as_deref());
        found.push(Condition {
            kind: "target_unavailable",
            message: format!(
                "the engine {engine:?} that has the task does not answer at target {target:?}, another one \
                 does ({:?}), which is not asked about it",
                other.unwrap_or_default()
            ),
            since: None,
            not_before: None,
        });
    }
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
