//! The well-known conflicts.

use super::oracle::check_against_oracle;
use super::{Graph, resolve_by_parts, show, versions};
use crate::version::RoomVersion;

/// Alice made a public room in which bob has 50; carol is joined too.
const ROOM: &str = r#"
    create : alice create {}
    alice : alice join
    levels : alice levels {"users":{"@bob:b":50}}
    rule : alice rule public
    bob : bob join
    carol : carol join
"#;

/// The same with alice among the `users`, where versions before 12 need her.
pub(super) fn room(version: &RoomVersion) -> String {
    if version.version_12 { ROOM.to_owned() } else { ROOM.replace("\"@bob:b\":50", "\"@alice:a\":100,\"@bob:b\":50") }
}

pub(super) fn levels(version: &RoomVersion, others: &str) -> String {
    let alice = if version.version_12 { "" } else { "\"@alice:a\":100," };
    format!("{{\"users\":{{{}}}}}", format!("{alice}{others}").trim_end_matches(','))
}

/// Resolves the states after `heads`, in both orders and by parts, and compares with ruma too.
#[track_caller]
pub(super) fn check(graph: &Graph, heads: &str, expected: &str) {
    check_states(graph, graph.after(heads), expected);
}

#[track_caller]
pub(super) fn check_states(graph: &Graph, mut states: Vec<super::StateMap>, expected: &str) {
    for _ in 0..2 {
        let state = graph.resolve(&states);
        assert_eq!(show(&state), expected, "version {}", graph.version.id);
        assert_eq!(resolve_by_parts(graph, &states), state);
        check_against_oracle(graph, &states);
        states.reverse();
    }
}

#[test]
fn one_state_or_equal_states_need_no_resolution() {
    for version in versions(1..=12) {
        let graph = Graph::parse(version, &room(version));
        let expected = "alice=alice bob=bob carol=carol levels=levels rule=rule";
        for heads in ["carol", "carol carol", "carol carol carol"] {
            assert_eq!(show(&graph.resolve(&graph.after(heads))), expected);
        }
        assert_eq!(graph.resolve(&[]), super::StateMap::new());
    }
}

#[test]
fn concurrent_joins_both_count() {
    for version in versions(2..=12) {
        let text = room(version) + "dave < carol : dave join\nerin < carol : erin join";
        check(
            &Graph::parse(version, &text),
            "dave erin",
            "alice=alice bob=bob carol=carol dave=dave erin=erin levels=levels rule=rule",
        );
    }
}

#[test]
fn a_ban_beats_what_the_banned_does_meanwhile() {
    for version in versions(2..=12) {
        let text = room(version)
            + "ban < carol : alice ban bob\n\
               topic < carol : bob topic mine @1\n\
               mine < topic : bob leave carol @2";
        check(&Graph::parse(version, &text), "ban mine", "alice=alice bob=ban carol=carol levels=levels rule=rule");
    }
}

#[test]
fn a_ban_beats_the_rejoin_of_the_banned() {
    for version in versions(2..=12) {
        let text = room(version)
            + "ban < carol : alice ban bob\n\
               leave < carol : bob leave @1\n\
               again < leave : bob join @2";
        check(&Graph::parse(version, &text), "ban again", "alice=alice bob=ban carol=carol levels=levels rule=rule");
    }
}

