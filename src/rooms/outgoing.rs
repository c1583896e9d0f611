//! The log of what other servers are to be told: the events of this server's users, in the order of their commits. Who sends them
//! reads on from where it was, and is woken by [`Topic::Outgoing`](store::Topic::Outgoing).

use protocol::event::Event;
use ruma::{ServerName, UserId};
use store::{Range, Read, RoomNo, Table, Topic};

use crate::{EventNo, Pos, Result, head::OpenRoom, servers};

pub(crate) static OUTGOING: Table<(Pos, RoomNo), EventNo> =
    Table::new("outgoing_events", "Events that the other servers of their room are still to be told.")
        .read_by(store::Preset::Scan);

/// An event in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its place in the log.
    pub pos: Pos,
    /// The room.
    pub room: RoomNo,
    /// The event.
    pub event: EventNo,
}

/// The step of sending that tells other servers of an event that was appended: where there are any in the room, or its target is a user of one.
pub(crate) fn push(room: &mut OpenRoom<'_, '_>, own: &ServerName, event: &Event, no: EventNo) -> Result<()> {
    if target(event).is_none_or(|target| target == own) && !servers::has_others(room.tx, room.no, own)? {
        return Ok(());
    }
    room.tx.put(&OUTGOING, &(room.head.last, room.no), &no)?;
    room.tx.touch(Topic::Outgoing);
    Ok(())
}

/// The server of the user whose membership an event changes.
#[must_use]
pub fn target(event: &Event) -> Option<&ServerName> {
    let user = event.state_pair().filter(|(kind, _)| *kind == "m.room.member").map(|(_, user)| user)?;
    <&UserId>::try_from(user).ok().map(UserId::server_name)
}

/// The oldest entries of the log, at most `limit`.
///
/// # Errors
/// As the database says.
pub fn oldest(db: &impl Read, limit: usize) -> Result<Vec<Outgoing>> {
    let rows = db.range(&OUTGOING, Range::of(&()))?.take(limit);
    Ok(rows.map(|row| row.map(|((pos, room), event)| Outgoing { pos, room, event })).collect::<store::Result<_>>()?)
}

/// Takes entries out of the log, in the transaction that queued them.
///
/// # Errors
/// As the database says.
pub fn taken(tx: &mut store::Tx<'_>, entries: &[Outgoing]) -> Result<()> {
    for entry in entries {
        tx.delete(&OUTGOING, &(entry.pos, entry.room))?;
    }
    Ok(())
}
