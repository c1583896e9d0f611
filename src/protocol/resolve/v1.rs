//! State resolution of room version 1.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ruma::{EventId, OwnedEventId};
use sha1::{Digest, Sha1};

use super::{Conflict, Events, StateKey, StateMap, Unresolvable, known, owned};
use crate::auth::authorize;
use crate::event::Event;
use crate::version::RoomVersion;

/// The types that are resolved first, in this order, because they decide about the others.
const AUTH_PASSES: [&str; 3] = ["m.room.power_levels", "m.room.join_rules", "m.room.member"];

pub(super) fn resolve<E: Events>(
    version: &RoomVersion,
    conflict: &Conflict,
    unconflicted: &dyn Fn(&str, &str) -> Option<OwnedEventId>,
    events: &E,
) -> Result<StateMap, Unresolvable> {
    let mut state = Partial { version, unconflicted, resolved: BTreeMap::new(), events };
    let mut conflicting: BTreeMap<&StateKey, Vec<Arc<Event>>> = BTreeMap::new();
    for (key, ids) in &conflict.conflicted {
        let candidates = by_depth(ids, events)?;
        match candidates.as_slice() {
            [] => {}
            // What only some states have does not conflict: R starts as the union.
            [only] => drop(state.resolved.insert(key.clone(), Arc::clone(only))),
            _ => drop(conflicting.insert(key, candidates)),
        }
    }
    for pass in AUTH_PASSES {
        let entries = conflicting.iter().filter(|(key, _)| key.0 == pass);
        // As in Synapse the members of a pass do not see each other.
        let winners: Vec<_> = entries.map(|(key, candidates)| ((*key).clone(), state.last_of_chain(candidates))).collect();
        state.enter(winners);
    }
    let entries = conflicting.iter().filter(|(key, _)| !AUTH_PASSES.contains(&key.0.as_str()));
    let winners: Vec<_> = entries.map(|(key, candidates)| ((*key).clone(), state.newest_allowed(candidates))).collect();
    state.enter(winners);
    Ok(state.resolved.into_iter().map(|(key, event)| (key, event.id.clone())).collect())
}

/// The candidates of one entry by ascending depth, then descending SHA-1 of the id. Rejected ones enter no state.
fn by_depth(ids: &BTreeSet<OwnedEventId>, events: &impl Events) -> Result<Vec<Arc<Event>>, Unresolvable> {
    let mut candidates = Vec::with_capacity(ids.len());
    for id in ids.iter().filter(|id| !events.rejected(id)) {
        candidates.push(known(events, id)?);
    }
    candidates.sort_by_cached_key(|event| (event.depth, std::cmp::Reverse(sha1(&event.id))));
    Ok(candidates)
}

pub(super) fn sha1(id: &EventId) -> [u8; 20] {
    Sha1::digest(id.as_str()).into()
}

struct Partial<'a, E> {
    version: &'a RoomVersion,
    unconflicted: &'a dyn Fn(&str, &str) -> Option<OwnedEventId>,
    /// R without the unconflicted state.
    resolved: BTreeMap<StateKey, Arc<Event>>,
    events: &'a E,
}

impl<E: Events> Partial<'_, E> {
    /// The first candidate, then each next one that the state with the one before allows, until one is not allowed.
    fn last_of_chain(&self, candidates: &[Arc<Event>]) -> Option<Arc<Event>> {
        let (first, others) = candidates.split_first()?;
        let mut last = first;
        for candidate in others {
            if !self.allows(candidate, Some(last)) {
                break;
            }
            last = candidate;
        }
        Some(Arc::clone(last))
    }

    /// The candidate of greatest depth that the state allows. As in Synapse the one of least depth where it allows none.
    fn newest_allowed(&self, candidates: &[Arc<Event>]) -> Option<Arc<Event>> {
        candidates.iter().rev().find(|candidate| self.allows(candidate, None)).or(candidates.first()).cloned()
    }

    /// Whether the state, with `also` in it, allows the event.
    fn allows(&self, event: &Event, also: Option<&Arc<Event>>) -> bool {
        let state = |kind: &str, key: &str| match also.filter(|also| also.state_pair() == Some((kind, key))) {
            Some(also) => Some(Arc::clone(also)),
            None => self.entry(kind, key),
        };
        authorize(self.version, event, state).is_ok()
    }

    fn entry(&self, kind: &str, key: &str) -> Option<Arc<Event>> {
        match self.resolved.get(&owned(kind, key)) {
            Some(event) => Some(Arc::clone(event)),
            None => (self.unconflicted)(kind, key).and_then(|id| self.events.event(&id)),
        }
    }

    fn enter(&mut self, winners: Vec<(StateKey, Option<Arc<Event>>)>) {
        self.resolved.extend(winners.into_iter().filter_map(|(key, winner)| Some((key, winner?))));
    }
}
