//! Sending: a local user's event from its content to its place at the end of the room.

use std::sync::Arc;

use protocol::{
    auth,
    draft::{self, Draft, Reference},
    event::Event,
    hash,
    json::{JsonError, Object},
    keys::SigningKey,
    power_levels::{Power, PowerLevels},
    version::{EventIdFormat, RoomVersion},
};
use ruma::{EventId, OwnedEventId, OwnedServerName, OwnedUserId, UserId};
use serde_json::Value;
use store::{Lock, Pending, Read, RoomNo, Store, Table, Tx, UserNo};

use crate::{
    Error, EventNo, Result, aliases,
    append::{Accepted, Place, append},
    events::{self, Header, Txn},
    guests,
    head::OpenRoom,
    members::Membership,
    outgoing,
    policy::{self, Unsent},
    redaction, relations, resolve, state,
    state::Root,
};

pub(crate) static TXNS: Table<(UserNo, String), (RoomNo, EventNo, u64)> =
    Table::new("txns", "What a device's transaction made, and when (ms): sent again, it answers the same event.");

/// The most extremities an event names as its parents ("PDUs": at most 20).
const PREV_EVENTS_MAX: usize = 20;

/// Who this server is: the name and key that its events carry.
pub struct Identity {
    /// The server's name.
    pub server_name: OwnedServerName,
    /// Its signing key.
    pub key: SigningKey,
}

/// A local user who does something.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The number.
    pub no: UserNo,
    /// The id.
    pub id: OwnedUserId,
}

/// An event as its sender gives it.
#[derive(Clone, Debug, Default)]
pub struct NewEvent {
    /// The type.
    pub kind: String,
    /// The state key, of state events.
    pub state_key: Option<String>,
    /// The content.
    pub content: Object,
    /// What a redaction redacts.
    pub redacts: Option<OwnedEventId>,
    /// When it happened, in milliseconds since 1970, where its sender knows better than the clock.
    pub origin_server_ts: Option<u64>,
}

impl NewEvent {
    /// A state event.
    #[must_use]
    pub fn state(kind: &str, state_key: &str, content: Object) -> Self {
        Self { kind: kind.to_owned(), state_key: Some(state_key.to_owned()), content, ..Self::default() }
    }

    /// A member event.
    #[must_use]
    pub(crate) fn member(target: &ruma::UserId, membership: Membership, mut content: Object) -> Self {
        content.insert("membership".to_owned(), membership.as_str().into());
        Self::state("m.room.member", target.as_str(), content)
    }
}

/// Sends an event to a room. A transaction that was seen before gives the same event; a state event that changes nothing
/// gives the one that stands.
///
/// # Errors
/// [`Error::UnknownRoom`], [`Error::Denied`], [`Error::TooLarge`], [`Error::BadContent`].
pub fn send(
    store: &Store,
    identity: &Identity,
    sender: &Sender,
    room: RoomNo,
    new: NewEvent,
    txn: Option<Txn>,
    now_ms: u64,
) -> Result<Pending<OwnedEventId>> {
    store.transact(&[Lock::Room(room)], |tx| {
        if let Some(txn) = &txn
            && let Some(sent) = sent_by(tx, room, sender.no, txn)?
        {
            return Ok(sent);
        }
        let mut open = OpenRoom::new(tx, room)?;
        if let Some(standing) = unchanged(&open, sender, &new)? {
            return Ok(standing);
        }
        check_possible(&open, &new)?;
        if let Some(target) = &new.redacts {
            check_redaction(&open, sender, target)?;
        }
        relations::check(&open, sender, &new)?;
        check_aliases(&open, &new)?;
        let (no, event) = send_recommended(&mut open, identity, sender, new, txn.clone(), now_ms)?;
        open.save()?;
        if let Some(txn) = &txn {
            note_txn(tx, room, sender.no, txn, (no, now_ms))?;
        }
        Ok(event.id.clone())
    })
}

/// What nobody of any power could send is malformed, and not forbidden.
fn check_possible(room: &OpenRoom<'_, '_>, new: &NewEvent) -> Result<()> {
    if new.kind == "m.room.create" {
        return Err(Error::Invalid("a room has one create event, its first"));
    }
    if new.kind != "m.room.power_levels" || !room.version.version_12 {
        return Ok(());
    }
    let create = room.state_event("m.room.create", "")?;
    let Ok(powers) = PowerLevels::new(room.version, create.as_deref(), None) else { return Ok(()) };
    let listed = new.content.get("users").and_then(Value::as_object).into_iter().flatten();
    let mut listed = listed.filter_map(|(user, _)| <&UserId>::try_from(user.as_str()).ok());
    match listed.any(|user| powers.user(user) == Ok(Power::Infinite)) {
        true => Err(Error::Invalid("creators of the room have all power, and none that could be listed among its users")),
        false => Ok(()),
    }
}

