//! What must hold of a room's rows, whatever happened: for `hearth check`, and for tests that ask whether it does.

use std::collections::BTreeMap;

use protocol::{
    event::Event,
    hash,
    parse::RawPdu,
    redact,
    verify::{VerifyError, VerifyKey},
    version::RoomVersion,
};
use ruma::{OwnedEventId, ServerName};
use store::{Read, RoomNo};
use users::numbers as user_numbers;

use crate::{
    Error, EventNo, Result, chains,
    events::{self, StoredEvent},
    head,
    members::{self, Membership},
    numbers, partial, resolve,
    state::{self, Root},
    timeline,
};

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The event that it is about; without one it is about the room.
    pub event: Option<OwnedEventId>,
    /// What is wrong.
    pub what: String,
}

/// What a part of a room's events was found to be.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// How many events were looked at.
    pub events: usize,
    /// The last of them, where there are more.
    pub more_after: Option<EventNo>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// Checks the events of a room after this one, at most `limit`.
///
/// # Errors
/// [`Error::UnknownRoom`], and where the database cannot be read at all. A row that cannot be read is a fault.
pub fn events(db: &impl Read, room: RoomNo, after: EventNo, limit: u32) -> Result<Checked> {
    let version = numbers::room(db, room)?.version()?;
    let last = EventNo(head(db, room)?.events);
    let until = EventNo(after.0.saturating_add(limit)).min(last);
    let mut checked = Checked { more_after: (until < last).then_some(until), ..Checked::default() };
    for no in (after.0 + 1..=until.0).map(EventNo) {
        checked.events += 1;
        match events::event(db, room, no) {
            Ok(stored) => {
                let of_event = |what| Fault { event: Some(stored.header.id.clone()), what };
                let faults = readable(event(db, room, no, &stored, version))?.unwrap_or_else(|unread| vec![unread]);
                checked.faults.extend(faults.into_iter().map(of_event));
            }
            unread => {
                let what = readable(unread)?.err().unwrap_or_default();
                checked.faults.push(Fault { event: None, what: format!("event number {}: {what}", no.0) });
            }
        }
    }
    Ok(checked)
}

