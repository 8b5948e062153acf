//! One run in memory: its workflow, its plan, and the values that its tasks have handed back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::values::Values;
use crate::domain::dag::NodeId;
use crate::domain::failure::{Failure, Reason};
use crate::domain::plan::{Counts, FanOut, RunEnd, RunPlan, RunState, Step, TaskEnd};
use crate::domain::spec::{Fault, Limits};
use crate::domain::template::{Reference, RunScope};
use crate::domain::workflow::{self, Workflow};
use crate::ids::{AttemptId, RunId, TaskId};
use crate::store::{
    BrokenTask, Decision, DueRun, Error, Fact, Planning, RunChange, RunEnding, RunTask, Wanted,
};

#[derive(Debug)]
pub(super) struct Driven {
    run: RunId,
    run_id: String,
    name: String,
    revision: i64,
    workflow: Workflow,
    names: HashMap<String, NodeId>,
    /// Of the tasks that are about to start.
    references: HashMap<NodeId, Arc<[Reference]>>,
    params: Map<String, Value>,
    plan: RunPlan,
    values: Values,
    /// Of tasks that run for each of a list, until they have ended.
    items: HashMap<NodeId, Vec<Value>>,
    started: bool,
    held_back: bool,
}

impl Driven {
    /// The run as of before what is new.
    pub(super) fn take_up(before: Option<Self>, due: &mut DueRun) -> Result<Self, Failure> {
        let Some(definition) = due.definition.take() else {
            return before.ok_or_else(|| unreadable("it is in no memory and was not read"));
        };
        let workflow = workflow::parse_stored(&definition.document)
            .map_err(|faults| unreadable(&first_of(&faults)))?;
        let graph = &workflow.graph;
        let mut plan = RunPlan::new(Arc::clone(graph), Arc::clone(&workflow.nodes), workflow.rules);
        definition.tell(&mut plan);
        let names = graph.nodes().map(|it| (graph.name(it).to_owned(), it)).collect();
        Ok(Self {
            run: due.run,
            run_id: due.run.to_string(),
            name: definition.name,
            revision: due.revision,
            names,
            references: HashMap::new(),
            workflow,
            params: definition.params,
            plan,
            values: Values::default(),
            items: HashMap::new(),
            started: due.started_at.is_some(),
            held_back: false,
        })
    }

    pub(super) const fn revision(&self) -> i64 {
        self.revision
    }

    /// The step was written.
    pub(super) const fn was_written(&mut self) {
        self.revision += 1;
    }

    /// More of it is ready than there was room for.
    pub(super) const fn is_held_back(&self) -> bool {
        self.held_back
    }

    /// Takes in what happened.
    pub(super) fn hear(&mut self, due: &DueRun) {
        for it in &due.news {
            self.learn(it);
        }
        if due.is_late {
            self.plan.expire();
        }
        match due.wanted {
            Wanted::Cancel => self.plan.cancel(),
            Wanted::Pause => self.plan.pause(),
            Wanted::Run => self.plan.resume(),
        }
    }

    fn learn(&mut self, fact: &Fact) {
        match (fact.item, fact.end) {
            // It was retried.
            (Some(item), None) => {
                self.values.forget(NodeId(fact.node));
                self.plan.reopened(NodeId(fact.node), item);
            }
            _ => fact.tell(&mut self.plan),
        }
    }

