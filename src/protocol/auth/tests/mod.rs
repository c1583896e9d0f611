//! A table per rule. A row is a verdict, a state and an event, all text, and is judged as of every room version.
//!
//! A verdict is `ok`, a rule number, or one such word for each group of versions that number alike: 1 to 5, 6, 7, 8 and
//! 9, 10 and 11, 12 (`-` leaves a group out). A state is one entry a line: `alice join` is a membership, `rule public`
//! the join rule, `levels {…}` the power levels, `create {…}` adds to the create event, which is always there and
//! alice's, and `type key sender {…}` is any other. An event is `sender type key {…}`, where `-` is no state key.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod allowed;
mod auth_events;
mod create;
mod general;
mod member;
mod power_levels;
mod robust;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Denied, authorize};
use crate::event::Event;
use crate::scenario::{Draft, user};
use crate::version::RoomVersion;

/// The column of a verdict for each version.
const COLUMNS: [usize; 12] = [0, 0, 0, 0, 0, 1, 2, 3, 3, 4, 4, 5];

pub(super) type State = BTreeMap<(String, String), Arc<Event>>;

/// The versions with their number from 1.
pub(super) fn versions() -> impl Iterator<Item = (usize, &'static RoomVersion)> {
    RoomVersion::all().iter().enumerate().map(|(index, version)| (index + 1, version))
}

/// Judges the row as of every version.
#[track_caller]
pub(super) fn check(expected: &str, state: &str, event: &str) {
    let columns: Vec<&str> = expected.split_whitespace().collect();
    for (number, version) in versions() {
        let expected = if columns.len() == 1 { columns[0] } else { columns[COLUMNS[number - 1]] };
        if expected != "-" {
            check_as_of(version, expected, state, event);
        }
    }
}

/// Judges the row as of one version.
#[track_caller]
pub(super) fn check_as_of(version: &RoomVersion, expected: &str, state: &str, event: &str) {
    let draft = parse_event(version, event);
    let verdict = judge(version, &parse_state(version, state), &draft.build());
    assert_eq!(word(&verdict), expected, "version {}\n{state}\n{event}\n{verdict:?}", version.id);
}

pub(super) fn judge(version: &RoomVersion, state: &State, event: &Event) -> Result<(), Denied> {
    authorize(version, event, |kind, key| state.get(&(kind.to_owned(), key.to_owned())).cloned())
}

pub(super) fn word(verdict: &Result<(), Denied>) -> &str {
    match verdict {
        Ok(()) => "ok",
        Err(denied) => denied.rule,
    }
}

pub(super) fn parse_state(version: &RoomVersion, text: &str) -> State {
    let mut create = json!({});
    let mut state = State::new();
    let mut add = |draft: Draft| {
        let key = draft.state_key.clone().unwrap();
        state.insert((draft.kind.clone(), key), draft.build());
    };
    for (index, line) in text.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
        let (first, rest) = line.split_once(' ').unwrap();
        let id = format!("$state{index}:a");
        let state_event =
            |kind: &str, key: &str, sender: &str, content| Draft::new(version, &id, sender, kind, Some(key), content);
        match first {
            "create" => create = parse_json(rest),
            "rule" => add(state_event("m.room.join_rules", "", "alice", json!({ "join_rule": rest }))),
            "levels" => add(state_event("m.room.power_levels", "", "alice", parse_json(rest))),
            kind if kind.contains('.') => {
                let [key, sender, content] = rest.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
                add(state_event(kind, if key == "\"\"" { "" } else { key }, sender, parse_json(content)));
            }
            name => add(state_event("m.room.member", user(name).as_str(), name, json!({ "membership": rest }))),
        }
    }
    add(Draft::create(version, &create));
    state
}

/// The event of a row.
pub(super) fn parse_event(version: &RoomVersion, text: &str) -> Draft {
    let [sender, kind, key, content] = text.splitn(4, ' ').collect::<Vec<_>>().try_into().unwrap();
    let key = match key {
        "-" => None,
        "\"\"" => Some(String::new()),
        name if !name.contains(['.', '@', ':']) => Some(user(name).to_string()),
        other => Some(other.to_owned()),
    };
    Draft::new(version, "$event:b", sender, kind, key.as_deref(), parse_json(content))
}

fn parse_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}
