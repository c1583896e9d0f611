//! The two orders of version 2: reverse topological power ordering, and mainline ordering.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ruma::{EventId, OwnedEventId};

use super::Events;
use crate::dag::topological_order;
use crate::event::Event;
use crate::power_levels::{Power, PowerLevels};
use crate::version::RoomVersion;

const POWER_LEVELS: (&str, &str) = ("m.room.power_levels", "");

/// Events by id.
pub(super) type ById = BTreeMap<OwnedEventId, Arc<Event>>;

/// Reverse topological power ordering of these events: along `auth_events`, then by greater power of the sender, then by
/// time, then by id.
pub(super) fn by_power(version: &RoomVersion, events: &ById, source: &impl Events) -> Vec<OwnedEventId> {
    let graph = events.iter().map(|(id, event)| (id.clone(), event.auth_events.iter().cloned().collect::<BTreeSet<_>>()));
    let ranks: BTreeMap<&OwnedEventId, (Reverse<Power>, u64)> =
        events.iter().map(|(id, event)| (id, (Reverse(sender_power(version, event, source)), event.origin_server_ts))).collect();
    topological_order(&graph.collect(), |id| ranks.get(id).copied())
}

/// The power of an event's sender by its own `auth_events`. A level that cannot be read is none.
fn sender_power(version: &RoomVersion, event: &Event, source: &impl Events) -> Power {
    let mut create = if version.version_12 { create_of_room(event, source) } else { None };
    let mut levels = None;
    for auth_event in event.auth_events.iter().filter_map(|id| source.event(id)) {
        match auth_event.state_pair() {
            Some(POWER_LEVELS) => levels = Some(auth_event),
            Some(("m.room.create", "")) if !version.version_12 => create = Some(auth_event),
            _ => {}
        }
    }
    PowerLevels::new(version, create.as_deref(), levels.as_deref())
        .and_then(|levels| levels.user(&event.sender))
        .unwrap_or(Power::Level(0))
}

/// Version 12: the create event, whose id is the room's.
pub(super) fn create_of_room(event: &Event, source: &impl Events) -> Option<Arc<Event>> {
    let id = EventId::parse(format!("${}", event.room_id.strip_sigil())).ok()?;
    source.event(&id)
}

/// Mainline ordering of these events based on the power levels: from the far end of the mainline to the
/// near one, then by time, then by id.
pub(super) fn by_mainline(events: &ById, power_levels: Option<&Arc<Event>>, source: &impl Events) -> Vec<OwnedEventId> {
    let mut mainline = Mainline::of(power_levels, source);
    let mut places: Vec<_> =
        events.iter().map(|(id, event)| (mainline.position(event, source), event.origin_server_ts, id)).collect();
    places.sort_unstable();
    places.into_iter().map(|(_, _, id)| id.clone()).collect()
}

/// The positions of power levels on a mainline, counted from its far end so that smaller is earlier. Those that do not
/// lead to it have none, which is earlier than any.
struct Mainline {
    positions: BTreeMap<OwnedEventId, Option<usize>>,
}

impl Mainline {
    fn of(power_levels: Option<&Arc<Event>>, source: &impl Events) -> Self {
        let mut line: Vec<OwnedEventId> = Vec::new();
        let mut seen: BTreeSet<OwnedEventId> = BTreeSet::new();
        let mut next = power_levels.cloned();
        // A forged cycle ends the line.
        while let Some(event) = next.filter(|event| seen.insert(event.id.clone())) {
            line.push(event.id.clone());
            next = cited_power_levels(&event, source);
        }
        let positions = line.into_iter().rev().enumerate().map(|(position, id)| (id, Some(position))).collect();
        Mainline { positions }
    }

    /// The mainline position of an event. Positions are remembered for all power levels on the way, so that a set of
    /// events costs its own size and that of the power levels it leads to.
    fn position(&mut self, event: &Arc<Event>, source: &impl Events) -> Option<usize> {
        let mut way: Vec<OwnedEventId> = Vec::new();
        let mut next = cited_power_levels(event, source);
        let mut position = None;
        while let Some(event) = next {
            if let Some(known) = self.positions.get(&event.id) {
                position = *known;
                break;
            }
            // Until it is known better: this ends a cycle.
            self.positions.insert(event.id.clone(), None);
            way.push(event.id.clone());
            next = cited_power_levels(&event, source);
        }
        self.positions.extend(way.into_iter().map(|id| (id, position)));
        position
    }
}

fn cited_power_levels(event: &Event, source: &impl Events) -> Option<Arc<Event>> {
    event.auth_events.iter().filter_map(|id| source.event(id)).find(|event| event.state_pair() == Some(POWER_LEVELS))
}
