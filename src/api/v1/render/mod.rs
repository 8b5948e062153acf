//! What a task would be for its target, without running it.

mod mask;
pub(in crate::api) mod render_task;
