//! The shortest circle of needs, to be shown to whoever wrote it.

use std::collections::VecDeque;

use super::{Cycle, Lists, NodeId, ids};

/// So many edges are looked at; then the shortest circle found so far will do. Enough for every circle
/// that a person can follow.
const MOST_STEPS: usize = 5_000_000;

/// The shortest circle, the first in the document of those, from its first task on. There is one.
pub(super) fn shortest(needs: &Lists, dependents: &Lists) -> Cycle {
    let mut core = Core::new(needs, dependents);
    let mut best: Option<Vec<NodeId>> = None;
    let mut steps = 0;
    for start in ids(needs.len()) {
        if core.alive[start.index()] && (best.is_none() || steps < MOST_STEPS) {
            let most = best.as_ref().map_or(usize::MAX, |it| it.len() - 1);
            best = core.through(start, most, &mut steps).or(best);
            // The shortest one through it is known: any other one does without it.
            core.remove(start);
        }
    }
    let mut path = best.unwrap_or_default();
    let first = path.iter().enumerate().min_by_key(|(_, it)| **it).map_or(0, |(at, _)| at);
    path.rotate_left(first);
    Cycle(path)
}

/// What may be in a circle: tasks that have a need and a dependent among each other.
struct Core<'a> {
    needs: &'a Lists,
    dependents: &'a Lists,
    alive: Vec<bool>,
    open_needs: Vec<u32>,
    open_dependents: Vec<u32>,
}

impl<'a> Core<'a> {
    fn new(needs: &'a Lists, dependents: &'a Lists) -> Self {
        let count = |of: &Lists| ids(of.len()).map(|it| of.of(it).len() as u32).collect();
        let mut core = Self {
            needs,
            dependents,
            alive: vec![true; needs.len()],
            open_needs: count(needs),
            open_dependents: count(dependents),
        };
        for node in ids(needs.len()) {
            if core.open_needs[node.index()] == 0 || core.open_dependents[node.index()] == 0 {
                core.remove(node);
            }
        }
        core
    }

    /// Takes it out, and with it what can't be in a circle without it.
    fn remove(&mut self, node: NodeId) {
        let mut gone = vec![node];
        while let Some(node) = gone.pop() {
            if !std::mem::replace(&mut self.alive[node.index()], false) {
                continue;
            }
            for &it in self.dependents.of(node) {
                self.open_needs[it.index()] -= 1;
                if self.open_needs[it.index()] == 0 {
                    gone.push(it);
                }
            }
            for &it in self.needs.of(node) {
                self.open_dependents[it.index()] -= 1;
                if self.open_dependents[it.index()] == 0 {
                    gone.push(it);
                }
            }
        }
    }

    /// The shortest circle through `start`, of `most` tasks at most.
    fn through(&self, start: NodeId, most: usize, steps: &mut usize) -> Option<Vec<NodeId>> {
        let mut from = vec![None; self.alive.len()];
        let mut queue = VecDeque::from([(start, 1)]);
        while let Some((node, length)) = queue.pop_front() {
            if length > most {
                return None;
            }
            for &next in self.needs.of(node) {
                *steps += 1;
                if next == start {
                    let mut path = vec![node];
                    while let Some(before) = from[path[path.len() - 1].index()] {
                        path.push(before);
                    }
                    path.reverse();
                    return Some(path);
                }
                if self.alive[next.index()] && from[next.index()].is_none() {
                    from[next.index()] = Some(node);
                    queue.push_back((next, length + 1));
                }
            }
        }
        None
    }
}
