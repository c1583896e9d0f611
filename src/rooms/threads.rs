//! Which thread an event is in.
//!
//! Specification: client-server API, "Threading" and "Threaded read receipts".

use protocol::event::Event;
use ruma::{EventId, OwnedEventId};
use store::{Read, RoomNo};

use crate::{Result, events, relations};

/// The relation of an event to the root of its thread.
const THREAD: &str = "m.thread";

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
