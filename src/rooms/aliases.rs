//! Names of rooms: the aliases of this server.

use ruma::{OwnedRoomAliasId, RoomAliasId, ServerName};
use store::{Lead, Lock, Owner, Pending, Preset, Range, Read, RoomNo, Store, Table, Tx, UserNo};

use crate::{Error, Result};

pub(crate) static ALIASES: Table<String, (RoomNo, UserNo)> =
    Table::new("aliases", "The room that each alias of this server names, and who made it.");
pub(crate) static ROOM_ALIASES: Table<(RoomNo, String), ()> =
    Table::new("room_aliases", "The aliases of each room.").owned_by(Owner::Room).read_by(Preset::Scan);

/// The most aliases that a room has on this server.
const ROOM_ALIASES_MAX: usize = 1000;

/// The alias of this server with this local part.
///
/// # Errors
/// [`Error::BadAlias`].
pub fn local(localpart: &str, server: &ServerName) -> Result<OwnedRoomAliasId> {
    let bad = Error::BadAlias("the alias is malformed");
    if localpart.is_empty() || localpart.contains([':', '\0']) {
        return Err(bad);
    }
    RoomAliasId::parse(format!("#{localpart}:{server}")).map_err(|_| bad)
}

/// The room that an alias names, and who made it.
///
/// # Errors
/// As the database says.
pub fn resolve(db: &impl Read, alias: &RoomAliasId) -> Result<Option<(RoomNo, UserNo)>> {
    Ok(db.get(&ALIASES, &alias.as_str())?)
}

/// The aliases of a room.
///
/// # Errors
/// As the database says.
pub fn of_room(db: &impl Read, room: RoomNo) -> Result<Vec<OwnedRoomAliasId>> {
    let rows = db.range(&ROOM_ALIASES, Range::of(&Lead((room,))))?;
    let names = rows.map(|row| row.map(|((_, alias), ())| alias)).collect::<store::Result<Vec<_>>>()?;
    Ok(names.into_iter().filter_map(|alias| RoomAliasId::parse(alias).ok()).collect())
}

/// Names a room.
///
/// # Errors
/// [`Error::AliasInUse`], [`Error::Invalid`] where the room has too many.
pub fn create(store: &Store, alias: &RoomAliasId, room: RoomNo, by: UserNo) -> Result<Pending<()>> {
    store.transact(&[Lock::Room(room)], |tx| add(tx, alias, room, by))
}

pub(crate) fn add(tx: &mut Tx<'_>, alias: &RoomAliasId, room: RoomNo, by: UserNo) -> Result<()> {
    if tx.latest(&ALIASES, &alias.as_str())?.is_some() {
        return Err(Error::AliasInUse);
    }
    if of_room(tx, room)?.len() >= ROOM_ALIASES_MAX {
        return Err(Error::Invalid("the room has too many aliases"));
    }
    tx.put(&ALIASES, &alias.as_str(), &(room, by))?;
    tx.put(&ROOM_ALIASES, &(room, alias.as_str()), &())?;
    Ok(())
}

/// Gives the names of a room to another.
pub(crate) fn move_all(tx: &mut Tx<'_>, from: RoomNo, to: RoomNo) -> Result<()> {
    for alias in of_room(tx, from)? {
        let Some((_, maker)) = resolve(tx, &alias)? else { continue };
        tx.put(&ALIASES, &alias.as_str(), &(to, maker))?;
        tx.delete(&ROOM_ALIASES, &(from, alias.as_str()))?;
        tx.put(&ROOM_ALIASES, &(to, alias.as_str()), &())?;
    }
    Ok(())
}

/// Takes a name from a room.
///
/// # Errors
/// [`Error::NotFound`] where the alias names another room, or none.
pub fn delete(store: &Store, alias: &RoomAliasId, room: RoomNo) -> Result<Pending<()>> {
    store.transact(&[Lock::Room(room)], |tx| {
        match tx.get(&ALIASES, &alias.as_str())? {
            Some((named, _)) if named == room => {}
            _ => return Err(Error::NotFound("the alias")),
        }
        tx.delete(&ALIASES, &alias.as_str())?;
        tx.delete(&ROOM_ALIASES, &(room, alias.as_str()))?;
        Ok(())
    })
}
