//! What those who are not in a room are told of it: the rooms they are invited to or knock at.
//!
//! Specification: client-server API, "Stripped state".

use rooms::{events, format, head, members::UserRoom, remote, state};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use store::{Read, RoomNo};
use users::numbers;

use crate::Result;

/// The types that help to identify a room.
pub const TYPES: [&str; 7] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.canonical_alias",
    "m.room.encryption",
];

/// The stripped state of a room for a user who has this to do with it: what identifies the room, the user's own member
/// event and that of its sender.
///
/// # Errors
/// As the database says.
pub fn state(db: &impl Read, room: RoomNo, user: &UserId, standing: &UserRoom) -> Result<Vec<Box<RawValue>>> {
    if remote::is_remote(standing) {
        return from_other_servers(db, room, user, standing);
    }
    let root = head(db, room)?.state;
    let mut found = Vec::with_capacity(TYPES.len() + 2);
    for kind in TYPES {
        found.extend(state::event(db, room, root, kind, "")?);
    }
    let own = events::event(db, room, standing.event)?;
    let sender = &own.event.sender;
    if sender != user {
        found.extend(state::event(db, room, root, "m.room.member", sender.as_str())?);
    }
    found.push(own);
    Ok(found.iter().map(|stored| format::stripped(stored)).collect::<rooms::Result<_>>()?)
}

/// What the room's servers told, and the member event that this server has.
fn from_other_servers(db: &impl Read, room: RoomNo, user: &UserId, standing: &UserRoom) -> Result<Vec<Box<RawValue>>> {
    let Some(no) = numbers::number(db, user)? else { return Ok(Vec::new()) };
    let Some(told) = remote::remote(db, no, room)? else { return Ok(Vec::new()) };
    let others = told.state.into_iter().filter_map(|event| {
        let event: Stripped = serde_json::from_str(&event).ok()?;
        let own = event.kind == "m.room.member" && event.state_key == user.as_str();
        if own { None } else { serde_json::value::to_raw_value(&event).ok() }
    });
    let own = format::stripped(&*remote::member_event(db, no, room, standing)?)?;
    Ok(others.chain([own]).collect())
}

/// The keys of an event that stripped state has.
#[derive(Deserialize, Serialize)]
struct Stripped {
    #[serde(rename = "type")]
    kind: String,
    state_key: String,
    sender: OwnedUserId,
    content: Box<RawValue>,
}
