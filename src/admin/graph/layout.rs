//! Where each event of a graph is drawn: in a layer above those of its parents, and there in a lane.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use protocol::dag;
use rooms::graph::Graph;
use ruma::OwnedEventId;

use super::parents;

/// Where an event is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// From the oldest up. The depth that a server claims could be anything; this is the longest way to an oldest event of the graph.
    pub layer: usize,
    /// From the left.
    pub lane: usize,
}

/// Where the events of a graph are drawn, and their parents among them.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub places: Vec<Place>,
    pub edges: Vec<(usize, usize)>,
    /// How many parents of each are missing, and how many are older than the graph.
    pub stubs: Vec<(usize, usize)>,
    pub layers: usize,
    pub lanes: usize,
}

impl Layout {
    pub fn of(graph: &Graph) -> Self {
        let index: HashMap<&OwnedEventId, usize> = graph.nodes.iter().enumerate().map(|(at, node)| (&node.event, at)).collect();
        let mut layout = Self { places: vec![Place::default(); graph.nodes.len()], ..Self::default() };
        let mut of_all = BTreeMap::new();
        for (at, node) in graph.nodes.iter().enumerate() {
            let (here, missing, older) = parents(graph, node, |id| index.get(id).copied());
            layout.edges.extend(here.iter().map(|parent| (at, *parent)));
            layout.stubs.push((missing, older));
            of_all.insert(at, here);
        }
        let mut by_layer: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let order = dag::topological_order(&of_all, |_| ());
        // What claims to be its own ancestor has no place in the order, and is drawn among the oldest.
        let ordered: BTreeSet<usize> = order.iter().copied().collect();
        by_layer.entry(0).or_default().extend(of_all.keys().filter(|at| !ordered.contains(at)));
        for at in order {
            let layer = of_all[&at].iter().map(|parent| layout.places[*parent].layer + 1).max().unwrap_or(0);
            layout.places[at].layer = layer;
            by_layer.entry(layer).or_default().insert(at);
        }
        layout.layers = by_layer.len();
        layout.set_lanes(&by_layer, &of_all);
        layout
    }

    /// An event goes on the lane of a parent where none of its siblings does, else on the first that leads nowhere any more.
    fn set_lanes(&mut self, by_layer: &BTreeMap<usize, BTreeSet<usize>>, parents: &BTreeMap<usize, BTreeSet<usize>>) {
        let mut children = vec![0_usize; self.places.len()];
        for (_, parent) in &self.edges {
            children[*parent] += 1;
        }
        // The last event of each lane.
        let mut ends: Vec<usize> = Vec::new();
        for layer in by_layer.values() {
            let mut taken = BTreeSet::new();
            for at in layer {
                let of_parent = (0..ends.len()).find(|lane| !taken.contains(lane) && parents[at].contains(&ends[*lane]));
                let free = || (0..ends.len()).find(|lane| !taken.contains(lane) && children[ends[*lane]] == 0);
                let lane = of_parent.or_else(free).unwrap_or(ends.len());
                match ends.get_mut(lane) {
                    Some(end) => *end = *at,
                    None => ends.push(*at),
                }
                taken.insert(lane);
                self.places[*at].lane = lane;
            }
            for parent in layer.iter().flat_map(|at| &parents[at]) {
                children[*parent] = children[*parent].saturating_sub(1);
            }
        }
        self.lanes = ends.len();
    }
}
