//! Logs as callers want them: which lines, in which form, from where on.
//!
//! [`select`] says which lines pass, [`encode`] writes them, [`range`] reads the header of the same name:
//! these are pure. [`output`] is the loop that makes the body of an answer.

pub(super) mod encode;
pub(super) mod output;
pub(super) mod range;
pub(super) mod select;
