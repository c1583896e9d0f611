//! Which event of a room is closest to a time.
//!
//! Specification: client-server API, "GET timestamp_to_event".

use store::{Lead, Owner, Preset, Range, Read, RoomNo, Table};

use crate::{EventNo, Result, head::OpenRoom, timeline::Direction};

pub(crate) static TIMES: Table<(RoomNo, u64, EventNo), ()> =
    Table::new("event_times", "The events of a room by what they say is their time (ms).")
        .owned_by(Owner::Room)
        .read_by(Preset::Scan);

/// The step of appending that indexes the time of an event.
pub(crate) fn apply(room: &mut OpenRoom<'_, '_>, no: EventNo, ts: u64) -> Result<()> {
    room.tx.put(&TIMES, &(room.no, ts, no), &())?;
    Ok(())
}

/// Takes an event out of the index.
pub(crate) fn hide(room: &mut OpenRoom<'_, '_>, no: EventNo, ts: u64) -> Result<()> {
    room.tx.delete(&TIMES, &(room.no, ts, no))?;
    Ok(())
}

/// The events of a room from a time on, or up to a time: the closest first, read as they are asked for.
///
/// # Errors
/// As the database says.
pub fn closest(
    db: &impl Read,
    room: RoomNo,
    ts: u64,
    direction: Direction,
) -> Result<impl Iterator<Item = Result<(u64, EventNo)>> + '_> {
    let all = Range::of(&Lead((room,)));
    let range = match direction {
        Direction::Forward => all.from(&Lead((room, ts))),
        Direction::Backward => all.through(&Lead((room, ts))).reversed(),
    };
    let rows = db.range(&TIMES, range)?;
    Ok(rows.map(|row| row.map(|((_, ts, no), ())| (ts, no)).map_err(Into::into)))
}
