//! Events of other servers: what the checks on receipt say of each, and its place in the room.
//!
//! Specification: server-server API, "Checks performed on receipt of a PDU". Nothing here waits: what is missing is named, for the
//! caller to fetch, and the next call checks everything again under the room's lock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{
    auth::{self, AuthEvent, Denied},
    dag,
    event::Event,
    verify::Verified,
    version::RoomVersion,
};
use ruma::{OwnedEventId, OwnedServerName, ServerName};
use store::{Lock, Pending, RoomNo, Store};

use crate::{
    Error, EventNo, Pos, Result,
    append::{self, Accepted, Place},
    events::{self, Standing, StoredEvent, Txn},
    head::{self, OpenRoom},
    numbers,
    outgoing::{self, Acquainted},
    partial::{self, Entered, Omitted},
    policy::{self, Unsent},
    resolve,
    send::{self, Identity, Sender},
    servers,
    state::{self, Root},
    timeline, upgrade,
};

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is part of the room.
    Accepted(EventNo),
    /// It is in the DAG, and nobody is shown it: the rule and why.
    SoftFailed(String),
    /// It is kept only so that it stays rejected: the rule and why.
    Rejected(String),
    /// It was here before.
    Duplicate,
    /// This policy server has to be asked to sign it first. Nothing was changed.
    Unsigned(OwnedServerName),
    /// These must be here first. Nothing was changed.
    Missing(Missing),
}

/// What an event cites and this server does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Its parents, or the state before it ([`receive_with_state`]).
    pub prev_events: Vec<OwnedEventId>,
    /// Events of its auth chain ([`receive_outliers`]).
    pub auth_events: Vec<OwnedEventId>,
}

/// The most events that one call stores.
pub const OUTLIERS_MAX: usize = 1_000;

/// Receives an event whose parents are here, or names what is missing.
///
/// # Errors
/// [`Error::UnknownRoom`], [`Error::TooComplex`].
pub fn receive(store: &Store, room: RoomNo, event: Verified) -> Result<Pending<Outcome>> {
    head::change(store, room, |open| receive_in(open, &event.into_event(), How::default()))
}

/// Receives events in their order with one write, up to the first that [`Outcome::Missing`] or [`Outcome::Unsigned`] would be said of. Returns
/// what became of those before it.
///
/// # Errors
/// As [`receive`], for all of them: nothing was changed.
pub fn receive_together(store: &Store, room: RoomNo, events: &[Verified]) -> Result<Pending<Vec<Outcome>>> {
    head::change(store, room, |open| {
        let mut outcomes = Vec::with_capacity(events.len());
        for event in events {
            match receive_in(open, event.event(), How::default())? {
                Outcome::Missing(_) | Outcome::Unsigned(_) => break,
                outcome => outcomes.push(outcome),
            }
        }
        Ok(outcomes)
    })
}

/// Receives an event that the room's policy server was asked to sign, as [`receive`] or [`receive_with_state`]: without its signature it is soft-failed.
///
/// # Errors
/// As there.
pub fn receive_asked(store: &Store, room: RoomNo, event: Verified, before: Option<&[OwnedEventId]>) -> Result<Pending<Outcome>> {
    head::change(store, room, |open| receive_in(open, &event.into_event(), How { given: before, asked: true, txn: None }))
}

/// Sends an event of a local user that the room's policy server has signed since ([`Error::Unsigned`]). All is checked again.
///
/// # Errors
/// As [`crate::send::send`]; [`Error::Unsigned`] where the signature is not that which the room wants.
pub fn send_signed(
    store: &Store,
    identity: &Identity,
    unsent: Unsent,
    now_ms: u64,
    signed: Verified,
) -> Result<Pending<OwnedEventId>> {
    head::change(store, unsent.room, |open| {
        let Unsent { room, txn, .. } = &unsent;
        // Sent again while the policy server was asked.
        if let Some((user, txn)) = txn
            && let Some(sent) = send::sent_by(open.tx, *room, *user, txn)?
        {
            return Ok(sent);
        }
        let event = signed.into_event();
        let how = How { txn: txn.as_ref().map(|(_, txn)| txn.clone()), ..How::default() };
        match receive_in(open, &event, how)? {
            Outcome::Accepted(no) => {
                outgoing::push(open, &identity.server_name, &event, no)?;
                if let Some((user, txn)) = txn {
                    send::note_txn(open.tx, *room, *user, txn, (no, now_ms))?;
                }
                Ok(event.id.clone())
            }
            Outcome::Duplicate => Ok(event.id.clone()),
            Outcome::Unsigned(_) => Err(Error::Unsigned(Box::new(unsent.clone()))),
            Outcome::SoftFailed(_) | Outcome::Rejected(_) | Outcome::Missing(_) => {
                Err(Error::Forbidden("The room changed meanwhile, and no longer allows this"))
            }
        }
    })
}

