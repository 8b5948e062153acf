//! Logs: read from the engine's store, kept in ours, byte for byte and once.
//!
//! The log of an attempt is append-only and byte-addressed: an offset counts the bytes of both streams in
//! the engine's order. [`pump`] brings it in, [`reader`] hands it out, [`chunk`] is the stored form.

pub mod chunk;
mod intake;
mod merged;
mod pace;
pub mod pump;
pub mod reader;
mod recent;
mod tail;

/// The container that decides about its task.
pub const MAIN_CONTAINER: &str = "main";
