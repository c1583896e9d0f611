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

/// Where resolution finds events. A closure from an id to its event is one, if none was rejected.
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

/// Why there is no resolution.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolvable {
    /// An event of the states, or of their auth difference, is not known.
    #[error("{0} is not known")]
    Missing(OwnedEventId),
    /// The auth chains hold more than [`CHAIN_LIMIT`] events.
    #[error("the auth chains are too long")]
    TooLong,
}

/// Resolves a conflict. `unconflicted` gives the event that all states have for a type and state key.
///
/// The result is what comes besides the unconflicted state: an event for each conflicted entry that has one, and
/// sometimes for entries that no state had.
///
/// # Errors
/// [`Unresolvable::Missing`].
pub fn resolve(
    version: &RoomVersion,
    conflict: &Conflict,
    unconflicted: impl Fn(&str, &str) -> Option<OwnedEventId>,
    events: &impl Events,
) -> Result<StateMap, Unresolvable> {
    match version.resolution {
        StateResolution::V1 => v1::resolve(version, conflict, &unconflicted, events),
        StateResolution::V2 | StateResolution::V2_1 => v2::resolve(version, conflict, &unconflicted, events),
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
    let conflict = Conflict::of_states(version, states, conflicted, events)?;
    let resolved = resolve(version, &conflict, |kind, key| state.get(&owned(kind, key)).cloned(), events)?;
    state.extend(resolved);
    Ok(state)
}

fn owned(kind: &str, key: &str) -> StateKey {
    (kind.to_owned(), key.to_owned())
}

fn known(events: &impl Events, id: &EventId) -> Result<Arc<Event>, Unresolvable> {
    events.event(id).ok_or_else(|| Unresolvable::Missing(id.to_owned()))
}
