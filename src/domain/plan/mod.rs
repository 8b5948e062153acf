//! What the scheduler does next, decided from what it is told. Pure.
//!
//! [`queue`] looks at tasks that wait for a worker, whichever run they belong to. [`run`] is one run of
//! a workflow: which of its tasks may start, which never will, and when it is over. [`rules`] is the table
//! of trigger rules that it judges by.

pub mod queue;
pub mod rules;
pub mod run;

pub use queue::{Plan, QueuedTask, plan};
pub use rules::{TaskEnd, Trigger, Upstream, Verdict, judge};
pub use run::{
    Counts, FanOut, ItemState, MOST_ITEMS, NodePlan, NodeState, RunEnd, RunPlan, RunRules,
    RunState, Stage, Step,
};

#[cfg(test)]
mod oracle;
