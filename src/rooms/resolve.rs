//! State resolution of stored states: what they differ in is given to [`protocol::resolve`], and what comes out is written into
//! the tree of one of them. It costs the difference and its auth difference, not the size of the states.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use protocol::{
    event::Event,
    resolve::{self, Conflict, Node, Source},
    version::{RoomVersion, StateResolution},
};
use ruma::{EventId, OwnedEventId};
use store::{Read, RoomNo, Tx};

use crate::{
    Error, EventNo, Result,
    chains::{self, Known},
    events::{self, Standing, StoredEvent},
    head::OpenRoom,
    state::{self, Place, Root},
};

/// The state that these events lead to together.
///
/// # Errors
/// [`Error::TooComplex`].
pub(crate) fn after(room: &mut OpenRoom<'_, '_>, events: &[EventNo]) -> Result<Root> {
    let states = states_after(room, events)?;
    // What changes no state leaves the room as forked as it was, and need not be resolved again.
    if states.len() > 1 && states == states_after(room, &room.head.extremities)? {
        return Ok(room.head.state);
    }
    resolve(room, &states.into_iter().collect::<Vec<_>>())
}

/// The state that these resolve to, written into the room's tree.
///
/// # Errors
/// [`Error::UnknownRoom`], [`Error::TooComplex`].
pub fn states(tx: &mut Tx<'_>, room: RoomNo, states: &[Root]) -> Result<Root> {
    let mut open = OpenRoom::new(tx, room)?;
    let resolved = resolve(&mut open, states)?;
    open.save()?;
    Ok(resolved)
}

fn states_after(room: &OpenRoom<'_, '_>, events: &[EventNo]) -> Result<BTreeSet<Root>> {
    events.iter().map(|no| Ok(events::event(room.tx, room.no, *no)?.header.after)).collect()
}

/// The state that these resolve to.
///
/// # Errors
/// [`Error::TooComplex`].
pub(crate) fn resolve(room: &mut OpenRoom<'_, '_>, states: &[Root]) -> Result<Root> {
    let Resolution { base, places, resolved } = Resolution::of(&*room.tx, room.no, room.version, states)?;
    let mut changes: BTreeMap<Place, Option<EventNo>> = places.keys().map(|place| (*place, None)).collect();
    for Entered { no, event, place } in &resolved {
        let intern = |pair| state::intern(room.tx, room.no, &mut room.head, pair);
        let place = if place.is_some() { *place } else { event.state_pair().map(intern).transpose()? };
        changes.extend(place.map(|place| (place, Some(*no))));
    }
    state::changed(room.tx, room.no, &mut room.head, base, &changes)
}

