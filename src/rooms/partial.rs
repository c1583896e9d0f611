//! Rooms that this server entered without being told of all members: usable at once, and made whole afterwards.
//!
//! Specification: server-server API, `omit_members` of "PUT send_join". The state before the join lacks members until another server tells the whole of it
//! ([`crate::resync`]). Until then each event that gets a place in the room is noted here, because the state before it is partial too.

use std::collections::BTreeSet;

use ruma::{OwnedEventId, OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};
use store::{Lead, Owner, Preset, Range, Read, RoomNo, Table, UserNo};
use users::{accounts, numbers as user_numbers};

use crate::{EventNo, Pos, Result, events, head::OpenRoom, members, servers, state::Root};

pub(crate) static PARTIAL: Table<RoomNo, Partial> = Table::new(
    "partial_rooms",
    "Rooms of which not all members are known yet: who was said to be in them, and how far they are whole.",
)
.owned_by(Owner::Room);
pub(crate) static EVENTS: Table<(RoomNo, u32), Noted> = Table::new(
    "partial_events",
    "The events of such a room that were placed without the whole state, in the order in which they were.",
)
.owned_by(Owner::Room)
.read_by(Preset::Scan);
pub(crate) static ORDER: Table<(RoomNo, EventNo), u32> =
    Table::new("partial_event_nos", "Where each of them is in that order.").owned_by(Owner::Room);
pub(crate) static COMPLETED: Table<(RoomNo, Pos), Pos> =
    Table::new("completed_rooms", "Where in its timeline a room became whole, by where it was entered without all members.")
        .owned_by(Owner::Room)
        .read_by(Preset::Scan);

/// The most servers of a room that are believed to be in it before its members are known.
pub const SERVERS_MAX: usize = 50_000;

/// What a server that let this one in left out.
#[derive(Clone, Debug)]
pub struct Omitted {
    /// That server.
    pub via: OwnedServerName,
    /// The servers that it says are in the room.
    pub servers: Vec<OwnedServerName>,
}

/// A room of which not all members are known yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Partial {
    /// The server that let this one in last.
    pub via: OwnedServerName,
    /// Where in its timeline it was entered.
    pub(crate) since: Pos,
    /// The servers that are believed to be in it.
    pub servers: BTreeSet<OwnedServerName>,
    /// Servers whose users came or went since, as far as it is whole.
    pub(crate) moved: BTreeSet<OwnedServerName>,
    /// The room's end as far as it is whole.
    pub(crate) whole: End,
    /// Events that the whole state allows and the partial one did not, which are to be shown.
    pub(crate) revived: Vec<EventNo>,
}

impl Partial {
    fn by(via: OwnedServerName, since: Pos) -> Self {
        Self { via, since, servers: BTreeSet::new(), moved: BTreeSet::new(), whole: End::default(), revived: Vec::new() }
    }
}

/// An end of a room: what moves when an event is appended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct End {
    /// The events that no other names as its parent.
    pub extremities: Vec<EventNo>,
    /// The state after all of them.
    pub state: Root,
}

/// An event that was placed without the whole state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Noted {
    /// The event.
    pub event: EventNo,
    /// Whether the state before it must be asked for: it is not what its parents lead to.
    pub lacks_state: bool,
    /// Whether the room began anew with it.
    pub begins: bool,
    /// Whether it came from before what is shown, so that the room's end stayed where it was.
    pub older: bool,
}

/// Whether not all members of a room are known.
///
/// # Errors
/// As the database says.
pub fn is_partial(db: &impl Read, room: RoomNo) -> Result<bool> {
    Ok(db.contains(&PARTIAL, &room)?)
}

/// What is known of a room that is partial.
///
/// # Errors
/// As the database says.
pub fn partial(db: &impl Read, room: RoomNo) -> Result<Option<Partial>> {
    Ok(db.get(&PARTIAL, &room)?)
}

/// All rooms that are partial.
///
/// # Errors
/// As the database says.
pub fn rooms(db: &impl Read) -> Result<Vec<RoomNo>> {
    Ok(db.range(&PARTIAL, Range::of(&()))?.map(|row| row.map(|(room, _)| room)).collect::<store::Result<_>>()?)
}

/// Whether a user takes part in a room: as a member, or, while not all are known, as a user of one of its other servers of whom nothing is known there.
///
/// # Errors
/// As the database says.
pub fn takes_part(db: &impl Read, room: RoomNo, user: UserNo) -> Result<bool> {
    if members::is_joined(db, user, room)? {
        return Ok(true);
    }
    // Of this server's own users all is known.
    if !is_partial(db, room)? || members::user_room(db, user, room)?.is_some() || accounts::account(db, user)?.is_some() {
        return Ok(false);
    }
    servers::is_in(db, room, user_numbers::user_id(db, user)?.server_name())
}

