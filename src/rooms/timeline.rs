//! The order in which a room's events are shown.

use std::sync::Arc;

use store::{Lead, Owner, Preset, Range, Read, RoomNo, Table};

use crate::{
    EventNo, Pos, Result,
    events::{self, StoredEvent},
    head::OpenRoom,
};

pub(crate) static TIMELINE: Table<(RoomNo, Pos), EventNo> = Table::new(
    "timeline",
    "The events of a room in the order in which they are shown; those from before the server joined have negative places.",
)
.owned_by(Owner::Room)
.wakes(Owner::Room)
.read_by(Preset::Scan);

/// An event in its place.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its number.
    pub no: EventNo,
    /// Its place.
    pub pos: Pos,
    /// The event.
    pub stored: Arc<StoredEvent>,
}

/// The step of appending that gives an event its place.
pub(crate) fn apply(room: &mut OpenRoom<'_, '_>, no: EventNo, pos: Pos) -> Result<()> {
    room.tx.put(&TIMELINE, &(room.no, pos), &no)?;
    Ok(())
}

/// The direction in which a timeline is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Towards the newest event.
    Forward,
    /// Towards the oldest event.
    Backward,
}

/// The events after (or before) a place, up to another, read as they are asked for. Neither place is itself included
/// when reading forward from `from`; reading backward includes `from` itself and stops after `to`.
///
/// # Errors
/// As the database says.
pub fn read(
    db: &impl Read,
    room: RoomNo,
    direction: Direction,
    from: Pos,
    to: Option<Pos>,
) -> Result<impl Iterator<Item = Result<Placed>> + '_> {
    let all = Range::of(&Lead((room,)));
    let range = match direction {
        Direction::Forward => match to {
            Some(to) => all.after(&(room, from)).through(&(room, to)),
            None => all.after(&(room, from)),
        },
        Direction::Backward => match to {
            Some(to) => all.after(&(room, to)).through(&(room, from)).reversed(),
            None => all.through(&(room, from)).reversed(),
        },
    };
    let rows = db.range(&TIMELINE, range)?;
    Ok(rows.map(move |row| {
        let ((_, pos), no) = row?;
        Ok(Placed { no, pos, stored: events::event(db, room, no)? })
    }))
}

/// The last event at or before a place.
///
/// # Errors
/// As the database says.
pub fn last_until(db: &impl Read, room: RoomNo, pos: Pos) -> Result<Option<Placed>> {
    read(db, room, Direction::Backward, pos, None)?.next().transpose()
}

/// The state of the room at a place: after the last event at or before it.
///
/// # Errors
/// As the database says.
pub fn state_at(db: &impl Read, room: RoomNo, pos: Pos) -> Result<crate::state::Root> {
    Ok(last_until(db, room, pos)?.map(|placed| placed.stored.header.after).unwrap_or_default())
}
