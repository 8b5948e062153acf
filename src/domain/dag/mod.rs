//! The graph of a workflow: which task needs which, by their places in the document.
//!
//! A [`Graph`] has no cycle by its existence. It knows names and edges, and nothing of what tasks are or
//! how they end; that is for [`plan`](super::plan).

/// A task of a workflow: its index in the order of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Tasks that need each other in a circle: each needs the next, and the last needs the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle(pub Vec<NodeId>);

/// Where a task is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// The length of the longest path of needs that leads here.
    pub layer: u32,
    /// The layer, as a coordinate.
    pub x: f32,
    /// In the middle of its layer is 0, and each task is 1 high.
    pub y: f32,
}
