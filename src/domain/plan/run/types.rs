//! What a plan is made from, and what it answers.

use crate::domain::dag::NodeId;
use crate::domain::plan::rules::{TaskEnd, Trigger};

/// What of a task of the document decides when it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlan {
    pub trigger: Trigger,
    /// It has a `when`, which is asked for once its rule lets it start.
    pub condition: bool,
    pub fan_out: FanOut,
    /// So many of its items at a time; at least one.
    pub max_parallel: Option<u32>,
    /// An item that fails stops the others.
    pub fail_fast: bool,
    /// Its failure is not the run's, and those that need it go on as if it had succeeded.
    pub allow_failure: bool,
    pub stage: Stage,
}

impl Default for NodePlan {
    fn default() -> Self {
        Self {
            trigger: Trigger::AllSuccess,
            condition: false,
            fan_out: FanOut::One,
            max_parallel: None,
            fail_fast: true,
            allow_failure: false,
            stage: Stage::Main,
        }
    }
}

/// How many items a task has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FanOut {
    One,
    /// As many as the document says: a matrix, a literal list.
    Items(u32),
    /// As many as a list has that is known when its rule lets it start.
    Later,
}

/// Which part of the document a task is from. Needs stay within a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    Main,
    /// After the main tasks, if the run failed.
    OnFailure,
    /// At the end, whatever happened.
    OnExit,
}

impl Stage {
    pub const ALL: [Self; 3] = [Self::Main, Self::OnFailure, Self::OnExit];

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// What holds for the run as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunRules {
    /// So many items of all tasks at a time; at least one.
    pub max_parallel: Option<u32>,
    /// A main task that fails stops the others, and none starts any more.
    pub fail_fast: bool,
}

/// What is to be done next. Each is said once, and answered by its fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Evaluate its `when`: [`RunPlan::condition`](super::RunPlan::condition).
    Decide(NodeId),
    /// Evaluate its list: [`RunPlan::expanded`](super::RunPlan::expanded).
    Expand(NodeId),
    /// Make the task of this item: [`RunPlan::started`](super::RunPlan::started), or
    /// [`RunPlan::ended`](super::RunPlan::ended) if it can't be made.
    Start(NodeId, u32),
    /// Ask this live item to stop: [`RunPlan::ended`](super::RunPlan::ended) when it did.
    Stop(NodeId, u32),
    /// The run is over.
    End(RunEnd),
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunEnd {
    Succeeded,
    Failed,
    Cancelled,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunState {
    /// No task has started.
    Queued,
    Running,
    Paused,
    Ended(RunEnd),
}

/// Where a task stands, a fan-out as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// For what it needs, or for its stage.
    Waiting,
    /// Its rule lets it start; it waits for its `when` or its list to be evaluated, or for room.
    Ready,
    /// Some of its items have started.
    Running,
    Ended(TaskEnd),
}

/// Where an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemState {
    /// Not started; it may be.
    Waiting,
    /// To be made, or made: its task knows more.
    Live,
    Ended(TaskEnd),
}

/// Items by where they stand. A list that is not known yet counts as one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub total: u32,
    pub waiting: u32,
    pub live: u32,
    pub succeeded: u32,
    pub failed: u32,
    pub skipped: u32,
    pub cancelled: u32,
    pub upstream_failed: u32,
}
