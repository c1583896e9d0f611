//! Spaces: a room with the events that name its children; for another server, what it may know of these too.
//!
//! Specification: server-server API, "Spaces"; client-server API, "Spaces".

use rooms::{Error as Rooms, events, head, members, numbers, state};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use store::{RoomNo, Snapshot, UserNo};

use crate::{
    Error, Result,
    directory::{Summary, allowing_rooms, detailed, is_told},
};

/// The most children of a space that another server is told.
const CHILDREN_MAX: usize = 200;
/// The most children of a space that a user is told.
pub const SHOWN_MAX: usize = 1_000;
/// The most events of children that are looked at.
const EVENTS_MAX: usize = 5_000;
/// The most members that are looked at to find one of a server.
const MEMBERS_MAX: usize = 2_000;
/// The longest key by which children are ordered, in characters.
const ORDER_MAX: usize = 50;
/// The type of events that name children.
const CHILD: &str = "m.space.child";

/// A space and its children.
#[derive(Serialize)]
pub struct Level {
    room: Node,
    children: Vec<Summary>,
    inaccessible_children: Vec<OwnedRoomId>,
}

/// A room of a space, with its children where it is a space itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// The room.
    #[serde(flatten)]
    pub summary: Summary,
    /// Its children in their order.
    #[serde(default)]
    pub children_state: Vec<Child>,
}

/// A stripped `m.space.child` event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Child {
    #[serde(rename = "type")]
    kind: String,
    state_key: String,
    sender: OwnedUserId,
    origin_server_ts: u64,
    content: Map<String, Value>,
}

impl Child {
    /// The room, where the event names one and servers to ask: else it is no child.
    #[must_use]
    pub fn room(&self) -> Option<&RoomId> {
        let is_child = self.kind == CHILD && self.via().next().is_some();
        <&RoomId>::try_from(self.state_key.as_str()).ok().filter(|_| is_child)
    }

    /// The servers to ask.
    pub fn via(&self) -> impl Iterator<Item = OwnedServerName> + '_ {
        let via = self.content.get("via").and_then(Value::as_array).into_iter().flatten();
        via.filter_map(|server| server.as_str()?.try_into().ok())
    }

    fn is_suggested(&self) -> bool {
        self.content.get("suggested") == Some(&Value::Bool(true))
    }

    /// By the order that the event says, then by time ("Ordering of children within a space").
    fn order(&self) -> (bool, &str, u64, &str) {
        let order = self.content.get("order").and_then(Value::as_str);
        let order = order
            .filter(|order| (1..=ORDER_MAX).contains(&order.len()) && order.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        (order.is_none(), order.unwrap_or_default(), self.origin_server_ts, &self.state_key)
    }
}

/// Those that are children, and suggested ones only where that is asked for; in their order, at most `limit`.
pub fn arrange(children: &mut Vec<Child>, suggested_only: bool, limit: usize) {
    children.retain(|child| child.room().is_some() && (!suggested_only || child.is_suggested()));
    children.sort_by(|one, other| one.order().cmp(&other.order()));
    children.truncate(limit);
}

/// A room that this server is in as a user may know of it; `None` where they may not.
///
/// # Errors
/// As the database says.
pub fn node(db: &Snapshot, room: RoomNo, user: UserNo, suggested_only: bool) -> Result<Option<Node>> {
    if !is_told(db, room, Some(user))? {
        return Ok(None);
    }
    described(db, room, suggested_only, SHOWN_MAX).map(Some)
}

fn described(db: &Snapshot, room: RoomNo, suggested_only: bool, limit: usize) -> Result<Node> {
    let summary = detailed(db, room, None)?;
    let mut children_state = if summary.is_space() { children(db, room)? } else { Vec::new() };
    arrange(&mut children_state, suggested_only, limit);
    Ok(Node { summary, children_state })
}

/// A space with those of its children that are known here, as this server may know of them; `None` where it may not know of the
/// space itself.
///
/// # Errors
/// As the database says.
pub fn level(db: &Snapshot, room: RoomNo, server: &ServerName, suggested_only: bool) -> Result<Option<Level>> {
    if !may_know(db, room, server)? {
        return Ok(None);
    }
    let room = described(db, room, suggested_only, CHILDREN_MAX)?;
    let (mut told, mut inaccessible) = (Vec::new(), Vec::new());
    for id in room.children_state.iter().filter_map(Child::room) {
        let Some(no) = numbers::number(db, id)? else { continue };
        match may_know(db, no, server) {
            Ok(true) => told.push(detailed(db, no, None)?),
            Ok(false) => inaccessible.push(id.to_owned()),
            // It is known by name only.
            Err(Error::Rooms(Rooms::UnknownRoom)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(Level { room, children: told, inaccessible_children: inaccessible }))
}

fn children(db: &Snapshot, room: RoomNo) -> Result<Vec<Child>> {
    let root = head(db, room)?.state;
    let mut children = Vec::new();
    for no in state::of_type(db, room, root, CHILD)?.into_iter().take(EVENTS_MAX) {
        let stored = events::event(db, room, no)?;
        let event = &stored.event;
        children.push(Child {
            kind: event.kind.to_string(),
            state_key: event.state_key.as_deref().unwrap_or_default().to_owned(),
            sender: event.sender.clone(),
            origin_server_ts: event.origin_server_ts,
            content: serde_json::from_str(event.content.get()).unwrap_or_default(),
        });
    }
    Ok(children)
}

/// Whether a server may be told of a room: anybody may, one of its users is in it, or one may join it for being in another.
fn may_know(db: &Snapshot, room: RoomNo, server: &ServerName) -> Result<bool> {
    if is_told(db, room, None)? || has_member(db, room, server)? {
        return Ok(true);
    }
    for allowing in allowing_rooms(db, room)? {
        if let Some(allowing) = numbers::number(db, &allowing)?
            && has_member(db, allowing, server)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_member(db: &Snapshot, room: RoomNo, server: &ServerName) -> Result<bool> {
    for member in members::members(db, room)?.take(MEMBERS_MAX) {
        let (user, _) = member?;
        if users::numbers::user_id(db, user)?.server_name() == server {
            return Ok(true);
        }
    }
    Ok(false)
}
