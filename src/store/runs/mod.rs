//! Runs of workflows: accepting them, planning them, asking for their end, reading them.

mod plan;
mod submit;
mod views;
mod want;

pub use plan::{
    BrokenTask, Decision, DueRun, Fact, ItemEnd, Planning, RunChange, RunDefinition, RunEnding,
    RunTask,
};
pub use submit::{NewRun, SubmittedRun};
pub use views::{NodeRecord, RunFilter, RunRecord};
pub use want::{Wanted, WantedRun};