#[test]
fn who_is_demoted_cannot_use_the_old_power_meanwhile() {
    for version in versions(2..=12) {
        let (down, up) = (levels(version, ""), levels(version, r#""@bob:b":50,"@carol:c":50"#));
        let text = room(version)
            + &format!(
                "down < carol : alice levels {down}\n\
                 up < carol : bob levels {up} @1\n\
                 topic < up : carol topic mine @2"
            );
        check(&Graph::parse(version, &text), "down topic", "alice=alice bob=bob carol=carol levels=down rule=rule");
    }
}

#[test]
fn of_equal_powers_the_earlier_change_stands_and_the_later_one_builds_on_it() {
    for version in versions(2..=12) {
        let (one, two) = (levels(version, r#""@bob:b":50,"@carol:c":10"#), levels(version, r#""@bob:b":50,"@dave:d":10"#));
        let text = room(version) + &format!("one < carol : alice levels {one} @20\ntwo < carol : alice levels {two} @21");
        check(&Graph::parse(version, &text), "one two", "alice=alice bob=bob carol=carol levels=two rule=rule");
        let text = text.replace("@21", "@19");
        check(&Graph::parse(version, &text), "one two", "alice=alice bob=bob carol=carol levels=one rule=rule");
        // At the same time the ids decide.
        let text = text.replace("@19", "@20");
        check(&Graph::parse(version, &text), "one two", "alice=alice bob=bob carol=carol levels=two rule=rule");
    }
}

#[test]
fn of_two_topics_the_later_one_stands_whatever_the_power() {
    for version in versions(2..=12) {
        let text = room(version) + "one < carol : alice topic one @20\ntwo < carol : bob topic two @21";
        check(&Graph::parse(version, &text), "one two", "alice=alice bob=bob carol=carol levels=levels rule=rule topic=two");
        let text = text.replace("@21", "@19");
        check(&Graph::parse(version, &text), "one two", "alice=alice bob=bob carol=carol levels=levels rule=rule topic=one");
    }
}

#[test]
fn a_topic_on_newer_power_levels_stands_over_a_later_one_on_older() {
    for version in versions(2..=12) {
        let up = levels(version, r#""@bob:b":50,"@carol:c":50"#);
        let text = room(version)
            + &format!(
                "old < carol : bob topic old @30\n\
                 up < carol : alice levels {up} @20\n\
                 new < up : carol topic new @21"
            );
        check(&Graph::parse(version, &text), "old new", "alice=alice bob=bob carol=carol levels=up rule=rule topic=new");
    }
}

#[test]
fn closing_the_room_beats_joins_meanwhile() {
    for version in versions(2..=12) {
        let text = room(version) + "closed < carol : alice rule invite\ndave < carol : dave join @1";
        check(&Graph::parse(version, &text), "closed dave", "alice=alice bob=bob carol=carol levels=levels rule=closed");
        // Who was in before stays.
        let text = room(version) + "closed < carol : alice rule invite\ncarol2 < carol : carol join @9";
        check(&Graph::parse(version, &text), "closed carol2", "alice=alice bob=bob carol=carol2 levels=levels rule=closed");
    }
}

#[test]
fn three_states_resolve_as_one_conflict() {
    for version in versions(2..=12) {
        let text = room(version)
            + "ban < carol : alice ban bob\n\
               kick < carol : bob leave carol @1\n\
               topic < carol : bob topic t @2";
        let expected = "alice=alice bob=ban carol=carol levels=levels rule=rule";
        check(&Graph::parse(version, &text), "ban kick topic", expected);
    }
}

/// Two members' servers hold a state in which the other's profile change and a join rule are lost, after the only
/// one who may set the rule has left.
const LOST_RULE: &str = r#"
    closed : alice rule invite
    gone : alice leave
    bob2 < gone : bob join auth=levels,bob,closed
    carol2 < gone : carol join auth=levels,carol,closed
"#;

#[test]
fn version_2_forgets_the_join_rule_of_who_left() {
    for version in versions(11..=11) {
        let text = room(version) + &LOST_RULE.replace("auth=", "auth=create,");
        let graph = Graph::parse(version, &text);
        let states =
            [graph.state_of("create levels carol closed gone bob2"), graph.state_of("create levels rule bob gone carol2")];
        check_states(&graph, states.to_vec(), "alice=gone bob=bob2 carol=carol2 levels=levels");
    }
}

#[test]
fn t8_version_2_1_starts_from_nothing_and_keeps_it() {
    for version in versions(12..=12) {
        let graph = Graph::parse(version, &(room(version) + LOST_RULE));
        let states =
            [graph.state_of("create levels carol closed gone bob2"), graph.state_of("create levels rule bob gone carol2")];
        check_states(&graph, states.to_vec(), "alice=gone bob=bob2 carol=carol2 levels=levels rule=closed");
    }
}

/// Alice gives bob power, bob gives it to carol; then one server is reset to the first power levels.
fn reset_levels(version: &'static RoomVersion) -> (Graph, Vec<super::StateMap>) {
    let first = levels(version, "");
    let (second, third) = (levels(version, r#""@bob:b":50"#), levels(version, r#""@bob:b":50,"@carol:c":50"#));
    let create = if version.version_12 { "" } else { "create," };
    let text = format!(
        "create : alice create {{}}
         alice : alice join
         levels : alice levels {first}
         rule : alice rule public
         bob : bob join
         carol : carol join
         second : alice levels {second}
         third : bob levels {third}
         zara < third : zara join
         erin < third : erin join
         erin2 : erin join auth={create}third,erin,rule"
    );
    let graph = Graph::parse(version, &text);
    let states = vec![
        graph.state_of("create alice levels rule bob carol erin2"),
        graph.state_of("create alice third rule bob carol zara"),
    ];
    (graph, states)
}

#[test]
fn version_2_resets_power_levels() {
    for version in versions(11..=11) {
        let (graph, states) = reset_levels(version);
        check_states(&graph, states, "alice=alice bob=bob carol=carol erin=erin2 levels=levels rule=rule zara=zara");
    }
}

#[test]
fn t8_version_2_1_replays_what_lies_between_conflicting_power_levels() {
    for version in versions(12..=12) {
        let (graph, states) = reset_levels(version);
        check_states(&graph, states, "alice=alice bob=bob carol=carol erin=erin2 levels=third rule=rule zara=zara");
    }
}

#[test]
fn additional_creators_are_above_those_with_levels() {
    let version = versions(12..=12).next().unwrap();
    let text = room(version).replace("create {}", r#"create {"additional_creators":["@carol:c"]}"#)
        + "ban < carol : carol ban bob @90\n\
           kick < carol : bob topic mine @1";
    check(&Graph::parse(version, &text), "ban kick", "alice=alice bob=ban carol=carol levels=levels rule=rule");
}
