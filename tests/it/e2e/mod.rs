//! The service as its users have it: the real binary, its own Postgres, a real engine.

mod ci_examples;
mod command_line;
mod crash;
mod database_trouble;
mod doctor;
mod engine_trouble;
mod limits;
mod logs;
mod main_job;
mod metrics;
mod object_store;
mod retries;
mod runs;
mod service_life;
mod targets;