    /// Goes as far as it can: what is decided is to be written as one change.
    pub(super) async fn step(
        &mut self,
        planning: &mut Planning,
        room: usize,
        is_late: bool,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<RunChange, Error> {
        let mut change = RunChange::of(self.run);
        let mut left = room;
        loop {
            let steps = self.plan.next(left);
            if steps.is_empty() {
                break;
            }
            for it in steps {
                match it {
                    Step::Decide(node) => self.decide(planning, node, &mut change).await?,
                    Step::Expand(node) => self.expand(planning, node, &mut change).await?,
                    Step::Start(node, item) => {
                        left = left.saturating_sub(1);
                        self.start(planning, node, item, limits, &mut change).await?;
                    }
                    Step::Stop(node, item) => change.stop.push((node.0, item)),
                    Step::End(end) => change.end = Some(self.end(planning, end, is_late).await?),
                }
            }
        }
        self.held_back = left == 0;
        if !change.tasks.is_empty() && !self.started {
            self.started = true;
            change.started_at = Some(now);
        }
        change.state = match self.plan.state() {
            RunState::Queued => "queued",
            RunState::Paused => "paused",
            RunState::Running | RunState::Ended(_) => "running",
        };
        change.counts = counts(self.plan.counts());
        Ok(change)
    }

    async fn decide(
        &mut self,
        planning: &mut Planning,
        node: NodeId,
        change: &mut RunChange,
    ) -> Result<(), Error> {
        self.fetch(planning, node).await?;
        let holds = self.workflow.condition(node, &self.scope(None));
        match holds {
            Ok(holds) => {
                self.plan.condition(node, Ok(holds));
                change.decisions.push(Decision { node: node.0, holds: Some(holds), items: None });
            }
            Err(fault) => {
                self.plan.condition(node, Err(()));
                change.broken.push(self.broken(node, None, &[fault]));
            }
        }
        Ok(())
    }

    async fn expand(
        &mut self,
        planning: &mut Planning,
        node: NodeId,
        change: &mut RunChange,
    ) -> Result<(), Error> {
        self.fetch(planning, node).await?;
        let items = self.workflow.items(node, &self.scope(None));
        match items {
            Ok(items) => {
                let count = items.len() as u32;
                self.plan.expanded(node, Ok(count));
                change.decisions.push(Decision { node: node.0, holds: None, items: Some(count) });
                self.items.insert(node, items);
            }
            Err(fault) => {
                self.plan.expanded(node, Err(()));
                change.broken.push(self.broken(node, None, &[fault]));
            }
        }
        Ok(())
    }

    async fn start(
        &mut self,
        planning: &mut Planning,
        node: NodeId,
        item: u32,
        limits: &Limits,
        change: &mut RunChange,
    ) -> Result<(), Error> {
        self.fetch(planning, node).await?;
        if self.has_items(node) && !self.items.contains_key(&node) {
            // A matrix, or a run that was taken over in the middle of a list.
            match self.workflow.items(node, &self.scope(None)) {
                Ok(items) => drop(self.items.insert(node, items)),
                Err(fault) => {
                    self.plan.ended(node, item, TaskEnd::Failed);
                    change.broken.push(self.broken(node, Some(item), &[fault]));
                    return Ok(());
                }
            }
        }
        let value = self.items.get(&node).and_then(|it| it.get(item as usize));
        let spec = self.workflow.task_spec(node, &self.scope(value), limits);
        match spec {
            Ok(spec) => {
                self.plan.started(node, item);
                change.tasks.push(RunTask {
                    task: TaskId::generate(),
                    attempt: AttemptId::generate(),
                    node: node.0,
                    item,
                    spec_hash: spec.hash(),
                    spec,
                });
            }
            Err(faults) => {
                self.plan.ended(node, item, TaskEnd::Failed);
                change.broken.push(self.broken(node, Some(item), &faults));
            }
        }
        Ok(())
    }

    async fn end(
        &mut self,
        planning: &mut Planning,
        end: RunEnd,
        is_late: bool,
    ) -> Result<RunEnding, Error> {
        let ending = |state, failure, result| RunEnding { state, failure, result };
        match end {
            RunEnd::Failed if is_late => {
                let failure = Failure::new(Reason::Timeout, "it took longer than its timeout");
                Ok(ending("failed", Some(failure), None))
            }
            RunEnd::Cancelled => Ok(ending("cancelled", None, None)),
            RunEnd::Failed => {
                let first = planning.first_failure(self.run).await?;
                let failure = first.map(|(name, it)| {
                    Failure::new(it.reason, format!("task {name:?}: {}", it.message))
                });
                Ok(ending("failed", failure, None))
            }
            RunEnd::Succeeded => {
                for it in self.workflow.result_references() {
                    self.fetch_value(planning, &it).await?;
                }
                match self.workflow.result(&self.scope(None)) {
                    Ok(result) => Ok(ending("succeeded", None, Some(result))),
                    Err(faults) => {
                        let failure = Failure::new(Reason::OutputInvalid, first_of(&faults));
                        Ok(ending("failed", Some(failure), None))
                    }
                }
            }
        }
    }

    fn scope<'a>(&'a self, item: Option<&'a Value>) -> RunScope<'a> {
        RunScope {
            params: Some(&self.params),
            run_id: Some(&self.run_id),
            run_name: Some(&self.name),
            run_state: Some(match self.plan.would_end() {
                RunEnd::Succeeded => "succeeded",
                RunEnd::Failed => "failed",
                RunEnd::Cancelled => "cancelled",
            }),
            tasks: &self.values,
            item,
        }
    }

    fn has_items(&self, node: NodeId) -> bool {
        self.workflow.nodes[node.index()].fan_out != FanOut::One
    }

    /// Has what a task asks for of others.
    async fn fetch(&mut self, planning: &mut Planning, node: NodeId) -> Result<(), Error> {
        let workflow = &self.workflow;
        let references = self.references.entry(node);
        let references =
            references.or_insert_with(|| workflow.references(node).into_iter().collect());
        for it in Arc::clone(references).iter() {
            self.fetch_value(planning, it).await?;
        }
        Ok(())
    }

    async fn fetch_value(
        &mut self,
        planning: &mut Planning,
        reference: &Reference,
    ) -> Result<(), Error> {
        let Some(&node) = reference.task().and_then(|it| self.names.get(it)) else { return Ok(()) };
        let items = self.plan.items(node).filter(|_| self.has_items(node));
        let state = self.plan.node_state(node);
        let asked = (node, reference);
        self.values
            .fetch(
                planning,
                self.run,
                asked,
                state,
                self.has_items(node).then_some(items.unwrap_or_default()),
            )
            .await
    }

    fn broken(&self, node: NodeId, item: Option<u32>, faults: &[Fault]) -> BrokenTask {
        BrokenTask {
            task: TaskId::generate(),
            node: node.0,
            item,
            name: self.workflow.graph.name(node).to_owned(),
            failure: Failure::new(Reason::TaskInvalid, first_of(faults)),
        }
    }
}

fn counts(it: Counts) -> BTreeMap<&'static str, u64> {
    [
        ("waiting", it.waiting),
        ("live", it.live),
        ("succeeded", it.succeeded),
        ("failed", it.failed),
        ("skipped", it.skipped),
        ("cancelled", it.cancelled),
        ("upstream_failed", it.upstream_failed),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(name, count)| (name, u64::from(count)))
    .collect()
}

fn unreadable(why: &str) -> Failure {
    Failure::new(Reason::Internal, format!("its workflow can't be read: {why}"))
}

fn first_of(faults: &[Fault]) -> String {
    faults.first().map_or_else(String::new, |it| {
        let more = match faults.len() {
            0 | 1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        format!("{}: {}{more}", it.pointer.trim_start_matches('/'), it.detail)
    })
}
