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
        events.iter().map(|(id, event)| (Reverse(mainline.position(event)), event.origin_server_ts, id)).collect();
    places.sort_unstable();
    places.into_iter().map(|(_, _, id)| id.clone()).collect()
}

/// The mainline position of what does not lead to the mainline: beyond its far end.
const OFF_MAINLINE: usize = usize::MAX;

/// The mainline, walked from its near end only as far as somebody's position asks for: the power levels of years that all have in common
/// are not visited.
struct Mainline<'a, E> {
    source: &'a E,
    /// The positions of the power levels on it, from 0 for the nearest, and of others that lead to it.
    positions: BTreeMap<OwnedEventId, usize>,
    /// How many of them are known.
    length: usize,
    /// The next on it, if it goes on.
    next: Option<Arc<Event>>,
}

impl<'a, E: Events> Mainline<'a, E> {
    fn of(power_levels: Option<&Arc<Event>>, source: &'a E) -> Self {
        Mainline { source, positions: BTreeMap::new(), length: 0, next: power_levels.cloned() }
    }

    /// The mainline position of an event. The walks from the event and along the mainline take turns until they meet.
    /// Positions are remembered, so that a set of events costs its own size and that of the power levels it leads to.
    fn position(&mut self, event: &Event) -> usize {
        // Where there is no mainline nothing leads to it.
        if self.length == 0 && self.next.is_none() {
            return OFF_MAINLINE;
        }
        // The power levels that the event leads to, with the place of each on the way.
        let mut way: BTreeMap<OwnedEventId, usize> = BTreeMap::new();
        let mut ahead = cited_power_levels(event, self.source);
        let (position, steps) = loop {
            // A forged cycle ends the way.
            let here = ahead.take().filter(|levels| !way.contains_key(&levels.id));
            if let Some(levels) = &here {
                if let Some(position) = self.positions.get(&levels.id) {
                    break (*position, way.len());
                }
                way.insert(levels.id.clone(), way.len());
                ahead = cited_power_levels(levels, self.source);
            }
            match self.advance() {
                Some((id, position)) => {
                    if let Some(step) = way.get(&id) {
                        break (position, *step);
                    }
                }
                None if here.is_none() => break (OFF_MAINLINE, way.len()),
                None => {}
            }
        };
        // What comes after the meeting has a position of its own.
        self.positions.extend(way.into_iter().filter(|(_, step)| *step < steps).map(|(id, _)| (id, position)));
        position
    }

    /// One step along the mainline, unless it has ended or goes in a circle.
    fn advance(&mut self) -> Option<(OwnedEventId, usize)> {
        let levels = self.next.take().filter(|levels| !self.positions.contains_key(&levels.id))?;
        let position = self.length;
        self.length += 1;
        self.positions.insert(levels.id.clone(), position);
        self.next = cited_power_levels(&levels, self.source);
        Some((levels.id.clone(), position))
    }
}

fn cited_power_levels(event: &Event, source: &impl Events) -> Option<Arc<Event>> {
    event.auth_events.iter().filter_map(|id| source.event(id)).find(|event| event.state_pair() == Some(POWER_LEVELS))
}
