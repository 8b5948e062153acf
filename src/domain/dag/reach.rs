//! Whether one task is upstream of another, without a table of all pairs.

use super::{Lists, NodeId, ids};

/// Numbers of one walk against the edges, from those that nothing needs. A task gets its number when the
/// walk leaves it, behind everything upstream of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach {
    marks: Vec<Mark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Mark {
    number: u32,
    /// The first number that was given while the walk was in here: all from it on are upstream.
    first: u32,
    /// The lowest number upstream: none below it is.
    lowest: u32,
}

impl Reach {
    pub(super) fn new(needs: &Lists, dependents: &Lists) -> Self {
        let mut marks = vec![Mark::default(); needs.len()];
        let mut seen = vec![false; needs.len()];
        let mut number = 0;
        let mut stack: Vec<(NodeId, usize)> = Vec::new();
        for root in ids(needs.len()).filter(|it| dependents.of(*it).is_empty()) {
            seen[root.index()] = true;
            marks[root.index()].first = number;
            stack.push((root, 0));
            while let Some((node, at)) = stack.last_mut() {
                if let Some(&next) = needs.of(*node).get(*at) {
                    *at += 1;
                    if !std::mem::replace(&mut seen[next.index()], true) {
                        marks[next.index()].first = number;
                        stack.push((next, 0));
                    }
                } else {
                    let lowest = needs.of(*node).iter().map(|it| marks[it.index()].lowest).min();
                    let mark = &mut marks[node.index()];
                    mark.number = number;
                    mark.lowest = lowest.unwrap_or(number).min(number);
                    number += 1;
                    stack.pop();
                }
            }
        }
        Self { marks }
    }

    pub(super) fn is_upstream(
        &self,
        needs: &Lists,
        layers: &[u32],
        of: NodeId,
        candidate: NodeId,
    ) -> bool {
        let wanted = self.marks[candidate.index()].number;
        let may_be = |node: NodeId| {
            let mark = self.marks[node.index()];
            mark.lowest <= wanted
                && wanted < mark.number
                && layers[candidate.index()] < layers[node.index()]
        };
        if !may_be(of) {
            return false;
        }
        let mut seen = vec![0_u64; needs.len().div_ceil(64)];
        let mut stack = vec![of];
        while let Some(node) = stack.pop() {
            if self.marks[node.index()].first <= wanted
                || needs.of(node).binary_search(&candidate).is_ok()
            {
                return true;
            }
            for &next in needs.of(node) {
                let (word, bit) = (&mut seen[next.index() / 64], 1 << (next.index() % 64));
                if *word & bit == 0 && may_be(next) {
                    stack.push(next);
                }
                *word |= bit;
            }
        }
        false
    }
}
