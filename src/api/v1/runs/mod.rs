//! Runs: one execution of a workflow each.

pub(in crate::api) mod cancel_run;
pub(in crate::api) mod get_run;
pub(in crate::api) mod get_run_graph;
pub(in crate::api) mod get_run_result;
pub(in crate::api) mod get_run_spec;
pub(in crate::api) mod list_runs;
pub(in crate::api) mod pause_run;
pub(in crate::api) mod submit_run;
pub(in crate::api) mod view;
mod wait;

use crate::ids::RunId;

const PATH: &str = "/api/v1/runs";

fn path_of(run: RunId) -> String {
    format!("{PATH}/{run}")
}
