use proptest::prelude::*;

use super::*;

fn build(needs: &[&[u32]]) -> Result<Graph, Cycle> {
    let names = (0..needs.len()).map(|it| format!("t{it}")).collect();
    Graph::build(names, needs.iter().map(|it| it.iter().copied().map(NodeId).collect()).collect())
}

fn circle(needs: &[&[u32]]) -> Vec<u32> {
    build(needs).unwrap_err().0.into_iter().map(|it| it.0).collect()
}

#[test]
fn a_circle_is_shown_as_its_shortest_path() {
    assert_eq!(circle(&[&[0]]), [0]);
    assert_eq!(circle(&[&[1], &[2], &[0]]), [0, 1, 2]);
    // The long way round is there, too, and so are those who merely need the circle, or are needed by it.
    assert_eq!(circle(&[&[1], &[2, 6], &[3], &[4, 1], &[0], &[0], &[]]), [1, 2, 3]);
    assert_eq!(circle(&[&[], &[2, 3], &[1, 0], &[1]]), [1, 2]);
}

#[test]
fn a_circle_of_thousands_is_found() {
    let count: u32 = 10_000;
    let needs: Vec<Vec<NodeId>> = (0..count).map(|it| vec![NodeId((it + 1) % count)]).collect();
    let names = (0..count).map(|it| it.to_string()).collect();
    assert_eq!(Graph::build(names, needs).unwrap_err().0.len(), 10_000);
}

#[test]
fn needs_are_there_once_and_the_order_puts_them_first() {
    let graph = build(&[&[3, 1, 3], &[], &[0, 1], &[1]]).unwrap();
    assert_eq!(graph.needs(NodeId(0)), [NodeId(1), NodeId(3)]);
    assert_eq!(graph.dependents(NodeId(1)), [NodeId(0), NodeId(2), NodeId(3)]);
    assert_eq!(graph.order(), [NodeId(1), NodeId(3), NodeId(0), NodeId(2)]);
    assert_eq!(graph.layer(NodeId(2)), 3);
    assert_eq!(graph.name(NodeId(2)), "t2");
}

#[test]
fn a_layout_puts_neighbours_beside_each_other() {
    // Two chains, written crosswise: drawn without a crossing.
    let graph = build(&[&[], &[], &[1], &[0], &[3], &[2]]).unwrap();
    let places = graph.layout();
    let at = |it: usize| (places[it].layer, places[it].x, places[it].y);
    assert_eq!(at(0), (0, 0.0, -0.5));
    assert_eq!(at(3), (1, 1.0, -0.5));
    assert_eq!(at(4), (2, 2.0, -0.5));
    assert_eq!(at(1), (0, 0.0, 0.5));
    assert_eq!(at(2), (1, 1.0, 0.5));
    assert_eq!(at(5), (2, 2.0, 0.5));
}

#[test]
fn groups_are_drawn_one_behind_the_other() {
    let graph = build(&[&[], &[0], &[], &[2]]).unwrap();
    let places = graph.layout_in_groups(|it| usize::from(it.0 >= 2) * 2);
    let layers: Vec<_> = places.iter().map(|it| it.layer).collect();
    assert_eq!(layers, [0, 1, 2, 3]);
}

#[test]
fn nothing_has_a_layout_too() {
    let graph = build(&[]).unwrap();
    assert!(graph.is_empty());
    assert_eq!(graph.layout(), []);
}

/// Any edges between so many tasks; circles too.
fn edges(most: u32) -> impl Strategy<Value = Vec<Vec<NodeId>>> {
    (1..=most).prop_flat_map(move |count| {
        let needs = proptest::collection::vec((0..count).prop_map(NodeId), 0..4);
        proptest::collection::vec(needs, count as usize)
    })
}

/// The same without circles: each needs those before it, under shuffled numbers.
fn acyclic(most: u32) -> impl Strategy<Value = Vec<Vec<NodeId>>> {
    edges(most)
        .prop_flat_map(|needs| {
            let numbers: Vec<u32> = (0..needs.len() as u32).collect();
            (Just(needs), Just(numbers).prop_shuffle())
        })
        .prop_map(|(needs, numbers)| {
            let mut all = vec![Vec::new(); needs.len()];
            for (from, list) in needs.iter().enumerate() {
                all[numbers[from] as usize] = list
                    .iter()
                    .filter(|it| it.index() < from)
                    .map(|it| NodeId(numbers[it.index()]))
                    .collect();
            }
            all
        })
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|it| it.to_string()).collect()
}

/// Every task upstream of each.
fn closure(needs: &[Vec<NodeId>]) -> Vec<Vec<bool>> {
    let mut up = vec![vec![false; needs.len()]; needs.len()];
    for (from, list) in needs.iter().enumerate() {
        for to in list {
            up[from][to.index()] = true;
        }
    }
    for via in 0..needs.len() {
        for from in 0..needs.len() {
            for to in 0..needs.len() {
                up[from][to] |= up[from][via] && up[via][to];
            }
        }
    }
    up
}

proptest! {
    #[test]
    fn a_graph_is_built_exactly_if_there_is_no_circle(needs in edges(8)) {
        let up = closure(&needs);
        let shortest = (0..needs.len()).filter(|it| up[*it][*it]).count();
        match Graph::build(names(needs.len()), needs.clone()) {
            Ok(_) => prop_assert_eq!(shortest, 0),
            Err(Cycle(path)) => {
                for (at, from) in path.iter().enumerate() {
                    let to = path[(at + 1) % path.len()];
                    prop_assert!(needs[from.index()].contains(&to));
                    prop_assert!(from >= &path[0]);
                    // No short cut: else it would not be the shortest.
                    for (other, it) in path.iter().enumerate() {
                        let next = other == (at + 1) % path.len();
                        prop_assert!(next || !needs[from.index()].contains(it));
                    }
                }
                // No task is in a shorter one.
                for start in 0..needs.len() {
                    let mut reached = vec![start];
                    for _ in 1..path.len() {
                        reached = reached
                            .iter()
                            .flat_map(|it| needs[*it].iter().map(|it| it.index()))
                            .collect();
                        reached.sort_unstable();
                        reached.dedup();
                        prop_assert!(!reached.contains(&start));
                    }
                }
            }
        }
    }

    #[test]
    fn upstream_is_what_a_path_of_needs_leads_to(needs in acyclic(14)) {
        let up = closure(&needs);
        let graph = Graph::build(names(needs.len()), needs).unwrap();
        for of in graph.nodes() {
            for it in graph.nodes() {
                prop_assert_eq!(graph.is_upstream(of, it), up[of.index()][it.index()]);
            }
        }
    }

    #[test]
    fn every_task_is_drawn_right_of_its_needs_and_on_no_other(needs in acyclic(14)) {
        let graph = Graph::build(names(needs.len()), needs).unwrap();
        let places = graph.layout();
        prop_assert_eq!(&places, &graph.clone().layout());
        for node in graph.nodes() {
            let place = places[node.index()];
            let longest = graph.needs(node).iter().map(|it| places[it.index()].layer + 1).max();
            prop_assert_eq!(place.layer, longest.unwrap_or(0));
            for other in graph.nodes().filter(|it| *it != node) {
                let other = places[other.index()];
                prop_assert!(other.layer != place.layer || (other.y - place.y).abs() >= 1.0);
            }
        }
    }
}
