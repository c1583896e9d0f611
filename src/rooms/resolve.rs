//! State resolution of stored states: what they differ in is given to [`protocol::resolve`], and what comes out is written into
//! the tree of one of them. It costs the difference and its auth difference, not the size of the states.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    sync::Arc,
};

use protocol::{
    event::Event,
    resolve::{self, Conflict, Events, StateKey},
    version::{RoomVersion, StateResolution},
};
use ruma::{EventId, OwnedEventId};
use store::{Read, RoomNo, Tx};

use crate::{
    Error, EventNo, Result, chains,
    events::{self, Standing, StoredEvent},
    head::OpenRoom,
    state::{self, Change, Place, Root},
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
    let mut changes: BTreeMap<Place, Option<EventNo>> = places.into_iter().map(|place| (place, None)).collect();
    for ((kind, key), no) in &resolved {
        changes.insert(state::intern(room.tx, room.no, &mut room.head, (kind, key))?, Some(*no));
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
    let mut changes: BTreeMap<Place, Option<EventNo>> = places.iter().map(|place| (*place, None)).collect();
    for ((kind, key), no) in &resolved {
        let Some(place) = state::place(db, room, kind, key)? else { return Ok(false) };
        changes.insert(place, Some(*no));
    }
    let mut same = state::places_of_difference(db, room, base, state)?.keys().all(|place| changes.contains_key(place));
    for (place, event) in changes {
        same &= state::at(db, room, state, place)? == event;
    }
    if same {
        return Ok(true);
    }
    for (state, place) in states.iter().flat_map(|state| places.iter().map(move |place| (state, place))) {
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
    places: BTreeSet<Place>,
    resolved: BTreeMap<StateKey, EventNo>,
}

impl Resolution {
    fn of(db: &impl Read, room: RoomNo, version: &'static RoomVersion, states: &[Root]) -> Result<Self> {
        let states: BTreeSet<Root> = states.iter().copied().collect();
        let base = states.first().copied().unwrap_or_default();
        let differences = states.iter().map(|state| state::places_of_difference(db, room, base, *state));
        let differences = differences.collect::<Result<Vec<_>>>()?;
        let of_base: BTreeMap<Place, Option<EventNo>> =
            differences.iter().flatten().map(|(place, (of_base, _))| (*place, *of_base)).collect();
        let events = |difference: &BTreeMap<Place, Change>| {
            let own = of_base.iter().map(|(place, of_base)| difference.get(place).map_or(*of_base, |(_, own)| *own));
            own.flatten().collect::<Vec<EventNo>>()
        };
        let sets: Vec<Vec<EventNo>> = differences.iter().map(events).collect();
        let places: BTreeSet<Place> = of_base.into_keys().collect();
        if places.is_empty() {
            return Ok(Self { base, places, resolved: BTreeMap::new() });
        }
        let stored = Stored { db, room, version, read: RefCell::default(), failed: RefCell::default() };
        let resolved = stored.resolve(base, &sets, &places)?;
        Ok(Self { base, places, resolved })
    }
}

/// A room's stored events, as resolution asks for them.
struct Stored<'a, R> {
    db: &'a R,
    room: RoomNo,
    version: &'static RoomVersion,
    /// Events that were read, for each is asked for many times.
    read: RefCell<HashMap<OwnedEventId, Option<Numbered>>>,
    /// Why an answer was wrong.
    failed: RefCell<Option<Error>>,
}

/// An event with its number.
type Numbered = (EventNo, Arc<StoredEvent>);

impl<R: Read> Stored<'_, R> {
    /// `sets` are the events of each state where they differ.
    fn resolve(&self, base: Root, sets: &[Vec<EventNo>], places: &BTreeSet<Place>) -> Result<BTreeMap<StateKey, EventNo>> {
        let conflict = self.conflict(base, sets, places)?;
        let unconflicted = |kind: &str, key: &str| self.ok(self.unconflicted(base, places, kind, key)).flatten();
        let resolved = resolve::resolve(self.version, &conflict, unconflicted, self);
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let resolved = resolved.map_err(|_| Error::TooComplex)?;
        let number = |(pair, id): (StateKey, OwnedEventId)| match self.stored(&id)? {
            Some((no, _)) => Ok((pair, no)),
            None => Err(Error::NotFound("a resolved event")),
        };
        resolved.into_iter().map(number).collect()
    }

    fn conflict(&self, base: Root, sets: &[Vec<EventNo>], places: &BTreeSet<Place>) -> Result<Conflict> {
        let mut conflict = Conflict::default();
        // Each is read once, though several states may have it.
        let mut read: BTreeMap<EventNo, Arc<StoredEvent>> = BTreeMap::new();
        for no in sets.iter().flatten() {
            if let Entry::Vacant(entry) = read.entry(*no) {
                let stored = entry.insert(self.numbered(*no)?);
                let id = &stored.header.id;
                if let Some((kind, key)) = stored.event.state_pair() {
                    conflict.conflicted.entry((kind.to_owned(), key.to_owned())).or_default().insert(id.clone());
                }
            }
        }
        let oldest = read.keys().next().copied().unwrap_or_default();
        if self.version.resolution == StateResolution::V1 {
            return Ok(conflict);
        }
        let shared = |no: EventNo| self.is_shared(base, places, no);
        let of_states: Vec<Vec<Arc<StoredEvent>>> =
            sets.iter().map(|set| set.iter().filter_map(|no| read.get(no)).cloned().collect()).collect();
        for no in chains::auth_difference(self.db, self.room, &of_states, shared)? {
            conflict.auth_difference.insert(self.numbered(no)?.header.id.clone());
        }
        if self.version.resolution == StateResolution::V2_1 {
            let ids: BTreeSet<OwnedEventId> = conflict.conflicted.values().flatten().cloned().collect();
            let places = chains::first_places(read.values());
            let subgraph = resolve::conflicted_subgraph(&ids, &|id: &EventId| {
                let leading = self.stored(id).and_then(|stored| match stored {
                    // What an event cites has a lower number: below the oldest conflicted event nothing leads to one.
                    Some((no, _)) if no < oldest => Ok(None),
                    Some((_, stored)) if !ids.contains(id) && !self.leads_to_any(&stored, &places)? => Ok(None),
                    stored => Ok(stored.map(|(_, stored)| Arc::clone(&stored.event))),
                });
                self.ok(leading).flatten()
            });
            conflict.subgraph = subgraph.map_err(|_| Error::TooComplex)?;
        }
        Ok(conflict)
    }

    fn leads_to_any(&self, stored: &StoredEvent, places: &[(u32, u32)]) -> Result<bool> {
        chains::leads_to_any(self.db, self.room, &stored.header, places)
    }

    /// Whether an event is in all states.
    fn is_shared(&self, base: Root, places: &BTreeSet<Place>, no: EventNo) -> Result<bool> {
        let stored = events::event(self.db, self.room, no)?;
        let Some((kind, key)) = stored.event.state_pair() else { return Ok(false) };
        let Some(place) = state::place(self.db, self.room, kind, key)? else { return Ok(false) };
        Ok(!places.contains(&place) && state::at(self.db, self.room, base, place)? == Some(no))
    }

    fn unconflicted(&self, base: Root, places: &BTreeSet<Place>, kind: &str, key: &str) -> Result<Option<OwnedEventId>> {
        let Some(place) = state::place(self.db, self.room, kind, key)? else { return Ok(None) };
        if places.contains(&place) {
            return Ok(None);
        }
        let no = state::at(self.db, self.room, base, place)?;
        no.map(|no| Ok(events::event(self.db, self.room, no)?.header.id.clone())).transpose()
    }

    /// An event of the conflict, which will be asked for again.
    fn numbered(&self, no: EventNo) -> Result<Arc<StoredEvent>> {
        let stored = events::event(self.db, self.room, no)?;
        self.read.borrow_mut().insert(stored.header.id.clone(), Some((no, Arc::clone(&stored))));
        Ok(stored)
    }

    fn stored(&self, id: &EventId) -> Result<Option<Numbered>> {
        if let Some(read) = self.read.borrow().get(id) {
            return Ok(read.clone());
        }
        let found = events::by_id(self.db, self.room, id)?;
        self.read.borrow_mut().insert(id.to_owned(), found.clone());
        Ok(found)
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

impl<R: Read> Events for Stored<'_, R> {
    fn event(&self, id: &EventId) -> Option<Arc<Event>> {
        self.ok(self.stored(id)).flatten().map(|(_, stored)| Arc::clone(&stored.event))
    }

    fn rejected(&self, id: &EventId) -> bool {
        let stored = self.ok(self.stored(id)).flatten();
        stored.is_some_and(|(_, stored)| matches!(stored.header.standing, Standing::Rejected(_)))
    }
}
