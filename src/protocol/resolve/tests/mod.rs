//! Event graphs as text, resolved states as text.
//!
//! A graph is one event a line: `id < parents : sender action`. Without parents the line before is the parent. Actions
//! are `create {…}`, `join`, `leave who`, `ban who`, `invite who`, `knock`, `via who` (a restricted join that this user authorises),
//! `promise token` (a third-party invite), `redeem token` (the invite that it becomes, for the sender's friend zoe), `levels {…}`,
//! `rule public`, `topic text` and `message text`. `@7` sets the time, which is else the number of the line, and `auth=a,b` the auth events, which are else
//! selected from the state before, as servers do; then the event must also be allowed by it.
//!
//! A state is `entry=id` for each entry but the create event: a user's name, `levels`, `rule` or `topic`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bounds;
mod cases;
mod definitions;
mod forged;
mod oracle;
mod published;
mod random;
mod resets;
mod v1;

use std::collections::BTreeMap;
use std::sync::Arc;

use ruma::{EventId, OwnedEventId};
use serde_json::{Value, json};

use super::{Conflict, StateMap, auth_difference, conflicted_subgraph, owned, resolve_states, split};
use crate::auth::{auth_types_of, authorize};
use crate::event::Event;
use crate::keys::SigningKey;
use crate::scenario::{CREATE, Draft, user};
use crate::sign::sign_json;
use crate::version::RoomVersion;

/// A room's events, and the state after each.
pub(super) struct Graph {
    pub(super) version: &'static RoomVersion,
    pub(super) events: BTreeMap<OwnedEventId, Arc<Event>>,
    after: BTreeMap<OwnedEventId, StateMap>,
}

/// The id of a name: `create` is that of the room.
pub(super) fn id(name: &str) -> OwnedEventId {
    if name == "create" { CREATE.try_into().unwrap() } else { format!("${name}:a").try_into().unwrap() }
}

fn name(id: &EventId) -> &str {
    id.as_str().trim_start_matches('$').trim_end_matches(":a")
}

impl Graph {
    pub(super) fn new(version: &'static RoomVersion) -> Self {
        Graph { version, events: BTreeMap::new(), after: BTreeMap::new() }
    }

    pub(super) fn parse(version: &'static RoomVersion, text: &str) -> Self {
        let mut graph = Graph::new(version);
        let mut previous = None;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        for (number, line) in lines.enumerate() {
            let (head, action) = line.split_once(" : ").unwrap_or_else(|| panic!("{line}"));
            let (event, parents) = head.split_once('<').unwrap_or((head, ""));
            let parents: Vec<_> = parents.split_whitespace().map(id).collect();
            let parents = if parents.is_empty() { Vec::from_iter(previous.take()) } else { parents };
            let draft = parse_action(version, event.trim(), number as u64, action);
            let explicit = !draft.auth_events.is_empty();
            let added = graph.add(draft, parents);
            assert!(explicit || added, "the state before does not allow: {line}");
            previous = Some(id(event.trim()));
        }
        graph
    }

    /// Adds an event after these, with auth events from the state before it unless it has some. Without own ones it is
    /// dropped where that state does not allow it.
    pub(super) fn add(&mut self, mut draft: Draft, parents: Vec<OwnedEventId>) -> bool {
        let before = self.resolve(&parents.iter().map(|parent| self.after[parent].clone()).collect::<Vec<_>>());
        draft.depth = parents.iter().map(|parent| self.events[parent].depth + 1).max().unwrap_or_default();
        draft.prev_events = parents;
        if draft.auth_events.is_empty() {
            let event = draft.build();
            let types = auth_types_of(self.version, &event);
            draft.auth_events = types.iter().filter_map(|(kind, key)| before.get(&owned(kind, key)).cloned()).collect();
            let state = |kind: &str, key: &str| before.get(&owned(kind, key)).map(|id| Arc::clone(&self.events[id]));
            if authorize(self.version, &event, state).is_err() {
                return false;
            }
        }
        let event = draft.build();
        let mut after = before;
        if let Some((kind, key)) = event.state_pair() {
            after.insert(owned(kind, key), event.id.clone());
        }
        self.after.insert(event.id.clone(), after);
        self.events.insert(event.id.clone(), event);
        true
    }

    pub(super) fn source(&self) -> impl Fn(&EventId) -> Option<Arc<Event>> {
        |id| self.events.get(id).cloned()
    }

    pub(super) fn resolve(&self, states: &[StateMap]) -> StateMap {
        resolve_states(self.version, states, &self.source()).unwrap()
    }

    /// The states after these events.
    pub(super) fn after(&self, heads: &str) -> Vec<StateMap> {
        heads.split_whitespace().map(|head| self.after[&id(head)].clone()).collect()
    }

