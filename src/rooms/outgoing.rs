//! The logs of what other servers are to be told: the events of this server's users, and with whom these came to share a room, in the order of their commits. Who
//! sends them reads on from where it was, and is woken by [`Topic::Outgoing`](store::Topic::Outgoing).

use protocol::event::Event;
use ruma::{OwnedServerName, ServerName, UserId};
use serde::{Deserialize, Serialize};
use store::{Range, Read, RoomNo, Table, Topic, UserNo};

use crate::{EventNo, Pos, Result, head::OpenRoom, members::Membership, servers};

pub(crate) static OUTGOING: Table<(Pos, RoomNo), EventNo> =
    Table::new("outgoing_events", "Events that the other servers of their room are still to be told.")
        .read_by(store::Preset::Scan);

pub(crate) static ACQUAINTED: Table<(Pos, RoomNo), Acquainted> = Table::new(
    "outgoing_acquaintances",
    "Local users and servers that came to share a room by other servers: the servers are still to be told of the users' devices.",
)
.read_by(store::Preset::Scan);

/// Who is in a room with whom from now on (server-server API, "Device Management").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acquainted {
    /// A local user who entered with the room's other servers.
    User(UserNo),
    /// Servers that turned out to be in the room with its local users, or to have been there.
    Servers(Vec<OwnedServerName>),
}

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
    if told_beside(event).is_none_or(|target| target == own) && !servers::has_others(room, own)? {
        return Ok(());
    }
    room.tx.put(&OUTGOING, &(room.head.last, room.no), &no)?;
    room.tx.touch(Topic::Outgoing);
    Ok(())
}

/// Puts it in the log that a local user, or servers, are in a room from this place on with those who were in it.
pub(crate) fn acquaint(room: &mut OpenRoom<'_, '_>, pos: Pos, who: &Acquainted) -> Result<()> {
    room.tx.put(&ACQUAINTED, &(pos, room.no), who)?;
    room.tx.touch(Topic::Outgoing);
    Ok(())
}

/// The server that is told of an event whether it is in the room or not: that of its target, but for an invitation, which it has signed.
#[must_use]
pub fn told_beside(event: &Event) -> Option<&ServerName> {
    target(event).filter(|_| Membership::of(event) != Membership::Invite)
}

/// The server of the user whose membership an event changes.
pub(crate) fn target(event: &Event) -> Option<&ServerName> {
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

/// The oldest entries of the log of those who came to share a room, at most `limit`.
///
/// # Errors
/// As the database says.
pub fn acquainted(db: &impl Read, limit: usize) -> Result<Vec<((Pos, RoomNo), Acquainted)>> {
    Ok(db.range(&ACQUAINTED, Range::of(&()))?.take(limit).collect::<store::Result<_>>()?)
}

/// Takes an entry of [`acquainted`] out of the log.
///
/// # Errors
/// As the database says.
pub fn introduced(tx: &mut store::Tx<'_>, place: (Pos, RoomNo)) -> Result<()> {
    Ok(tx.delete(&ACQUAINTED, &place)?)
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
