//! Which servers are in which room: those with a joined user. Counted in the commit that changes a membership.

use ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};
use store::{Lead, Owner, Preset, Range, Read, RoomNo, Table};

use crate::{EventNo, Pos, Result, head::OpenRoom};

pub(crate) static SERVERS: Table<(RoomNo, String), Present> =
    Table::new("room_servers", "The servers of a room, each with the number of its joined users, and since when it has any.")
        .owned_by(Owner::Room)
        .read_by(Preset::Scan);

pub(crate) static PAST: Table<(RoomNo, String), EventNo> =
    Table::new("past_room_servers", "Servers that were in a room once, each with the last event that was here when it went.")
        .owned_by(Owner::Room);

/// A server that is in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Present {
    /// Its joined users.
    joined: u32,
    /// Where the first of them entered since whom it was never without.
    since: Pos,
}

/// The servers of a room, as they are asked for.
///
/// # Errors
/// As the database says.
pub fn servers(db: &impl Read, room: RoomNo) -> Result<impl Iterator<Item = Result<OwnedServerName>> + '_> {
    servers_at(db, room, Pos(i64::MAX))
}

/// Those of a room's servers that entered it at this place or before, as they are asked for.
///
/// # Errors
/// As the database says.
pub fn servers_at(db: &impl Read, room: RoomNo, pos: Pos) -> Result<impl Iterator<Item = Result<OwnedServerName>> + '_> {
    let rows = db.range(&SERVERS, Range::of(&Lead((room,))))?;
    Ok(rows.filter_map(move |row| match row {
        Ok(((_, name), present)) => OwnedServerName::try_from(name).ok().filter(|_| present.since <= pos).map(Ok),
        Err(error) => Some(Err(error.into())),
    }))
}

/// Since when a server is in a room, where it is.
///
/// # Errors
/// As the database says.
pub fn since(db: &impl Read, room: RoomNo, server: &ServerName) -> Result<Option<Pos>> {
    Ok(db.get(&SERVERS, &(room, server.as_str()))?.map(|present| present.since))
}

/// Whether a server is in a room.
///
/// # Errors
/// As the database says.
pub fn is_in(db: &impl Read, room: RoomNo, server: &ServerName) -> Result<bool> {
    Ok(db.contains(&SERVERS, &(room, server.as_str()))?)
}

/// Up to which of a room's events a server may ask for them: all while it is in the room. One that was in it may ask for what was here when it
/// went, so that it learns why: what removes its last user cites events that it may have missed.
///
/// # Errors
/// As the database says.
pub fn asks_until(db: &impl Read, room: RoomNo, server: &ServerName) -> Result<Option<EventNo>> {
    if is_in(db, room, server)? {
        return Ok(Some(EventNo(u32::MAX)));
    }
    Ok(db.get(&PAST, &(room, server.as_str()))?)
}

/// Whether another server than this is in a room. It costs the same however many there are.
pub(crate) fn has_others(room: &OpenRoom<'_, '_>, own: &ServerName) -> Result<bool> {
    // Of a room that is partial not all users are known, but by whose way it was entered.
    Ok(room.partial || room.head.joined > room.tx.get(&SERVERS, &(room.no, own.as_str()))?.map_or(0, |present| present.joined))
}

/// Counts a user who came or went at a place.
pub(crate) fn count(room: &mut OpenRoom<'_, '_>, server: &ServerName, pos: Pos, entered: bool) -> Result<()> {
    let key = (room.no, server.as_str());
    let before = room.tx.get(&SERVERS, &key)?;
    let joined = before.map_or(0, |before| before.joined);
    match if entered { joined + 1 } else { joined.saturating_sub(1) } {
        0 => {
            room.tx.delete(&SERVERS, &key)?;
            room.tx.put(&PAST, &key, &EventNo(room.head.events))?;
        }
        joined => {
            room.tx.put(&SERVERS, &key, &Present { joined, since: before.map_or(pos, |before| before.since) })?;
            if before.is_none() {
                room.tx.delete(&PAST, &key)?;
            }
        }
    }
    Ok(())
}
