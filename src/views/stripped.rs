//! What those who are not in a room are told of it: the rooms they are invited to or knock at.
//!
//! Specification: client-server API, "Stripped state".

use rooms::{events, format, head, members::UserRoom, state};
use ruma::UserId;
use serde_json::value::RawValue;
use store::{Read, RoomNo};

use crate::Result;

/// The types that help to identify a room.
const TYPES: [&str; 7] = [
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
