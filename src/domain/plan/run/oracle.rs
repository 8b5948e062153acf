//! Where a run stands, once more: naive, from all facts at once, with no memory of what stood before.

use std::collections::{BTreeMap, BTreeSet};

use super::{Counts, FanOut, NodePlan, NodeState, RunEnd, RunRules, Stage};
use crate::domain::dag::{Graph, NodeId};
use crate::domain::plan::oracle::says_by_now;
use crate::domain::plan::rules::{TaskEnd, Verdict};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fact {
    /// Live, if not.
    pub(super) end: Option<TaskEnd>,
    pub(super) kept: bool,
    pub(super) reopened: bool,
    /// Its task exists. Else it was only said to start.
    pub(super) made: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) items: BTreeMap<(NodeId, u32), Fact>,
    pub(super) conditions: BTreeMap<NodeId, Result<bool, ()>>,
    pub(super) lists: BTreeMap<NodeId, Result<u32, ()>>,
    pub(super) paused: bool,
    pub(super) cancelled: bool,
    pub(super) expired: bool,
}

#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) ends: Vec<Option<TaskEnd>>,
    pub(super) states: Vec<NodeState>,
    pub(super) decide: BTreeSet<NodeId>,
    pub(super) expand: BTreeSet<NodeId>,
    /// As far as rules go; not whether there is room.
    pub(super) may_start: BTreeSet<(NodeId, u32)>,
    pub(super) must_stop: BTreeSet<(NodeId, u32)>,
    pub(super) end: Option<RunEnd>,
    pub(super) would_end: RunEnd,
    pub(super) counts: Counts,
}

pub(super) struct Oracle<'a> {
    pub(super) graph: &'a Graph,
    pub(super) plans: &'a [NodePlan],
    pub(super) rules: RunRules,
    pub(super) facts: &'a Facts,
}

