//! State resolution of stored states: what they differ in is given to [`protocol::resolve`], and what comes out is written into
//! the tree of one of them. It costs the difference and its auth difference, not the size of the states.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{
    event::Event,
    resolve::{self, Conflict, Events, StateKey},
    version::{RoomVersion, StateResolution},
};
use ruma::{EventId, OwnedEventId};
use store::{Read, RoomNo};

use crate::{
    Error, EventNo, Result, chains,
    events::{self, Standing},
    head::OpenRoom,
    state::{self, Place, Root},
};

/// The state that these events lead to together.
///
/// # Errors
/// [`Error::TooComplex`].
pub(crate) fn after(room: &mut OpenRoom<'_, '_>, parents: &[EventNo]) -> Result<Root> {
    let after = parents.iter().map(|no| Ok(events::event(room.tx, room.no, *no)?.header.after));
    let states = after.collect::<Result<Vec<Root>>>()?;
    resolve(room, &states)
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
        let states: Vec<Root> = BTreeSet::from_iter(states.iter().copied()).into_iter().collect();
        let base = states.first().copied().unwrap_or_default();
        let mut places: BTreeSet<Place> = BTreeSet::new();
        for other in states.iter().skip(1) {
            places.extend(state::places_of_difference(db, room, base, *other)?.into_keys());
        }
        if places.is_empty() {
            return Ok(Self { base, places, resolved: BTreeMap::new() });
        }
        let stored = Stored { db, room, version, failed: RefCell::new(None) };
        let resolved = stored.resolve(base, &states, &places)?;
        Ok(Self { base, places, resolved })
    }
}

/// A room's stored events, as resolution asks for them.
struct Stored<'a, R> {
    db: &'a R,
    room: RoomNo,
    version: &'static RoomVersion,
    /// Why an answer was wrong.
    failed: RefCell<Option<Error>>,
}

impl<R: Read> Stored<'_, R> {
    fn resolve(&self, base: Root, states: &[Root], places: &BTreeSet<Place>) -> Result<BTreeMap<StateKey, EventNo>> {
        let mut sets = Vec::with_capacity(states.len());
        for state in states {
            let events = places.iter().map(|place| state::at(self.db, self.room, *state, *place));
            sets.push(events.filter_map(Result::transpose).collect::<Result<Vec<EventNo>>>()?);
        }
        let conflict = self.conflict(base, &sets, places)?;
        let unconflicted = |kind: &str, key: &str| self.ok(self.unconflicted(base, places, kind, key)).flatten();
        let resolved = resolve::resolve(self.version, &conflict, unconflicted, self);
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let resolved = resolved.map_err(|_| Error::TooComplex)?;
        let number = |(pair, id): (StateKey, OwnedEventId)| match events::find(self.db, &id)? {
            Some((_, no)) => Ok((pair, no)),
            None => Err(Error::NotFound("a resolved event")),
        };
        resolved.into_iter().map(number).collect()
    }

    fn conflict(&self, base: Root, sets: &[Vec<EventNo>], places: &BTreeSet<Place>) -> Result<Conflict> {
        let mut conflict = Conflict::default();
        let mut oldest = EventNo(u32::MAX);
        for no in sets.iter().flatten() {
            let stored = events::event(self.db, self.room, *no)?;
            oldest = oldest.min(*no);
            if let Some((kind, key)) = stored.event.state_pair() {
                conflict.conflicted.entry((kind.to_owned(), key.to_owned())).or_default().insert(stored.header.id.clone());
            }
        }
        if self.version.resolution == StateResolution::V1 {
            return Ok(conflict);
        }
        let shared = |no: EventNo| self.is_shared(base, places, no);
        for no in chains::auth_difference(self.db, self.room, sets, shared)? {
            conflict.auth_difference.insert(events::event(self.db, self.room, no)?.header.id.clone());
        }
        if self.version.resolution == StateResolution::V2_1 {
            let ids = conflict.conflicted.values().flatten().cloned().collect();
            // What an event cites has a lower number: below the oldest conflicted event nothing leads to one.
            let newer = |id: &EventId| self.ok(self.stored(id)).flatten().filter(|(no, _)| *no >= oldest).map(|(_, event)| event);
            let subgraph = resolve::conflicted_subgraph(&ids, &newer);
            conflict.subgraph = subgraph.map_err(|_| Error::TooComplex)?;
        }
        Ok(conflict)
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

    fn stored(&self, id: &EventId) -> Result<Option<(EventNo, Arc<Event>)>> {
        Ok(events::by_id(self.db, self.room, id)?.map(|(no, stored)| (no, Arc::clone(&stored.event))))
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
        self.ok(self.stored(id)).flatten().map(|(_, event)| event)
    }

    fn rejected(&self, id: &EventId) -> bool {
        let stored = self.ok(events::by_id(self.db, self.room, id)).flatten();
        stored.is_some_and(|(_, stored)| matches!(stored.header.standing, Standing::Rejected(_)))
    }
}
