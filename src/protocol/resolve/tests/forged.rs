//! Graphs that no honest server makes, and ones with holes.

use ruma::EventId;

use super::{Graph, StateMap, auth_difference, conflicted_subgraph, id, resolve_by_parts, show, versions};
use crate::resolve::{Events, Unresolvable, resolve_states};

const ROOM: &str = r#"
    create : alice create {}
    alice : alice join
    rule : alice rule public
    one : alice levels {"state_default":0,"users":{"@bob:b":1}} auth=create,alice,two
    two < rule : alice levels {"users":{"@bob:b":2}} auth=create,alice,one
"#;

#[test]
fn conflicting_events_on_a_cycle_have_no_place() {
    for version in versions(2..=12) {
        let graph = Graph::parse(version, ROOM);
        let states = graph.after("one two");
        assert_eq!(show(&graph.resolve(&states)), "alice=alice rule=rule", "version {}", version.id);
        assert_eq!(resolve_by_parts(&graph, &states), graph.resolve(&states));
    }
}

#[test]
fn a_mainline_that_is_a_cycle_ends() {
    for version in versions(2..=12) {
        let text = format!(
            "{ROOM}
             t1 < one : alice topic t1 @9 auth=create,alice,one
             t2 < one : alice topic t2 @8 auth=create,alice,two
             t3 < one : alice topic t3 @7 auth=create,alice,loop
             loop < one : alice levels {{}} auth=create,alice,loop"
        );
        let graph = Graph::parse(version, &text);
        let state = show(&graph.resolve(&graph.after("t1 t2 t3")));
        assert!(state.contains("levels=one") && state.contains("topic=t"), "version {}: {state}", version.id);
    }
}

#[test]
fn an_event_of_a_state_that_is_not_known_is_named() {
    for version in versions(1..=12) {
        let graph =
            Graph::parse(version, "create : alice create {}\nalice : alice join\nt1 : alice topic x\nt2 < alice : alice topic y");
        let without = |missing: &'static str| {
            let source = graph.source();
            move |event: &EventId| if event == id(missing) { None } else { source(event) }
        };
        let states = graph.after("t1 t2");
        assert_eq!(resolve_states(version, &states, &without("t2")), Err(Unresolvable::Missing(id("t2"))));
        // Of an event that is only cited nothing is asked but what it would allow.
        assert!(resolve_states(version, &states, &without("alice")).is_ok());
    }
}

#[test]
fn the_auth_difference_is_what_is_not_in_all_chains() {
    let version = versions(11..=11).next().unwrap();
    let graph = Graph::parse(
        version,
        r#"
        create : alice create {}
        alice : alice join
        rule : alice rule public
        levels : alice levels {"users":{"@alice:a":100}}
        bob < rule : bob join
        carol < levels : carol join
        "#,
    );
    let difference = |states: &[StateMap]| {
        let ids = auth_difference(states.iter().map(|state| state.values()), &graph.source()).unwrap();
        ids.iter().map(|id| super::name(id).to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(difference(&graph.after("bob carol")), "bob carol levels");
    assert_eq!(difference(&graph.after("carol carol")), "");
    assert_eq!(difference(&graph.after("carol levels rule")), "carol levels");
    assert_eq!(difference(&[]), "");
}

#[test]
fn the_subgraph_is_what_lies_between_conflicted_events() {
    let version = versions(12..=12).next().unwrap();
    let graph = Graph::parse(
        version,
        r#"
        create : alice create {}
        alice : alice join
        l1 : alice levels {}
        l2 : alice levels {"users":{"@bob:b":1}}
        rule : alice rule public
        l3 : alice levels {"users":{"@bob:b":2}}
        bob : bob join
        carol < rule : carol join
        "#,
    );
    let between = |names: &str| {
        let ids = names.split_whitespace().map(id).collect();
        let subgraph = conflicted_subgraph(&ids, &graph.source()).unwrap();
        subgraph.iter().map(|id| super::name(id).to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(between("l1 l3"), "l1 l2 l3");
    assert_eq!(between("l1 carol"), "carol l1 l2 rule");
    assert_eq!(between("bob carol"), "");
    assert_eq!(between("alice bob"), "alice bob l1 l2 l3 rule");
    assert_eq!(between("l2"), "");
    let missing = std::collections::BTreeSet::from([id("unknown")]);
    assert_eq!(conflicted_subgraph(&missing, &graph.source()), Err(Unresolvable::Missing(id("unknown"))));
    assert!(!graph.source().rejected(&id("alice")), "a closure rejects nothing");
}