/// Receives an event that this server signed too, or that it answers for, and so tells the other servers of: a join by way of this server, an
/// invitation that the invited user's server has signed.
///
/// # Errors
/// As [`receive`].
pub fn receive_and_tell(store: &Store, identity: &Identity, room: RoomNo, event: Verified) -> Result<Pending<Outcome>> {
    head::change(store, room, |open| {
        let event = event.into_event();
        let outcome = receive_in(open, &event, How::default())?;
        if let Outcome::Accepted(no) = outcome {
            outgoing::push(open, &identity.server_name, &event, no)?;
        }
        Ok(outcome)
    })
}

/// Receives the join of a user by which this server becomes a member of a room, with the state before it: events that are here. What the server
/// knew of the room when it was in it before is no longer its end. Where that state lacks what was `omitted`, the room is partial from then on.
///
/// # Errors
/// As [`receive_with_state`].
pub fn enter(
    store: &Store,
    identity: &Identity,
    user: &Sender,
    room: RoomNo,
    join: Verified,
    before: &[OwnedEventId],
    omitted: Option<Omitted>,
) -> Result<Pending<Outcome>> {
    store.transact(&[Lock::Room(room), Lock::User(user.no)], |tx| {
        let mut open = OpenRoom::new(tx, room)?;
        let begins = !servers::is_in(open.tx, room, &identity.server_name)?;
        if begins {
            open.head.extremities.clear();
        }
        let join = join.into_event();
        let given = !parents(&open, &join)?.missing.is_empty();
        open.partial |= given && omitted.is_some();
        let outcome = receive_in(&mut open, &join, How { given: Some(before), ..How::default() })?;
        if let Outcome::Accepted(join) = outcome {
            partial::enter(&mut open, &identity.server_name, Entered { join, given, begins }, omitted)?;
            let pos = open.head.last;
            outgoing::acquaint(&mut open, pos, &Acquainted::User(user.no))?;
        }
        open.save()?;
        if matches!(outcome, Outcome::Accepted(_)) {
            upgrade::succeed(tx, user, room)?;
        }
        Ok(outcome)
    })
}

/// Receives an event with parents that are not here, and the state before it as another server gave it: events that are here.
///
/// # Errors
/// [`Error::UnknownRoom`], [`Error::NotFound`] where an event of the state is not here, [`Error::TooComplex`].
pub fn receive_with_state(store: &Store, room: RoomNo, event: Verified, before: &[OwnedEventId]) -> Result<Pending<Outcome>> {
    head::change(store, room, |open| receive_in(open, &event.into_event(), How { given: Some(before), ..How::default() }))
}

/// Stores events that others cite, of which the place in the DAG is not known: each is checked against its auth events, which
/// must be here or among them. Returns what is missing; events that lack something were left out.
///
/// # Errors
/// [`Error::UnknownRoom`], [`Error::TooLarge`] beyond [`OUTLIERS_MAX`].
pub fn receive_outliers(store: &Store, room: RoomNo, outliers: Vec<Verified>) -> Result<Pending<BTreeSet<OwnedEventId>>> {
    head::change(store, room, |open| put_outliers(open, outliers))
}

/// Makes a room known of which this server is becoming a member: its create event, which others lead to. Nobody is in it before [`enter`] had
/// the join.
///
/// # Errors
/// [`Error::Denied`] for a create event that its rules reject.
pub fn import(store: &Store, create: Verified, version: &'static RoomVersion) -> Result<Pending<RoomNo>> {
    let create = create.into_event();
    auth::authorize(version, &create, |_, _| None)?;
    let no = store.transact(&[], |tx| numbers::ensure(tx, &create.room_id, version))?.soft();
    store.transact(&[Lock::Room(no)], |tx| {
        let mut room = OpenRoom::new(tx, no)?;
        if room.head.events == 0 {
            append::put_outlier(&mut room, &create, Standing::Outlier)?;
            room.save()?;
        }
        Ok(no)
    })
}

