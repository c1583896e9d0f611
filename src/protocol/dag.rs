//! Order in directed acyclic graphs of events.

use std::collections::{BTreeMap, BTreeSet};

/// The lexicographically smallest topological ordering: everything comes after what it depends on, and among what
/// could come next the smallest by `rank`, then by itself.
///
/// `dependencies` gives each node those that must precede it; ones that are no nodes are ignored. Nodes on a cycle, and
/// what depends on them, have no place in such an order and are left out, so a forged cycle costs its author only.
/// O((nodes + dependencies) log nodes).
#[must_use]
pub fn topological_order<N: Ord + Clone, R: Ord>(dependencies: &BTreeMap<N, BTreeSet<N>>, rank: impl Fn(&N) -> R) -> Vec<N> {
    let mut waiting: BTreeMap<&N, usize> = BTreeMap::new();
    let mut dependents: BTreeMap<&N, Vec<&N>> = BTreeMap::new();
    let mut ready: BTreeSet<(R, &N)> = BTreeSet::new();
    for (node, needed) in dependencies {
        let needed = needed.iter().filter(|needed| dependencies.contains_key(*needed));
        let count = needed.map(|needed| dependents.entry(needed).or_default().push(node)).count();
        if count == 0 {
            ready.insert((rank(node), node));
        } else {
            waiting.insert(node, count);
        }
    }
    let mut order = Vec::with_capacity(dependencies.len());
    while let Some((_, node)) = ready.pop_first() {
        order.push(node.clone());
        for dependent in dependents.remove(node).into_iter().flatten() {
            if let Some(count) = waiting.get_mut(dependent) {
                *count -= 1;
                if *count == 0 {
                    ready.insert((rank(dependent), dependent));
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;

    /// Lines of `node: dependencies`, to their order with the rank given by the letter after `#`.
    fn order(text: &str) -> String {
        let mut graph = BTreeMap::new();
        let mut ranks = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (node, rest) = line.split_once(':').unwrap();
            let (needed, rank) = rest.split_once('#').unwrap_or((rest, ""));
            graph.insert(node, needed.split_whitespace().collect::<BTreeSet<_>>());
            ranks.insert(node, rank);
        }
        topological_order(&graph, |node| ranks[node]).join(" ")
    }

    #[test]
    fn dependencies_come_first_then_the_smallest() {
        assert_eq!(order("c:\nb:\na:"), "a b c");
        assert_eq!(order("a: b\nb: c\nc:"), "c b a");
        assert_eq!(order("a:\nb: a #z\nc: a #y"), "a c b");
        // The smallest of what is ready goes, even where a smaller one would wait behind a greater.
        assert_eq!(order("x: #9\na: x #1\nb: #5"), "b x a");
        assert_eq!(order("a: outside\nb: a outside"), "a b");
    }

    #[test]
    fn cycles_and_what_depends_on_them_are_left_out() {
        assert_eq!(order("a: b\nb: a\nc: a\nd:"), "d");
        assert_eq!(order("a: a\nb:"), "b");
    }

    proptest! {
        #[test]
        fn an_order_holds_every_node_after_its_dependencies(edges in prop::collection::vec((0..30u8, 0..30u8), 0..90)) {
            let mut graph: BTreeMap<u8, BTreeSet<u8>> = (0..30).map(|node| (node, BTreeSet::new())).collect();
            for (one, other) in edges.iter().filter(|(one, other)| one != other) {
                graph.get_mut(one.max(other)).unwrap().insert(*one.min(other));
            }
            let order = topological_order(&graph, |node| u8::MAX - node);
            prop_assert_eq!(order.len(), 30);
            for (place, node) in order.iter().enumerate() {
                prop_assert!(graph[node].iter().all(|needed| order[..place].contains(needed)));
            }
        }
    }
}