/// The event that a transaction made before.
pub(crate) fn sent_by(db: &impl Read, room: RoomNo, user: UserNo, txn: &Txn) -> Result<Option<OwnedEventId>> {
    let made = db.get(&TXNS, &(user, txn_key(room, txn).as_str()))?;
    made.map(|(room, no, _)| Ok(events::event(db, room, no)?.header.id.clone())).transpose()
}

/// Notes what a transaction made, and when (ms).
pub(crate) fn note_txn(tx: &mut Tx<'_>, room: RoomNo, user: UserNo, txn: &Txn, (no, at_ms): (EventNo, u64)) -> Result<()> {
    Ok(tx.put(&TXNS, &(user, txn_key(room, txn).as_str()), &(room, no, at_ms))?)
}

/// A redaction is refused at once where it would not be applied, though the rules of the room let it stand.
fn check_redaction(room: &OpenRoom<'_, '_>, sender: &Sender, target: &EventId) -> Result<()> {
    let target = events::by_id(room.tx, room.no, target)?;
    let is_own = target.as_ref().is_some_and(|(_, target)| target.event.sender == sender.id);
    if is_own || redaction::may_redact(room, &sender.id)? {
        // What is not here may be on other servers of the room, and waits for the redaction here too.
        return Ok(());
    }
    match target {
        Some(_) => Err(Error::Forbidden("You may not redact the events of others in this room")),
        None => Err(Error::NotFound("the event to redact")),
    }
}

/// The aliases that a client publishes must be this room's.
fn check_aliases(room: &OpenRoom<'_, '_>, new: &NewEvent) -> Result<()> {
    if new.kind != aliases::CANONICAL || new.state_key.as_deref() != Some("") {
        return Ok(());
    }
    let standing = room.state_event(aliases::CANONICAL, "")?;
    let standing = standing.and_then(|standing| serde_json::from_str(standing.content.get()).ok()).unwrap_or_default();
    aliases::check_canonical(room.tx, room.no, &new.content, &standing)
}

/// The key of a transaction: ids are unique by device and room.
fn txn_key(room: RoomNo, txn: &Txn) -> String {
    format!("{}\0{}\0{}", txn.device, room.0, txn.id)
}

/// The state event that stands, where the new one is by the same user with the same content.
fn unchanged(room: &OpenRoom<'_, '_>, sender: &Sender, new: &NewEvent) -> Result<Option<OwnedEventId>> {
    let Some(key) = &new.state_key else { return Ok(None) };
    let Some(standing) = room.state_event(&new.kind, key)? else { return Ok(None) };
    let same = standing.sender == sender.id
        && serde_json::from_str::<Object>(standing.content.get()).is_ok_and(|content| content == new.content);
    Ok(same.then(|| standing.id.clone()))
}

/// Builds, authorises and appends an event to a room that is open.
pub(crate) fn send_in(
    room: &mut OpenRoom<'_, '_>,
    identity: &Identity,
    sender: &Sender,
    new: NewEvent,
    txn: Option<Txn>,
    now_ms: u64,
) -> Result<(EventNo, Arc<Event>)> {
    guests::check(room, sender, &new)?;
    let (place, event) = prepare(room, identity, sender, new, now_ms)?;
    let no = place_in(room, identity, place, &event, txn)?;
    Ok((no, event))
}

/// [`send_in`] of what a user asks for: the room's policy server must recommend it, else it is handed back in [`Error::Unsigned`].
pub(crate) fn send_recommended(
    room: &mut OpenRoom<'_, '_>,
    identity: &Identity,
    sender: &Sender,
    new: NewEvent,
    txn: Option<Txn>,
    now_ms: u64,
) -> Result<(EventNo, Arc<Event>)> {
    guests::check(room, sender, &new)?;
    let (place, event) = prepare(room, identity, sender, new, now_ms)?;
    if let Some(policy) = policy::to_ask(room, &event)? {
        let txn = txn.map(|txn| (sender.no, txn));
        return Err(Error::Unsigned(Box::new(Unsent { room: room.no, event, policy, txn })));
    }
    let no = place_in(room, identity, place, &event, txn)?;
    Ok((no, event))
}

fn place_in(
    room: &mut OpenRoom<'_, '_>,
    identity: &Identity,
    place: Place,
    event: &Arc<Event>,
    txn: Option<Txn>,
) -> Result<EventNo> {
    let no = append(room, Accepted::at(place, Arc::clone(event), txn))?;
    outgoing::push(room, &identity.server_name, event, no)?;
    Ok(no)
}

