//! The integration tests: one binary, since linking is most of what building a test costs.

mod api;
mod support;