fn put_outliers(room: &mut OpenRoom<'_, '_>, outliers: Vec<Verified>) -> Result<BTreeSet<OwnedEventId>> {
    if outliers.len() > OUTLIERS_MAX {
        return Err(Error::TooLarge { what: "list of events", limit: OUTLIERS_MAX });
    }
    let events: BTreeMap<OwnedEventId, Arc<Event>> =
        outliers.into_iter().map(Verified::into_event).map(|event| (event.id.clone(), event)).collect();
    let cited = events.iter().map(|(id, event)| (id.clone(), event.auth_events.iter().cloned().collect())).collect();
    let mut missing = BTreeSet::new();
    for id in dag::topological_order(&cited, |_| ()) {
        let Some(event) = events.get(&id) else { continue };
        if event.room_id != room.room.id || events::find(room.tx, &id)?.is_some() {
            continue;
        }
        let cited = cited_events(room, event)?;
        if !cited.missing.is_empty() {
            missing.extend(cited.missing.into_iter().filter(|id| !events.contains_key(id)));
            continue;
        }
        let denied = standing_by_auth(room, event, &cited.here)?;
        let standing = denied.map_or(Standing::Outlier, |denied| Standing::Rejected(denied.to_string()));
        append::put_outlier(room, event, standing)?;
    }
    Ok(missing)
}

/// How an event is received.
#[derive(Default)]
struct How<'a> {
    /// The state before it, as another server gave it.
    given: Option<&'a [OwnedEventId]>,
    /// Whether the room's policy server was asked to sign it.
    asked: bool,
    /// The transaction of a local user that it is from.
    txn: Option<Txn>,
}

fn receive_in(room: &mut OpenRoom<'_, '_>, event: &Arc<Event>, how: How<'_>) -> Result<Outcome> {
    if event.room_id != room.room.id {
        return Err(Error::Invalid("the event is of another room"));
    }
    let known = events::by_id(room.tx, room.no, &event.id)?.map(|(_, stored)| stored);
    if known.as_ref().is_some_and(|stored| stored.header.dag.is_some()) {
        return Ok(Outcome::Duplicate);
    }
    let cited = cited_events(room, event)?;
    let parents = parents(room, event)?;
    // With the state given, parents may be missing. Where none is, they tell the state better than another server.
    let given = how.given.filter(|_| !parents.missing.is_empty());
    let prev_events = if given.is_some() { Vec::new() } else { parents.missing };
    if !prev_events.is_empty() || !cited.missing.is_empty() {
        return Ok(Outcome::Missing(Missing { prev_events, auth_events: cited.missing }));
    }
    let (cited, parents) = (cited.here, parents.here);
    let before = match given {
        Some(given) => state_of(room, given)?,
        None => resolve::after(room, &parents)?,
    };
    let place = Place { parents, before };
    judge(room, event, (known.as_deref(), &cited), place, how)
}

/// Receives older events, as backfilling brings them, the oldest first: each is checked against its auth events and the state before it, and gets a
/// place right before the event that lacked them. The state before those whose parents are not here comes with them. Events that lack something are left out. `gap`
/// is the place in the timeline of the event before which they were missing. Returns how many there are to be shown.
///
/// # Errors
/// [`Error::UnknownRoom`], [`Error::TooLarge`] beyond [`OUTLIERS_MAX`], [`Error::TooComplex`].
pub fn receive_history(
    store: &Store,
    room: RoomNo,
    gap: Pos,
    events: Vec<(Verified, Option<Vec<OwnedEventId>>)>,
) -> Result<Pending<usize>> {
    if events.len() > OUTLIERS_MAX {
        return Err(Error::TooLarge { what: "list of events", limit: OUTLIERS_MAX });
    }
    head::change(store, room, |open| {
        let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
        let (mut pos, current) = match timeline::free_before(open, gap, count)? {
            Some((pos, current)) => (pos, Some(current)),
            None => (Pos(open.head.first.0 - count), None),
        };
        open.head.first = open.head.first.min(pos);
        let mut shown = 0;
        for (event, given) in events {
            shown += usize::from(receive_older(open, &event.into_event(), given, (pos, current))?);
            pos = Pos(pos.0 + 1);
        }
        timeline::narrow_gap(open, gap)?;
        Ok(shown)
    })
}