/// An event at the end of a room that is open, which its rules allow, and its place.
pub(crate) fn prepare(
    room: &mut OpenRoom<'_, '_>,
    identity: &Identity,
    sender: &Sender,
    new: NewEvent,
    now_ms: u64,
) -> Result<(Place, Arc<Event>)> {
    let place = end(room)?;
    let event = build(room, identity, sender, new, &place, now_ms)?;
    room.with_state(place.before, |state| auth::authorize(room.version, &event, state))??;
    if place.before != room.head.state {
        room.with_state(room.head.state, |state| auth::authorize(room.version, &event, state))??;
    }
    Ok((place, event))
}

/// Where the next event of a local user hangs: after the forward extremities, or the newest of them where they are many.
fn end(room: &mut OpenRoom<'_, '_>) -> Result<Place> {
    let all = &room.head.extremities;
    if all.len() <= PREV_EVENTS_MAX {
        return Ok(Place { parents: all.clone(), before: room.head.state });
    }
    let parents: Vec<EventNo> = all.iter().rev().take(PREV_EVENTS_MAX).copied().collect();
    let before = resolve::after(room, &parents)?;
    Ok(Place { parents, before })
}

pub(crate) fn build(
    room: &OpenRoom<'_, '_>,
    identity: &Identity,
    sender: &Sender,
    new: NewEvent,
    place: &Place,
    now_ms: u64,
) -> Result<Arc<Event>> {
    let version = room.version;
    let auth_events = auth_events(room, sender, &new, place.before)?;
    let draft = Draft {
        room_id: Some(room.room.id.clone()),
        sender: sender.id.clone(),
        kind: new.kind,
        state_key: new.state_key,
        content: new.content,
        redacts: new.redacts,
        origin_server_ts: new.origin_server_ts.unwrap_or(now_ms),
        depth: (room.head.depth + 1).min(version.max_depth()),
        prev_events: place.parents.iter().map(|no| reference(room, *no)).collect::<Result<_>>()?,
        auth_events,
        opaque_id: opaque_id(version, room),
    };
    Ok(draft::build(version, draft, &identity.key, &identity.server_name)?.into_event())
}

/// The events that allow a new one, out of the state before it.
fn auth_events(room: &OpenRoom<'_, '_>, sender: &Sender, new: &NewEvent, before: Root) -> Result<Vec<Reference>> {
    // Only what a member event says of itself selects more.
    let content = if new.kind == "m.room.member" { &new.content } else { &Object::new() };
    let content = serde_json::value::to_raw_value(content).map_err(JsonError::from)?;
    let selection = auth::auth_types(room.version, &new.kind, new.state_key.as_deref(), sender.id.as_str(), &content);
    let entries = selection.iter().map(|(kind, key)| state::entry(room.tx, room.no, before, kind, key));
    entries.filter_map(Result::transpose).map(|no| reference(room, no?)).collect()
}

/// Versions 1 and 2 let the server choose ids: the room and the event's number in it are unique here.
fn opaque_id(version: &RoomVersion, room: &OpenRoom<'_, '_>) -> Option<String> {
    (version.event_ids == EventIdFormat::Chosen).then(|| format!("{}-{}", room.no.0, room.head.events + 1))
}

fn reference(room: &OpenRoom<'_, '_>, no: EventNo) -> Result<Reference> {
    let stored = events::event(room.tx, room.no, no)?;
    let hash = match room.version.event_ids {
        EventIdFormat::Chosen => Some(hash::reference_hash(&stored.event, room.version)?),
        EventIdFormat::Base64 | EventIdFormat::UrlSafe => None,
    };
    Ok(Reference { id: stored.header.id.clone(), hash })
}

/// Forgets the transaction that made an event of a room that goes.
pub(crate) fn forget(tx: &mut Tx<'_>, room: RoomNo, header: &Header) -> Result<()> {
    let Some(txn) = &header.txn else { return Ok(()) };
    Ok(tx.delete(&TXNS, &(header.sender, txn_key(room, txn).as_str()))?)
}

/// Forgets transactions older than `before_ms`, at most `limit` of them. Returns how many went.
///
/// # Errors
/// As the database says.
pub fn prune_txns(store: &Store, before_ms: u64, limit: usize) -> Result<Pending<usize>> {
    store.transact(&[], |tx| prune(tx, before_ms, limit))
}

fn prune(tx: &mut Tx<'_>, before_ms: u64, limit: usize) -> Result<usize> {
    let old: Vec<(UserNo, String)> = tx
        .range(&TXNS, &store::Range::of(&()))?
        .filter_map(|row| row.map(|(key, (_, _, at_ms))| (at_ms < before_ms).then_some(key)).transpose())
        .take(limit)
        .collect::<store::Result<_>>()?;
    for (user, key) in &old {
        tx.delete(&TXNS, &(*user, key.as_str()))?;
    }
    Ok(old.len())
}
