//! Supercargo runs containers for pipelines: it takes tasks over HTTP, runs them on Docker, and keeps
//! their logs, exit codes and outputs.
//!
//! In reading order: `domain` decides, `store` and `runner` reach Postgres and the engines, `worker`,
//! `scheduler` and `maintenance` do what was decided, `api` and `cli` are what people see, `app` puts it
//! together. ARCHITECTURE.md tells the rest.

pub mod domain;
pub mod ids;
pub mod notation;

pub mod runner;
pub mod store;
pub mod targets;

pub mod logs;
pub mod maintenance;
pub mod outputs;
pub mod scheduler;
pub mod worker;

pub mod api;
pub mod auth;
pub mod cli;

pub mod app;
pub mod clock;
pub mod config;
pub mod failpoints;
pub mod loops;
pub mod measures;
pub mod postgres;
pub mod shutdown;
pub mod telemetry;
pub mod wake;
