//! State resolution of room versions 2 to 12.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use ruma::OwnedEventId;

use super::order::{ById, by_mainline, by_power, create_of_room};
use super::{Conflict, Events, StateKey, StateMap, Unresolvable, known, owned};
use crate::auth::authorize;
use crate::content::text_field;
use crate::event::Event;
use crate::version::{RoomVersion, StateResolution};

/// "Algorithm" of the room version.
pub(super) fn resolve<E: Events>(
    version: &RoomVersion,
    conflict: &Conflict,
    unconflicted: &dyn Fn(&str, &str) -> Option<OwnedEventId>,
    events: &E,
) -> Result<StateMap, Unresolvable> {
    let full = full_conflicted_set(version, conflict, events)?;
    let mut state = Partial { version, unconflicted, resolved: BTreeMap::new(), agreed: RefCell::default(), events };
    // Steps 1 and 2.
    let power_events = with_auth_chains(&full);
    for id in by_power(version, &power_events, events) {
        state.apply(&full, &id);
    }
    // Steps 3 and 4.
    let rest: ById = full.iter().filter(|(id, _)| !power_events.contains_key(*id)).map(clone_entry).collect();
    let power_levels = state.entry("m.room.power_levels", "");
    for id in by_mainline(&rest, power_levels.as_ref(), events) {
        state.apply(&full, &id);
    }
    // Step 5.
    let resolved = state.resolved.into_iter();
    let resolved = resolved.filter(|((kind, key), _)| unconflicted(kind, key).is_none());
    Ok(resolved.map(|(key, event)| (key, event.id.clone())).collect())
}

/// The full conflicted set: the conflicted state set, the auth difference, and from version 12 on the conflicted state
/// subgraph. What is no state event has no place in a state.
fn full_conflicted_set(version: &RoomVersion, conflict: &Conflict, events: &impl Events) -> Result<ById, Unresolvable> {
    let conflicted = conflict.conflicted.values().flatten();
    let mut full = ById::new();
    let subgraph = (version.resolution == StateResolution::V2_1).then_some(&conflict.subgraph).into_iter().flatten();
    for id in conflicted.chain(&conflict.auth_difference).chain(subgraph) {
        if !full.contains_key(id) {
            full.insert(id.clone(), known(events, id)?);
        }
    }
    full.retain(|_, event| event.state_key.is_some());
    Ok(full)
}

/// The power events, and what of their auth chains is in the full conflicted set. As in Synapse a chain is
/// followed within the set only.
fn with_auth_chains(full: &ById) -> ById {
    let mut selected: ById = full.iter().filter(|(_, event)| is_power_event(event)).map(clone_entry).collect();
    let mut unvisited: Vec<Arc<Event>> = selected.values().cloned().collect();
    while let Some(event) = unvisited.pop() {
        for (id, auth_event) in event.auth_events.iter().filter_map(|id| full.get_key_value(id)) {
            if selected.insert(id.clone(), Arc::clone(auth_event)).is_none() {
                unvisited.push(Arc::clone(auth_event));
            }
        }
    }
    selected
}

fn clone_entry((id, event): (&OwnedEventId, &Arc<Event>)) -> (OwnedEventId, Arc<Event>) {
    (id.clone(), Arc::clone(event))
}

/// Whether the event might take someone's ability to do something. As in Synapse a create event is one too,
/// and other state keys than the empty one make none.
fn is_power_event(event: &Event) -> bool {
    match event.state_pair() {
        Some(("m.room.power_levels" | "m.room.join_rules" | "m.room.create", "")) => true,
        Some(("m.room.member", target)) if event.sender != target => {
            matches!(text_field(&event.content, "membership").as_deref(), Some("leave" | "ban"))
        }
        _ => false,
    }
}

/// The state as far as it is resolved.
struct Partial<'a, E> {
    version: &'a RoomVersion,
    unconflicted: &'a dyn Fn(&str, &str) -> Option<OwnedEventId>,
    resolved: BTreeMap<StateKey, Arc<Event>>,
    /// What was asked of the unconflicted state: the power levels, say, for each event.
    agreed: RefCell<BTreeMap<StateKey, Option<Arc<Event>>>>,
    events: &'a E,
}

impl<E: Events> Partial<'_, E> {
    /// One step of the iterative auth checks: the event enters the state if the state allows it.
    fn apply(&mut self, full: &ById, id: &OwnedEventId) {
        let Some(event) = full.get(id) else { return };
        let Some((kind, key)) = event.state_pair() else { return };
        // The specification lets an event that was rejected by the state before it in after all. Like Synapse, Hearth
        // does not: a rejected event never enters the state.
        if self.events.rejected(id) {
            return;
        }
        let auth_events: Vec<Arc<Event>> = event.auth_events.iter().filter_map(|id| self.accepted(id)).collect();
        let allowed = authorize(self.version, event, |kind, key| {
            let cited = || auth_events.iter().rev().find(|auth_event| auth_event.state_pair() == Some((kind, key))).cloned();
            self.entry(kind, key).or_else(cited).or_else(|| self.implied_create(event, kind, key))
        });
        if allowed.is_ok() {
            self.resolved.insert(owned(kind, key), Arc::clone(event));
        }
    }

    /// The state's event of this type and state key. Version 2.1 starts from nothing, 2 from the unconflicted state.
    fn entry(&self, kind: &str, key: &str) -> Option<Arc<Event>> {
        let pair = owned(kind, key);
        if let Some(event) = self.resolved.get(&pair) {
            return Some(Arc::clone(event));
        }
        if self.version.resolution == StateResolution::V2_1 {
            return None;
        }
        let agreed = || (self.unconflicted)(kind, key).and_then(|id| self.accepted(&id));
        self.agreed.borrow_mut().entry(pair).or_insert_with(agreed).clone()
    }

    fn accepted(&self, id: &OwnedEventId) -> Option<Arc<Event>> {
        if self.events.rejected(id) { None } else { self.events.event(id) }
    }

    /// Version 12: no event cites the create event, its room id implies it.
    fn implied_create(&self, event: &Event, kind: &str, key: &str) -> Option<Arc<Event>> {
        let implied = self.version.version_12 && (kind, key) == ("m.room.create", "");
        implied.then(|| create_of_room(event, self.events)).flatten()
    }
}
