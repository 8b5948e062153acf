//! Tasks: one container to run each.

pub(in crate::api) mod cancel_task;
pub(in crate::api) mod document;
pub(in crate::api) mod get_task;
pub(in crate::api) mod get_task_logs;
pub(in crate::api) mod get_task_output;
pub(in crate::api) mod get_task_result;
pub(in crate::api) mod list_task_events;
pub(in crate::api) mod list_task_outputs;
pub(in crate::api) mod list_tasks;
mod submission;
pub(in crate::api) mod submit_task;
pub(in crate::api) mod submit_tasks;
mod view;
mod wait;

use crate::ids::TaskId;

const PATH: &str = "/api/v1/tasks";

fn path_of(task: TaskId) -> String {
    format!("{PATH}/{task}")
}
