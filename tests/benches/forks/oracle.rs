//! `ruma-state-res`, called as one does who has whole states and no index: all of both states goes in.

use std::{collections::HashMap, sync::Arc};

use protocol::{event::Event, resolve::conflicted_subgraph};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, RoomVersionId, UInt, UserId,
    events::{StateEventType, TimelineEventType},
};
use ruma_state_res::{StateMap, utils::event_id_set::EventIdSet};
use serde_json::value::RawValue;

/// An event in its terms.
pub struct OracleEvent {
    event: Arc<Event>,
    kind: TimelineEventType,
}

impl ruma_state_res::Event for OracleEvent {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.event.id
    }

    fn room_id(&self) -> Option<&RoomId> {
        // In version 12 the create event names none.
        (self.event.kind != "m.room.create").then_some(&self.event.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.event.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.event.origin_server_ts))
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }

    fn content(&self) -> &RawValue {
        &self.event.content
    }

    fn state_key(&self) -> Option<&str> {
        self.event.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.event.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.event.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.event.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        false
    }
}

/// All events of a room, in memory.
#[derive(Default)]
pub struct Oracle {
    events: HashMap<OwnedEventId, Arc<OracleEvent>>,
}

/// Whole states, with the auth chains of each: what a caller has to bring.
#[derive(Clone)]
pub struct Input {
    states: Arc<Vec<StateMap<OwnedEventId>>>,
    chains: Vec<EventIdSet<OwnedEventId>>,
}

impl Oracle {
    pub fn add(&mut self, event: &Arc<Event>) {
        let oracle = OracleEvent { event: Arc::clone(event), kind: event.kind.as_str().into() };
        self.events.insert(event.id.clone(), Arc::new(oracle));
    }

    pub fn input(&self, states: &[Vec<OwnedEventId>]) -> Input {
        let map = |state: &Vec<OwnedEventId>| {
            let entry = |id: &OwnedEventId| {
                let event = &self.events[id].event;
                let (kind, key) = event.state_pair().unwrap();
                ((StateEventType::from(kind), key.to_owned()), id.clone())
            };
            state.iter().map(entry).collect()
        };
        Input {
            states: Arc::new(states.iter().map(map).collect()),
            chains: states.iter().map(|state| self.chain(state)).collect(),
        }
    }

    fn chain(&self, state: &[OwnedEventId]) -> EventIdSet<OwnedEventId> {
        let mut chain = EventIdSet::new();
        let mut unvisited = state.to_vec();
        while let Some(id) = unvisited.pop() {
            if chain.insert(id.clone()) {
                unvisited.extend(self.events[&id].event.auth_events.iter().cloned());
            }
        }
        chain
    }

    /// The size of what they resolve to.
    pub fn resolve(&self, input: Input) -> usize {
        let rules = RoomVersionId::V12.rules().unwrap();
        let known = |id: &EventId| self.events.get(id).map(|oracle| Arc::clone(&oracle.event));
        let resolved = ruma_state_res::resolve(
            &rules.authorization,
            rules.state_res.v2_rules().unwrap(),
            &*input.states,
            input.chains,
            |id| self.events.get(id).cloned(),
            |conflicted| {
                let ids = conflicted.values().flatten().cloned().collect();
                Some(conflicted_subgraph(&ids, &known).unwrap().into_iter().collect())
            },
        );
        resolved.unwrap().len()
    }
}
