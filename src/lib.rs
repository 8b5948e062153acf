//! Supercargo runs containers for pipelines: it takes tasks over HTTP, runs them on Docker, and keeps
//! their logs, exit codes and outputs.
pub mod api;
pub mod auth;
pub mod clock;
pub mod domain;
pub mod ids;
pub mod runner;
pub mod store;
pub mod wake;
