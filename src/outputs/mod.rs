//! File outputs: stored in the object store, which is a folder.

mod folder;
mod gather;
mod marker;

pub use folder::{AttemptSink, FolderStore};
pub use gather::{Gathered, gather};
