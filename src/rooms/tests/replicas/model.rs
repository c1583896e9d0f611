//! What the room is by whole states: each event is judged and resolved without any index, and nothing is forgotten.

use protocol::{
    auth::{self, AuthEvent},
    event::Event,
    resolve::Events,
};

use super::*;

pub(super) struct Model {
    version: &'static RoomVersion,
    events: BTreeMap<OwnedEventId, Arc<Event>>,
    /// Events of another room that every server has.
    elsewhere: BTreeMap<OwnedEventId, Arc<Event>>,
    /// Whether each event was rejected, and the state after it.
    pub(super) after: BTreeMap<OwnedEventId, (bool, StateMap)>,
    /// The same events, oldest first.
    pub(super) order: Vec<OwnedEventId>,
    create: Option<Arc<Event>>,
}

impl Events for Model {
    fn event(&self, id: &EventId) -> Option<Arc<Event>> {
        self.events.get(id).cloned()
    }

    fn rejected(&self, id: &EventId) -> bool {
        self.after.get(id).is_some_and(|(rejected, _)| *rejected)
    }
}

impl Model {
    pub(super) fn new(version: &'static RoomVersion, elsewhere: &[Verified]) -> Self {
        let elsewhere = elsewhere.iter().map(|event| (event.event().id.clone(), Arc::clone(event.event()))).collect();
        Self { version, events: BTreeMap::new(), elsewhere, after: BTreeMap::new(), order: Vec::new(), create: None }
    }

    /// Whether an event is part of the room: one that cites what nobody has is not.
    pub(super) fn holds(&self, id: &EventId) -> bool {
        self.events.contains_key(id)
    }

    pub(super) fn find(&self, id: &EventId) -> Option<&Arc<Event>> {
        self.events.get(id).or_else(|| self.elsewhere.get(id))
    }

    pub(super) fn elsewhere(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.elsewhere.values()
    }

    /// The state that these lead to together.
    pub(super) fn before(&self, parents: &[OwnedEventId]) -> StateMap {
        let states: Vec<StateMap> = parents.iter().map(|id| self.after[id].1.clone()).collect();
        resolve_states(self.version, &states, self).unwrap()
    }

    pub(super) fn add(&mut self, event: &Arc<Event>) {
        let known =
            event.prev_events.iter().all(|id| self.holds(id)) && event.auth_events.iter().all(|id| self.find(id).is_some());
        if !known {
            return;
        }
        let mut state = self.before(&event.prev_events);
        if event.prev_events.is_empty() {
            self.create.get_or_insert_with(|| Arc::clone(event));
        }
        let rejected = !self.allows(event, &state);
        if let Some((kind, key)) = event.state_pair().filter(|_| !rejected) {
            state.insert((kind.to_owned(), key.to_owned()), event.id.clone());
        }
        self.events.insert(event.id.clone(), Arc::clone(event));
        self.after.insert(event.id.clone(), (rejected, state));
        self.order.push(event.id.clone());
    }

    /// Steps 4 and 5 of the checks on receipt.
    fn allows(&self, event: &Event, before: &StateMap) -> bool {
        let cited: Vec<&Arc<Event>> = event.auth_events.iter().filter_map(|id| self.find(id)).collect();
        let claimed: Vec<AuthEvent<'_>> =
            cited.iter().map(|cited| AuthEvent { event: cited, rejected: self.rejected(&cited.id) }).collect();
        if auth::check_auth_events(self.version, event, &claimed).is_err() {
            return false;
        }
        let by_cited = auth::authorize(self.version, event, |kind, key| {
            let found = cited.iter().find(|cited| cited.state_pair() == Some((kind, key)));
            let create = self.create.as_ref().filter(|_| self.version.version_12 && kind == "m.room.create");
            found.copied().or(create).cloned()
        });
        let by_state = auth::authorize(self.version, event, |kind, key| {
            before.get(&(kind.to_owned(), key.to_owned())).and_then(|id| self.events.get(id)).cloned()
        });
        by_cited.is_ok() && by_state.is_ok()
    }
}
