//! One run of a workflow: which of its tasks may start, which never will, and when it is over.
//!
//! A [`RunPlan`] is told facts, in any order, and answers with steps. Where it stands follows from the
//! facts alone, not from their order: what one process has in memory, another one has from the rows of the
//! database. To that end no rule says anything that a later fact could take back ([`judge`]), and a run that
//! is cancelled, or fails fast, goes by the same rules as ever, but a task that would start is cancelled
//! instead. Only [`RunPlan::reopened`] takes something back: that an item has ended.
//!
//! A task is *touched* once an item of it started. From then on no rule matters to it: the rest of its items
//! may start, and it ends when they do.
//!
//! Each fact and each step costs the same however large the run is: sums are kept, and a change goes from a
//! task to those that need it. What stops a run, and what lets the next stage begin, looks at each task once.
//!
//! [`judge`]: super::rules::judge

mod node;
mod settle;
mod types;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::domain::dag::{Graph, NodeId};

use super::rules::TaskEnd;
use node::{List, MADE, Node, Part, REOPENED, STOPPED, STOPPING, Want};
use settle::{Admission, Sums};
pub use types::{
    Counts, FanOut, ItemState, NodePlan, NodeState, RunEnd, RunRules, RunState, Stage, Step,
};

/// No task has more items; facts about others are not believed.
pub const MOST_ITEMS: u32 = 100_000;

/// Where a run stands, and what to do next.
#[derive(Debug, Clone)]
pub struct RunPlan {
    graph: Arc<Graph>,
    plans: Arc<[NodePlan]>,
    rules: RunRules,
    nodes: Vec<Node>,
    sums: Sums,
    /// What each stage lets its tasks do, as the tasks were last judged by.
    admission: [Admission; Stage::ALL.len()],
    orders: Orders,
    /// A task of it started.
    begun: bool,
    end_said: bool,
    /// To be looked at again.
    changed: Vec<NodeId>,
    /// Tasks whose `when` or list is to be evaluated, in the order of the graph.
    asks: BTreeSet<(u32, NodeId)>,
    /// Tasks that may start an item: those with the fewest live ones first, then in the order of the graph.
    ready: BTreeSet<(u32, u32, NodeId)>,
    stops: VecDeque<(NodeId, u32)>,
}

/// What people, or the deadline, want of the run.
#[derive(Debug, Clone, Copy, Default)]
struct Orders {
    paused: bool,
    cancelled: bool,
    expired: bool,
}

impl RunPlan {
    /// A run of which nothing is known but its document. Facts of what happened before come next.
    ///
    /// # Panics
    ///
    /// If there is not one plan for each task.
    pub fn new(graph: Arc<Graph>, plans: Arc<[NodePlan]>, rules: RunRules) -> Self {
        assert_eq!(graph.len(), plans.len(), "each task has its plan");
        let nodes = plans
            .iter()
            .map(|it| match it.fan_out {
                FanOut::One => List::Known(1),
                FanOut::Items(count) if count <= MOST_ITEMS => List::Known(count),
                FanOut::Items(_) => List::Failed,
                FanOut::Later => List::Unknown,
            })
            .map(Node::new)
            .collect();
        let mut run = Self {
            graph,
            plans,
            rules,
            nodes,
            sums: Sums::default(),
            admission: [Admission::default(); Stage::ALL.len()],
            orders: Orders::default(),
            begun: false,
            end_said: false,
            changed: Vec::new(),
            asks: BTreeSet::new(),
            ready: BTreeSet::new(),
            stops: VecDeque::new(),
        };
        run.derive();
        run
    }

    /// The task of this item exists.
    pub fn started(&mut self, node: NodeId, item: u32) {
        if self.is_item(node, item) && !self.is_ended(node, item) {
            self.make(node, item, false);
            self.settle();
        }
    }

    /// The task of this item ended, or could not be made.
    pub fn ended(&mut self, node: NodeId, item: u32, end: TaskEnd) {
        if self.is_item(node, item) && !self.is_ended(node, item) {
            self.begun = true;
            self.set(node, item, ItemState::Ended(end));
            self.settle();
        }
    }

    /// The task of this item is tried again: it is live, though it had ended. Nothing but a cancel of the
    /// run or its deadline stops it, so this is also how to say of a live task that it was reopened. What
    /// needs it and has not started waits again, and is asked for its `when` and its list anew.
    pub fn reopened(&mut self, node: NodeId, item: u32) {
        if !self.is_item(node, item) || self.nodes[node.index()].items.is_kept(item) {
            return;
        }
        let had_ended = self.is_ended(node, item) && self.nodes[node.index()].part.end.is_some();
        let had_failed = self.admission[Stage::Main.index()].halted && !self.orders.cancelled;
        self.make(node, item, true);
        if had_ended {
            self.forget_answers(node);
            self.end_said = false;
        }
        if had_failed {
            // What was cancelled because of this failure may be what keeps another one up.
            self.derive();
        } else {
            self.settle();
        }
    }

