//! The pure core: what a task is, how an attempt goes on, who is to blame, what runs next.
//!
//! No I/O, no async, no clock, no randomness: time and seeds are handed in. Matches over states and
//! events have no wildcard arm, so that a new variant is a compile error wherever it matters.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod attempt;
pub mod dag;
pub mod exit;
pub mod failure;
pub mod log;
pub mod outcome;
pub mod plan;
pub mod quantity;
pub mod retry;
pub mod spec;
pub mod state;
pub mod target;
pub mod template;
pub mod trace;
pub mod work;
pub mod workflow;
