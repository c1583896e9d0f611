//! The only place that makes an event part of a room. It stays a list of calls: what is derived from an event is a
//! function in the file of its own noun.

use std::sync::Arc;

use protocol::event::Event;
use users::numbers as user_numbers;

use crate::{
    EventNo, Pos, Result, chains,
    events::{self, Standing, StoredEvent, Txn},
    expected, guests,
    head::OpenRoom,
    members, partial, redaction, refusals, relations, resolve, state,
    state::Root,
    timeline, times,
};

/// The most forward extremities that a room keeps: of more, the newest. Each local event names up to 20 of them and so makes
/// one of them.
pub(crate) const EXTREMITIES_MAX: usize = 50;

/// Where an event hangs in the DAG.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The events that it follows.
    pub parents: Vec<EventNo>,
    /// The state that they lead to.
    pub before: Root,
}

/// An event that was verified and that the room's rules allow at the place where it is about to stand.
pub(crate) struct Accepted {
    event: Arc<Event>,
    place: Place,
    txn: Option<Txn>,
}

impl Accepted {
    /// States that the caller authorised the event against the state before it and the current state.
    pub fn at(place: Place, event: Arc<Event>, txn: Option<Txn>) -> Self {
        Self { event, place, txn }
    }
}

/// Appends an event to the end of the room.
pub(crate) fn append(room: &mut OpenRoom<'_, '_>, accepted: Accepted) -> Result<EventNo> {
    let Accepted { event, place, txn } = accepted;
    // Of what a client of this server said just now, nobody knew the id before.
    let is_own = txn.is_some();
    let (no, mut stored, is_new) = if is_own { new(room, &event)? } else { known(room, &event)? };
    // An outlier may have been redacted.
    let event = Arc::clone(&stored.event);
    let pos = room.next_pos()?;
    let old = room.head.state;
    stored.header.pos = Some(pos);
    stored.header.standing = Standing::Accepted;
    stored.header.txn = txn;
    stored.header.dag = Some(chains::link_in_dag(room, &place.parents, true)?);
    set_state(room, no, &mut stored, place.before)?;
    stored.header.current = stored.header.after;
    put(room, no, &stored, is_new)?;
    move_extremities(room, no, &stored)?;
    if room.head.state != stored.header.current {
        stored.header.current = room.head.state;
        events::replace(room.tx, room.no, no, &stored)?;
    }

    room.head.depth = room.head.depth.max(event.depth);
    room.head.last = pos;

    partial::note(room, no, false)?;
    timeline::apply(room, &event, no, pos, place.parents.len())?;
    times::apply(room, no, event.origin_server_ts)?;
    members::apply(room, old, pos)?;
    relations::apply(room, &event, no, pos, stored.header.sender)?;
    redaction::apply(room, &event, no)?;
    guests::apply(room, &event, stored.header.replaces)?;
    if !is_own {
        expected::apply(room, &event.id)?;
    }
    Ok(no)
}

/// Stores an event that is no part of the room's timeline, at its place in the DAG: one that failed a check. `older`: it is from before what is shown.
pub(crate) fn put_aside(
    room: &mut OpenRoom<'_, '_>,
    event: &Arc<Event>,
    place: &Place,
    standing: Standing,
    older: bool,
) -> Result<EventNo> {
    let (no, mut stored, is_new) = known(room, event)?;
    stored.header.dag = Some(chains::link_in_dag(room, &place.parents, false)?);
    stored.header.standing = standing;
    set_state(room, no, &mut stored, place.before)?;
    stored.header.current = room.head.state;
    put_refused(room, no, &stored, is_new)?;
    partial::note(room, no, older)?;
    Ok(no)
}

/// Makes an event that others follow already part of the room: its end stays where it is. Given is its place in the timeline, and the room's current state there
/// where this server was in the room before.
pub(crate) fn put_older(
    room: &mut OpenRoom<'_, '_>,
    event: &Arc<Event>,
    place: &Place,
    (pos, current): (Pos, Option<Root>),
) -> Result<EventNo> {
    let (no, mut stored, is_new) = known(room, event)?;
    // Redacted it may be already.
    let event = Arc::clone(&stored.event);
    stored.header.pos = Some(pos);
    stored.header.standing = Standing::Accepted;
    stored.header.dag = Some(chains::link_in_dag(room, &place.parents, false)?);
    set_state(room, no, &mut stored, place.before)?;
    stored.header.current = current.unwrap_or(stored.header.after);
    put(room, no, &stored, is_new)?;
    partial::note(room, no, true)?;
    timeline::apply(room, &event, no, pos, place.parents.len())?;
    times::apply(room, no, event.origin_server_ts)?;
    relations::apply(room, &event, no, pos, stored.header.sender)?;
    redaction::apply(room, &event, no)?;
    expected::apply(room, &event.id)?;
    Ok(no)
}