/// Whether a state is the one that these resolve to, as far as can be told: an event that was taken for allowed when they were resolved,
/// because only others had cited it, may have turned out to be rejected since.
pub(crate) fn is_resolved(
    db: &impl Read,
    room: RoomNo,
    version: &'static RoomVersion,
    states: &[Root],
    state: Root,
) -> Result<bool> {
    let Resolution { base, places, resolved } = Resolution::of(db, room, version, states)?;
    let mut changes: BTreeMap<Place, Option<EventNo>> = places.keys().map(|place| (*place, None)).collect();
    for Entered { no, event, place } in &resolved {
        let known = |(kind, key): (&str, &str)| state::place(db, room, kind, key).transpose();
        let place = if place.is_some() { *place } else { event.state_pair().and_then(known).transpose()? };
        let Some(place) = place else { return Ok(false) };
        changes.insert(place, Some(*no));
    }
    let mut same = state::places_of_difference(db, room, base, state)?.iter().all(|(place, _)| changes.contains_key(place));
    for (place, event) in changes {
        same &= state::at(db, room, state, place)? == event;
    }
    if same {
        return Ok(true);
    }
    for (state, place) in states.iter().flat_map(|state| places.keys().map(move |place| (state, place))) {
        if let Some(no) = state::at(db, room, *state, *place)?
            && events::event(db, room, no)?.rejection().is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What states resolve to: one of them, but for the places where they differ, where `resolved` stands.
struct Resolution {
    base: Root,
    /// The places where they differ, with the event that `base` has there.
    places: BTreeMap<Place, Option<EventNo>>,
    /// What enters there and elsewhere, one after another.
    resolved: Vec<Entered>,
}

/// An event that enters a state.
struct Entered {
    no: EventNo,
    event: Arc<Event>,
    /// Its place, if states differ there.
    place: Option<Place>,
}

impl Resolution {
    fn of(db: &impl Read, room: RoomNo, version: &'static RoomVersion, states: &[Root]) -> Result<Self> {
        let states: BTreeSet<Root> = states.iter().copied().collect();
        let base = states.first().copied().unwrap_or_default();
        let differences = states.iter().map(|state| state::places_of_difference(db, room, base, *state));
        let differences = differences.collect::<Result<Vec<_>>>()?;
        let places: BTreeMap<Place, Option<EventNo>> =
            differences.iter().flatten().map(|(place, (of_base, _))| (*place, *of_base)).collect();
        if places.is_empty() {
            return Ok(Self { base, places, resolved: Vec::new() });
        }
        let mut place_of: NumberMap<Place> = NumberMap::default();
        let mut sets: Vec<Vec<EventNo>> = Vec::with_capacity(differences.len());
        for difference in &differences {
            let mut own = difference.iter().peekable();
            let mut set = Vec::with_capacity(places.len());
            for (place, of_base) in &places {
                let no = own.next_if(|(at, _)| at == place).map_or(*of_base, |(_, (_, own))| *own);
                if let Some(no) = no {
                    place_of.insert(no, *place);
                    set.push(no);
                }
            }
            sets.push(set);
        }
        let conflicted = place_of.keys().copied().collect();
        let stored = Stored {
            db,
            room,
            version,
            read: RefCell::default(),
            numbers: RefCell::default(),
            last: RefCell::default(),
            failed: RefCell::default(),
        };
        let resolved = stored.resolve(base, conflicted, &sets, &places)?;
        let entered = |(no, event)| Entered { no, event, place: place_of.get(&no).copied() };
        Ok(Self { base, places, resolved: resolved.into_iter().map(entered).collect() })
    }
}

/// Values by the numbers of events.
type NumberMap<V> = HashMap<EventNo, V, BuildHasherDefault<Spread>>;

/// A hash for numbers that this server drew itself one after another: nobody can choose ones that collide.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32((*byte).into()));
    }

    fn write_u32(&mut self, number: u32) {
        // The golden ratio of 2^64: neighbours come to lie far apart.
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}

/// A room's stored events, as resolution asks for them.
struct Stored<'a, R> {
    db: &'a R,
    room: RoomNo,
    version: &'static RoomVersion,
    /// Events that were read, for each is asked for many times.
    read: RefCell<NumberMap<Numbered>>,
    /// The numbers of auth events that were looked for.
    numbers: RefCell<HashMap<OwnedEventId, Option<EventNo>>>,
    /// The auth events that were looked for last: many events cite the same.
    last: RefCell<Option<Numbered>>,
    /// Why an answer was wrong.
    failed: RefCell<Option<Error>>,
}

/// An event, and the numbers of its auth events that are known.
type Numbered = (Arc<StoredEvent>, Arc<[EventNo]>);

impl<R: Read> Stored<'_, R> {
    /// `sets` are the events of each state where they differ, and `conflicted` all of them.
    fn resolve(
        &self,
        base: Root,
        conflicted: BTreeSet<EventNo>,
        sets: &[Vec<EventNo>],
        places: &BTreeMap<Place, Option<EventNo>>,
    ) -> Result<Vec<(EventNo, Arc<Event>)>> {
        let mut conflict = Conflict::of_events(conflicted);
        if self.version.resolution != StateResolution::V1 {
            let shared = |no: EventNo| self.is_shared(base, places, no);
            conflict.auth_difference = chains::auth_difference(self.db, self.room, sets, self, shared)?;
        }
        if self.version.resolution == StateResolution::V2_1 {
            conflict.subgraph = self.subgraph(&conflict.conflicted)?;
        }
        let unconflicted = |kind: &str, key: &str| self.ok(self.unconflicted(base, places, kind, key)).flatten();
        let resolved = resolve::resolve(self.version, &conflict, unconflicted, self);
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        resolved.map_err(|_| Error::TooComplex)
    }

    /// The conflicted state subgraph, for which only what leads to a conflicted event is walked.
    fn subgraph(&self, conflicted: &BTreeSet<EventNo>) -> Result<BTreeSet<EventNo>> {
        let mut events = Vec::with_capacity(conflicted.len());
        for no in conflicted {
            events.push(self.with_auth_events(*no)?.0);
        }
        let places = chains::first_places(events.iter());
        let leading = Leading { stored: self, conflicted, places, known: RefCell::default() };
        let subgraph = resolve::conflicted_subgraph(conflicted, &leading);
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        subgraph.map_err(|_| Error::TooComplex)
    }

    /// Whether an event is in all states.
    fn is_shared(&self, base: Root, places: &BTreeMap<Place, Option<EventNo>>, no: EventNo) -> Result<bool> {
        let stored = events::event(self.db, self.room, no)?;
        let Some((kind, key)) = stored.event.state_pair() else { return Ok(false) };
        let Some(place) = state::place(self.db, self.room, kind, key)? else { return Ok(false) };
        Ok(!places.contains_key(&place) && state::at(self.db, self.room, base, place)? == Some(no))
    }

    fn unconflicted(
        &self,
        base: Root,
        places: &BTreeMap<Place, Option<EventNo>>,
        kind: &str,
        key: &str,
    ) -> Result<Option<EventNo>> {
        let Some(place) = state::place(self.db, self.room, kind, key)? else { return Ok(None) };
        if places.contains_key(&place) { Ok(None) } else { state::at(self.db, self.room, base, place) }
    }

    fn number(&self, id: &EventId) -> Result<Option<EventNo>> {
        if let Some(number) = self.numbers.borrow().get(id) {
            return Ok(*number);
        }
        let found = events::find(self.db, id)?.filter(|(room, _)| *room == self.room).map(|(_, no)| no);
        self.numbers.borrow_mut().insert(id.to_owned(), found);
        Ok(found)
    }

    fn numbers_of_auth_events(&self, stored: &Arc<StoredEvent>) -> Result<Arc<[EventNo]>> {
        if let Some(numbers) = stored.header.cited.get() {
            return Ok(Arc::clone(numbers));
        }
        let numbers = self.look_for_auth_events(stored)?;
        if numbers.len() == stored.event.auth_events.len() {
            // What they cite never changes.
            let _ = stored.header.cited.set(Arc::clone(&numbers));
        }
        Ok(numbers)
    }

    fn look_for_auth_events(&self, stored: &Arc<StoredEvent>) -> Result<Arc<[EventNo]>> {
        if let Some((last, numbers)) = &*self.last.borrow()
            && last.event.auth_events == stored.event.auth_events
        {
            return Ok(Arc::clone(numbers));
        }
        let mut numbers = Vec::with_capacity(stored.event.auth_events.len());
        for id in &stored.event.auth_events {
            numbers.extend(self.number(id)?);
        }
        let numbers: Arc<[EventNo]> = numbers.into();
        self.last.replace(Some((Arc::clone(stored), Arc::clone(&numbers))));
        Ok(numbers)
    }

    /// Keeps the error that an answer cannot tell.
    fn ok<T>(&self, answer: Result<T>) -> Option<T> {
        answer
            .map_err(|error| {
                self.failed.borrow_mut().get_or_insert(error);
            })
            .ok()
    }
}

