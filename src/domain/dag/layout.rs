//! Where the tasks of a graph are drawn: layers by the longest path, and the order within a layer by the
//! mean of the neighbours' places (Sugiyama's method, without the points where long edges cross layers).

#![expect(clippy::cast_precision_loss, reason = "there are fewer tasks than an f32 counts exactly")]

use super::{Graph, NodeId, Place};

/// There and back, so often. More changes little.
const SWEEPS: usize = 3;

pub(super) fn layout(graph: &Graph, group: impl Fn(NodeId) -> usize) -> Vec<Place> {
    let layers = layers(graph, group);
    let mut rows: Vec<Vec<NodeId>> = Vec::new();
    for &node in graph.order() {
        let layer = layers[node.index()] as usize;
        rows.resize_with(rows.len().max(layer + 1), Vec::new);
        rows[layer].push(node);
    }
    // The middle of a row is 0.
    let mut y = vec![0.0; graph.len()];
    let place = |row: &[NodeId], y: &mut Vec<f32>| {
        let middle = (row.len().saturating_sub(1)) as f32 / 2.0;
        for (at, node) in row.iter().enumerate() {
            y[node.index()] = at as f32 - middle;
        }
    };
    for row in &rows {
        place(row, &mut y);
    }
    let mut wanted = vec![0.0_f32; graph.len()];
    for sweep in 0..SWEEPS * 2 {
        let there = sweep % 2 == 0;
        for at in 0..rows.len() {
            let last = rows.len() - 1;
            let row = &mut rows[if there { at } else { last - at }];
            for node in row.iter() {
                let beside = if there { graph.needs(*node) } else { graph.dependents(*node) };
                wanted[node.index()] = if beside.is_empty() {
                    y[node.index()]
                } else {
                    beside.iter().map(|it| y[it.index()]).sum::<f32>() / beside.len() as f32
                };
            }
            // Stable: what wants the same place keeps its order.
            row.sort_by(|a, b| wanted[a.index()].total_cmp(&wanted[b.index()]));
            place(row, &mut y);
        }
    }
    graph
        .nodes()
        .map(|it| {
            let layer = layers[it.index()];
            Place { layer, x: layer as f32, y: y[it.index()] }
        })
        .collect()
}

/// The layer of each task, counted on from the groups before its own.
fn layers(graph: &Graph, group: impl Fn(NodeId) -> usize) -> Vec<u32> {
    let groups: Vec<usize> = graph.nodes().map(group).collect();
    let mut depth = vec![0; groups.iter().max().map_or(0, |it| it + 1)];
    for node in graph.nodes() {
        let depth = &mut depth[groups[node.index()]];
        *depth = (graph.layer(node) + 1).max(*depth);
    }
    let mut before = 0;
    for depth in &mut depth {
        before += std::mem::replace(depth, before);
    }
    graph.nodes().map(|it| graph.layer(it) + depth[groups[it.index()]]).collect()
}