/// What a part of a room's events was found to be signed by.
#[derive(Clone, Debug, Default)]
pub struct Signatures {
    /// How many events were signed only with keys that are not known here.
    pub unknown: usize,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// Checks the signatures of the events of a room after this one, of `limit` at most. `key` gives a server's key by its id, for as long as
/// it counts, if it is known here.
///
/// # Errors
/// As [`events`], which tells of rows that cannot be read.
pub fn signatures(
    db: &impl Read,
    room: RoomNo,
    after: EventNo,
    limit: u32,
    key: impl Fn(&ServerName, &str) -> Option<VerifyKey>,
) -> Result<Signatures> {
    let version = numbers::room(db, room)?.version()?;
    let until = EventNo(after.0.saturating_add(limit)).min(EventNo(head(db, room)?.events));
    let mut checked = Signatures::default();
    for no in (after.0 + 1..=until.0).map(EventNo) {
        let Ok(stored) = readable(events::event(db, room, no))? else { continue };
        let what = match verified(&stored, version, &key) {
            Ok(true) => continue,
            Ok(false) => {
                checked.unknown += 1;
                continue;
            }
            Err(what) => what,
        };
        checked.faults.push(Fault { event: Some(stored.header.id.clone()), what });
    }
    Ok(checked)
}

/// Whether an event's signatures could be checked; or what is wrong with them.
fn verified(
    stored: &StoredEvent,
    version: &'static RoomVersion,
    key: impl Fn(&ServerName, &str) -> Option<VerifyKey>,
) -> std::result::Result<bool, String> {
    let object = stored.event.object().map_err(|error| error.to_string())?;
    let parsed = RawPdu::from_object(object).parse(version).map_err(|error| error.to_string())?;
    match parsed.verify(key) {
        Ok(_) => Ok(true),
        Err(VerifyError::UnknownKey(_)) => Ok(false),
        // What said that the invitation was for a third party, and needed no signature, is gone.
        Err(VerifyError::Unsigned(_)) if stored.header.redacted_by.is_some() && stored.event.kind == "m.room.member" => Ok(false),
        Err(wrong) => Err(wrong.to_string()),
    }
}

/// What was read, or that a row is not there or is none: a fault, not a failure.
fn readable<T>(read: Result<T>) -> Result<std::result::Result<T, String>> {
    match read {
        Ok(read) => Ok(Ok(read)),
        Err(error @ (Error::NotFound(_) | Error::Store(store::Error::Corrupt { .. }))) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

/// What is wrong with one event.
fn event(db: &impl Read, room: RoomNo, no: EventNo, stored: &StoredEvent, version: &'static RoomVersion) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let header = &stored.header;
    if events::find(db, &header.id)? != Some((room, no)) {
        faults.push("the index of event ids leads elsewhere".to_owned());
    }
    if let Some(fault) = hashes(stored, version) {
        faults.push(fault.to_owned());
    }
    if let Some(pos) = header.pos
        && timeline::last_until(db, room, pos)?.is_none_or(|placed| placed.no != no)
    {
        faults.push("it is not in its place in the timeline".to_owned());
    }
    // In a room that becomes whole, an event may be so before those that follow it.
    if header.dag.is_some() && !partial::is_partial_at(db, room, no)? {
        faults.extend(states(db, room, no, stored, version)?.map(str::to_owned));
    }
    Ok(faults)
}

fn hashes(stored: &StoredEvent, version: &RoomVersion) -> Option<&'static str> {
    let event: &Event = &stored.event;
    let reference = hash::reference_hash(event, version).ok()?;
    if hash::event_id(&reference, version).is_some_and(|id| id != stored.header.id) {
        return Some("its id is not that of its content");
    }
    let Ok(object) = event.object() else { return Some("it is no JSON object") };
    // What was redacted, or came redacted, has the hash of what it was.
    let mut redacted = object.clone();
    redact::redact(&mut redacted, version);
    let intact = hash::content_hash_matches(&object, version).unwrap_or(false);
    (!intact && redacted != object).then_some("its content hash does not hold")
}

/// The state before an event is what those after its parents resolve to, and the state after it differs from that by the event alone.
fn states(
    db: &impl Read,
    room: RoomNo,
    no: EventNo,
    stored: &StoredEvent,
    version: &'static RoomVersion,
) -> Result<Option<&'static str>> {
    let header = &stored.header;
    if let Some(states) = after_parents(db, room, stored)?
        && !resolve::is_resolved(db, room, version, &states, header.before)?
    {
        return Ok(Some("the state before it is not what those after its parents resolve to"));
    }
    let changes = state::difference(db, room, header.before, header.after)?;
    let own = stored.event.state_key.is_some() && stored.rejection().is_none();
    let holds = match changes.as_slice() {
        [] => !own,
        [(_, new)] => own && *new == Some(no),
        _ => false,
    };
    Ok((!holds).then_some("the state after it is not the one that it makes"))
}

/// The states after the parents of an event, unless one was not here when the event came: then the state before it was given.
fn after_parents(db: &impl Read, room: RoomNo, stored: &StoredEvent) -> Result<Option<Vec<Root>>> {
    let mut states = Vec::with_capacity(stored.event.prev_events.len());
    for id in &stored.event.prev_events {
        match events::by_id(db, room, id)? {
            Some((no, parent)) if chains::is_before(db, room, no, &stored.header)? => states.push(parent.header.after),
            _ => return Ok(None),
        }
    }
    Ok(Some(states))
}

/// Checks what moves with a room's end: extremities, current state, members.
///
/// # Errors
/// As [`events`].
pub fn end(db: &impl Read, room: RoomNo) -> Result<Vec<Fault>> {
    let faults = readable(faults_of_end(db, room))?;
    Ok(faults.unwrap_or_else(|unread| vec![Fault { event: None, what: unread }]))
}

fn faults_of_end(db: &impl Read, room: RoomNo) -> Result<Vec<Fault>> {
    let head = head(db, room)?;
    let mut faults = Vec::new();
    let mut fault = |what: &str| faults.push(Fault { event: None, what: what.to_owned() });
    for extremity in &head.extremities {
        for other in head.extremities.iter().filter(|other| *other != extremity) {
            if chains::is_before(db, room, *extremity, &events::event(db, room, *other)?.header)? {
                fault("a forward extremity is an ancestor of another");
            }
        }
    }
    let last = timeline::last_until(db, room, crate::Pos(i64::MAX))?;
    let partial = partial::is_partial(db, room)?;
    if !partial && last.as_ref().is_some_and(|last| last.pos != head.last) {
        fault("the newest event of the timeline is not the room's last");
    }
    let current = last.map(|last| last.stored.header.current).unwrap_or_default();
    if !partial && !state::difference(db, room, current, head.state)?.is_empty() {
        fault("the current state is not that at the newest event");
    }
    let mut rows = BTreeMap::new();
    for member in members::members(db, room)? {
        let (user, membership) = member?;
        rows.insert(user_numbers::user_id(db, user)?.to_string(), membership);
    }
    let count = |membership| rows.values().filter(|other| **other == membership).count() as u64;
    if (count(Membership::Join), count(Membership::Invite)) != (head.joined.into(), head.invited.into()) {
        fault("the numbers of members are not those of its members");
    }
    if rows != in_state(db, room, head.state)? {
        fault("its members are not those of its state");
    }
    Ok(faults)
}

/// Who is joined or invited by a state.
fn in_state(db: &impl Read, room: RoomNo, root: Root) -> Result<BTreeMap<String, Membership>> {
    let mut found = BTreeMap::new();
    for no in state::of_type(db, room, root, "m.room.member")? {
        let stored = events::event(db, room, no)?;
        let membership = Membership::of(&stored.event);
        let counts = matches!(membership, Membership::Join | Membership::Invite);
        if let Some(user) = stored.event.state_key.as_deref().filter(|user| counts && <&ruma::UserId>::try_from(*user).is_ok()) {
            found.insert(user.to_owned(), membership);
        }
    }
    Ok(found)
}
