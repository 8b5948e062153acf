//! The shell of `domain::plan`: reads what is so, has it planned, carries the plan out.
//!
//! Any number of processes may do this at once: what one has done, the next one finds done. `queue` ends tasks that
//! waited too long, `runs` drives the runs of workflows.

mod queue;
mod runs;

pub use queue::Scheduler;
pub use runs::RunPlanner;