    /// Whether its `when` holds. `Err` if it can't be evaluated: then the task failed. An answer that comes
    /// when the run has ended is too late.
    pub fn condition(&mut self, node: NodeId, holds: Result<bool, ()>) {
        let asked_for = self.plans.get(node.index()).is_some_and(|it| it.condition);
        if asked_for && self.nodes[node.index()].condition.is_none() && !self.is_late(node) {
            self.nodes[node.index()].condition = Some(holds);
            self.changed.push(node);
            self.settle();
        }
    }

    /// How many items its list has; without any the task succeeded. `Err` if there is no such list, or it is
    /// too long: then the task failed.
    pub fn expanded(&mut self, node: NodeId, items: Result<u32, ()>) {
        let asked_for = self.plans.get(node.index()).is_some_and(|it| it.fan_out == FanOut::Later);
        if asked_for && self.nodes[node.index()].list == List::Unknown && !self.is_late(node) {
            let it = &mut self.nodes[node.index()];
            it.list = match items {
                Ok(count) if count <= MOST_ITEMS => List::Known(count),
                Ok(_) | Err(()) => List::Failed,
            };
            if let List::Known(count) = it.list {
                it.items.truncate(count);
            }
            self.changed.push(node);
            self.settle();
        }
    }

    /// This item ended in an earlier run, and is taken over from there. Other items of its task wait for
    /// what the task needs, as ever.
    pub fn kept(&mut self, node: NodeId, item: u32, end: TaskEnd) {
        if self.is_item(node, item)
            && self.nodes[node.index()].items.state(item) == ItemState::Waiting
        {
            self.set(node, item, ItemState::Ended(end));
            self.nodes[node.index()].items.keep(item);
            self.settle();
        }
    }

    /// Nothing new starts, until [`resume`](Self::resume). A run that is cancelled or past its deadline is
    /// not held.
    pub const fn pause(&mut self) {
        self.orders.paused = true;
    }

    pub const fn resume(&mut self) {
        self.orders.paused = false;
    }

    /// Somebody cancelled the run: live tasks are to stop, and none starts but those of [`Stage::OnExit`],
    /// which are left alone. If nothing was left to be cancelled the run ends as it would have.
    pub fn cancel(&mut self) {
        self.orders.cancelled = true;
        self.stop_all();
    }

    /// The deadline of the run passed: its main tasks are cancelled, the run failed, and the later stages
    /// are for that. If no main task was left to be cancelled it ends as it would have.
    pub fn expire(&mut self) {
        self.orders.expired = true;
        self.stop_all();
    }

    /// What to do next: each step once. At most `room` of them start a task; a fan-out that has few live
    /// items goes before one that has many, so none starves.
    pub fn next(&mut self, room: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some((node, item)) = self.stops.pop_front() {
            let must_stop = self.must_stop(node, item);
            let items = &mut self.nodes[node.index()].items;
            items.flag(item, STOPPING, false);
            if must_stop {
                items.flag(item, STOPPED, true);
                steps.push(Step::Stop(node, item));
            }
        }
        for (_, node) in std::mem::take(&mut self.asks) {
            let want = self.nodes[node.index()].want;
            self.nodes[node.index()].asked = want;
            match want {
                Want::Decide => steps.push(Step::Decide(node)),
                Want::Expand => steps.push(Step::Expand(node)),
                Want::Nothing | Want::Start | Want::Ends => {}
            }
        }
        let most = self.rules.max_parallel.map_or(u32::MAX, |it| it.max(1));
        for _ in 0..room {
            if self.is_held() || self.sums.live >= most {
                break;
            }
            let Some((_, _, node)) = self.ready.pop_first() else { break };
            let it = &mut self.nodes[node.index()];
            it.ready_with = None;
            let count = it.list.count().unwrap_or_default();
            if let Some(item) = it.items.first_unstarted(count) {
                self.set(node, item, ItemState::Live);
                self.settle();
                steps.push(Step::Start(node, item));
            }
        }
        if self.is_over() && !self.end_said {
            self.end_said = true;
            steps.push(Step::End(self.would_end()));
        }
        steps
    }

    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    pub fn state(&self) -> RunState {
        if self.is_over() {
            RunState::Ended(self.would_end())
        } else if self.is_held() {
            RunState::Paused
        } else if self.begun {
            RunState::Running
        } else {
            RunState::Queued
        }
    }

