//! Redactions and relations that were here before the event that they are about: they wait for it, and take effect when it comes.
//!
//! Specification: server-server API, "Handling redactions"; client-server API, "Forming relationships between events".

use protocol::hash;
use ruma::EventId;
use store::{Lead, Owner, Preset, Range, Read as _, RoomNo, Table};

use crate::{EventNo, Result, events, head::OpenRoom, redaction, relations};

pub(crate) static EXPECTED: Table<(RoomNo, [u8; 32], u8, EventNo), ()> = Table::new(
    "expected",
    "The SHA-256 of the ids of events that are not here, with those that redact them (0) or relate to them (1).",
)
.owned_by(Owner::Room)
.read_by(Preset::Scan);

/// The most redactions and relations that take effect when their event comes: the redactions, then the first relations that came.
const TAKEN_MAX: usize = 2_000;

/// What an event that waits does to the one that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// It redacts it.
    Redacts = 0,
    /// It relates to it.
    Relates = 1,
}

/// Notes that an event is about one that is not here.
pub(crate) fn wait(room: &mut OpenRoom<'_, '_>, id: &EventId, deed: Deed, no: EventNo) -> Result<()> {
    room.tx.put(&EXPECTED, &(room.no, hash::sha256(id.as_bytes()), deed as u8, no), &())?;
    Ok(())
}

/// The step of appending that gives a new event what waited for it.
pub(crate) fn apply(room: &mut OpenRoom<'_, '_>, id: &EventId) -> Result<()> {
    for (_, _, deed, no) in take(room, id)? {
        let stored = events::event(room.tx, room.no, no)?;
        if deed == Deed::Redacts as u8 {
            redaction::apply(room, &stored.event, no)?;
        } else if let Some(pos) = stored.header.pos {
            relations::apply(room, &stored.event, no, pos, stored.header.sender)?;
        }
    }
    Ok(())
}

type Key = (RoomNo, [u8; 32], u8, EventNo);

/// What waits for an event, the redactions first. It then waits no longer.
fn take(room: &mut OpenRoom<'_, '_>, id: &EventId) -> Result<Vec<Key>> {
    let waiting = Range::of(&Lead((room.no, hash::sha256(id.as_bytes()))));
    let keys = room.tx.range(&EXPECTED, waiting)?.map(|row| row.map(|(key, ())| key)).take(TAKEN_MAX);
    let keys: Vec<Key> = keys.collect::<store::Result<_>>()?;
    for key in &keys {
        room.tx.delete(&EXPECTED, key)?;
    }
    Ok(keys)
}
