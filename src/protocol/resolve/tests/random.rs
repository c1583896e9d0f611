//! Random rooms: whatever happens in them, resolution agrees with the oracle and does not depend on order.

use proptest::prelude::*;

use super::oracle::check_against_oracle;
use super::{Graph, StateMap, action_of, id, owned, resolve_by_parts, versions};
use crate::auth::{auth_types_of, authorize};
use crate::scenario::Draft;
use crate::version::RoomVersion;

/// Zoe is whom third-party invites are for.
const USERS: [&str; 5] = ["alice", "bob", "carol", "dave", "zoe"];

/// What someone tries: sender, verb, target, time, and which of the latest events it follows.
type Step = (usize, usize, usize, u64, Vec<usize>);

fn step() -> impl Strategy<Value = Step> {
    (0..USERS.len(), 0..15_usize, 0..USERS.len(), 0..4_u64, prop::collection::vec(0..6_usize, 1..4))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 4..36)
}

/// A step's action in words.
fn deed(version: &RoomVersion, verb: usize, target: usize, time: u64) -> (&'static str, String) {
    let rules = ["public", "invite", "restricted", "knock", "knock_restricted"];
    match verb {
        0 | 1 => ("join", String::new()),
        2 => ("leave", USERS[target].to_owned()),
        3 => ("ban", USERS[target].to_owned()),
        4 => ("invite", USERS[target].to_owned()),
        5 => ("levels", levels(version, 50 * (target as i64 % 2), 50 * (time as i64 / 2), 50 * (time as i64 % 2))),
        6 => ("rule", rules[(target + time as usize) % rules.len()].to_owned()),
        7 => ("rule", "public".to_owned()),
        8 => ("leave", String::new()),
        9 => ("knock", String::new()),
        10 => ("via", USERS[target].to_owned()),
        11 => ("promise", format!("token{}", target % 2)),
        12 => ("redeem", format!("token{}", target % 2)),
        _ => ("topic", "t".to_owned()),
    }
}

/// A room of those steps that were allowed. Ids are scattered, so that their order says nothing.
fn room(version: &'static RoomVersion, steps: &[Step]) -> (Graph, Vec<String>) {
    let mut graph = Graph::new(version);
    let mut create = Draft::create(version, &serde_json::json!({}));
    create.time = 0;
    graph.add(create, Vec::new());
    let mut names = vec!["create".to_owned()];
    let first = [
        ("alice", "join", "".to_owned()),
        ("alice", "levels", levels(version, 50, 0, 0)),
        ("alice", "rule", "public".to_owned()),
        ("bob", "join", "".to_owned()),
    ];
    let follow =
        |graph: &mut Graph, names: &mut Vec<String>, sender: &str, verb: &str, rest: &str, time, parents: Vec<String>| {
            let name = format!("e{}", (names.len() * 7919) % 1009);
            let mut draft = action_of(version, &name, sender, verb, rest);
            draft.time = time;
            if graph.add(draft, parents.iter().map(|parent| id(parent)).collect()) {
                names.push(name);
            }
        };
    for (sender, verb, rest) in first {
        let parent = names.last().unwrap().clone();
        follow(&mut graph, &mut names, sender, verb, &rest, 0, vec![parent]);
    }
    assert_eq!(names.len(), 5);
    for (sender, verb, target, time, parents) in steps {
        let (verb, rest) = deed(version, *verb, *target, *time);
        let mut parents: Vec<_> = parents.iter().map(|back| names[names.len().saturating_sub(1 + back)].clone()).collect();
        parents.sort();
        parents.dedup();
        // Where a room has no join rules, ruma assumes none and Hearth, as Synapse, `invite`.
        let before = graph.resolve(&graph.after(&parents.join(" ")));
        if before.contains_key(&owned("m.room.join_rules", "")) {
            follow(&mut graph, &mut names, USERS[*sender], verb, &rest, *time, parents);
        }
    }
    (graph, names)
}

