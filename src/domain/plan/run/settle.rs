//! What follows from the facts: the end of each task, and what the run does because of it.

use crate::domain::dag::NodeId;
use crate::domain::plan::rules::{TaskEnd, Upstream, Verdict, judge};

use super::RunPlan;
use super::node::{List, MADE, Part, REOPENED, STOPPED, STOPPING, Want};
use super::types::{Counts, ItemState, NodePlan, RunEnd, Stage};

/// What a stage lets its tasks do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Admission {
    pub(super) entry: Entry,
    /// What would start is cancelled instead.
    pub(super) halted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Entry {
    #[default]
    Wait,
    Open,
    /// The stage is not for this run.
    Skip,
}

/// Why an item is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Halt {
    /// The run is cancelled, or past its deadline.
    Run,
    /// Another item failed.
    Failure,
}

/// The parts of all tasks together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    pub(super) live: u32,
    ended: [u32; TaskEnd::ALL.len()],
    stages: [StageSums; Stage::ALL.len()],
}

#[derive(Debug, Clone, Copy, Default)]
struct StageSums {
    unsettled: u32,
    /// Items that did not start: as they wait, as they ended, and of those `upstream_failed` the ones that no
    /// failure is behind.
    waiting: u32,
    ended: [u32; TaskEnd::ALL.len()],
    without_failure: u32,
    failures: u32,
    cancels: u32,
    stopped: u32,
}

impl Sums {
    pub(super) fn add(&mut self, stage: Stage, part: &Part) {
        self.change(stage, part, u32::wrapping_add);
    }

    fn remove(&mut self, stage: Stage, part: &Part) {
        self.change(stage, part, u32::wrapping_sub);
    }

    fn change(&mut self, stage: Stage, part: &Part, by: fn(u32, u32) -> u32) {
        let change = |sum: &mut u32, count: u32| *sum = by(*sum, count);
        change(&mut self.live, part.live);
        for (sum, count) in self.ended.iter_mut().zip(part.ended) {
            change(sum, count);
        }
        let stage = &mut self.stages[stage.index()];
        change(&mut stage.unsettled, u32::from(part.end.is_none()));
        match part.open_end {
            None => change(&mut stage.waiting, part.open),
            Some(end) => change(&mut stage.ended[end as usize], part.open),
        }
        if part.open_end == Some(TaskEnd::UpstreamFailed) && !part.because_of_failure {
            change(&mut stage.without_failure, part.open);
        }
        change(&mut stage.failures, part.failures);
        change(&mut stage.cancels, part.cancels);
        change(&mut stage.stopped, part.stopped);
    }

    /// As people are shown it: what waits in a halted stage is cancelled already, and so is what nothing but
    /// a cancel kept from starting.
    pub(super) fn counts(&self, halted: impl Fn(Stage) -> bool) -> Counts {
        let mut waiting = 0;
        let mut ended = self.ended;
        for stage in Stage::ALL {
            let it = &self.stages[stage.index()];
            for (sum, count) in ended.iter_mut().zip(it.ended) {
                *sum += count;
            }
            if halted(stage) {
                ended[TaskEnd::UpstreamFailed as usize] -= it.without_failure;
                ended[TaskEnd::Cancelled as usize] += it.without_failure;
            }
            match stage {
                Stage::Main if halted(stage) => ended[TaskEnd::Cancelled as usize] += it.waiting,
                Stage::Main | Stage::OnFailure | Stage::OnExit => waiting += it.waiting,
            }
        }
        let [succeeded, failed, skipped, cancelled, upstream_failed] = ended;
        Counts {
            total: waiting + self.live + ended.iter().sum::<u32>(),
            waiting,
            live: self.live,
            succeeded,
            failed,
            skipped,
            cancelled,
            upstream_failed,
        }
    }

    const fn of(&self, stage: Stage) -> &StageSums {
        &self.stages[stage.index()]
    }
}

