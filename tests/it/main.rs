//! The integration tests: one binary, since linking is what takes time.

#![expect(
    clippy::disallowed_methods,
    reason = "tests spawn tasks, read the environment and ask the time"
)]

mod e2e;
mod store;
mod support;
mod tidy;
