//! ruma's state resolution as an oracle for versions 2 to 12.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ruma::events::{StateEventType, TimelineEventType};
use ruma::room_version_rules::RoomVersionRules;
use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, RoomVersionId, UInt, UserId};
use ruma_state_res::utils::event_id_set::EventIdSet;
use serde_json::value::RawValue;

use super::{Graph, StateMap};
use crate::event::Event;
use crate::version::StateResolution;

/// An event in the oracle's terms.
struct OracleEvent {
    event: Arc<Event>,
    kind: TimelineEventType,
    names_room: bool,
}

impl ruma_state_res::Event for OracleEvent {
    type Id = OwnedEventId;

    fn event_id(&self) -> &Self::Id {
        &self.event.id
    }

    fn room_id(&self) -> Option<&RoomId> {
        self.names_room.then_some(&self.event.room_id)
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

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.event.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.event.auth_events.iter())
    }

    fn redacts(&self) -> Option<&Self::Id> {
        self.event.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        false
    }
}

/// An event and all that its auth events lead to.
fn chain(graph: &Graph, id: &EventId, chain: &mut BTreeSet<OwnedEventId>) {
    if chain.insert(id.to_owned()) {
        for auth_event in &graph.events[id].auth_events {
            self::chain(graph, auth_event, chain);
        }
    }
}

/// By definition: what a conflicted event leads to and what leads to a conflicted event.
fn subgraph(graph: &Graph, conflicted: &BTreeSet<OwnedEventId>) -> EventIdSet<OwnedEventId> {
    let below = |id: &EventId| {
        let mut chain_of = BTreeSet::new();
        chain(graph, id, &mut chain_of);
        chain_of
    };
    let reached: BTreeSet<_> = conflicted.iter().flat_map(|id| below(id)).collect();
    reached.into_iter().filter(|id| below(id).iter().any(|below| conflicted.contains(below))).collect()
}

/// Compares with the oracle, for the versions that it knows.
#[track_caller]
pub(super) fn check_against_oracle(graph: &Graph, states: &[StateMap]) {
    if graph.version.resolution == StateResolution::V1 {
        return;
    }
    let rules = RoomVersionId::try_from(graph.version.id).unwrap().rules().unwrap();
    let ours = graph.resolve(states);
    let theirs: StateMap =
        oracle(graph, states, &rules).into_iter().map(|((kind, key), id)| ((kind.to_string(), key), id)).collect();
    assert_eq!(ours, theirs, "version {}", graph.version.id);
}

fn oracle(graph: &Graph, states: &[StateMap], rules: &RoomVersionRules) -> ruma_state_res::StateMap<OwnedEventId> {
    let events: BTreeMap<&EventId, Arc<OracleEvent>> = graph
        .events
        .values()
        .map(|event| {
            let names_room = !(graph.version.version_12 && event.kind == "m.room.create");
            let oracle = OracleEvent { event: Arc::clone(event), kind: event.kind.as_str().into(), names_room };
            (&*event.id, Arc::new(oracle))
        })
        .collect();
    let maps: Vec<ruma_state_res::StateMap<OwnedEventId>> = states
        .iter()
        .map(|state| {
            state.iter().map(|((kind, key), id)| ((StateEventType::from(kind.as_str()), key.clone()), id.clone())).collect()
        })
        .collect();
    let chains = states
        .iter()
        .map(|state| {
            let mut all = BTreeSet::new();
            state.values().for_each(|id| chain(graph, id, &mut all));
            all.into_iter().collect()
        })
        .collect();
    ruma_state_res::resolve(
        &rules.authorization,
        rules.state_res.v2_rules().unwrap(),
        &maps,
        chains,
        |id| events.get(id).cloned(),
        |conflicted| Some(subgraph(graph, &conflicted.values().flatten().cloned().collect())),
    )
    .unwrap()
}