impl Oracle<'_> {
    pub(super) fn view(&self) -> View {
        let without = self.judge_all(false);
        let failed_fast = self.rules.fail_fast && self.main_failed(&without);
        self.complete(&self.judge_all(failed_fast), failed_fast)
    }

    fn items(&self, node: NodeId) -> Vec<(u32, Fact)> {
        let of_node = self.facts.items.iter().filter(|((it, _), _)| *it == node);
        of_node.map(|((_, item), fact)| (*item, *fact)).collect()
    }

    fn count(&self, node: NodeId) -> Option<Result<u32, ()>> {
        match self.plans[node.index()].fan_out {
            FanOut::One => Some(Ok(1)),
            FanOut::Items(count) => Some(Ok(count)),
            FanOut::Later => self.facts.lists.get(&node).copied(),
        }
    }

    fn ended_so(&self, node: NodeId, end: TaskEnd) -> u32 {
        self.items(node).iter().filter(|(_, it)| it.end == Some(end)).count() as u32
    }

    fn counts_for_the_run(&self, node: NodeId) -> bool {
        let plan = &self.plans[node.index()];
        plan.stage == Stage::Main && !plan.allow_failure
    }

    fn main_failed(&self, ends: &[Option<TaskEnd>]) -> bool {
        self.graph.nodes().any(|it| {
            self.counts_for_the_run(it)
                && (self.ended_so(it, TaskEnd::Failed) > 0
                    || ends[it.index()] == Some(TaskEnd::Failed))
        })
    }

    fn stage_halted(&self, stage: Stage, failed_fast: bool) -> bool {
        match stage {
            Stage::Main => self.facts.cancelled || self.facts.expired || failed_fast,
            Stage::OnFailure => self.facts.cancelled,
            Stage::OnExit => false,
        }
    }

    fn siblings_stop(&self, node: NodeId) -> bool {
        let plan = &self.plans[node.index()];
        plan.fail_fast && !plan.allow_failure && self.ended_so(node, TaskEnd::Failed) > 0
    }

    /// The end of each task, stage by stage, needs first.
    fn judge_all(&self, failed_fast: bool) -> Vec<Option<TaskEnd>> {
        let mut ends = vec![None; self.graph.len()];
        for stage in Stage::ALL {
            let open = self.stage_open(stage, &ends, failed_fast);
            for &node in self.graph.order() {
                if self.plans[node.index()].stage == stage {
                    ends[node.index()] = self.end(node, open, failed_fast, &ends);
                }
            }
        }
        ends
    }

    fn of_stage(&self, stage: Stage) -> impl Iterator<Item = NodeId> {
        self.graph.nodes().filter(move |it| self.plans[it.index()].stage == stage)
    }

    /// Start: its tasks go by their rules. Skip: none of them is for this run.
    fn stage_open(&self, stage: Stage, ends: &[Option<TaskEnd>], failed_fast: bool) -> Verdict {
        let over = |stage| self.of_stage(stage).all(|it| ends[it.index()].is_some());
        match stage {
            Stage::Main => Verdict::Start,
            Stage::OnFailure if !over(Stage::Main) => Verdict::Wait,
            Stage::OnFailure => {
                let late = self.facts.expired && self.stopped(Stage::Main, ends, failed_fast);
                let cancelled = !self.facts.cancelled && self.main_cancelled();
                if self.main_failed(ends) || late || cancelled {
                    Verdict::Start
                } else {
                    Verdict::Skip
                }
            }
            Stage::OnExit if over(Stage::Main) && over(Stage::OnFailure) => Verdict::Start,
            Stage::OnExit => Verdict::Wait,
        }
    }

    fn main_cancelled(&self) -> bool {
        let mut main = self.of_stage(Stage::Main).filter(|it| self.counts_for_the_run(*it));
        main.any(|it| self.ended_so(it, TaskEnd::Cancelled) > 0)
    }

    /// Whether anything of this stage was stopped, or never started though its rule would have let it.
    fn stopped(&self, stage: Stage, ends: &[Option<TaskEnd>], failed_fast: bool) -> bool {
        self.of_stage(stage).any(|it| {
            let started = self.items(it).iter().any(|(_, it)| !it.kept);
            let halted = self.stage_halted(stage, failed_fast) || self.siblings_stop(it);
            self.ended_so(it, TaskEnd::Cancelled) > 0
                || (ends[it.index()] == Some(TaskEnd::Cancelled))
                || (started && halted && self.unstarted(it).is_some_and(|it| !it.is_empty()))
        })
    }

    fn unstarted(&self, node: NodeId) -> Option<Vec<u32>> {
        let count = self.count(node)?.ok()?;
        Some((0..count).filter(|it| !self.facts.items.contains_key(&(node, *it))).collect())
    }

    fn seen(&self, node: NodeId, ends: &[Option<TaskEnd>]) -> Option<TaskEnd> {
        ends[node.index()].map(|end| {
            let excused = matches!(end, TaskEnd::Failed | TaskEnd::Cancelled);
            if excused && self.plans[node.index()].allow_failure { TaskEnd::Succeeded } else { end }
        })
    }

    fn verdict(&self, node: NodeId, open: Verdict, ends: &[Option<TaskEnd>]) -> Verdict {
        if open != Verdict::Start {
            return open;
        }
        let needs: Vec<_> = self.graph.needs(node).iter().map(|it| self.seen(*it, ends)).collect();
        says_by_now(self.plans[node.index()].trigger, &needs)
    }

    fn end(
        &self,
        node: NodeId,
        open: Verdict,
        failed_fast: bool,
        ends: &[Option<TaskEnd>],
    ) -> Option<TaskEnd> {
        let plan = &self.plans[node.index()];
        let items = self.items(node);
        let unstarted = self.unstarted(node);
        let count = self.count(node);
        let started = items.iter().any(|(_, it)| !it.kept);
        let all_kept = !items.is_empty() && unstarted.as_ref().is_some_and(Vec::is_empty);
        let halted = self.stage_halted(plan.stage, failed_fast) || self.siblings_stop(node);
        if started || all_kept {
            if items.iter().any(|(_, it)| it.end.is_none()) {
                return None;
            }
            let left = match (count?, unstarted) {
                (Err(()), _) => return Some(TaskEnd::Failed),
                (Ok(_), left) => left.unwrap_or_default().len(),
            };
            if left > 0 && !halted {
                return None;
            }
            let some = |end| self.ended_so(node, end) > 0;
            let fold = [TaskEnd::Failed, TaskEnd::UpstreamFailed, TaskEnd::Cancelled];
            return Some(match fold.into_iter().find(|it| some(*it)) {
                Some(TaskEnd::Cancelled) | None if left > 0 => TaskEnd::Cancelled,
                Some(end) => end,
                None if items.iter().all(|(_, it)| it.end == Some(TaskEnd::Skipped)) => {
                    TaskEnd::Skipped
                }
                None => TaskEnd::Succeeded,
            });
        }
        match self.verdict(node, open, ends) {
            Verdict::Wait => return None,
            Verdict::Skip => return Some(TaskEnd::Skipped),
            Verdict::UpstreamFailed => return Some(TaskEnd::UpstreamFailed),
            Verdict::Start => {}
        }
        let worse = [TaskEnd::Failed, TaskEnd::UpstreamFailed];
        let kept = worse.into_iter().find(|it| self.ended_so(node, *it) > 0);
        let kept_or_cancelled = kept.unwrap_or(TaskEnd::Cancelled);
        let asked = self.facts.conditions.get(&node).copied();
        match if plan.condition && items.is_empty() { asked } else { asked.or(Some(Ok(true))) } {
            Some(Ok(true)) => {}
            Some(Ok(false)) => return Some(TaskEnd::Skipped),
            Some(Err(())) => return Some(TaskEnd::Failed),
            None => return halted.then_some(kept_or_cancelled),
        }
        match count {
            Some(Err(())) => Some(TaskEnd::Failed),
            Some(Ok(0)) => Some(TaskEnd::Succeeded),
            Some(Ok(_)) | None => halted.then_some(kept_or_cancelled),
        }
    }

    /// Whether a failure is what kept it from succeeding, however far up.
    fn failure_behind(&self, node: NodeId, ends: &[Option<TaskEnd>]) -> bool {
        match ends[node.index()] {
            Some(TaskEnd::Failed) => true,
            Some(TaskEnd::UpstreamFailed) => {
                self.ended_so(node, TaskEnd::UpstreamFailed) > 0
                    || self.graph.needs(node).iter().any(|it| {
                        self.seen(*it, ends) != Some(TaskEnd::Succeeded)
                            && self.failure_behind(*it, ends)
                    })
            }
            Some(TaskEnd::Succeeded | TaskEnd::Skipped | TaskEnd::Cancelled) | None => false,
        }
    }

    fn complete(&self, ends: &[Option<TaskEnd>], failed_fast: bool) -> View {
        let over = |stage| self.of_stage(stage).all(|it| ends[it.index()].is_some());
        let stopped = self.stopped(Stage::Main, ends, failed_fast) || !over(Stage::Main);
        let late = self.stopped(Stage::OnFailure, ends, failed_fast);
        let would_end = if self.facts.cancelled && (stopped || late) {
            RunEnd::Cancelled
        } else if self.main_failed(ends) || self.main_cancelled() || (self.facts.expired && stopped)
        {
            RunEnd::Failed
        } else {
            RunEnd::Succeeded
        };
        let mut view = View {
            ends: ends.to_vec(),
            states: Vec::new(),
            decide: BTreeSet::new(),
            expand: BTreeSet::new(),
            may_start: BTreeSet::new(),
            must_stop: BTreeSet::new(),
            end: ends.iter().all(Option::is_some).then_some(would_end),
            would_end,
            counts: Counts::default(),
        };
        for node in self.graph.nodes() {
            self.complete_node(node, ends, failed_fast, &mut view);
        }
        view
    }

    fn complete_node(
        &self,
        node: NodeId,
        ends: &[Option<TaskEnd>],
        failed_fast: bool,
        view: &mut View,
    ) {
        let plan = &self.plans[node.index()];
        let items = self.items(node);
        let started = items.iter().any(|(_, it)| !it.kept);
        let halted = self.stage_halted(plan.stage, failed_fast);
        let stops = self.siblings_stop(node);
        let allowed = started
            || self.verdict(node, self.stage_open(plan.stage, ends, failed_fast), ends)
                == Verdict::Start;
        let end = ends[node.index()];
        let shown = match end {
            Some(TaskEnd::UpstreamFailed) if halted && !self.failure_behind(node, ends) => {
                Some(TaskEnd::Cancelled)
            }
            None if halted && plan.stage == Stage::Main && !started => Some(TaskEnd::Cancelled),
            end => end,
        };
        view.states.push(match shown {
            Some(end) => NodeState::Ended(end),
            None if !allowed => NodeState::Waiting,
            None if items.is_empty() => NodeState::Ready,
            None => NodeState::Running,
        });

        if end.is_none() && allowed {
            let unanswered = plan.condition && !self.facts.conditions.contains_key(&node);
            if unanswered && items.is_empty() {
                view.decide.insert(node);
            } else {
                match self.count(node) {
                    None => _ = view.expand.insert(node),
                    Some(Err(())) => {}
                    Some(Ok(_)) if halted || stops => {}
                    Some(Ok(_)) => {
                        let left = self.unstarted(node).unwrap_or_default();
                        view.may_start.extend(left.into_iter().map(|it| (node, it)));
                    }
                }
            }
        }
        let by_run = match plan.stage {
            Stage::Main => self.facts.cancelled || self.facts.expired,
            Stage::OnFailure => self.facts.cancelled,
            Stage::OnExit => false,
        };
        for (item, fact) in &items {
            if fact.end.is_none() && fact.made && (by_run || ((halted || stops) && !fact.reopened))
            {
                view.must_stop.insert((node, *item));
            }
        }

        let counts = &mut view.counts;
        let open = match self.unstarted(node) {
            Some(open) => open.len() as u32,
            None => u32::from(items.is_empty()),
        };
        let open_end = if started {
            (end.is_some() || halted || stops).then_some(TaskEnd::Cancelled)
        } else {
            shown
        };
        for (end, count) in
            items.iter().map(|(_, it)| (it.end.map(Some), 1)).chain([(Some(open_end), open)])
        {
            counts.total += count;
            *match end {
                None => &mut counts.live,
                Some(None) => &mut counts.waiting,
                Some(Some(TaskEnd::Succeeded)) => &mut counts.succeeded,
                Some(Some(TaskEnd::Failed)) => &mut counts.failed,
                Some(Some(TaskEnd::Skipped)) => &mut counts.skipped,
                Some(Some(TaskEnd::Cancelled)) => &mut counts.cancelled,
                Some(Some(TaskEnd::UpstreamFailed)) => &mut counts.upstream_failed,
            } += count;
        }
    }
}