impl RunPlan {
    /// Everything from the facts anew.
    pub(super) fn derive(&mut self) {
        self.sums = Sums::default();
        self.admission = [Admission::default(); Stage::ALL.len()];
        self.asks.clear();
        self.ready.clear();
        for (id, (it, plan)) in self.graph.nodes().zip(self.nodes.iter_mut().zip(&*self.plans)) {
            let total = self.graph.needs(id).len() as u32;
            it.needs = Upstream { total, ..Upstream::default() };
            it.failed_needs = 0;
            it.want = Want::Nothing;
            it.ready_with = None;
            it.part = Part::default();
            self.sums.add(plan.stage, &it.part);
        }
        self.changed = self.graph.order().iter().rev().copied().collect();
        self.settle();
    }

    /// Goes on until nothing follows any more. A task changes its end once at most for each fact, so this
    /// ends.
    pub(super) fn settle(&mut self) {
        loop {
            while let Some(node) = self.changed.pop() {
                self.look_at(node);
            }
            let now = Stage::ALL.map(|it| self.admit(it));
            let before = std::mem::replace(&mut self.admission, now);
            if before == self.admission {
                return;
            }
            for node in self.graph.nodes() {
                let at = self.plans[node.index()].stage.index();
                if before[at] != self.admission[at] {
                    self.changed.push(node);
                    if self.admission[at].halted && !before[at].halted {
                        self.stop_items(node);
                    }
                }
            }
        }
    }

    /// Whether every task ended.
    pub(super) fn is_over(&self) -> bool {
        Stage::ALL.into_iter().all(|it| self.sums.of(it).unsettled == 0)
    }

    /// How the run ends if nothing else happens to it. Those who are told of its end before it has ended,
    /// the tasks of the later stages, are told this.
    pub fn would_end(&self) -> RunEnd {
        let main = self.sums.of(Stage::Main);
        let stopped = main.stopped > 0 || main.unsettled > 0;
        if self.orders.cancelled && (stopped || self.sums.of(Stage::OnFailure).stopped > 0) {
            RunEnd::Cancelled
        } else if main.failures > 0 || main.cancels > 0 || (self.orders.expired && stopped) {
            RunEnd::Failed
        } else {
            RunEnd::Succeeded
        }
    }

    fn admit(&self, stage: Stage) -> Admission {
        let main = self.sums.of(Stage::Main);
        let failed_fast = self.rules.fail_fast && main.failures > 0;
        let failed = main.failures > 0
            || (self.orders.expired && main.stopped > 0)
            || (main.cancels > 0 && !self.orders.cancelled);
        match stage {
            Stage::Main => Admission {
                entry: Entry::Open,
                halted: self.orders.cancelled || self.orders.expired || failed_fast,
            },
            Stage::OnFailure => Admission {
                entry: match (main.unsettled, failed) {
                    (0, true) => Entry::Open,
                    (0, false) => Entry::Skip,
                    (1.., _) => Entry::Wait,
                },
                halted: self.orders.cancelled,
            },
            Stage::OnExit => Admission {
                entry: match main.unsettled + self.sums.of(Stage::OnFailure).unsettled {
                    0 => Entry::Open,
                    1.. => Entry::Wait,
                },
                halted: false,
            },
        }
    }