    pub fn node_state(&self, node: NodeId) -> NodeState {
        let it = &self.nodes[node.index()];
        if let Some(end) = self.shown_end(node) {
            return NodeState::Ended(end);
        }
        match it.want {
            Want::Nothing => NodeState::Waiting,
            Want::Decide | Want::Expand | Want::Start | Want::Ends if it.items.touched() > 0 => {
                NodeState::Running
            }
            Want::Decide | Want::Expand | Want::Start | Want::Ends => NodeState::Ready,
        }
    }

    pub fn item_state(&self, node: NodeId, item: u32) -> ItemState {
        let it = &self.nodes[node.index()];
        match it.items.state(item) {
            ItemState::Waiting => {
                self.shown_open(node).map_or(ItemState::Waiting, ItemState::Ended)
            }
            known @ (ItemState::Live | ItemState::Ended(_)) => known,
        }
    }

    /// How many items a task has, once that is known.
    pub fn items(&self, node: NodeId) -> Option<u32> {
        self.nodes[node.index()].list.count()
    }

    /// The items of the whole run.
    pub fn counts(&self) -> Counts {
        self.sums.counts(|stage| self.admission[stage.index()].halted)
    }

    /// The items of one task.
    pub fn node_counts(&self, node: NodeId) -> Counts {
        let part = &self.nodes[node.index()].part;
        let mut sums = Sums::default();
        sums.add(self.plans[node.index()].stage, part);
        sums.counts(|stage| self.admission[stage.index()].halted)
    }

    fn is_item(&self, node: NodeId, item: u32) -> bool {
        self.nodes.get(node.index()).is_some_and(|it| match it.list {
            List::Known(count) => item < count,
            List::Unknown | List::Failed => item < MOST_ITEMS,
        })
    }

    fn is_ended(&self, node: NodeId, item: u32) -> bool {
        matches!(self.nodes[node.index()].items.state(item), ItemState::Ended(_))
    }

    /// Whether an answer is too late, since the run has ended. Should it go on after all, it is asked for
    /// again.
    fn is_late(&mut self, node: NodeId) -> bool {
        if self.end_said {
            self.nodes[node.index()].asked = Want::Nothing;
        }
        self.end_said
    }

    /// Nothing may start for now.
    const fn is_held(&self) -> bool {
        self.orders.paused && !self.orders.cancelled && !self.orders.expired
    }

    fn set(&mut self, node: NodeId, item: u32, state: ItemState) {
        let failed_before = self.failed_fast(node);
        let it = &mut self.nodes[node.index()];
        it.items.set(item, state, it.list.count());
        self.changed.push(node);
        if !failed_before && self.failed_fast(node) {
            self.stop_items(node);
        }
    }

    /// The task of this item exists, and is live.
    fn make(&mut self, node: NodeId, item: u32, reopened: bool) {
        self.begun = true;
        let items = &self.nodes[node.index()].items;
        let stopped = items.has(item, STOPPED) && !reopened;
        let reopened = items.has(item, REOPENED) || reopened;
        self.set(node, item, ItemState::Live);
        let items = &mut self.nodes[node.index()].items;
        items.flag(item, MADE, true);
        items.flag(item, STOPPED, stopped);
        items.flag(item, REOPENED, reopened);
        self.stop(node, item);
    }

    /// Has everything stop that must, what was reopened too.
    fn stop_all(&mut self) {
        for at in 0..self.nodes.len() {
            self.stop_items(NodeId(at as u32));
        }
        self.settle();
    }

    /// What needs this and has not started is asked again for what may have hung on it.
    fn forget_answers(&mut self, node: NodeId) {
        let mut seen = BTreeSet::new();
        let mut stack = self.graph.dependents(node).to_vec();
        while let Some(node) = stack.pop() {
            let it = &mut self.nodes[node.index()];
            if it.items.touched() > 0 || !seen.insert(node) {
                continue;
            }
            it.condition = None;
            it.asked = Want::Nothing;
            if self.plans[node.index()].fan_out == FanOut::Later {
                it.list = List::Unknown;
            }
            self.changed.push(node);
            stack.extend_from_slice(self.graph.dependents(node));
        }
    }
}

impl Node {
    fn new(list: List) -> Self {
        Self {
            items: node::Items::default(),
            needs: super::rules::Upstream::default(),
            failed_needs: 0,
            condition: None,
            list,
            want: Want::Nothing,
            asked: Want::Nothing,
            ready_with: None,
            part: Part::default(),
        }
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod tests;
