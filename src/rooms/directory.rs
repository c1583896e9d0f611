//! The rooms that this server publishes in its directory.

use store::{Lock, Owner, Pending, Preset, Range, Read, RoomNo, Store, Table, Tx};

use crate::Result;

pub(crate) static PUBLISHED: Table<RoomNo, ()> =
    Table::new("published_rooms", "The rooms in the public directory.").owned_by(Owner::Room).read_by(Preset::Scan);

/// Whether a room is in the directory.
///
/// # Errors
/// As the database says.
pub fn is_published(db: &impl Read, room: RoomNo) -> Result<bool> {
    Ok(db.contains(&PUBLISHED, &room)?)
}

/// The rooms in the directory, in order of number.
///
/// # Errors
/// As the database says.
pub fn published(db: &impl Read) -> Result<impl Iterator<Item = Result<RoomNo>> + '_> {
    Ok(db.range(&PUBLISHED, Range::of(&()))?.map(|row| row.map(|(room, ())| room).map_err(Into::into)))
}

/// Puts a room into the directory, or takes it out.
///
/// # Errors
/// As the database says.
pub fn set(store: &Store, room: RoomNo, public: bool) -> Result<Pending<()>> {
    store.transact(&[Lock::Room(room)], |tx| match public {
        true => publish(tx, room),
        false => withdraw(tx, room),
    })
}

pub(crate) fn withdraw(tx: &mut Tx<'_>, room: RoomNo) -> Result<()> {
    Ok(tx.delete(&PUBLISHED, &room)?)
}

pub(crate) fn publish(tx: &mut Tx<'_>, room: RoomNo) -> Result<()> {
    tx.put(&PUBLISHED, &room, &())?;
    Ok(())
}
