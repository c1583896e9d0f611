//! One level of a space, as another server is told of it: the room, its children, and which of those are not for that server.
//!
//! Specification: server-server API, "Spaces".

use rooms::{Error as Rooms, events, head, members, numbers, state};
use ruma::{OwnedRoomId, RoomId, ServerName};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use store::{RoomNo, Snapshot};

use crate::{
    Error, Result,
    directory::{Summary, allowing_rooms, detailed, is_told},
};

/// The most children of a space that are told.
const CHILDREN_MAX: usize = 200;
/// The most members that are looked at to find one of a server.
const MEMBERS_MAX: usize = 2_000;

/// A space and its children.
#[derive(Serialize)]
pub struct Level {
    room: Parent,
    children: Vec<Summary>,
    inaccessible_children: Vec<OwnedRoomId>,
}

#[derive(Serialize)]
struct Parent {
    #[serde(flatten)]
    summary: Summary,
    children_state: Vec<Value>,
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
    let mut room = Parent { summary: detailed(db, room, None)?, children_state: children(db, room, suggested_only)? };
    room.children_state.truncate(CHILDREN_MAX);
    let (mut told, mut inaccessible) = (Vec::new(), Vec::new());
    for child in &room.children_state {
        let Some(id) = child["state_key"].as_str().and_then(|id| RoomId::parse(id).ok()) else { continue };
        let Some(no) = numbers::number(db, &id)? else { continue };
        match may_know(db, no, server) {
            Ok(true) => told.push(detailed(db, no, None)?),
            Ok(false) => inaccessible.push(id),
            // It is known by name only.
            Err(Error::Rooms(Rooms::UnknownRoom)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(Level { room, children: told, inaccessible_children: inaccessible }))
}

/// The stripped `m.space.child` events of a space. One without servers to ask is none ("m.space.child").
fn children(db: &Snapshot, room: RoomNo, suggested_only: bool) -> Result<Vec<Value>> {
    let root = head(db, room)?.state;
    let mut children = Vec::new();
    for no in state::of_type(db, room, root, "m.space.child")? {
        let stored = events::event(db, room, no)?;
        let event = &stored.event;
        let content: &RawValue = &event.content;
        let Ok(content) = serde_json::from_str::<Value>(content.get()) else { continue };
        let is_child = content["via"].as_array().is_some_and(|via| !via.is_empty());
        if is_child && (!suggested_only || content["suggested"] == true) {
            children.push(json!({
                "type": event.kind,
                "state_key": event.state_key,
                "sender": event.sender,
                "origin_server_ts": event.origin_server_ts,
                "content": content,
            }));
        }
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
