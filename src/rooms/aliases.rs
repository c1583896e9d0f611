//! Names of rooms: the aliases of this server.

use protocol::json::Object;
use ruma::{OwnedRoomAliasId, RoomAliasId, ServerName};
use serde_json::Value;
use store::{Lead, Lock, Owner, Pending, Preset, Range, Read, RoomNo, Store, Table, Tx, UserNo};

use crate::{
    Error, NewEvent, Result,
    head::OpenRoom,
    send::{Identity, Sender, send_in},
};

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

/// The type of the event that publishes aliases of a room.
pub(crate) const CANONICAL: &str = "m.room.canonical_alias";

/// Checks the aliases of a new `m.room.canonical_alias` event that are not in the one that stands: each must name this room.
pub(crate) fn check_canonical(db: &impl Read, room: RoomNo, content: &Object, standing: &Object) -> Result<()> {
    let standing = published(standing).unwrap_or_default();
    for alias in published(content)?.into_iter().filter(|alias| !standing.contains(alias)) {
        let alias = RoomAliasId::parse(alias).map_err(|_| Error::Invalid("an alias is malformed"))?;
        if resolve(db, &alias)?.is_none_or(|(named, _)| named != room) {
            return Err(Error::BadAlias("an alias does not name this room"));
        }
    }
    Ok(())
}

/// The alias and the further ones that the content of an `m.room.canonical_alias` event lists.
fn published(content: &Object) -> Result<Vec<&str>> {
    let malformed = || Error::Invalid("an alias is malformed");
    let alias = match content.get("alias") {
        None | Some(Value::Null) => None,
        Some(alias) => Some(alias.as_str().ok_or_else(malformed)?).filter(|alias| !alias.is_empty()),
    };
    let more = match content.get("alt_aliases") {
        None | Some(Value::Null) => &[],
        Some(more) => more.as_array().ok_or_else(malformed)?.as_slice(),
    };
    alias.map(Ok).into_iter().chain(more.iter().map(|alias| alias.as_str().ok_or_else(malformed))).collect()
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

/// Takes all names from a room that goes.
pub(crate) fn forget(tx: &mut Tx<'_>, room: RoomNo) -> Result<()> {
    for alias in of_room(tx, room)? {
        tx.delete(&ALIASES, &alias.as_str())?;
        tx.delete(&ROOM_ALIASES, &(room, alias.as_str()))?;
    }
    Ok(())
}

/// Takes a name from a room, and from the aliases that the room publishes where `by` may change these.
///
/// # Errors
/// [`Error::NotFound`] where the alias names another room, or none.
pub fn delete(
    store: &Store,
    identity: &Identity,
    by: &Sender,
    alias: &RoomAliasId,
    room: RoomNo,
    now_ms: u64,
) -> Result<Pending<()>> {
    store.transact(&[Lock::Room(room)], |tx| {
        match tx.get(&ALIASES, &alias.as_str())? {
            Some((named, _)) if named == room => {}
            _ => return Err(Error::NotFound("the alias")),
        }
        tx.delete(&ALIASES, &alias.as_str())?;
        tx.delete(&ROOM_ALIASES, &(room, alias.as_str()))?;
        let mut open = OpenRoom::new(tx, room)?;
        let standing = open.state_event(CANONICAL, "")?;
        let standing = standing.and_then(|standing| serde_json::from_str(standing.content.get()).ok());
        let Some(left) = standing.and_then(|standing| without(standing, alias)) else { return Ok(()) };
        match send_in(&mut open, identity, by, NewEvent::state(CANONICAL, "", left), None, now_ms) {
            Ok(_) => open.save(),
            // Who made an alias deletes it also where they have no say in the room, or what it says besides cannot be said again.
            Err(Error::Denied(_) | Error::BadContent(_) | Error::TooLarge { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    })
}

/// The content of an `m.room.canonical_alias` event without an alias, if it publishes that.
fn without(mut content: Object, alias: &RoomAliasId) -> Option<Object> {
    let is_gone = |listed: &Value| listed.as_str() == Some(alias.as_str());
    let mut changed = content.get("alias").is_some_and(is_gone);
    if changed {
        content.remove("alias");
    }
    if let Some(Value::Array(more)) = content.get_mut("alt_aliases") {
        let before = more.len();
        more.retain(|listed| !is_gone(listed));
        changed |= more.len() < before;
        if more.is_empty() {
            content.remove("alt_aliases");
        }
    }
    changed.then_some(content)
}
