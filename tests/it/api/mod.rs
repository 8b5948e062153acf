//! The API from outside: what callers send and what they get.

mod access;
mod bad_input;
mod bodies;
mod callers;
mod compressing;
mod idempotency;
mod limits;
mod listing;
mod logs;
mod openapi;
mod outputs;
mod rendering;
mod schema;
mod submitting;
mod system;
mod targets;
mod tokens;
mod waiting;
mod work;