/// Gives an event that has its place in the DAG another state before it, and what that says of it. Of `older` events the room's end says nothing.
/// Returns whether it is to be shown now and was not.
pub(crate) fn place_again(
    room: &mut OpenRoom<'_, '_>,
    (no, stored): (EventNo, &StoredEvent),
    before: Root,
    standing: Standing,
    older: bool,
) -> Result<bool> {
    let mut stored = stored.clone();
    let is_accepted = standing == Standing::Accepted;
    stored.header.standing = standing;
    stored.header.replaces = None;
    set_state(room, no, &mut stored, before)?;
    // In the middle of the timeline an older event has changed nothing of what was current there.
    if !(older && stored.header.pos.is_some_and(|pos| pos >= Pos(0))) {
        stored.header.current = if is_accepted { stored.header.after } else { room.head.state };
    }
    if !is_accepted {
        hide(room, no, &mut stored)?;
    }
    events::replace(room.tx, room.no, no, &stored)?;
    if !is_accepted || older {
        return Ok(false);
    }
    move_extremities(room, no, &stored)?;
    if room.head.state != stored.header.current {
        stored.header.current = room.head.state;
        events::replace(room.tx, room.no, no, &stored)?;
    }
    Ok(stored.header.pos.is_none())
}

/// Takes an event that turned out to be refused out of what is shown.
fn hide(room: &mut OpenRoom<'_, '_>, no: EventNo, stored: &mut StoredEvent) -> Result<()> {
    refusals::log((room.no, &room.room), stored);
    let Some(pos) = stored.header.pos else { return Ok(()) };
    relations::forget(room, &stored.event, &stored.header)?;
    timeline::hide(room, pos)?;
    times::hide(room, no, stored.event.origin_server_ts)?;
    stored.header.pos = None;
    Ok(())
}

/// Shows an event that has its place in the DAG as the newest: one that turned out to be allowed.
pub(crate) fn show(room: &mut OpenRoom<'_, '_>, no: EventNo) -> Result<()> {
    let mut stored = (*events::event(room.tx, room.no, no)?).clone();
    let (event, pos) = (Arc::clone(&stored.event), room.next_pos()?);
    stored.header.pos = Some(pos);
    stored.header.current = room.head.state;
    events::replace(room.tx, room.no, no, &stored)?;
    room.head.last = pos;
    timeline::apply(room, &event, no, pos, event.prev_events.len())?;
    times::apply(room, no, event.origin_server_ts)?;
    relations::apply(room, &event, no, pos, stored.header.sender)?;
    redaction::apply(room, &event, no)?;
    guests::apply(room, &event, stored.header.replaces)
}

/// Stores an event that others cite.
pub(crate) fn put_outlier(room: &mut OpenRoom<'_, '_>, event: &Arc<Event>, standing: Standing) -> Result<EventNo> {
    let (no, mut stored, is_new) = known(room, event)?;
    stored.header.standing = standing;
    put_refused(room, no, &stored, is_new)?;
    Ok(no)
}

/// Stores an event that is not shown, of which the log tells where it was refused.
fn put_refused(room: &mut OpenRoom<'_, '_>, no: EventNo, stored: &StoredEvent, is_new: bool) -> Result<()> {
    put(room, no, stored, is_new)?;
    refusals::log((room.no, &room.room), stored);
    expected::apply(room, &stored.header.id)
}

/// What is stored of the event, or a new row for it, with its link among auth chains; and whether it is new.
fn known(room: &mut OpenRoom<'_, '_>, event: &Arc<Event>) -> Result<(EventNo, StoredEvent, bool)> {
    if let Some((no, stored)) = events::by_id(room.tx, room.no, &event.id)? {
        return Ok((no, (*stored).clone(), false));
    }
    new(room, event)
}

fn new(room: &mut OpenRoom<'_, '_>, event: &Arc<Event>) -> Result<(EventNo, StoredEvent, bool)> {
    room.head.events += 1;
    let no = EventNo(room.head.events);
    let sender = user_numbers::intern(room.tx, &event.sender)?;
    let mut stored = StoredEvent::outlier(Arc::clone(event), room.version, sender);
    if let Some(pair) = event.state_pair() {
        let mut cited = Vec::with_capacity(event.auth_events.len());
        for id in &event.auth_events {
            cited.extend(events::by_id(room.tx, room.no, id)?.map(|(no, _)| no));
        }
        stored.header.auth = chains::link_by_auth(room, no, pair, &cited)?;
    }
    Ok((no, stored, true))
}

fn set_state(room: &mut OpenRoom<'_, '_>, no: EventNo, stored: &mut StoredEvent, before: Root) -> Result<()> {
    stored.header.before = before;
    stored.header.after = before;
    if let Some(pair) = stored.event.state_pair()
        && stored.rejection().is_none()
    {
        stored.header.replaces = state::entry(room.tx, room.no, before, pair.0, pair.1)?;
        stored.header.after = state::with(room.tx, room.no, &mut room.head, before, pair, no)?;
    }
    Ok(())
}

fn put(room: &mut OpenRoom<'_, '_>, no: EventNo, stored: &StoredEvent, is_new: bool) -> Result<()> {
    let put = if is_new { events::put } else { events::replace };
    put(room.tx, room.no, no, stored)
}

/// The new event takes the place of its ancestors among the extremities, and the current state is what these lead to. A parent
/// may have been kept out of them, and theirs not.
fn move_extremities(room: &mut OpenRoom<'_, '_>, no: EventNo, stored: &StoredEvent) -> Result<()> {
    let mut extremities = Vec::with_capacity(1);
    for extremity in &room.head.extremities {
        if !chains::is_before(room.tx, room.no, *extremity, &stored.header)? {
            extremities.push(*extremity);
        }
    }
    extremities.push(no);
    let excess = extremities.len().saturating_sub(EXTREMITIES_MAX);
    extremities.drain(..excess);
    room.head.state = if extremities.len() == 1 { stored.header.after } else { resolve::after(room, &extremities)? };
    room.head.extremities = extremities;
    Ok(())
}