impl<R: Read> Known for Stored<'_, R> {
    fn with_auth_events(&self, no: EventNo) -> Result<Numbered> {
        if let Some(read) = self.read.borrow().get(&no) {
            return Ok(read.clone());
        }
        let stored = events::event(self.db, self.room, no)?;
        let auth_events = self.numbers_of_auth_events(&stored)?;
        let read: Numbered = (stored, auth_events);
        self.read.borrow_mut().insert(no, read.clone());
        Ok(read)
    }
}

impl<R: Read> Source for Stored<'_, R> {
    type Id = EventNo;

    fn named(&self, id: &EventId) -> Option<EventNo> {
        self.ok(self.number(id)).flatten()
    }

    fn node(&self, no: &EventNo) -> Option<Node<EventNo>> {
        let (stored, auth_events) = self.ok(self.with_auth_events(*no))?;
        let rejected = matches!(stored.header.standing, Standing::Rejected(_));
        Some(Node { event: Arc::clone(&stored.event), auth_events, rejected })
    }
}

/// A room's stored events without what leads to no conflicted event.
struct Leading<'a, R> {
    stored: &'a Stored<'a, R>,
    conflicted: &'a BTreeSet<EventNo>,
    /// The first conflicted events of the chains that have any.
    places: Vec<(u32, u32)>,
    /// What was found out of others.
    known: RefCell<NumberMap<bool>>,
}

impl<R: Read> Leading<'_, R> {
    fn leads(&self, no: EventNo) -> Result<bool> {
        // What an event cites has a lower number: below the oldest conflicted event nothing leads to one.
        if self.conflicted.first().is_none_or(|oldest| no < *oldest) {
            return Ok(false);
        }
        if self.conflicted.contains(&no) {
            return Ok(true);
        }
        if let Some(known) = self.known.borrow().get(&no) {
            return Ok(*known);
        }
        let Stored { db, room, .. } = self.stored;
        let leads = chains::leads_to_any(*db, *room, &self.stored.with_auth_events(no)?.0.header, &self.places)?;
        self.known.borrow_mut().insert(no, leads);
        Ok(leads)
    }
}

impl<R: Read> Source for Leading<'_, R> {
    type Id = EventNo;

    fn named(&self, id: &EventId) -> Option<EventNo> {
        self.stored.named(id)
    }

    fn node(&self, no: &EventNo) -> Option<Node<EventNo>> {
        self.stored.node(no)
    }

    fn auth_events(&self, no: &EventNo) -> Option<Arc<[EventNo]>> {
        let (_, all) = self.stored.ok(self.stored.with_auth_events(*no))?;
        let leading = |no: &EventNo| self.stored.ok(self.leads(*no)).unwrap_or_default();
        // Mostly none does.
        if all.iter().any(leading) { Some(all.iter().copied().filter(leading).collect()) } else { Some(Arc::default()) }
    }
}