    /// Derives where a task stands, and tells those that need it.
    fn look_at(&mut self, id: NodeId) {
        let plan = &self.plans[id.index()];
        let (end, want) = self.stand(id, plan);
        let failed_fast = self.failed_fast(id);
        let admission = self.admission[plan.stage.index()];
        let layer = self.graph.layer(id);
        let it = &mut self.nodes[id.index()];

        let touched = it.items.touched();
        let open = match it.list {
            List::Known(count) => count - touched,
            List::Unknown | List::Failed => u32::from(touched == 0),
        };
        let open_end = if it.items.started_here() > 0 {
            let no_more = end.is_some() || failed_fast || admission.halted;
            no_more.then_some(TaskEnd::Cancelled)
        } else {
            end
        };
        let counts_for_the_run = plan.stage == Stage::Main && !plan.allow_failure;
        let failed_items = it.items.ended(TaskEnd::Failed);
        let failures = failed_items.max(u32::from(end == Some(TaskEnd::Failed)));
        let cancelled = it.items.ended(TaskEnd::Cancelled);
        let part = Part {
            end,
            because_of_failure: match end {
                Some(TaskEnd::Failed) => true,
                Some(TaskEnd::UpstreamFailed) => {
                    it.failed_needs > 0 || it.items.ended(TaskEnd::UpstreamFailed) > 0
                }
                Some(TaskEnd::Succeeded | TaskEnd::Skipped | TaskEnd::Cancelled) | None => false,
            },
            open,
            open_end,
            live: it.items.live(),
            ended: it.items.all_ended(),
            failures: if counts_for_the_run { failures } else { 0 },
            cancels: if counts_for_the_run { cancelled } else { 0 },
            stopped: cancelled
                + u32::from(end == Some(TaskEnd::Cancelled))
                + if open_end == Some(TaskEnd::Cancelled) { open } else { 0 },
        };
        let before = std::mem::replace(&mut it.part, part);
        self.sums.remove(plan.stage, &before);
        self.sums.add(plan.stage, &part);

        it.want = want;
        let asks = want != it.asked
            && match want {
                Want::Decide | Want::Expand => true,
                Want::Nothing | Want::Start | Want::Ends => false,
            };
        if asks {
            self.asks.insert((layer, id));
        } else {
            self.asks.remove(&(layer, id));
        }
        let ready_with = (want == Want::Start).then_some(part.live);
        if it.ready_with != ready_with {
            if let Some(live) = it.ready_with {
                self.ready.remove(&(live, layer, id));
            }
            if let Some(live) = ready_with {
                self.ready.insert((live, layer, id));
            }
            it.ready_with = ready_with;
        }

        let (before, now) = (seen(plan, &before), seen(plan, &part));
        if before != now {
            for next in self.graph.dependents(id) {
                let it = &mut self.nodes[next.index()];
                if let Some((end, failed)) = before {
                    *it.needs.of(end) -= 1;
                    it.failed_needs -= u32::from(failed);
                }
                if let Some((end, failed)) = now {
                    *it.needs.of(end) += 1;
                    it.failed_needs += u32::from(failed);
                }
                self.changed.push(*next);
            }
        }
    }

    /// The end of a task, or what it waits for.
    fn stand(&self, id: NodeId, plan: &NodePlan) -> (Option<TaskEnd>, Want) {
        let it = &self.nodes[id.index()];
        let admission = self.admission[plan.stage.index()];
        let touched = it.items.touched();
        let all_kept = it.list.count().is_some_and(|it| it > 0 && it == touched);
        let halted = admission.halted || self.failed_fast(id);
        if it.items.started_here() == 0 && !all_kept {
            // Items of an earlier run may have ended otherwise.
            let cancelled = (Some(it.items.fold(1)), Want::Nothing);
            let verdict = match admission.entry {
                Entry::Wait => Verdict::Wait,
                Entry::Open => judge(plan.trigger, &it.needs),
                Entry::Skip => Verdict::Skip,
            };
            match verdict {
                Verdict::Wait => return (None, Want::Nothing),
                Verdict::Skip => return (Some(TaskEnd::Skipped), Want::Nothing),
                Verdict::UpstreamFailed => return (Some(TaskEnd::UpstreamFailed), Want::Nothing),
                Verdict::Start => {}
            }
            // What is decided already stays so in a halted stage; the rest is not asked for.
            match it.condition.or((touched > 0).then_some(Ok(true))) {
                None if plan.condition && halted => return cancelled,
                None if plan.condition => return (None, Want::Decide),
                None | Some(Ok(true)) => {}
                Some(Ok(false)) => return (Some(TaskEnd::Skipped), Want::Nothing),
                Some(Err(())) => return (Some(TaskEnd::Failed), Want::Nothing),
            }
            match it.list {
                List::Failed => return (Some(TaskEnd::Failed), Want::Nothing),
                List::Known(0) => return (Some(TaskEnd::Succeeded), Want::Nothing),
                List::Known(_) | List::Unknown if halted => return cancelled,
                List::Known(_) => return (None, Want::Start),
                List::Unknown => return (None, Want::Expand),
            }
        }
        let live = it.items.live();
        let count = match it.list {
            List::Known(count) => count,
            List::Unknown => return (None, Want::Expand),
            List::Failed if live > 0 => return (None, Want::Ends),
            List::Failed => return (Some(TaskEnd::Failed), Want::Nothing),
        };
        let open = count - touched;
        if live == 0 && (open == 0 || halted) {
            (Some(it.items.fold(open)), Want::Nothing)
        } else if open > 0 && !halted && plan.max_parallel.is_none_or(|it| live < it.max(1)) {
            (None, Want::Start)
        } else {
            (None, Want::Ends)
        }
    }

