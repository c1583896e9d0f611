//! Making a room whole that was entered without all members: with the whole state before the join, the events since then are judged again.
//!
//! In their order, and against an end of the room of its own that begins with the join: so each gets the states, and the standing, that it would have had if all had
//! been known from the start. Once that end has caught up it takes the place of the room's. One bounded write after the other; what is left to do is in
//! [`crate::partial`], so that it goes on after a restart.

use std::{collections::BTreeSet, sync::Arc};

use protocol::event::Event;
use ruma::{EventId, OwnedEventId, OwnedServerName};
use store::{Lead, Pending, Range, Read as _, RoomNo, Store, Topic};

use crate::{
    Error, EventNo, Result, append, chains,
    events::{self, Standing, StoredEvent},
    head::{self, OpenRoom},
    members::{self, Membership},
    outgoing::{self, Acquainted},
    partial::{self, EVENTS, End, Noted, PARTIAL, Partial, SERVERS_MAX},
    receive, resolve, servers,
    state::{self, Root},
    timeline,
};

/// The most events that one write makes whole: in tests few, so that they take several.
const STEP_MAX: usize = if cfg!(test) { 3 } else { 500 };
/// The most events that are shown late because only the whole state allows them. Others have their effect, and are shown to nobody.
const REVIVED_MAX: usize = 1_000;

/// How far a room is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do.
    More,
    /// The room is whole.
    Whole,
}

/// The state before an event as another server gave it.
#[derive(Clone, Debug)]
pub struct Before {
    /// The event.
    pub event: EventNo,
    /// Events that are here: the state before the event, or before its parent.
    pub state: Vec<OwnedEventId>,
    /// The event's only parent, which is here, where it is the state before that.
    pub parent: Option<OwnedEventId>,
}

/// Goes on with making a room whole. `before` is the state before the event that is [`partial::next`], where that lacks it.
///
/// # Errors
/// [`Error::Denied`] where that state does not allow the event, so that it cannot be the right one; [`Error::UnknownRoom`], [`Error::TooComplex`].
pub fn step(store: &Store, room: RoomNo, before: Option<&Before>) -> Result<Pending<Step>> {
    head::change(store, room, |open| {
        let Some(mut partial) = open.tx.get(&PARTIAL, &room)? else { return Ok(Step::Whole) };
        // What is judged now is judged by whole states.
        open.partial = false;
        exchange(open, &mut partial.whole);
        if make_whole(open, before, &mut partial)? {
            exchange(open, &mut partial.whole);
            open.tx.put(&PARTIAL, &room, &partial)?;
            return Ok(Step::More);
        }
        finish(open, &partial)?;
        Ok(Step::Whole)
    })
}

/// Exchanges the room's end for another.
fn exchange(room: &mut OpenRoom<'_, '_>, end: &mut End) {
    std::mem::swap(&mut room.head.extremities, &mut end.extremities);
    std::mem::swap(&mut room.head.state, &mut end.state);
}

/// Makes the next events whole. Returns whether there are more.
fn make_whole(room: &mut OpenRoom<'_, '_>, before: Option<&Before>, partial: &mut Partial) -> Result<bool> {
    let next = room.tx.range(&EVENTS, Range::of(&Lead((room.no,))))?.take(STEP_MAX + 1);
    let next: Vec<((RoomNo, u32), Noted)> = next.collect::<store::Result<_>>()?;
    for ((_, order), noted) in next.iter().take(STEP_MAX) {
        let stored = events::event(room.tx, room.no, noted.event)?;
        let before = match (noted.lacks_state, before.filter(|before| before.event == noted.event)) {
            (false, _) => state_before(room, &stored)?,
            (true, None) => return Ok(true),
            (true, Some(before)) => given(room, &stored, before)?,
        };
        if noted.begins {
            room.head.extremities.clear();
        }
        if again(room, *noted, &stored, before)? && partial.revived.len() < REVIVED_MAX {
            partial.revived.push(noted.event);
        }
        note_move(room, (noted.event, &stored.event), &mut partial.moved)?;
        partial::forget(room, *order, noted.event)?;
    }
    Ok(next.len() > STEP_MAX)
}