/// Whether the state at an event is partial.
///
/// # Errors
/// As the database says.
pub fn is_partial_at(db: &impl Read, room: RoomNo, event: EventNo) -> Result<bool> {
    Ok(db.contains(&ORDER, &(room, event))?)
}

/// Whether a room became whole after a place. Who read it before has to read its state again.
///
/// # Errors
/// As the database says.
pub fn completed_after(db: &impl Read, room: RoomNo, pos: Pos) -> Result<bool> {
    let last = db.first(&COMPLETED, Range::of(&Lead((room,))).reversed())?;
    Ok(last.is_some_and(|(_, completed)| completed > pos))
}

/// Whether a room that is whole was partial at a place.
///
/// # Errors
/// As the database says.
pub fn was_partial(db: &impl Read, room: RoomNo, pos: Pos) -> Result<bool> {
    let entered = db.first(&COMPLETED, Range::of(&Lead((room,))).before(&(room, Pos(pos.0.saturating_add(1)))).reversed())?;
    Ok(entered.is_some_and(|(_, completed)| completed > pos))
}

/// The event of a partial room that must be made whole next, with its id where the state before it must be asked for.
///
/// # Errors
/// As the database says.
pub fn next(db: &impl Read, room: RoomNo) -> Result<Option<(EventNo, Option<OwnedEventId>)>> {
    let Some((_, noted)) = db.first(&EVENTS, Range::of(&Lead((room,))))? else { return Ok(None) };
    let lacking = noted.lacks_state.then(|| events::event(db, room, noted.event));
    Ok(Some((noted.event, lacking.transpose()?.map(|stored| stored.header.id.clone()))))
}

/// The step of placing an event that notes it, in a room that is partial.
pub(crate) fn note(room: &mut OpenRoom<'_, '_>, no: EventNo, older: bool) -> Result<()> {
    if room.partial && is_partial(room.tx, room.no)? {
        put(room, Noted { event: no, lacks_state: false, begins: false, older })?;
    }
    Ok(())
}

fn put(room: &mut OpenRoom<'_, '_>, noted: Noted) -> Result<()> {
    let order = match room.tx.get(&ORDER, &(room.no, noted.event))? {
        Some(order) => order,
        None => room.tx.first(&EVENTS, Range::of(&Lead((room.no,))).reversed())?.map_or(1, |((_, last), _)| last + 1),
    };
    room.tx.put(&EVENTS, &(room.no, order), &noted)?;
    room.tx.put(&ORDER, &(room.no, noted.event), &order)?;
    Ok(())
}

/// How this server came into a room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entered {
    /// The join.
    pub join: EventNo,
    /// Whether the state before it is what came with it: not all its parents are here.
    pub given: bool,
    /// Whether it is the room's only end.
    pub begins: bool,
}

/// Makes a room partial by a join whose state lacks what was omitted, or notes one more join into a room that is partial.
pub(crate) fn enter(room: &mut OpenRoom<'_, '_>, own: &ServerName, entered: Entered, omitted: Option<Omitted>) -> Result<()> {
    let Entered { join, given, begins } = entered;
    let known = partial(room.tx, room.no)?;
    let lacks_state = given && omitted.is_some();
    if known.is_none() && !lacks_state {
        return Ok(());
    }
    if let Some(Omitted { via, servers }) = omitted {
        let pos = room.head.last;
        let mut partial = known.unwrap_or_else(|| Partial::by(via.clone(), pos));
        for server in servers.into_iter().chain([via.clone()]).filter(|server| server != own) {
            if partial.servers.len() < SERVERS_MAX && partial.servers.insert(server.clone()) {
                // A user of each counts as joined who is not known.
                servers::count(room, &server, pos, true)?;
            }
        }
        partial.via = via;
        room.tx.put(&PARTIAL, &room.no, &partial)?;
    }
    put(room, Noted { event: join, lacks_state, begins, older: false })
}

/// Takes an event off the list, which was made whole.
pub(crate) fn forget(room: &mut OpenRoom<'_, '_>, order: u32, event: EventNo) -> Result<()> {
    room.tx.delete(&EVENTS, &(room.no, order))?;
    room.tx.delete(&ORDER, &(room.no, event))?;
    Ok(())
}

/// Makes the room whole at a place.
pub(crate) fn end(room: &mut OpenRoom<'_, '_>, partial: &Partial, pos: Pos) -> Result<()> {
    for server in &partial.servers {
        servers::count(room, server, pos, false)?;
    }
    room.tx.delete(&PARTIAL, &room.no)?;
    room.tx.put(&COMPLETED, &(room.no, partial.since), &pos)?;
    Ok(())
}
