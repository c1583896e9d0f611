//! Rooms and the numbers that stand for them and for what is within them.

use protocol::version::RoomVersion;
use ruma::{OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};
use store::{Lock, Range, Read, RoomNo, Seq, Table, Tx};

use crate::{
    Error, Result,
    head::{HEADS, Head},
};

pub(crate) static ROOM_NOS: Table<String, RoomNo> = Table::new("room_nos", "The number of each room id.").cached();
pub(crate) static ROOMS: Table<RoomNo, Room> = Table::new("rooms", "What never changes of a room: its id and version.").cached();
pub(crate) static COUNTERS: Table<String, u32> = Table::new("room_counters", "The last room number drawn.");

store::numbers! {
    /// An event within its room, numbered as they arrived.
    EventNo(u32);
    /// A place in a room's timeline: the commit, then the order within it. Events from before the server joined have
    /// negative ones.
    Pos(i64);
}

/// Bits of a [`Pos`] for the order within a commit.
const ORDER_BITS: u32 = 12;

impl Pos {
    /// The place of the event that a commit appended as its `order`th.
    pub(crate) fn new(seq: Seq, order: u16) -> Option<Self> {
        let order = i64::from(order);
        (order < 1 << ORDER_BITS).then_some(Self(seq.0.cast_signed() << ORDER_BITS | order))
    }

    /// The last place that a reader at `seq` may see.
    #[must_use]
    pub fn last_of(seq: Seq) -> Self {
        Self(((seq.0.cast_signed() + 1) << ORDER_BITS) - 1)
    }

    /// The commit that this place belongs to; 0 for events from before the server joined.
    #[must_use]
    pub fn seq(self) -> Seq {
        Seq((self.0.max(0) >> ORDER_BITS).cast_unsigned())
    }
}

/// What never changes of a room.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Room {
    /// The id.
    pub id: OwnedRoomId,
    version: String,
}

impl Room {
    /// What the room's version demands.
    ///
    /// # Errors
    /// [`Error::UnsupportedVersion`] where a newer Hearth made the room.
    pub fn version(&self) -> Result<&'static RoomVersion> {
        RoomVersion::named(&self.version).ok_or_else(|| Error::UnsupportedVersion(self.version.clone()))
    }
}

/// The number of a room, if it is known here.
///
/// # Errors
/// As the database says.
pub fn number(db: &impl Read, room: &RoomId) -> Result<Option<RoomNo>> {
    Ok(db.shared(&ROOM_NOS, &room.as_str())?.map(|no| *no))
}

/// A room by its number.
///
/// # Errors
/// [`Error::UnknownRoom`] where it was purged.
pub fn room(db: &impl Read, no: RoomNo) -> Result<std::sync::Arc<Room>> {
    db.shared(&ROOMS, &no)?.ok_or(Error::UnknownRoom)
}

/// Whether there is a room of this id, be it made a moment ago.
pub(crate) fn is_taken(tx: &Tx<'_>, id: &RoomId) -> Result<bool> {
    Ok(tx.latest(&ROOM_NOS, &id.as_str())?.is_some())
}

/// The rooms after this one, in the order in which they became known here, as they are asked for.
///
/// # Errors
/// As the database says.
pub fn rooms(db: &impl Read, after: RoomNo) -> Result<impl Iterator<Item = Result<(RoomNo, Room)>> + '_> {
    let rows = db.range(&ROOMS, Range::of(&()).after(&after))?;
    Ok(rows.map(|row| row.map_err(Into::into)))
}

/// The number of a room that other servers tell of, drawn where it was not known. Nobody of this server is in it yet.
pub(crate) fn ensure(tx: &mut Tx<'_>, id: &RoomId, version: &RoomVersion) -> Result<RoomNo> {
    if let Some(no) = tx.latest(&ROOM_NOS, &id.as_str())? {
        return Ok(no);
    }
    let no = add(tx, id, version)?;
    tx.put(&HEADS, &no, &Head::default())?;
    Ok(no)
}

/// Draws the number of a new room, whose rows the transaction then owns.
pub(crate) fn add(tx: &mut Tx<'_>, id: &RoomId, version: &RoomVersion) -> Result<RoomNo> {
    if is_taken(tx, id)? {
        return Err(Error::Invalid("the room exists already"));
    }
    let no = RoomNo(tx.draw(&COUNTERS, "rooms")?);
    tx.own_new(Lock::Room(no));
    tx.put(&ROOM_NOS, &id.as_str(), &no)?;
    tx.put(&ROOMS, &no, &Room { id: id.to_owned(), version: version.id.to_owned() })?;
    Ok(no)
}
