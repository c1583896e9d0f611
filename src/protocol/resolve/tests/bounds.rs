//! Hostile graphs cost their size, not more: what resolution asks its source for is counted.

use std::cell::Cell;
use std::sync::Arc;

use ruma::EventId;

use super::{Graph, StateMap, action_of, id, owned, versions};
use crate::event::Event;
use crate::resolve::{Events, Unresolvable, resolve_states};
use crate::scenario::Draft;
use crate::version::RoomVersion;

/// Counts the events that are asked for.
struct Counting<'g> {
    graph: &'g Graph,
    asked: Cell<usize>,
}

impl Events for Counting<'_> {
    fn event(&self, id: &EventId) -> Option<Arc<Event>> {
        self.asked.set(self.asked.get() + 1);
        self.graph.events.get(id).cloned()
    }
}

fn asked(graph: &Graph, states: &[StateMap]) -> (Result<StateMap, Unresolvable>, usize) {
    let counting = Counting { graph, asked: Cell::new(0) };
    (resolve_states(graph.version, states, &counting), counting.asked.get())
}

/// A public room of alice, without states for each event: those are what costs here.
struct Hostile {
    graph: Graph,
    auth: Vec<&'static str>,
}

impl Hostile {
    fn new(version: &'static RoomVersion) -> Self {
        let levels = super::cases::levels(version, "");
        let text =
            format!("create : alice create {{}}\nalice : alice join\nlevels : alice levels {levels}\nrule : alice rule public");
        let auth = if version.version_12 { vec!["alice", "levels"] } else { vec!["create", "alice", "levels"] };
        Self { graph: Graph::parse(version, &text), auth }
    }

    /// An event that claims these auth events.
    fn claim(&mut self, name: &str, sender: &str, verb: &str, rest: &str, auth: impl IntoIterator<Item = String>) {
        let mut draft: Draft = action_of(self.graph.version, name, sender, verb, rest);
        draft.auth_events = auth.into_iter().map(|name| id(&name)).collect();
        draft.time = self.graph.events.len() as u64;
        let event = draft.build();
        self.graph.events.insert(event.id.clone(), event);
    }

    fn by_alice(&mut self, name: &str, verb: &str, rest: &str, levels: &str) {
        let auth: Vec<String> = self.auth.iter().map(|name| if *name == "levels" { levels } else { name }.to_owned()).collect();
        self.claim(name, "alice", verb, rest, auth);
    }

    /// The room's state with this event in it.
    fn with(&self, event: &str) -> StateMap {
        let mut state = self.graph.state_of("create alice levels rule");
        let event = &self.graph.events[&id(event)];
        let (kind, key) = event.state_pair().unwrap();
        state.insert(owned(kind, key), event.id.clone());
        state
    }
}

/// How often more is asked for with ten times the size.
#[track_caller]
fn check_linear(version: &RoomVersion, what: &str, per_event: usize, small: (usize, usize), large: (usize, usize)) {
    for (size, asked) in [small, large] {
        assert!(asked <= per_event * size, "{what}, version {}: {asked} asked for at {size}", version.id);
    }
    let ratio = large.1 as f64 / small.1 as f64;
    let sizes = large.0 as f64 / small.0 as f64;
    assert!(ratio <= 1.3 * sizes, "{what}, version {}: {sizes} times the size costs {ratio} times", version.id);
}

/// Two versions that differ in what is walked.
fn both() -> impl Iterator<Item = &'static RoomVersion> {
    versions(11..=12)
}

#[test]
fn a_thousand_conflicting_power_levels_cost_a_thousand_checks() {
    for version in both() {
        let cost = |count: usize| {
            let mut hostile = Hostile::new(version);
            let content = super::cases::levels(version, "\"@bob:b\":1");
            (0..count).for_each(|number| hostile.by_alice(&format!("l{number}"), "levels", &content, "levels"));
            let states: Vec<StateMap> = (0..count).map(|number| hostile.with(&format!("l{number}"))).collect();
            let (resolved, asked) = asked(&hostile.graph, &states);
            let resolved = resolved.unwrap();
            assert_eq!(resolved[&owned("m.room.power_levels", "")], id(&format!("l{}", count - 1)));
            // Walking the chain of each state is the naive caller's part: four events each.
            (count, asked)
        };
        check_linear(version, "power levels", 40, cost(100), cost(1_000));
    }
}

