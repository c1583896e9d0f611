//! The event graph of a room, as Graphviz DOT and as a drawing.

mod dot;
mod layout;
mod svg;

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rooms::{
    graph::{self, Node, Told},
    numbers,
};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};

pub use self::{dot::dot, svg::svg};
use crate::{Error, Homeserver, Operation, Result};

/// Tells the newest part of a room's event graph.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// The room.
    pub room: OwnedRoomId,
    /// How many events, the newest; at most [`graph::EVENTS_MAX`].
    pub last: usize,
}

impl Operation for Graph {
    const NAME: &'static str = "room_graph";
    type Output = graph::Graph;

    fn run(self, server: &Homeserver, _: u64, _: &mut StdRng) -> Result<Self::Output> {
        let db = server.store.snapshot();
        let no = numbers::number(&db, &self.room)?.ok_or_else(|| Error::NoSuchRoom(self.room.to_string()))?;
        Ok(graph::graph(&db, no, self.last)?)
    }
}

/// The longest line of text in a drawing, in characters.
const LINE_MAX: usize = 40;

/// What is written of an event: what it is, who sent it and when in the room, what became of it.
fn lines(node: &Node) -> [String; 3] {
    let key = node.state_key.as_deref().filter(|key| !key.is_empty()).map(|key| format!(" {key}")).unwrap_or_default();
    let redacted = if node.redacted { " (redacted)" } else { "" };
    let standing = match (node.standing, &node.reason) {
        (Told::Accepted, _) if node.extremity => "forward extremity".to_owned(),
        (Told::Accepted, _) => String::new(),
        (Told::SoftFailed, reason) => format!("soft-failed: {}", reason.as_deref().unwrap_or_default()),
        (Told::Rejected, reason) => format!("rejected: {}", reason.as_deref().unwrap_or_default()),
        (Told::Outlier, _) => "outlier".to_owned(),
    };
    let text = [format!("{}{key}{redacted}", node.kind), format!("{} at depth {}", node.sender, node.depth), standing];
    text.map(|line| shortened(&line))
}

/// The line without what could change more than its place, and not longer than [`LINE_MAX`]: other servers wrote it.
fn shortened(line: &str) -> String {
    let mut shown: String = plain(line).chars().take(LINE_MAX).collect();
    if line.chars().count() > LINE_MAX {
        shown.pop();
        shown.push('…');
    }
    shown
}

/// The text without characters that a terminal or a browser would obey: controls, and those that turn the direction of writing.
#[must_use]
pub fn plain(text: &str) -> String {
    let obeyed =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if obeyed(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The parents of an event that are in the graph by their place there, how many others are missing, and how many are older than the graph.
fn parents(graph: &graph::Graph, node: &Node, index: impl Fn(&OwnedEventId) -> Option<usize>) -> (BTreeSet<usize>, usize, usize) {
    let (mut here, mut missing, mut older) = (BTreeSet::new(), 0, 0);
    for parent in &node.prev_events {
        match index(parent) {
            Some(at) => drop(here.insert(at)),
            None if graph.missing.contains(parent) => missing += 1,
            None => older += 1,
        }
    }
    (here, missing, older)
}

#[cfg(test)]
mod tests;