    /// The state of exactly these events.
    pub(super) fn state_of(&self, names: &str) -> StateMap {
        let events = names.split_whitespace().map(|name| &self.events[&id(name)]);
        events.map(|event| (event.state_pair().map(|(kind, key)| owned(kind, key)).unwrap(), event.id.clone())).collect()
    }
}

pub(super) fn show(state: &StateMap) -> String {
    let mut words: Vec<String> = state
        .iter()
        .filter(|((kind, _), _)| kind != "m.room.create")
        .map(|((kind, key), id)| {
            let entry = match kind.as_str() {
                "m.room.member" => key.trim_start_matches('@').split(':').next().unwrap(),
                "m.room.power_levels" => "levels",
                "m.room.join_rules" => "rule",
                kind => kind.trim_start_matches("m.room."),
            };
            format!("{entry}={}", name(id))
        })
        .collect();
    words.sort();
    words.join(" ")
}

fn parse_action(version: &'static RoomVersion, event: &str, number: u64, action: &str) -> Draft {
    let mut words: Vec<&str> = action.split_whitespace().collect();
    let mut take = |prefix: &str| {
        let place = words.iter().position(|word| word.starts_with(prefix))?;
        Some(words.remove(place).trim_start_matches(prefix))
    };
    let (time, auth) = (take("@"), take("auth="));
    let (sender, verb, rest) = (words[0], words[1], words[2..].join(" "));
    let mut draft = match verb {
        "create" => Draft::create(version, &serde_json::from_str(&rest).unwrap()),
        verb => action_of(version, event, sender, verb, &rest),
    };
    draft.time = time.map_or(number, |time| time.parse().unwrap());
    draft.auth_events = auth.into_iter().flat_map(|auth| auth.split(',')).map(id).collect();
    draft
}

/// The draft of an action that is written in words.
pub(super) fn action_of(version: &'static RoomVersion, event: &str, sender: &str, verb: &str, rest: &str) -> Draft {
    let draft =
        |kind: &str, key: Option<&str>, content: Value| Draft::new(version, id(event).as_str(), sender, kind, key, content);
    let target = if rest.is_empty() { sender } else { rest };
    let member = |membership: &str| draft("m.room.member", Some(user(target).as_str()), json!({ "membership": membership }));
    match verb {
        "join" | "leave" | "ban" | "invite" | "knock" => member(verb),
        "via" => {
            let content = json!({ "membership": "join", "join_authorised_via_users_server": user(rest) });
            draft("m.room.member", Some(user(sender).as_str()), content)
        }
        "promise" => {
            draft("m.room.third_party_invite", Some(rest), json!({ "public_key": identity_server().public().to_base64() }))
        }
        "redeem" => draft("m.room.member", Some(user("zoe").as_str()), redeemed(rest)),
        "levels" => draft("m.room.power_levels", Some(""), serde_json::from_str(rest).unwrap()),
        "rule" => draft("m.room.join_rules", Some(""), json!({ "join_rule": rest })),
        "topic" => draft("m.room.topic", Some(""), json!({ "topic": rest })),
        "message" => draft("m.room.message", None, json!({ "body": rest })),
        other => panic!("{other} is no action"),
    }
}

/// The key of the server that vouches for third-party identifiers.
fn identity_server() -> SigningKey {
    SigningKey::from_seed("1", &[7; 32]).unwrap()
}

/// An invite of zoe, for whom the identity server vouches.
fn redeemed(token: &str) -> Value {
    let mut signed = json!({ "mxid": user("zoe"), "token": token }).as_object().unwrap().clone();
    sign_json(&mut signed, "i", &identity_server()).unwrap();
    json!({ "membership": "invite", "third_party_invite": { "display_name": "zoe", "signed": signed } })
}

/// The versions from this one to that one, by their numbers.
pub(super) fn versions(range: std::ops::RangeInclusive<usize>) -> impl Iterator<Item = &'static RoomVersion> {
    range.map(|number| &RoomVersion::all()[number - 1])
}

/// Resolves states by the parts, as a caller with indexes does, and checks it against the whole.
pub(super) fn resolve_by_parts(graph: &Graph, states: &[StateMap]) -> StateMap {
    let (unconflicted, conflicted) = split(states);
    let source = graph.source();
    let conflicted = conflicted.into_values().flatten().collect();
    let conflict = Conflict {
        auth_difference: auth_difference(states.iter().map(|state| state.values()), &source).unwrap(),
        subgraph: conflicted_subgraph(&conflicted, &source).unwrap(),
        conflicted,
    };
    let resolved =
        super::resolve(graph.version, &conflict, |kind, key| unconflicted.get(&owned(kind, key)).cloned(), &source).unwrap();
    let mut state: StateMap = super::entries(resolved).collect();
    assert!(state.keys().all(|key| !unconflicted.contains_key(key)), "what is unconflicted is not in the result");
    state.extend(unconflicted);
    state
}
