//! The order in which a room's events are shown.

use std::sync::Arc;

use protocol::event::Event;
use ruma::EventId;
use store::{Lead, Owner, Preset, Range, Read, RoomNo, Table};

use crate::{
    EventNo, Pos, Result,
    events::{self, StoredEvent},
    head::OpenRoom,
    state::Root,
};

pub(crate) static TIMELINE: Table<(RoomNo, Pos), EventNo> = Table::new(
    "timeline",
    "The events of a room in the order in which they are shown; those from before the server joined have negative places.",
)
.owned_by(Owner::Room)
.wakes(Owner::Room)
.read_by(Preset::Scan);

pub(crate) static GAPS: Table<(RoomNo, Pos), Vec<String>> = Table::new(
    "gaps",
    "Where the timeline of a room lacks events: those that the event in this place follows and that are not here.",
)
.owned_by(Owner::Room)
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

/// The step of appending that gives an event its place, and marks where events before it are not here: it has more than `parents`.
pub(crate) fn apply(room: &mut OpenRoom<'_, '_>, event: &Event, no: EventNo, pos: Pos, parents: usize) -> Result<()> {
    room.tx.put(&TIMELINE, &(room.no, pos), &no)?;
    if parents == event.prev_events.len() {
        return Ok(());
    }
    let missing = missing(room, event.prev_events.iter().map(ToString::to_string))?;
    room.tx.put(&GAPS, &(room.no, pos), &missing)?;
    Ok(())
}

/// Takes an event out of what is shown. Where others before it are missing, they are looked for no more.
pub(crate) fn hide(room: &mut OpenRoom<'_, '_>, pos: Pos) -> Result<()> {
    room.tx.delete(&TIMELINE, &(room.no, pos))?;
    room.tx.delete(&GAPS, &(room.no, pos))?;
    Ok(())
}

/// Those of these events that have no place in the DAG.
fn missing(room: &OpenRoom<'_, '_>, ids: impl Iterator<Item = String>) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for id in ids {
        let known = match <&EventId>::try_from(id.as_str()) {
            Ok(known) => events::placed(room.tx, room.no, known)?,
            Err(_) => continue,
        };
        if known.is_none() {
            missing.push(id);
        }
    }
    Ok(missing)
}

/// Room for so many events right before the one in this place, in the middle of a timeline: the first of their places, and the room's current state there.
/// `None` where nothing was shown before it, or what was is too close.
pub(crate) fn free_before(room: &OpenRoom<'_, '_>, gap: Pos, count: i64) -> Result<Option<(Pos, Root)>> {
    let mut end = gap.0;
    for placed in read(room.tx, room.no, Direction::Backward, Pos(gap.0 - 1), None)? {
        let placed = placed?;
        if placed.pos.0 == end - 1 {
            // It was put there for the same reason, or both came at once.
            end = placed.pos.0;
            continue;
        }
        let is_free = placed.pos >= Pos(0) && placed.pos.0 < end - count;
        return Ok(is_free.then_some((Pos(end - count), placed.stored.header.current)));
    }
    Ok(None)
}

/// Looks again at what is missing before the event in this place, once more of it is here.
pub(crate) fn narrow_gap(room: &mut OpenRoom<'_, '_>, pos: Pos) -> Result<()> {
    let Some(gap) = room.tx.get(&GAPS, &(room.no, pos))? else { return Ok(()) };
    match missing(room, gap.into_iter())? {
        missing if missing.is_empty() => room.tx.delete(&GAPS, &(room.no, pos))?,
        missing => room.tx.put(&GAPS, &(room.no, pos), &missing)?,
    }
    Ok(())
}

/// The newest gap at or before a place: the event in whose place it is, and the events that are missing before it.
///
/// # Errors
/// As the database says.
pub fn gap(db: &impl Read, room: RoomNo, before: Pos) -> Result<Option<(Pos, Vec<String>)>> {
    let gap = db.first(&GAPS, Range::of(&Lead((room,))).through(&(room, before)).reversed())?;
    Ok(gap.map(|((_, pos), missing)| (pos, missing)))
}

/// The first event that is shown, where those before it are missing.
///
/// # Errors
/// As the database says.
pub fn first_gap(db: &impl Read, room: RoomNo) -> Result<Option<Pos>> {
    let Some(first) = read(db, room, Direction::Forward, Pos(i64::MIN), None)?.next().transpose()? else { return Ok(None) };
    Ok(gap(db, room, first.pos)?.map(|(pos, _)| pos).filter(|pos| *pos == first.pos))
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

/// The state that was the room's current one at a place.
///
/// # Errors
/// As the database says.
pub fn state_at(db: &impl Read, room: RoomNo, pos: Pos) -> Result<Root> {
    // What was fetched of the time before the server joined was never the current state here.
    let last = last_until(db, room, pos)?.filter(|placed| placed.pos >= Pos(0) || pos < Pos(0));
    Ok(last.map(|placed| placed.stored.header.current).unwrap_or_default())
}
