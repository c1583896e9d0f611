//! The newest part of a room's event graph, for people who look into it: `hearth room graph`.

use std::collections::BTreeSet;

use ruma::{OwnedEventId, OwnedUserId};
use serde::{Deserialize, Serialize};
use store::{Read, RoomNo};

use crate::{
    EventNo, Pos, Result,
    events::{self, Standing, StoredEvent},
    head,
};

/// The most events that are told at once.
pub const EVENTS_MAX: usize = 5_000;
/// The most events that are looked at: those from before the server joined are passed over.
const LOOKED_AT_MAX: usize = 100_000;

/// A part of a room's event graph.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// Its events, in the order in which they came.
    pub nodes: Vec<Node>,
    /// Parents of these that have no place in the graph here: where it has a gap.
    pub missing: BTreeSet<OwnedEventId>,
}

/// An event of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The event.
    pub event: OwnedEventId,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its state key, of state events.
    pub state_key: Option<String>,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// When, as its server claims (ms).
    pub origin_server_ts: u64,
    /// Its depth, as its server claims.
    pub depth: u64,
    /// Its parents.
    pub prev_events: Vec<OwnedEventId>,
    /// What became of it.
    pub standing: Told,
    /// Why it was refused: the rule and the reason.
    pub reason: Option<String>,
    /// Whether it is a forward extremity: no other follows it yet.
    pub extremity: bool,
    /// Whether it was redacted.
    pub redacted: bool,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// It is part of the room.
    Accepted,
    /// It is in the graph, and nobody is shown it.
    SoftFailed,
    /// It changes nothing.
    Rejected,
    /// It is known only because others cite it.
    Outlier,
}

/// The last events that came, `last` of them and at most [`EVENTS_MAX`]; not what was fetched from before the server joined.
///
/// # Errors
/// [`crate::Error::UnknownRoom`].
pub fn graph(db: &impl Read, room: RoomNo, last: usize) -> Result<Graph> {
    let head = head(db, room)?;
    let mut graph = Graph::default();
    for no in (1..=head.events).rev().take(LOOKED_AT_MAX).map(EventNo) {
        let stored = events::event(db, room, no)?;
        if stored.header.pos.is_some_and(|pos| pos < Pos(0)) {
            continue;
        }
        // Of an outlier nobody expects to have the parents.
        for id in stored.event.prev_events.iter().filter(|_| stored.header.dag.is_some()) {
            if events::placed(db, room, id)?.is_none() {
                graph.missing.insert(id.clone());
            }
        }
        graph.nodes.push(node(&stored, head.extremities.contains(&no)));
        if graph.nodes.len() >= last.min(EVENTS_MAX) {
            break;
        }
    }
    graph.nodes.reverse();
    for node in &graph.nodes {
        graph.missing.remove(&node.event);
    }
    Ok(graph)
}

fn node(stored: &StoredEvent, extremity: bool) -> Node {
    let event = &stored.event;
    let (standing, reason) = match &stored.header.standing {
        Standing::Accepted => (Told::Accepted, None),
        Standing::SoftFailed(reason) => (Told::SoftFailed, Some(reason.clone())),
        Standing::Rejected(reason) => (Told::Rejected, Some(reason.clone())),
        Standing::Outlier => (Told::Outlier, None),
    };
    Node {
        event: event.id.clone(),
        kind: event.kind.clone(),
        state_key: event.state_key.clone(),
        sender: event.sender.clone(),
        origin_server_ts: event.origin_server_ts,
        depth: event.depth,
        prev_events: event.prev_events.clone(),
        standing,
        reason,
        extremity,
        redacted: stored.header.redacted_by.is_some(),
    }
}
