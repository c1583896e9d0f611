//! State resolution: one state out of several, the same on every server.
//!
//! Specification: "State resolution" of the room versions: version 1 ([`StateResolution::V1`]), 2 to 11 (`V2`), and 12
//! (`V2_1`, which starts from an empty state and adds the conflicted state subgraph). Where the text leaves a choice
//! and Synapse made one, Hearth makes the same, for servers must agree; the comments say where.
//!
//! Pure and synchronous. What the states have in common is never visited: the caller gives the [`Conflict`] and can
//! be asked for single entries of the rest, so the cost is that of the conflict and the auth difference. Order of
//! input does not matter, since everything is kept sorted.

mod conflict;
mod order;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::sync::Arc;

use ruma::{EventId, OwnedEventId};

pub use conflict::{CHAIN_LIMIT, Conflict, auth_difference, conflicted_subgraph, split};

use crate::event::Event;
use crate::version::{RoomVersion, StateResolution};

/// An event type and a state key.
pub type StateKey = (String, String);

/// A state: the event of each type and state key.
pub type StateMap = BTreeMap<StateKey, OwnedEventId>;

/// Where resolution finds events by their ids. A closure from an id to its event is one, if none was rejected.
pub trait Events {
    /// The event, if it is known.
    fn event(&self, id: &EventId) -> Option<Arc<Event>>;

    /// Whether it was rejected on receipt. Such an event allows nothing and enters no state.
    fn rejected(&self, _id: &EventId) -> bool {
        false
    }
}

impl<F: Fn(&EventId) -> Option<Arc<Event>>> Events for F {
    fn event(&self, id: &EventId) -> Option<Arc<Event>> {
        self(id)
    }
}

/// Where resolution finds events by what the caller has for them: numbers, say, which are compared faster than ids. All
/// [`Events`] are one.
pub trait Source {
    /// What stands for an event. The outcome does not depend on its order.
    type Id: Clone + Ord;

    /// What stands for the event of this id. That need not be known.
    fn named(&self, id: &EventId) -> Option<Self::Id>;

    /// The event, if it is known.
    fn node(&self, id: &Self::Id) -> Option<Node<Self::Id>>;

    /// What stands for an event's auth events, if it is known.
    fn auth_events(&self, id: &Self::Id) -> Option<Arc<[Self::Id]>> {
        self.node(id).map(|node| node.auth_events)
    }
}

/// An event among others.
#[derive(Clone, Debug)]
pub struct Node<I> {
    /// The event.
    pub event: Arc<Event>,
    /// What stands for its auth events, which need not all be known.
    pub auth_events: Arc<[I]>,
    /// Whether it was rejected on receipt.
    pub rejected: bool,
}

impl<E: Events> Source for E {
    type Id = OwnedEventId;

    fn named(&self, id: &EventId) -> Option<OwnedEventId> {
        Some(id.to_owned())
    }

    fn node(&self, id: &OwnedEventId) -> Option<Node<OwnedEventId>> {
        let event = self.event(id)?;
        Some(Node { auth_events: event.auth_events.as_slice().into(), rejected: self.rejected(id), event })
    }
}

/// Why there is no resolution.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolvable<I = OwnedEventId> {
    /// An event of the states, or of their auth difference, is not known.
    #[error("an event is not known")]
    Missing(I),
    /// The auth chains hold more than [`CHAIN_LIMIT`] events.
    #[error("the auth chains are too long")]
    TooLong,
}

/// What enters the state, one after another: of several events of one type and state key the last stands.
pub type Resolved<I> = Result<Vec<(I, Arc<Event>)>, Unresolvable<I>>;

/// Resolves a conflict. `unconflicted` gives the event that all states have for a type and state key.
///
/// The result is what comes besides the unconflicted state: events for each conflicted entry that has one, and
/// sometimes for entries that no state had.
///
/// # Errors
/// [`Unresolvable::Missing`].
pub fn resolve<S: Source>(
    version: &RoomVersion,
    conflict: &Conflict<S::Id>,
    unconflicted: impl Fn(&str, &str) -> Option<S::Id>,
    source: &S,
) -> Resolved<S::Id> {
    match version.resolution {
        StateResolution::V1 => v1::resolve(version, conflict, &unconflicted, source),
        StateResolution::V2 | StateResolution::V2_1 => v2::resolve(version, conflict, &unconflicted, source),
    }
}

/// Resolves whole states: splits them, walks their auth chains, and adds the unconflicted state to the result.
///
/// It costs the size of the states and of their auth chains. Who has an index of either calls [`resolve`] with it.
///
/// # Errors
/// [`Unresolvable`].
pub fn resolve_states(version: &RoomVersion, states: &[StateMap], events: &impl Events) -> Result<StateMap, Unresolvable> {
    let (mut state, conflicted) = split(states);
    if conflicted.is_empty() {
        return Ok(state);
    }
    let conflicted = conflicted.into_values().flatten().collect();
    let conflict = Conflict::of_states(version, states, conflicted, events)?;
    let resolved = resolve(version, &conflict, |kind, key| state.get(&owned(kind, key)).cloned(), events)?;
    state.extend(entries(resolved));
    Ok(state)
}

/// The entries of what enters a state.
fn entries(resolved: Vec<(OwnedEventId, Arc<Event>)>) -> impl Iterator<Item = (StateKey, OwnedEventId)> {
    resolved.into_iter().filter_map(|(id, event)| event.state_pair().map(|(kind, key)| (owned(kind, key), id)))
}

fn owned(kind: &str, key: &str) -> StateKey {
    (kind.to_owned(), key.to_owned())
}

fn known<S: Source>(source: &S, id: &S::Id) -> Result<Node<S::Id>, Unresolvable<S::Id>> {
    source.node(id).ok_or_else(|| Unresolvable::Missing(id.clone()))
}

/// Values by event type and state key, which are looked up without a copy of either.
#[derive(Debug)]
struct ByKey<V>(BTreeMap<String, BTreeMap<String, V>>);

impl<V> ByKey<V> {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn get(&self, kind: &str, key: &str) -> Option<&V> {
        self.0.get(kind)?.get(key)
    }

    fn insert(&mut self, kind: &str, key: &str, value: V) {
        match self.0.get_mut(kind) {
            Some(keys) => match keys.get_mut(key) {
                Some(entry) => *entry = value,
                None => drop(keys.insert(key.to_owned(), value)),
            },
            None => drop(self.0.insert(kind.to_owned(), BTreeMap::from([(key.to_owned(), value)]))),
        }
    }
}