    /// One of its items failed, and that stops the others.
    pub(super) fn failed_fast(&self, id: NodeId) -> bool {
        let plan = &self.plans[id.index()];
        plan.fail_fast
            && !plan.allow_failure
            && self.nodes[id.index()].items.ended(TaskEnd::Failed) > 0
    }

    fn halt(&self, id: NodeId) -> Option<Halt> {
        let stage = self.plans[id.index()].stage;
        let by_run = match stage {
            Stage::Main => self.orders.cancelled || self.orders.expired,
            Stage::OnFailure => self.orders.cancelled,
            Stage::OnExit => false,
        };
        if by_run {
            Some(Halt::Run)
        } else {
            (self.admission[stage.index()].halted || self.failed_fast(id)).then_some(Halt::Failure)
        }
    }

    /// Whether it is to be asked to stop, and was not.
    pub(super) fn must_stop(&self, id: NodeId, item: u32) -> bool {
        let items = &self.nodes[id.index()].items;
        items.state(item) == ItemState::Live
            && items.has(item, MADE)
            && !items.has(item, STOPPED)
            && match self.halt(id) {
                None => false,
                Some(Halt::Run) => true,
                Some(Halt::Failure) => !items.has(item, REOPENED),
            }
    }

    /// Has an item asked to stop, if it must.
    pub(super) fn stop(&mut self, id: NodeId, item: u32) {
        if self.must_stop(id, item) && !self.nodes[id.index()].items.has(item, STOPPING) {
            self.nodes[id.index()].items.flag(item, STOPPING, true);
            self.stops.push_back((id, item));
        }
    }

    pub(super) fn stop_items(&mut self, id: NodeId) {
        if self.nodes[id.index()].items.live() > 0 {
            for item in 0..self.nodes[id.index()].items.highest() {
                self.stop(id, item);
            }
        }
    }

    /// As people are shown it; see [`Sums::counts`].
    pub(super) fn shown_end(&self, id: NodeId) -> Option<TaskEnd> {
        let it = &self.nodes[id.index()];
        let stage = self.plans[id.index()].stage;
        let halted = self.admission[stage.index()].halted;
        match it.part.end {
            Some(TaskEnd::UpstreamFailed) if halted && !it.part.because_of_failure => {
                Some(TaskEnd::Cancelled)
            }
            None if halted && stage == Stage::Main && it.items.started_here() == 0 => {
                Some(TaskEnd::Cancelled)
            }
            end => end,
        }
    }

    /// The same, of its items that did not start.
    pub(super) fn shown_open(&self, id: NodeId) -> Option<TaskEnd> {
        match self.nodes[id.index()].items.started_here() {
            0 => self.shown_end(id),
            1.. => self.nodes[id.index()].part.open_end,
        }
    }
}

/// The end of a task in the eyes of those that need it, and whether a failure is behind it. One that may fail
/// is as good as one that succeeded.
fn seen(plan: &NodePlan, part: &Part) -> Option<(TaskEnd, bool)> {
    part.end.map(|end| match end {
        TaskEnd::Failed | TaskEnd::Cancelled if plan.allow_failure => (TaskEnd::Succeeded, false),
        TaskEnd::Succeeded
        | TaskEnd::Failed
        | TaskEnd::Skipped
        | TaskEnd::Cancelled
        | TaskEnd::UpstreamFailed => (end, part.because_of_failure),
    })
}
