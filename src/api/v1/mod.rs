//! Version 1: a folder for each resource, a file for each operation.

pub(super) mod render;
pub(super) mod schema;
pub(super) mod targets;
pub(super) mod tasks;
pub(super) mod tokens;
