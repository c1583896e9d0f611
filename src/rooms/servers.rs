//! Which servers are in which room: those with a joined user. Counted in the commit that changes a membership.

use ruma::{OwnedServerName, ServerName};
use store::{Lead, Owner, Preset, Range, Read, RoomNo, Table};

use crate::{EventNo, Pos, Result, head::OpenRoom};

pub(crate) static SERVERS: Table<(RoomNo, String), u32> =
    Table::new("room_servers", "The servers of a room, each with the number of its joined users.")
        .owned_by(Owner::Room)
        .read_by(Preset::Scan);

pub(crate) static PAST: Table<(RoomNo, String), EventNo> =
    Table::new("past_room_servers", "Servers that were in a room once, each with the last event that was here when it went.")
        .owned_by(Owner::Room);

pub(crate) static ENTERED: Table<RoomNo, Pos> =
    Table::new("entered_rooms", "Since when this server is in a room: where the first of its users entered who are in it now.")
        .owned_by(Owner::Room);

/// Since when this server is in a room that it is in. Of rooms that it entered before this was written down that is since ever.
pub(crate) fn entered(db: &impl Read, room: RoomNo) -> Result<Pos> {
    Ok(db.get(&ENTERED, &room)?.unwrap_or(Pos(i64::MIN)))
}

/// The servers of a room, as they are asked for.
///
/// # Errors
/// As the database says.
pub fn servers(db: &impl Read, room: RoomNo) -> Result<impl Iterator<Item = Result<OwnedServerName>> + '_> {
    let rows = db.range(&SERVERS, Range::of(&Lead((room,))))?;
    Ok(rows.filter_map(|row| match row {
        Ok(((_, name), _)) => OwnedServerName::try_from(name).ok().map(Ok),
        Err(error) => Some(Err(error.into())),
    }))
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
    Ok(room.partial || room.head.joined > room.tx.get(&SERVERS, &(room.no, own.as_str()))?.unwrap_or(0))
}

/// Counts a user who came or went. Returns whether the server came with them.
pub(crate) fn count(room: &mut OpenRoom<'_, '_>, server: &ServerName, entered: bool) -> Result<bool> {
    let key = (room.no, server.as_str());
    let before = room.tx.get(&SERVERS, &key)?.unwrap_or(0);
    match (before, if entered { before + 1 } else { before.saturating_sub(1) }) {
        (_, 0) => {
            room.tx.delete(&SERVERS, &key)?;
            room.tx.put(&PAST, &key, &EventNo(room.head.events))?;
        }
        (before, joined) => {
            room.tx.put(&SERVERS, &key, &joined)?;
            if before == 0 {
                room.tx.delete(&PAST, &key)?;
                return Ok(true);
            }
        }
    }
    Ok(false)
}