#[test]
fn a_long_auth_chain_costs_its_length() {
    for version in both() {
        let cost = |length: usize| {
            let mut hostile = Hostile::new(version);
            let content = super::cases::levels(version, "\"@bob:b\":1");
            for number in 0..length {
                let before = if number == 0 { "levels".to_owned() } else { format!("l{}", number - 1) };
                hostile.by_alice(&format!("l{number}"), "levels", &content, &before);
            }
            let last = format!("l{}", length - 1);
            let (resolved, asked) = asked(&hostile.graph, &[hostile.with(&last), hostile.with("levels")]);
            assert_eq!(resolved.unwrap()[&owned("m.room.power_levels", "")], id(&last));
            (length, asked)
        };
        check_linear(version, "chain", 40, cost(1_000), cost(10_000));
    }
}

#[test]
fn topics_that_cite_a_long_line_of_power_levels_walk_it_once() {
    for version in both() {
        let cost = |length: usize| {
            let mut hostile = Hostile::new(version);
            let content = super::cases::levels(version, "\"@bob:b\":1");
            for number in 0..length {
                let before = if number == 0 { "levels".to_owned() } else { format!("l{}", number - 1) };
                hostile.by_alice(&format!("l{number}"), "levels", &content, &before);
                hostile.by_alice(&format!("t{number}"), "topic", "x", &format!("l{number}"));
            }
            let states: Vec<StateMap> = (0..20).map(|back| hostile.with(&format!("t{}", length - 1 - back))).collect();
            let (resolved, asked) = asked(&hostile.graph, &states);
            resolved.unwrap();
            (length, asked)
        };
        check_linear(version, "mainline", 150, cost(500), cost(5_000));
    }
}

#[test]
fn a_lattice_of_auth_events_is_walked_by_events_not_by_paths() {
    for version in both() {
        // Each event cites the ten of the level before: as many paths as ten to the number of levels.
        let cost = |levels: usize| {
            let mut hostile = Hostile::new(version);
            let content = super::cases::levels(version, "\"@bob:b\":1");
            for level in 0..levels {
                for place in 0..10 {
                    let before = (0..10).filter(|_| level > 0).map(|other| format!("g{}x{other}", level - 1));
                    let auth: Vec<String> = before.chain((level == 0).then(|| "levels".to_owned())).collect();
                    hostile.claim(&format!("g{level}x{place}"), "alice", "levels", &content, auth);
                }
            }
            let tops: Vec<StateMap> = (0..10).map(|place| hostile.with(&format!("g{}x{place}", levels - 1))).collect();
            let (resolved, asked) = asked(&hostile.graph, &tops);
            resolved.unwrap();
            // Edges: every event has ten.
            (levels * 100, asked)
        };
        check_linear(version, "lattice", 40, cost(20), cost(200));
    }
}

#[test]
fn a_cycle_of_claimed_auth_events_ends() {
    for version in versions(1..=12) {
        let cost = |length: usize| {
            let mut hostile = Hostile::new(version);
            let content = super::cases::levels(version, "\"@bob:b\":1");
            for number in 0..length {
                hostile.by_alice(&format!("l{number}"), "levels", &content, &format!("l{}", (number + 1) % length));
            }
            let (resolved, asked) =
                asked(&hostile.graph, &[hostile.with("l0"), hostile.with(&format!("l{}", length / 2)), hostile.with("levels")]);
            let resolved = resolved.unwrap();
            if version.id != "1" {
                assert_eq!(resolved[&owned("m.room.power_levels", "")], id("levels"), "what is on a cycle has no place");
            }
            (length, asked)
        };
        if version.id == "1" {
            // Version 1 follows no auth events.
            assert!(cost(1_000).1 < 50);
            continue;
        }
        check_linear(version, "cycle", 60, cost(100), cost(1_000));
    }
}

#[test]
fn chains_beyond_the_limit_are_refused() {
    let version = versions(11..=11).next().unwrap();
    let mut hostile = Hostile::new(version);
    hostile.by_alice("top", "topic", "x", "l0");
    // A source that makes up another power-levels event for each that is cited.
    struct Endless<'g>(&'g Graph, Arc<Event>);
    impl Events for Endless<'_> {
        fn event(&self, id: &EventId) -> Option<Arc<Event>> {
            if let Some(event) = self.0.events.get(id) {
                return Some(Arc::clone(event));
            }
            let number: u64 = super::name(id).strip_prefix('l')?.parse().ok()?;
            let mut event = (*self.1).clone();
            event.id = id.to_owned();
            event.auth_events = vec![super::id(&format!("l{}", number + 1))];
            Some(Arc::new(event))
        }
    }
    let pattern = Arc::clone(&hostile.graph.events[&id("levels")]);
    let states = [hostile.with("top"), hostile.graph.state_of("create alice levels rule")];
    assert_eq!(resolve_states(version, &states, &Endless(&hostile.graph, pattern)), Err(Unresolvable::TooLong));
}
