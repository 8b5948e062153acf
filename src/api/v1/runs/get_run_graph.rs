use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::extract::{Caller, RunPath, no_such_run};
use crate::api::problem::Problem;
use crate::api::query::{Nothing, Params};
use crate::api::state::App;
use crate::domain::dag::NodeId;
use crate::domain::plan::{NodeState, RunPlan};
use crate::domain::state::RunState;
use crate::domain::workflow;
use crate::ids::TaskId;
use crate::store::NodeRecord;

/// The tasks of a run, and which needs which.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct RunGraph {
    nodes: Vec<GraphNode>,
    edges: Vec<GraphEdge>,
}

/// A task of the workflow. One that runs for each of a list is one node.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct GraphNode {
    #[schema(examples("count"))]
    name: String,
    /// `waiting` until it is ready, `skipped` or `upstream_failed` where it never will be; else what its tasks do: the
    /// worst of them where it has several.
    #[schema(examples("running"))]
    state: &'static str,
    /// How many needs are between it and the beginning, at most.
    #[schema(examples(0))]
    layer: u32,
    #[schema(examples(0.0))]
    x: f32,
    #[schema(examples(0.0))]
    y: f32,
    /// State → how many of its tasks are in it; those that were made so far.
    #[schema(examples(json!({"succeeded": 2, "running": 1})))]
    counts: BTreeMap<&'static str, u64>,
    /// Its task, or the first of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<uuid::Uuid>, examples("0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"))]
    task_id: Option<TaskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Timestamp>,
}

/// `to` needs `from`.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct GraphEdge {
    #[schema(examples("count"))]
    from: String,
    #[schema(examples("report"))]
    to: String,
}

/// Get the graph of a run
///
/// Every task of the workflow, those that have not started too, with where to draw it.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{id}/graph",
    tag = "runs",
    params(
        ("id" = String, Path, description = "The id of the run", example = "0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4"),
    ),
    extensions(("x-problems" = json!(["run_not_found"]))),
    responses((status = 200, description = "The graph", body = RunGraph))
)]
pub(in crate::api) async fn get_run_graph(
    State(app): State<App>,
    _caller: Caller,
    RunPath(run): RunPath,
    _query: Params<Nothing>,
) -> Result<Json<RunGraph>, Problem> {
    let record = app.store.find_run(run).await?.ok_or_else(|| no_such_run(run))?;
    let definition = app.store.define_run(run).await?.ok_or_else(|| no_such_run(run))?;
    let made = app.store.run_nodes(run).await?;
    let workflow = workflow::parse_stored(&definition.document)
        .map_err(|it| Problem::internal(format!("the stored workflow of run {run}: {it:?}")))?;
    let graph = &workflow.graph;
    let mut plan = RunPlan::new(Arc::clone(graph), Arc::clone(&workflow.nodes), workflow.rules);
    definition.tell(&mut plan);
    if record.state == RunState::Cancelled || record.cancel_requested {
        plan.cancel();
    }
    let mut nodes: Vec<GraphNode> = graph
        .layout()
        .into_iter()
        .enumerate()
        .map(|(index, place)| {
            let node = NodeId(index as u32);
            GraphNode {
                name: graph.name(node).to_owned(),
                state: state_of(plan.node_state(node)),
                layer: place.layer,
                x: place.x,
                y: place.y,
                counts: BTreeMap::new(),
                task_id: None,
                started_at: None,
                finished_at: None,
            }
        })
        .collect();
    for it in made {
        if let Some(node) = nodes.get_mut(it.node as usize) {
            node.add(&it);
        }
    }
    let edges = (0..nodes.len() as u32).map(NodeId).flat_map(|to| {
        let edge = move |from: &NodeId| GraphEdge {
            from: graph.name(*from).to_owned(),
            to: graph.name(to).to_owned(),
        };
        graph.needs(to).iter().map(edge)
    });
    let edges = edges.collect();
    Ok(Json(RunGraph { nodes, edges }))
}

const fn state_of(it: NodeState) -> &'static str {
    match it {
        NodeState::Waiting => "waiting",
        NodeState::Ready => "queued",
        NodeState::Running => "running",
        NodeState::Ended(it) => it.as_str(),
    }
}

impl GraphNode {
    fn add(&mut self, it: &NodeRecord) {
        *self.counts.entry(it.state.as_str()).or_default() += it.count;
        self.task_id = self.task_id.into_iter().chain([it.task]).min();
        self.started_at = self.started_at.into_iter().chain(it.started_at).min();
        self.finished_at = self.finished_at.into_iter().chain(it.finished_at).max();
    }
}