fn levels(version: &RoomVersion, bob: i64, carol: i64, invite: i64) -> String {
    let alice = if version.version_12 { "" } else { "\"@alice:a\":100," };
    format!("{{\"invite\":{invite},\"users\":{{{alice}\"@bob:b\":{bob},\"@carol:c\":{carol}}}}}")
}

/// Events that cite any older state in place of the newest: allowed by what they cite, whatever the state before them says.
fn add_stale(graph: &mut Graph, steps: &[(Step, Vec<usize>)]) {
    for (number, ((sender, verb, target, time, _), picks)) in steps.iter().enumerate() {
        let (verb, rest) = deed(graph.version, *verb, *target, *time);
        let mut draft = action_of(graph.version, &format!("s{number}"), USERS[*sender], verb, &rest);
        draft.time = *time;
        let event = draft.build();
        let mut cited = StateMap::new();
        for ((kind, key), pick) in auth_types_of(graph.version, &event).iter().zip(picks.iter().cycle()) {
            let candidates = graph.events.values().filter(|event| event.state_pair() == Some((*kind, key)));
            let candidates: Vec<_> = candidates.map(|event| event.id.clone()).collect();
            if !candidates.is_empty() {
                cited.insert(owned(kind, key), candidates[pick % candidates.len()].clone());
            }
        }
        draft.auth_events = cited.values().cloned().collect();
        let event = draft.build();
        let allowed = authorize(graph.version, &event, |kind, key| {
            let implied = graph.version.version_12 && kind == "m.room.create";
            let cited = cited.get(&owned(kind, key)).cloned().or_else(|| implied.then(|| id("create")))?;
            graph.events.get(&cited).cloned()
        });
        if allowed.is_ok() {
            graph.events.insert(event.id.clone(), event);
        }
    }
}

fn check_any_order(graph: &Graph, states: &[StateMap]) {
    let resolved = graph.resolve(states);
    let mut reversed = states.to_vec();
    reversed.reverse();
    assert_eq!(graph.resolve(&reversed), resolved);
    let mut turned = states.to_vec();
    turned.rotate_left(1);
    assert_eq!(graph.resolve(&turned), resolved);
    assert_eq!(resolve_by_parts(graph, states), resolved);
    check_against_oracle(graph, states);
}

fn version() -> impl Strategy<Value = &'static RoomVersion> {
    prop::sample::select(versions(1..=12).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn forks_resolve_as_the_oracle_says(version in version(), steps in steps()) {
        let (graph, names) = room(version, &steps);
        let latest = &names[names.len().saturating_sub(4)..];
        check_any_order(&graph, &graph.after(&latest.join(" ")));
    }

    /// Servers may hold states that no history leads to: here each entry is any event of that entry, or none, and events may cite
    /// any older state that allows them.
    #[test]
    fn arbitrary_states_resolve_as_the_oracle_says(
        version in version(),
        steps in steps(),
        stale in prop::collection::vec((step(), prop::collection::vec(0..6_usize, 6)), 0..8),
        choices in prop::collection::vec(prop::collection::vec(0..5_usize, 8), 2..4),
    ) {
        let (mut graph, _) = room(version, &steps);
        add_stale(&mut graph, &stale);
        let states: Vec<StateMap> = choices.iter().map(|choice| arbitrary_state(&graph, choice)).collect();
        check_any_order(&graph, &states);
    }
}

fn arbitrary_state(graph: &Graph, choices: &[usize]) -> StateMap {
    let mut candidates = std::collections::BTreeMap::<_, Vec<_>>::new();
    for event in graph.events.values() {
        if let Some((kind, key)) = event.state_pair() {
            candidates.entry(owned(kind, key)).or_default().push(event.id.clone());
        }
    }
    let mut state = StateMap::new();
    for ((entry, events), choice) in candidates.into_iter().zip(choices.iter().cycle()) {
        // The create event and the power levels are always there, and the join rules, of whose absence ruma thinks otherwise.
        let needed = ["m.room.create", "m.room.power_levels", "m.room.join_rules"].contains(&entry.0.as_str());
        if needed || *choice > 0 {
            state.insert(entry, events[choice % events.len()].clone());
        }
    }
    state
}
