//! State resolution of room version 1.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ruma::EventId;
use sha1::{Digest, Sha1};

use super::{Conflict, Node, Resolved, Source, StateKey, Unresolvable, known, owned};
use crate::auth::authorize;
use crate::event::Event;
use crate::version::RoomVersion;

/// The types that are resolved first, in this order, because they decide about the others.
const AUTH_PASSES: [&str; 3] = ["m.room.power_levels", "m.room.join_rules", "m.room.member"];

pub(super) fn resolve<S: Source>(
    version: &RoomVersion,
    conflict: &Conflict<S::Id>,
    unconflicted: &dyn Fn(&str, &str) -> Option<S::Id>,
    source: &S,
) -> Resolved<S::Id> {
    let mut state = Partial { version, unconflicted, resolved: BTreeMap::new(), source };
    let mut conflicting: Candidates<S::Id> = BTreeMap::new();
    for (key, candidates) in by_depth(&conflict.conflicted, source)? {
        match candidates.as_slice() {
            // What only some states have does not conflict: R starts as the union.
            [only] => drop(state.resolved.insert(key, only.clone())),
            _ => drop(conflicting.insert(key, candidates)),
        }
    }
    for pass in AUTH_PASSES {
        let entries = conflicting.iter().filter(|(key, _)| key.0 == pass);
        // As in Synapse the members of a pass do not see each other.
        let winners: Vec<_> = entries.map(|(key, candidates)| (key.clone(), state.last_of_chain(candidates))).collect();
        state.enter(winners);
    }
    let entries = conflicting.iter().filter(|(key, _)| !AUTH_PASSES.contains(&key.0.as_str()));
    let winners: Vec<_> = entries.map(|(key, candidates)| (key.clone(), state.newest_allowed(candidates))).collect();
    state.enter(winners);
    Ok(state.resolved.into_values().collect())
}

/// An event, and what stands for it.
type Candidate<I> = (I, Arc<Event>);
/// The candidates of each entry.
type Candidates<I> = BTreeMap<StateKey, Vec<Candidate<I>>>;

/// The candidates of each entry by ascending depth, then descending SHA-1 of the id. Rejected ones enter no state.
fn by_depth<S: Source>(conflicted: &BTreeSet<S::Id>, source: &S) -> Result<Candidates<S::Id>, Unresolvable<S::Id>> {
    let mut entries: Candidates<S::Id> = BTreeMap::new();
    for id in conflicted {
        let Node { event, rejected, .. } = known(source, id)?;
        if let Some((kind, key)) = event.state_pair().filter(|_| !rejected) {
            entries.entry(owned(kind, key)).or_default().push((id.clone(), Arc::clone(&event)));
        }
    }
    for candidates in entries.values_mut() {
        candidates.sort_by_cached_key(|(_, event)| (event.depth, std::cmp::Reverse(sha1(&event.id))));
    }
    Ok(entries)
}

pub(super) fn sha1(id: &EventId) -> [u8; 20] {
    Sha1::digest(id.as_str()).into()
}

struct Partial<'a, S: Source> {
    version: &'a RoomVersion,
    unconflicted: &'a dyn Fn(&str, &str) -> Option<S::Id>,
    /// R without the unconflicted state.
    resolved: BTreeMap<StateKey, Candidate<S::Id>>,
    source: &'a S,
}

impl<S: Source> Partial<'_, S> {
    /// The first candidate, then each next one that the state with the one before allows, until one is not allowed.
    fn last_of_chain(&self, candidates: &[Candidate<S::Id>]) -> Option<Candidate<S::Id>> {
        let (first, others) = candidates.split_first()?;
        let mut last = first;
        for candidate in others {
            if !self.allows(&candidate.1, Some(&last.1)) {
                break;
            }
            last = candidate;
        }
        Some(last.clone())
    }

    /// The candidate of greatest depth that the state allows. As in Synapse the one of least depth where it allows none.
    fn newest_allowed(&self, candidates: &[Candidate<S::Id>]) -> Option<Candidate<S::Id>> {
        candidates.iter().rev().find(|(_, event)| self.allows(event, None)).or(candidates.first()).cloned()
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
            Some((_, event)) => Some(Arc::clone(event)),
            None => (self.unconflicted)(kind, key).and_then(|id| Some(self.source.node(&id)?.event)),
        }
    }

    fn enter(&mut self, winners: Vec<(StateKey, Option<Candidate<S::Id>>)>) {
        self.resolved.extend(winners.into_iter().filter_map(|(key, winner)| Some((key, winner?))));
    }
}