/// Whether the event is to be shown.
fn receive_older(
    room: &mut OpenRoom<'_, '_>,
    event: &Arc<Event>,
    given: Option<Vec<OwnedEventId>>,
    (pos, current): (Pos, Option<Root>),
) -> Result<bool> {
    let known = events::by_id(room.tx, room.no, &event.id)?.map(|(_, stored)| stored);
    if event.room_id != room.room.id || known.as_ref().is_some_and(|stored| stored.header.dag.is_some()) {
        return Ok(false);
    }
    let (cited, parents) = (cited_events(room, event)?, parents(room, event)?);
    if !cited.missing.is_empty() {
        return Ok(false);
    }
    // Where no parent is missing, they tell the state better.
    let before = match given.filter(|_| !parents.missing.is_empty()) {
        Some(given) => state_of(room, &given)?,
        None if parents.missing.is_empty() => resolve::after(room, &parents.here)?,
        None => return Ok(false),
    };
    let place = Place { parents: parents.here, before };
    if let Some(reason) = rejection(room, event, known.as_deref(), &cited.here, before)? {
        append::put_aside(room, event, &place, Standing::Rejected(reason), true)?;
        return Ok(false);
    }
    append::put_older(room, event, &place, (pos, current))?;
    Ok(true)
}

/// Steps 4 to 6 of the checks, and what the room's policy server says.
fn judge(
    room: &mut OpenRoom<'_, '_>,
    event: &Arc<Event>,
    (known, cited): (Option<&StoredEvent>, &[Arc<StoredEvent>]),
    place: Place,
    how: How<'_>,
) -> Result<Outcome> {
    if let Some(reason) = rejection(room, event, known, cited, place.before)? {
        append::put_aside(room, event, &place, Standing::Rejected(reason.clone()), false)?;
        return Ok(Outcome::Rejected(reason));
    }
    let reason = match soft_failure(room, event, cited)? {
        None => match unasked(room, event)? {
            Some(policy) if !how.asked => return Ok(Outcome::Unsigned(policy)),
            policy => policy.map(|policy| not_recommended(&policy)),
        },
        denied => denied,
    };
    if let Some(reason) = reason {
        append::put_aside(room, event, &place, Standing::SoftFailed(reason.clone()), false)?;
        return Ok(Outcome::SoftFailed(reason));
    }
    append::append(room, Accepted::at(place, Arc::clone(event), how.txn)).map(Outcome::Accepted)
}

/// Why the room's current state forbids the event, if it does. The join by which this server enters the room meets none.
pub(crate) fn soft_failure(room: &OpenRoom<'_, '_>, event: &Event, cited: &[Arc<StoredEvent>]) -> Result<Option<String>> {
    if room.head.extremities.is_empty() {
        return Ok(None);
    }
    Ok(denied_by(room, event, room.head.state, cited)?.map(|denied| denied.to_string()))
}

/// The policy server that has not recommended an event and must. The join by which this server enters the room is asked of none.
pub(crate) fn unasked(room: &OpenRoom<'_, '_>, event: &Event) -> Result<Option<OwnedServerName>> {
    if room.head.extremities.is_empty() { Ok(None) } else { policy::to_ask(room, event) }
}

/// Why such an event is shown to nobody.
pub(crate) fn not_recommended(policy: &ServerName) -> String {
    format!("the policy server {policy} does not recommend it")
}

/// Why the event is rejected, if it is: it was so before, or by its auth events, or by the state before it.
fn rejection(
    room: &OpenRoom<'_, '_>,
    event: &Event,
    known: Option<&StoredEvent>,
    cited: &[Arc<StoredEvent>],
    before: Root,
) -> Result<Option<String>> {
    match known.and_then(StoredEvent::rejection) {
        Some(reason) => Ok(Some(reason.to_owned())),
        None => rejection_now(room, event, cited, before),
    }
}

/// Why the event's auth events, or the state before it, reject it, if they do.
pub(crate) fn rejection_now(
    room: &OpenRoom<'_, '_>,
    event: &Event,
    cited: &[Arc<StoredEvent>],
    before: Root,
) -> Result<Option<String>> {
    let denied = match standing_by_auth(room, event, cited)? {
        None => denied_by(room, event, before, cited)?,
        denied => denied,
    };
    Ok(denied.map(|denied| denied.to_string()))
}

