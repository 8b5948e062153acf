//! File outputs: stored in the object store, which is a folder.

mod folder;
mod gather;

pub use folder::{AttemptSink, FolderStore};
pub use gather::{Gathered, gather};