/// The state before an event as another server gave it.
fn given(room: &mut OpenRoom<'_, '_>, stored: &StoredEvent, before: &Before) -> Result<Root> {
    let state = receive::state_of(room, &before.state)?;
    let before = match &before.parent {
        Some(parent) => after(room, state, parent)?,
        None => state,
    };
    match receive::denied_by(room, &stored.event, before, &[])? {
        Some(denied) => Err(Error::Denied(denied)),
        None => Ok(before),
    }
}

/// The state after an event that has no place in the graph, from that before it.
fn after(room: &mut OpenRoom<'_, '_>, before: Root, event: &EventId) -> Result<Root> {
    let (no, stored) = events::by_id(room.tx, room.no, event)?.ok_or(Error::NotFound("the parent"))?;
    let Some(pair) = stored.event.state_pair() else { return Ok(before) };
    if stored.rejection().is_some() || receive::denied_by(room, &stored.event, before, &[])?.is_some() {
        return Ok(before);
    }
    state::with(room.tx, room.no, &mut room.head, before, pair, no)
}

/// The state that the parents of an event lead to; where one was not here when it came, the state that was given for it, which was whole.
fn state_before(room: &mut OpenRoom<'_, '_>, stored: &StoredEvent) -> Result<Root> {
    let found = receive::parents(room, &stored.event)?;
    let mut known = found.missing.is_empty();
    for parent in &found.here {
        known &= chains::is_before(room.tx, room.no, *parent, &stored.header)?;
    }
    if known { resolve::after(room, &found.here) } else { Ok(stored.header.before) }
}

/// Judges an event again and stores what comes of it. Returns whether it is to be shown now and was not before.
fn again(room: &mut OpenRoom<'_, '_>, noted: Noted, stored: &Arc<StoredEvent>, before: Root) -> Result<bool> {
    let cited = receive::cited_events(room, &stored.event)?;
    let standing = match receive::rejection_now(room, &stored.event, &cited.here, before)? {
        Some(reason) => Standing::Rejected(reason),
        None if noted.older => Standing::Accepted,
        None => match (receive::soft_failure(room, &stored.event, &cited.here)?, receive::unasked(room, &stored.event)?) {
            (Some(reason), _) => Standing::SoftFailed(reason),
            // It was asked when the event came.
            (None, Some(policy)) => Standing::SoftFailed(receive::not_recommended(&policy)),
            (None, None) => Standing::Accepted,
        },
    };
    append::place_again(room, (noted.event, stored), before, standing, noted.older)
}

/// Notes the server of a user who came or went with an event.
fn note_move(room: &OpenRoom<'_, '_>, (no, event): (EventNo, &Event), moved: &mut BTreeSet<OwnedServerName>) -> Result<()> {
    let Some(server) = outgoing::target(event).filter(|server| !moved.contains(*server)) else { return Ok(()) };
    // As it was judged just now.
    let stored = events::event(room.tx, room.no, no)?;
    let memberships = [Membership::of(event), members::replaced_by(room.tx, room.no, &stored)?];
    let was_there = memberships.contains(&Membership::Join);
    if stored.header.standing == Standing::Accepted && was_there && moved.len() < SERVERS_MAX {
        moved.insert(server.to_owned());
    }
    Ok(())
}

fn servers_of(room: &OpenRoom<'_, '_>) -> Result<BTreeSet<OwnedServerName>> {
    servers::servers(room.tx, room.no)?.collect()
}

/// The end that has caught up is the room's now: what follows from its state follows from another than the one that was.
fn finish(room: &mut OpenRoom<'_, '_>, partial: &Partial) -> Result<()> {
    for no in &partial.revived {
        append::show(room, *no)?;
    }
    let pos = room.next_pos()?;
    let before = servers_of(room)?;
    members::apply(room, partial.whole.state, pos)?;
    room.head.last = timeline::last_until(room.tx, room.no, pos)?.map_or(room.head.last, |newest| newest.pos);
    partial::end(room, partial, pos)?;
    let mut found = servers_of(room)?;
    // They may have been in the room while it was not known, and have left it since.
    found.extend(partial.moved.iter().cloned());
    let found: Vec<OwnedServerName> = found.difference(&before).cloned().collect();
    if !found.is_empty() {
        outgoing::acquaint(room, pos, &Acquainted::Servers(found))?;
    }
    room.tx.touch(Topic::Room(room.no));
    Ok(())
}
