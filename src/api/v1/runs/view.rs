//! How a run looks from outside.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use super::path_of;
use crate::api::problem::{Problem, ProblemDocument};
use crate::api::state::Shared;
use crate::api::v1::tasks::view::Failure;
use crate::domain::state::RunState;
use crate::ids::RunId;
use crate::store::RunRecord;

/// A run as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Run {
    #[schema(value_type = uuid::Uuid, examples("0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4"))]
    id: RunId,
    /// Of its workflow.
    #[schema(examples("etl"))]
    name: String,
    #[schema(schema_with = state_schema)]
    state: &'static str,
    /// Why it failed: what the first task that failed says, or what is wrong with the run itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    /// Somebody cancelled it; it is about to end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    cancel_requested: bool,
    /// State → how many of its tasks are in it. A task that is run for several items counts once for each.
    #[schema(examples(json!({"succeeded": 3, "running": 1, "waiting": 2})))]
    counts: BTreeMap<String, u64>,
    #[schema(examples(json!({"team": "a"})))]
    labels: BTreeMap<String, String>,
    timings: RunTimings,
    links: RunLinks,
}

/// A run that failed or was cancelled, and the same as a problem.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documentation: a problem takes the run's members along")]
pub(in crate::api) struct RunProblem {
    #[serde(flatten)]
    run: Run,
    #[serde(flatten)]
    problem: ProblemDocument,
}

/// When the run got where it is.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "as the API names them")]
pub(in crate::api) struct RunTimings {
    queued_at: Timestamp,
    /// Of its first task.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Timestamp>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct RunLinks {
    #[serde(rename = "self")]
    this: String,
    graph: String,
    tasks: String,
    result: String,
    spec: String,
    cancel: String,
    pause: String,
    resume: String,
}

fn state_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(RunState::ALL.map(RunState::as_str)))
        .description(Some("`succeeded`, `failed` and `cancelled` are final."))
        .examples(["running"])
        .build()
}

impl Run {
    /// As it was planned last: what its live tasks do at this moment is not asked.
    pub(super) fn brief(app: &Shared, it: RunRecord) -> Self {
        let path = app.public_url.link(&path_of(it.run));
        Self {
            id: it.run,
            name: it.name,
            state: it.state.as_str(),
            failure: it.failure.map(Failure::from),
            cancel_requested: it.cancel_requested && !it.state.is_terminal(),
            counts: it.counts,
            labels: it.labels,
            timings: RunTimings {
                queued_at: it.queued_at,
                started_at: it.started_at,
                finished_at: it.finished_at,
            },
            links: RunLinks {
                graph: format!("{path}/graph"),
                tasks: app.public_url.link(&format!("/api/v1/tasks?run_id={}", it.run)),
                result: format!("{path}/result"),
                spec: format!("{path}/spec"),
                cancel: format!("{path}/cancel"),
                pause: format!("{path}/pause"),
                resume: format!("{path}/resume"),
                this: path,
            },
        }
    }

    pub(super) async fn whole(app: &Shared, mut it: RunRecord) -> Result<Self, Problem> {
        if !it.state.is_terminal() {
            // Its tasks go on between two plans.
            let live = app.store.live_tasks_of_run(it.run).await?;
            it.counts.remove(LIVE);
            it.counts.extend(live);
        }
        Ok(Self::brief(app, it))
    }
}

/// Where the plan of a run counts the tasks that are made and have not ended.
pub(super) const LIVE: &str = "live";
