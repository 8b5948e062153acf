//! The workflow document: what is to run, in which order, and with which values.
//!
//! [`parse`] turns JSON into a [`Workflow`] or into every [`Fault`] it found. What can be known before a run is checked
//! then: names, needs, references and the order that they make, types of params, and each field of each task that no
//! reference fills in. With the params of a run [`Workflow::check`] looks at those that only they fill in. The rest is
//! checked when a task is made, and is a failure of that task.
//!
//! A workflow is made of its document again whenever somebody takes a run over, so reading is deterministic:
//! tasks are in the order of their names, main ones first.

mod check;
mod fields;
mod items;
mod params;
mod parse;
mod schema;
mod task;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Map, Value};

use super::dag::{Graph, NodeId};
use super::plan::{FanOut, NodePlan, RunRules, Stage};
use super::spec::{Fault, Limits, TaskSpec};
use super::template::{Renderer, RunScope, Tree};

pub use items::MOST_ITEMS;
pub use params::{Param, Params};
pub use parse::{parse, parse_offline, parse_stored};
pub use schema::{Kind, Schema};
pub use task::{Input, Task};

use fields::Layers;

/// Nobody reads more.
const FAULTS: usize = 1_000;

/// A workflow that can run.
#[derive(Debug)]
pub struct Workflow {
    pub name: Option<String>,
    pub description: Option<String>,
    pub params: Params,
    pub labels: BTreeMap<String, String>,
    /// Of the run as a whole.
    pub timeout: Option<SignedDuration>,
    pub rules: RunRules,
    /// The main tasks, those of `on_failure`, those of `on_exit`.
    pub graph: Arc<Graph>,
    /// As in the graph.
    pub nodes: Arc<[NodePlan]>,
    tasks: Vec<Task>,
    /// What every task has that does not say otherwise.
    defaults: Vec<(String, Tree)>,
    env: Tree,
    /// By name.
    outputs: Vec<(String, Tree)>,
}

impl Workflow {
    pub fn task(&self, node: NodeId) -> &Task {
        &self.tasks[node.index()]
    }

    /// The task of this name, whichever part of the document it is in.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.graph.nodes().find(|it| self.graph.name(*it) == name)
    }

    /// The tasks of a part of the document.
    pub fn stage(&self, stage: Stage) -> impl Iterator<Item = NodeId> + '_ {
        self.graph.nodes().filter(move |it| self.nodes[it.index()].stage == stage)
    }

    /// The params of a run: those that were given, checked, and the defaults of the others. Pointers begin at the
    /// request that has them as `params`.
    pub fn bind(&self, given: &Map<String, Value>) -> Result<Map<String, Value>, Vec<Fault>> {
        self.params.bind(given)
    }

    /// What is wrong with the tasks, now that the params are known. Those that hang on none were checked when the document
    /// was read.
    pub fn check(&self, params: &Map<String, Value>, limits: &Limits) -> Vec<Fault> {
        let scope = RunScope { params: Some(params), ..RunScope::UNKNOWN };
        let mut faults = Vec::new();
        for node in self.graph.nodes() {
            let (task, layers) = (self.task(node), self.layers(node));
            if task.asks_for_params || self.defaults_ask_for_params() {
                faults.extend(layers.check(self.graph.name(node), &scope, limits));
                if self.nodes[node.index()].fan_out == FanOut::Later {
                    faults.extend(task.items.check(&scope));
                }
            }
        }
        check::tidied(faults)
    }

    fn defaults_ask_for_params(&self) -> bool {
        !self.env.is_plain() || self.defaults.iter().any(|(_, it)| !it.is_plain())
    }

    fn layers(&self, node: NodeId) -> Layers<'_> {
        Layers::new(&self.env, &self.defaults, self.task(node))
    }

    /// The task to make: of an item, where the scope has one.
    pub fn task_spec(
        &self,
        node: NodeId,
        scope: &RunScope<'_>,
        limits: &Limits,
    ) -> Result<TaskSpec, Vec<Fault>> {
        self.layers(node).spec(self.graph.name(node), scope, limits)
    }

    /// The files that the task gets from others.
    pub fn inputs(&self, node: NodeId) -> &[Input] {
        &self.task(node).inputs
    }

    /// The items of a task that has a matrix or a list, in order.
    pub fn items(&self, node: NodeId, scope: &RunScope<'_>) -> Result<Vec<Value>, Fault> {
        self.task(node).items.expand(scope)
    }

    /// Whether the task is to run; true where it has no `when`.
    pub fn condition(&self, node: NodeId, scope: &RunScope<'_>) -> Result<bool, Fault> {
        self.task(node).condition(scope)
    }

    /// What the run hands back.
    pub fn result(&self, scope: &RunScope<'_>) -> Result<Map<String, Value>, Vec<Fault>> {
        const MOST_BYTES: usize = 8 << 20;
        let mut renderer = Renderer::bounded(scope, MOST_BYTES);
        let mut outputs = Map::new();
        for (name, tree) in &self.outputs {
            if let Some(value) = renderer.render(tree, &check::below("/outputs", name)) {
                outputs.insert(name.clone(), value);
            }
        }
        for pointer in std::mem::take(&mut renderer.later) {
            renderer.faults.push(Fault::new(pointer, "template_failed", "it has no value"));
        }
        if renderer.faults.is_empty() { Ok(outputs) } else { Err(renderer.faults) }
    }

    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(|(name, _)| name.as_str())
    }
}
