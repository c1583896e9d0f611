//! The only place that makes an event part of a room. It stays a list of calls: what is derived from an event is a
//! function in the file of its own noun.

use std::sync::Arc;

use protocol::event::Event;
use users::numbers as user_numbers;

use crate::{
    EventNo, Result,
    events::{self, StoredEvent, Txn},
    guests,
    head::OpenRoom,
    members, redaction, relations, state, timeline, times,
};

/// An event that was verified and that the room's rules allow at the place where it is about to stand.
pub(crate) struct Accepted {
    event: Arc<Event>,
    txn: Option<Txn>,
}

impl Accepted {
    /// States that the caller authorised the event against the state before it.
    pub fn by_current_state(event: Arc<Event>, txn: Option<Txn>) -> Self {
        Self { event, txn }
    }
}

/// Appends an event to the end of the room.
pub(crate) fn append(room: &mut OpenRoom<'_, '_>, accepted: Accepted) -> Result<EventNo> {
    let Accepted { event, txn } = accepted;
    room.head.events += 1;
    let no = EventNo(room.head.events);
    let sender = user_numbers::intern(room.tx, &event.sender)?;
    let pos = room.next_pos()?;

    let mut stored = StoredEvent::new(Arc::clone(&event), room.version, pos, sender, room.head.state);
    stored.header.txn = txn;
    if let Some(pair) = event.state_pair() {
        stored.header.replaces = state::entry(room.tx, room.no, room.head.state, pair.0, pair.1)?;
        stored.header.after = state::with(room.tx, room.no, &mut room.head, stored.header.before, pair, no)?;
    }
    events::put(room.tx, room.no, no, &stored)?;

    room.head.extremities = vec![no];
    room.head.depth = event.depth;
    room.head.state = stored.header.after;
    room.head.last = pos;

    timeline::apply(room, no, pos)?;
    times::apply(room, no, event.origin_server_ts)?;
    members::apply(room, &event, no, pos)?;
    relations::apply(room, &event, no, pos, sender)?;
    redaction::apply(room, &event, no)?;
    guests::apply(room, &event, stored.header.replaces)?;
    Ok(no)
}
