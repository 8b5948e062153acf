//! The integration tests: one binary, since linking is what takes time.

#![expect(
    clippy::disallowed_methods,
    reason = "tests spawn tasks, read the environment, ask the time"
)]
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![expect(clippy::print_stderr, reason = "what is skipped, and the log of a service that failed")]

mod api;
mod cli;
mod config;
#[cfg(feature = "failpoints")]
mod crash;
mod e2e;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod processes;
mod runner_conformance;
#[cfg(feature = "failpoints")]
mod schedules;
mod store;
mod support;
mod tidy;
