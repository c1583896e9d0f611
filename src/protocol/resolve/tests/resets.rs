//! State resets that people met in real rooms, rebuilt: version 2 shows each, and version 2.1 what it makes of it.
//!
//! `cases.rs` has the two of MSC4297 itself, to which many reports come down: problem A (join rules lost after who set them left) and
//! problem B (operators lose their power).

use super::cases::{check_states, levels};
use super::{Graph, StateMap, show, versions};
use crate::version::RoomVersion;

/// A moderator opens a room that was made by invitation, [`MEMBERS`] people join, and the moderator leaves. Then one
/// server answers with the first join rule in its state.
///
/// The reports: element-hq/synapse issues 16629 (51 members gone at once, with the join rules) and 14481 (1,500 members, and a public
/// room that acts as if by invitation).
fn opened_by_a_moderator(version: &'static RoomVersion) -> (Graph, Vec<StateMap>) {
    let levels = levels(version, r#""@bob:b":50"#);
    let mut text = format!(
        "create : alice create {{}}
         alice : alice join
         levels : alice levels {levels}
         closed : alice rule invite
         invited : alice invite bob
         bob : bob join
         open : bob rule public\n"
    );
    let members: Vec<String> = (0..MEMBERS).map(|number| format!("member{number}")).collect();
    for member in &members {
        text += &format!("{member} : {member} join\n");
    }
    text += "gone : bob leave";
    let graph = Graph::parse(version, &text);
    let states = vec![
        graph.state_of("create alice levels closed gone"),
        graph.state_of(&format!("create alice levels open gone {}", members.join(" "))),
    ];
    (graph, states)
}

const MEMBERS: usize = 51;

#[test]
fn version_2_drops_members_with_an_old_join_rule() {
    for version in versions(2..=11) {
        let (graph, states) = opened_by_a_moderator(version);
        check_states(&graph, states, "alice=alice bob=gone levels=levels rule=closed");
    }
}

#[test]
fn version_2_1_keeps_the_members_and_the_rule() {
    for version in versions(12..=12) {
        let (graph, states) = opened_by_a_moderator(version);
        let mut words: Vec<String> = (0..MEMBERS).map(|number| format!("member{number}=member{number}")).collect();
        words.extend(["alice=alice", "bob=gone", "levels=levels", "rule=open"].map(str::to_owned));
        words.sort();
        check_states(&graph, states, &words.join(" "));
    }
}

/// An operator who got power from another operator loses it where an old state comes back (element-hq/synapse issue 8629: "losing my ops
/// bit"), and with it all that they did: here the topic.
fn operators(version: &'static RoomVersion) -> (Graph, Vec<StateMap>) {
    let (first, second) = (levels(version, ""), levels(version, r#""@bob:b":60"#));
    let third = levels(version, r#""@bob:b":60,"@carol:c":50"#);
    let text = format!(
        "create : alice create {{}}
         alice : alice join
         first : alice levels {first}
         rule : alice rule public
         bob : bob join
         carol : carol join
         second : alice levels {second}
         third : bob levels {third}
         topic : carol topic mine
         dave < topic : dave join"
    );
    let graph = Graph::parse(version, &text);
    // The old state is of a server that has all of the auth chain, as its member's join shows.
    let states = vec![
        graph.state_of("create alice first rule bob carol dave"),
        graph.state_of("create alice third rule bob carol dave topic"),
    ];
    (graph, states)
}

#[test]
fn version_2_takes_operators_power_and_what_they_did() {
    for version in versions(2..=11) {
        let (graph, states) = operators(version);
        check_states(&graph, states, "alice=alice bob=bob carol=carol dave=dave levels=first rule=rule");
    }
}

#[test]
fn version_2_1_leaves_operators_their_power() {
    for version in versions(12..=12) {
        let (graph, states) = operators(version);
        check_states(&graph, states, "alice=alice bob=bob carol=carol dave=dave levels=third rule=rule topic=topic");
    }
}

/// A server that holds a wrong state goes on sending it (issue 15258: the reset came back after the room was purged). What was resolved
/// once is no longer changed by it.
#[test]
fn a_wrong_state_that_comes_again_changes_no_more() {
    for version in versions(2..=12) {
        let (graph, states) = operators(version);
        let resolved = graph.resolve(&states);
        check_states(&graph, vec![resolved.clone(), states[0].clone()], &show(&resolved));
        check_states(&graph, vec![resolved.clone(), states[0].clone(), states[1].clone()], &show(&resolved));
    }
}
