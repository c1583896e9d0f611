//! Room version 1.

use std::sync::Arc;

use ruma::{EventId, OwnedEventId};

use super::{Graph, id, show, versions};
use crate::event::Event;
use crate::resolve::{Events, resolve_states};
use crate::version::RoomVersion;

const ROOM: &str = r#"
    create : alice create {}
    alice : alice join
    levels : alice levels {"users":{"@alice:a":100,"@bob:b":50}}
    rule : alice rule public
    bob : bob join
    carol : carol join
"#;

fn version() -> &'static RoomVersion {
    versions(1..=1).next().unwrap()
}

#[track_caller]
fn check(text: &str, heads: &str, expected: &str) {
    let graph = Graph::parse(version(), &format!("{ROOM}{text}"));
    let mut states = graph.after(heads);
    assert_eq!(show(&graph.resolve(&states)), expected);
    states.reverse();
    assert_eq!(show(&graph.resolve(&states)), expected);
}

#[test]
fn what_one_state_lacks_does_not_conflict() {
    check(
        "dave < carol : dave join\nerin < carol : erin join",
        "dave erin",
        "alice=alice bob=bob carol=carol dave=dave erin=erin levels=levels rule=rule",
    );
}

#[test]
fn power_levels_follow_each_other_by_depth_while_allowed() {
    // Of two events of one depth the greater hash comes first: `two` here, then `one`.
    assert!(super::super::v1::sha1(&id("two")) > super::super::v1::sha1(&id("one")));
    let (one, two) = (r#"{"users":{"@alice:a":100,"@bob:b":50,"@dave:d":1}}"#, r#"{"users":{"@alice:a":100,"@bob:b":50}}"#);
    let text = format!("one < carol : alice levels {one}\ntwo < carol : alice levels {two}");
    check(&text, "one two", "alice=alice bob=bob carol=carol levels=one rule=rule");
    // `one` takes bob's power, but as the state before `up` it does not allow what bob did meanwhile.
    let text = format!(
        "one < carol : alice levels {}\nm < carol : alice message x\nup < m : bob levels {two}",
        r#"{"users":{"@alice:a":100}}"#
    );
    check(&text, "one up", "alice=alice bob=bob carol=carol levels=one rule=rule");
}

#[test]
fn the_first_power_levels_that_are_not_allowed_end_the_chain() {
    // By depth: down, up, last. Bob has no power any more for `up`, so `last` is not considered, though alice may.
    let text = r#"
        down < carol : alice levels {"users":{"@alice:a":100}}
        m < carol : alice message x
        up < m : bob levels {"users":{"@alice:a":100,"@bob:b":50,"@carol:c":7}}
        m2 < m : alice message x
        last < m2 : alice levels {"users":{"@alice:a":100,"@carol:c":9}}
    "#;
    check(text, "down up last", "alice=alice bob=bob carol=carol levels=down rule=rule");
    check(text, "down last", "alice=alice bob=bob carol=carol levels=last rule=rule");
}

#[test]
fn join_rules_are_judged_by_the_resolved_power_levels() {
    let text = r#"
        down < carol : alice levels {"users":{"@alice:a":100}}
        closed : alice rule invite
        m < carol : alice message x
        open < m : bob rule public
        deeper : alice message x
        open2 : bob rule public
    "#;
    check(text, "closed open2", "alice=alice bob=bob carol=carol levels=down rule=closed");
}

#[test]
fn members_are_judged_by_the_resolved_join_rules() {
    let text = "
        closed < carol : alice rule invite
        ban : alice ban carol
        leave < carol : carol leave
        m : alice message x
        again : carol join
    ";
    // By depth: leave, ban, again. The ban follows the leave, and the join is not allowed after it.
    check(text, "ban again", "alice=alice bob=bob carol=ban levels=levels rule=closed");
}

#[test]
fn of_other_entries_the_deepest_allowed_one_stands() {
    let text = "
        one < carol : bob topic one
        m < carol : alice message x
        two < m : alice topic two
    ";
    check(text, "one two", "alice=alice bob=bob carol=carol levels=levels rule=rule topic=two");
    // Bob was banned, so his deeper topic is not allowed.
    let text = "
        one < carol : alice topic one
        ban : alice ban bob
        m < carol : alice message x
        m2 : alice message x
        two : bob topic two
    ";
    check(text, "ban two", "alice=alice bob=ban carol=carol levels=levels rule=rule topic=one");
}

#[test]
fn of_other_entries_the_least_deep_one_stands_where_none_is_allowed() {
    let text = "
        ban < carol : alice ban bob
        one < carol : bob topic one
        m < carol : alice message x
        two < m : bob topic two
    ";
    check(text, "ban one two", "alice=alice bob=ban carol=carol levels=levels rule=rule topic=one");
}

/// A source in which one event was rejected.
pub(super) struct Rejecting<'g>(pub(super) &'g Graph, pub(super) OwnedEventId);

impl Events for Rejecting<'_> {
    fn event(&self, id: &EventId) -> Option<Arc<Event>> {
        self.0.events.get(id).cloned()
    }

    fn rejected(&self, id: &EventId) -> bool {
        self.1 == id
    }
}

#[test]
fn t6_rejected_events_enter_no_state() {
    for version in versions(1..=12) {
        let text = ROOM.replace("\"@alice:a\":100,", if version.version_12 { "" } else { "\"@alice:a\":100," })
            + "one < carol : alice topic one @20\ntwo < carol : alice topic two @21";
        let graph = Graph::parse(version, &text);
        for (rejected, expected) in [("one", "topic=two"), ("two", "topic=one")] {
            let state = resolve_states(version, &graph.after("one two"), &Rejecting(&graph, id(rejected))).unwrap();
            assert!(show(&state).ends_with(expected), "version {}: {}", version.id, show(&state));
        }
    }
}
