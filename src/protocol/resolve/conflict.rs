//! What states differ in: the conflicted state set, the auth difference and the conflicted state subgraph.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ruma::OwnedEventId;

use super::{Events, Source, StateKey, StateMap, Unresolvable};
use crate::event::Event;
use crate::version::{RoomVersion, StateResolution};

/// How many events of auth chains a walk visits at most. The largest rooms of the network have some hundred thousand.
pub const CHAIN_LIMIT: usize = 1 << 20;

/// What resolution works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict<I = OwnedEventId> {
    /// The conflicted state set: the events of every entry in which the states differ. An entry that some
    /// states lack may have a single one.
    pub conflicted: BTreeSet<I>,
    /// The auth difference ([`auth_difference`]). Room version 1 does not use it.
    pub auth_difference: BTreeSet<I>,
    /// The conflicted state subgraph ([`conflicted_subgraph`]). Only version 12 uses it.
    pub subgraph: BTreeSet<I>,
}

impl<I> Conflict<I> {
    /// These conflicted events without anything else.
    #[must_use]
    pub fn of_events(conflicted: BTreeSet<I>) -> Self {
        Conflict { conflicted, auth_difference: BTreeSet::new(), subgraph: BTreeSet::new() }
    }
}

impl Conflict {
    /// The conflict of whole states, by walking their auth chains as far as the version needs them.
    pub(super) fn of_states(
        version: &RoomVersion,
        states: &[StateMap],
        conflicted: BTreeSet<OwnedEventId>,
        events: &impl Events,
    ) -> Result<Conflict, Unresolvable> {
        let mut conflict = Conflict::of_events(conflicted);
        if version.resolution == StateResolution::V1 {
            return Ok(conflict);
        }
        conflict.auth_difference = auth_difference(states.iter().map(|state| state.values()), events)?;
        if version.resolution == StateResolution::V2_1 {
            conflict.subgraph = conflicted_subgraph(&conflict.conflicted, events)?;
        }
        Ok(conflict)
    }
}

/// Splits states into the unconflicted state map and the conflicted state set.
#[must_use]
pub fn split(states: &[StateMap]) -> (StateMap, BTreeMap<StateKey, BTreeSet<OwnedEventId>>) {
    let mut conflicted: BTreeMap<&StateKey, BTreeSet<&OwnedEventId>> = BTreeMap::new();
    let (first, others) = states.split_first().map_or((None, states), |(first, others)| (Some(first), others));
    let agreed = |key: &StateKey, id: &OwnedEventId| others.iter().all(|state| state.get(key) == Some(id));
    let unconflicted: StateMap =
        first.into_iter().flatten().filter(|(key, id)| agreed(key, id)).map(|(key, id)| (key.clone(), id.clone())).collect();
    for (key, id) in states.iter().flatten().filter(|(key, _)| !unconflicted.contains_key(*key)) {
        conflicted.entry(key).or_default().insert(id);
    }
    let conflicted = conflicted.into_iter().map(|(key, ids)| (key.clone(), ids.into_iter().cloned().collect())).collect();
    (unconflicted, conflicted)
}

/// The auth difference: the events that are in the full auth chain of some of the states but not of all.
///
/// As in Synapse a state's own events count as part of its chain. Whole states must be given, for what is in the chain
/// of an unconflicted event is in all chains. It walks the chains to their ends: O(sum of their lengths).
///
/// # Errors
/// [`Unresolvable::TooLong`]. Unknown events are in no chain.
pub fn auth_difference<'a, S: IntoIterator<Item = &'a OwnedEventId>>(
    states: impl IntoIterator<Item = S>,
    events: &impl Events,
) -> Result<BTreeSet<OwnedEventId>, Unresolvable> {
    let mut count = 0_usize;
    let mut chains: BTreeMap<OwnedEventId, usize> = BTreeMap::new();
    for state in states {
        count += 1;
        for id in chain(state, events)? {
            *chains.entry(id).or_default() += 1;
        }
    }
    Ok(chains.into_iter().filter(|(_, in_chains)| *in_chains < count).map(|(id, _)| id).collect())
}

fn chain<'a>(
    state: impl IntoIterator<Item = &'a OwnedEventId>,
    events: &impl Events,
) -> Result<BTreeSet<OwnedEventId>, Unresolvable> {
    let mut chain: BTreeSet<OwnedEventId> = state.into_iter().cloned().collect();
    let mut unvisited: Vec<Arc<Event>> = chain.iter().filter_map(|id| events.event(id)).collect();
    while let Some(event) = unvisited.pop() {
        for id in &event.auth_events {
            if !chain.contains(id)
                && let Some(auth_event) = events.event(id)
            {
                chain.insert(id.clone());
                unvisited.push(auth_event);
            }
        }
        if chain.len() > CHAIN_LIMIT {
            return Err(Unresolvable::TooLong);
        }
    }
    Ok(chain)
}

/// The conflicted state subgraph: the events on all paths along `auth_events` from one conflicted event to another,
/// with both ends. It walks the auth chains of the conflicted events.
///
/// # Errors
/// [`Unresolvable::TooLong`], or [`Unresolvable::Missing`] where a conflicted event is not known.
pub fn conflicted_subgraph<S: Source>(conflicted: &BTreeSet<S::Id>, source: &S) -> Result<BTreeSet<S::Id>, Unresolvable<S::Id>> {
    // Edges from auth events back to those that cite them, of all that the conflicted events lead to.
    let mut cited_by: BTreeMap<S::Id, Vec<S::Id>> = BTreeMap::new();
    let mut unvisited = Vec::with_capacity(conflicted.len());
    for id in conflicted {
        unvisited.push((id.clone(), source.auth_events(id).ok_or_else(|| Unresolvable::Missing(id.clone()))?));
    }
    let mut besides: BTreeSet<S::Id> = BTreeSet::new();
    while let Some((citing, auth_events)) = unvisited.pop() {
        for id in auth_events.iter() {
            if conflicted.contains(id) || besides.contains(id) {
                cited_by.entry(id.clone()).or_default().push(citing.clone());
            } else if let Some(further) = source.auth_events(id) {
                cited_by.entry(id.clone()).or_default().push(citing.clone());
                besides.insert(id.clone());
                unvisited.push((id.clone(), further));
            }
        }
        if conflicted.len() + besides.len() > CHAIN_LIMIT {
            return Err(Unresolvable::TooLong);
        }
    }
    // What leads to a conflicted event, of what a conflicted event leads to, is on a path between two.
    Ok(lead_to(conflicted, &cited_by))
}

/// The targets that something leads to, and all that leads to them.
fn lead_to<I: Clone + Ord>(targets: &BTreeSet<I>, cited_by: &BTreeMap<I, Vec<I>>) -> BTreeSet<I> {
    let mut unvisited: Vec<&I> = cited_by.keys().filter(|id| targets.contains(*id)).collect();
    let mut leading: BTreeSet<I> = unvisited.iter().copied().cloned().collect();
    while let Some(id) = unvisited.pop() {
        for citing in cited_by.get(id).into_iter().flatten() {
            if leading.insert(citing.clone()) {
                unvisited.push(citing);
            }
        }
    }
    leading
}