/// Why the event's auth events reject it, if they do.
fn standing_by_auth(room: &OpenRoom<'_, '_>, event: &Event, cited: &[Arc<StoredEvent>]) -> Result<Option<Denied>> {
    let claimed: Vec<AuthEvent<'_>> =
        cited.iter().map(|stored| AuthEvent { event: &stored.event, rejected: stored.rejection().is_some() }).collect();
    if let Err(denied) = auth::check_auth_events(room.version, event, &claimed) {
        return Ok(Some(denied));
    }
    let create = create_of(room)?;
    let state = |kind: &str, key: &str| {
        let found = cited.iter().find(|stored| stored.event.state_pair() == Some((kind, key)));
        let found = found.map(|stored| Arc::clone(&stored.event));
        // Version 12: nobody cites the create event, the room's id implies it.
        found.or_else(|| create.clone().filter(|_| room.version.version_12 && (kind, key) == ("m.room.create", "")))
    };
    Ok(auth::authorize(room.version, event, state).err())
}

/// The room's create event, which is the first that was stored.
fn create_of(room: &OpenRoom<'_, '_>) -> Result<Option<Arc<Event>>> {
    if room.head.events == 0 {
        return Ok(None);
    }
    Ok(Some(Arc::clone(&events::event(room.tx, room.no, EventNo(1))?.event)))
}

/// Why a state forbids the event, if it does. A partial state says nothing of members whom it lacks: what the event cites of them is believed until
/// the room is whole.
pub(crate) fn denied_by(
    room: &OpenRoom<'_, '_>,
    event: &Event,
    root: Root,
    cited: &[Arc<StoredEvent>],
) -> Result<Option<Denied>> {
    let left_out = |kind: &str, key: &str| {
        let mut cited = cited.iter().filter(|_| room.partial && kind == "m.room.member");
        cited.find(|stored| stored.event.state_pair() == Some((kind, key))).map(|stored| Arc::clone(&stored.event))
    };
    let authorize = |state: &dyn Fn(&str, &str) -> Option<Arc<Event>>| {
        auth::authorize(room.version, event, |kind: &str, key: &str| state(kind, key).or_else(|| left_out(kind, key)))
    };
    Ok(room.with_state(root, authorize)?.err())
}

/// What an event cites.
pub(crate) struct Found<T> {
    /// What is here.
    pub here: Vec<T>,
    /// What is not.
    pub missing: Vec<OwnedEventId>,
}

/// The event's auth events.
pub(crate) fn cited_events(room: &OpenRoom<'_, '_>, event: &Event) -> Result<Found<Arc<StoredEvent>>> {
    let mut found = Found { here: Vec::new(), missing: Vec::new() };
    for id in &event.auth_events {
        match events::find(room.tx, id)? {
            // An event of another room is here, and the rules will say what is wrong with it.
            Some((home, no)) => found.here.push(events::event(room.tx, home, no)?),
            None => found.missing.push(id.clone()),
        }
    }
    Ok(found)
}

/// The event's parents in the DAG.
pub(crate) fn parents(room: &OpenRoom<'_, '_>, event: &Event) -> Result<Found<EventNo>> {
    let mut found = Found { here: Vec::new(), missing: Vec::new() };
    for id in &event.prev_events {
        match events::placed(room.tx, room.no, id)? {
            Some((no, _)) => found.here.push(no),
            None => found.missing.push(id.clone()),
        }
    }
    Ok(found)
}

/// The state that these events make up.
pub(crate) fn state_of(room: &mut OpenRoom<'_, '_>, ids: &[OwnedEventId]) -> Result<Root> {
    let mut entries = BTreeMap::new();
    for id in ids {
        let (no, stored) = events::by_id(room.tx, room.no, id)?.ok_or(Error::NotFound("an event of the state"))?;
        if stored.rejection().is_some() {
            continue;
        }
        if let Some(pair) = stored.event.state_pair() {
            entries.insert(state::intern(room.tx, room.no, &mut room.head, pair)?, Some(no));
        }
    }
    state::changed(room.tx, room.no, &mut room.head, Root::default(), &entries)
}
