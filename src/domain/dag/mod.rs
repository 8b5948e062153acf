//! The graph of a workflow: which task needs which, by their places in the document.
//!
//! A [`Graph`] has no cycle by its existence. It knows names and edges, and nothing of what tasks are or
//! how they end; that is for [`plan`](super::plan).

mod cycle;
mod layout;
mod reach;

use reach::Reach;

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

/// Lists of tasks, one for each task, one behind the other in one vector.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lists {
    starts: Vec<u32>,
    all: Vec<NodeId>,
}

impl Lists {
    fn of(&self, node: NodeId) -> &[NodeId] {
        let range = self.starts[node.index()] as usize..self.starts[node.index() + 1] as usize;
        &self.all[range]
    }

    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    fn new(lists: impl IntoIterator<Item = Vec<NodeId>>) -> Self {
        let (mut starts, mut all) = (vec![0], Vec::new());
        for mut list in lists {
            list.sort_unstable();
            list.dedup();
            all.append(&mut list);
            starts.push(all.len() as u32);
        }
        Self { starts, all }
    }

    /// The same edges, from their other ends.
    fn reversed(&self) -> Self {
        let mut starts = vec![0; self.starts.len()];
        for to in &self.all {
            starts[to.index() + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut all = vec![NodeId(0); self.all.len()];
        let mut free = starts.clone();
        for from in ids(self.len()) {
            for to in self.of(from) {
                let at = &mut free[to.index()];
                all[*at as usize] = from;
                *at += 1;
            }
        }
        Self { starts, all }
    }
}

fn ids(count: usize) -> impl DoubleEndedIterator<Item = NodeId> {
    (0..count as u32).map(NodeId)
}

/// Tasks and what they need: no circles, each need once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    names: Vec<String>,
    needs: Lists,
    dependents: Lists,
    layers: Vec<u32>,
    /// By layer, then as in the document: a task stands behind everything that it needs.
    order: Vec<NodeId>,
    reach: Reach,
}

impl Graph {
    /// The graph of these tasks, where `needs[i]` is what `names[i]` needs.
    ///
    /// # Panics
    ///
    /// If a need is not the index of a task: names are looked up, and found to be unknown, by the caller.
    pub fn build(names: Vec<String>, needs: Vec<Vec<NodeId>>) -> Result<Self, Cycle> {
        let count = names.len();
        assert_eq!(count, needs.len(), "each task has its needs");
        let needs = Lists::new(needs);
        assert!(needs.all.iter().all(|it| it.index() < count), "each need is a task");
        let dependents = needs.reversed();

        let mut layers = vec![0; count];
        let mut open: Vec<u32> = ids(count).map(|it| needs.of(it).len() as u32).collect();
        let mut order: Vec<NodeId> = ids(count).filter(|it| open[it.index()] == 0).collect();
        let mut at = 0;
        while let Some(&node) = order.get(at) {
            at += 1;
            for &next in dependents.of(node) {
                let behind = layers[node.index()] + 1;
                layers[next.index()] = behind.max(layers[next.index()]);
                open[next.index()] -= 1;
                if open[next.index()] == 0 {
                    order.push(next);
                }
            }
        }
        if order.len() < count {
            return Err(cycle::shortest(&needs, &dependents));
        }
        order.sort_unstable_by_key(|it| (layers[it.index()], *it));
        let reach = Reach::new(&needs, &dependents);
        Ok(Self { names, needs, dependents, layers, order, reach })
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        ids(self.len())
    }

    pub fn name(&self, node: NodeId) -> &str {
        &self.names[node.index()]
    }

    /// What it needs, in the order of the document.
    pub fn needs(&self, node: NodeId) -> &[NodeId] {
        self.needs.of(node)
    }

    /// What needs it, in the order of the document.
    pub fn dependents(&self, node: NodeId) -> &[NodeId] {
        self.dependents.of(node)
    }

    /// The length of the longest path of needs that leads here.
    pub fn layer(&self, node: NodeId) -> u32 {
        self.layers[node.index()]
    }

    /// Every task behind what it needs; else as in the document.
    pub fn order(&self) -> &[NodeId] {
        &self.order
    }

    /// Whether `of` needs `candidate`, itself or through others.
    pub fn is_upstream(&self, of: NodeId, candidate: NodeId) -> bool {
        self.reach.is_upstream(&self.needs, &self.layers, of, candidate)
    }

    /// Where to draw each task: layers from left to right, with few crossings of edges.
    pub fn layout(&self) -> Vec<Place> {
        layout::layout(self, |_| 0)
    }

    /// The same with the tasks in groups, each group right of those before it.
    pub fn layout_in_groups(&self, group: impl Fn(NodeId) -> usize) -> Vec<Place> {
        layout::layout(self, group)
    }
}

#[cfg(test)]
mod tests;
