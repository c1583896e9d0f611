//! Which thread an event is in, and which threads a room has.
//!
//! Specification: client-server API, "Threading" and "Threaded read receipts".

use protocol::event::Event;
use ruma::{EventId, OwnedEventId};
use store::{Lead, Owner, Preset, Range, Read, RoomNo, Table};

use crate::{EventNo, Pos, Result, events, head::OpenRoom, relations, relations::THREAD};

pub(crate) static THREADS: Table<(RoomNo, Pos), EventNo> =
    Table::new("threads", "The root of each thread of a room, by the place of the thread's newest event.")
        .owned_by(Owner::Room)
        .read_by(Preset::Scan);

/// How many relations are followed to find the thread of an event that is indirectly in one (the number the specification
/// recommends).
const HOPS_MAX: usize = 3;

/// The root of the thread that an event is in; `None` for the main timeline, to which roots belong.
///
/// # Errors
/// As the database says.
pub fn root(db: &impl Read, room: RoomNo, event: &Event) -> Result<Option<OwnedEventId>> {
    let mut relation = relations::of(event);
    for _ in 0..HOPS_MAX {
        let Some(found) = relation else { return Ok(None) };
        if found.rel_type == THREAD {
            return Ok(Some(found.event_id));
        }
        let parent = events::by_id(db, room, &found.event_id)?;
        relation = parent.and_then(|(_, parent)| relations::of(&parent.event));
    }
    Ok(None)
}

/// Whether an event is shown with the thread of this root: it is in it, is the root itself, or relates to the root.
///
/// # Errors
/// As the database says.
pub fn shows(db: &impl Read, room: RoomNo, root: &EventId, event: &Event) -> Result<bool> {
    if event.id == root {
        return Ok(true);
    }
    let mut relation = relations::of(event);
    for _ in 0..HOPS_MAX {
        let Some(found) = relation else { return Ok(false) };
        if found.rel_type == THREAD || found.event_id == root {
            return Ok(found.event_id == root);
        }
        let parent = events::by_id(db, room, &found.event_id)?;
        relation = parent.and_then(|(_, parent)| relations::of(&parent.event));
    }
    Ok(false)
}

/// The roots of a room's threads whose newest event is at a place or before it, that of the newest first, read as they are
/// asked for.
///
/// # Errors
/// As the database says.
pub fn roots(db: &impl Read, room: RoomNo, from: Pos) -> Result<impl Iterator<Item = Result<(Pos, EventNo)>> + '_> {
    let rows = db.range(&THREADS, Range::of(&Lead((room,))).through(&(room, from)).reversed())?;
    Ok(rows.map(|row| row.map(|((_, pos), root)| (pos, root)).map_err(Into::into)))
}

/// The newest event of a thread is another now.
pub(crate) fn apply(room: &mut OpenRoom<'_, '_>, root: EventNo, before: Option<Pos>, after: Option<Pos>) -> Result<()> {
    if let Some(before) = before {
        room.tx.delete(&THREADS, &(room.no, before))?;
    }
    if let Some(after) = after {
        room.tx.put(&THREADS, &(room.no, after), &root)?;
    }
    Ok(())
}
