//! Which servers are in which room: those with a joined user. Counted in the commit that changes a membership.

use ruma::{OwnedServerName, ServerName};
use store::{Lead, Owner, Preset, Range, Read, RoomNo, Table};

use crate::{Result, head::OpenRoom};

pub(crate) static SERVERS: Table<(RoomNo, String), u32> =
    Table::new("room_servers", "The servers of a room, each with the number of its joined users.")
        .owned_by(Owner::Room)
        .read_by(Preset::Scan);

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

/// Whether another server than this is in a room. It costs the same however many there are.
///
/// # Errors
/// As the database says.
pub fn has_others(db: &impl Read, room: RoomNo, own: &ServerName) -> Result<bool> {
    Ok(servers(db, room)?.take(2).any(|server| server.is_ok_and(|server| server != own)))
}

/// Counts a user who came or went.
pub(crate) fn count(room: &mut OpenRoom<'_, '_>, server: &ServerName, entered: bool) -> Result<()> {
    let key = (room.no, server.as_str());
    let joined = room.tx.get(&SERVERS, &key)?.unwrap_or(0);
    match if entered { joined + 1 } else { joined.saturating_sub(1) } {
        0 => room.tx.delete(&SERVERS, &key)?,
        joined => room.tx.put(&SERVERS, &key, &joined)?,
    }
    Ok(())
}
