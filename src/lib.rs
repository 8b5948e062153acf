//! Supercargo runs containers for pipelines: it takes tasks over HTTP, runs them on Docker, and keeps
//! their logs, exit codes and outputs.
pub mod clock;
pub mod domain;
pub mod ids;
pub mod logs;
pub mod loops;
pub mod maintenance;
pub mod outputs;
pub mod postgres;
pub mod runner;
pub mod scheduler;
pub mod store;
pub mod wake;
pub mod worker;
