//! Tasks: one container to run each.

mod accept;
pub(in crate::api) mod cancel_task;
pub(in crate::api) mod document;
pub(in crate::api) mod get_task;
pub(in crate::api) mod get_task_logs;
pub(in crate::api) mod get_task_output;
pub(in crate::api) mod get_task_result;
pub(in crate::api) mod get_task_sensor;
pub(in crate::api) mod get_task_spec;
pub(in crate::api) mod list_task_events;
pub(in crate::api) mod list_task_outputs;
pub(in crate::api) mod list_tasks;
pub(in crate::api) mod poll_task;
pub(in crate::api) mod put_task;
pub(in crate::api) mod retry_task;
pub(in crate::api) mod submission;
pub(in crate::api) mod submit_task;
pub(in crate::api) mod submit_tasks;
pub(in crate::api) mod view;
mod wait;

use super::super::problem::{Problem, ProblemKind};
use crate::ids::{AttemptNo, TaskId};
use crate::store::TaskRecord;

const PATH: &str = "/api/v1/tasks";

fn path_of(task: TaskId) -> String {
    format!("{PATH}/{task}")
}

/// The number of an attempt in a query.
fn read_attempt(text: &str) -> Result<AttemptNo, String> {
    let number = text.parse().ok().filter(|it| *it >= 1).map(AttemptNo);
    number.ok_or_else(|| format!("{text:?} is not a whole number from 1"))
}

/// The attempt that was asked for, or the latest.
fn existing_attempt(task: &TaskRecord, wanted: Option<AttemptNo>) -> Result<AttemptNo, Problem> {
    let latest = task.attempt_no;
    match wanted {
        Some(attempt) if attempt > latest => {
            let detail = format!("there is no attempt {attempt}: the latest is {latest}");
            Err(Problem::new(ProblemKind::AttemptNotFound, detail))
        }
        wanted => Ok(wanted.unwrap_or(latest)),
    }
}
