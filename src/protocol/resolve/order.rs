//! The two orders of version 2: reverse topological power ordering, and mainline ordering.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::v2::Room;
use super::{Node, Source};
use crate::dag::topological_order;
use crate::power_levels::{Power, PowerLevels};

const POWER_LEVELS: (&str, &str) = ("m.room.power_levels", "");

/// Events by what stands for them.
pub(super) type ById<I> = BTreeMap<I, Node<I>>;

/// Reverse topological power ordering of these events: along `auth_events`, then by greater power of the sender, then by
/// time, then by id.
pub(super) fn by_power<S: Source>(room: &Room<'_, S>, events: &ById<S::Id>) -> Vec<S::Id> {
    let graph = events.iter().map(|(id, node)| (id.clone(), node.auth_events.iter().cloned().collect::<BTreeSet<_>>()));
    topological_order(&graph.collect(), |id| {
        events.get(id).map(|node| (Reverse(sender_power(room, node)), node.event.origin_server_ts, &node.event.id))
    })
}

/// The power of an event's sender by its own `auth_events`. A level that cannot be read is none.
fn sender_power<S: Source>(room: &Room<'_, S>, node: &Node<S::Id>) -> Power {
    let version = room.version;
    let mut create = if version.version_12 { room.create_of(&node.event) } else { None };
    let mut levels = None;
    for Node { event: auth_event, .. } in node.auth_events.iter().filter_map(|id| room.source.node(id)) {
        match auth_event.state_pair() {
            Some(POWER_LEVELS) => levels = Some(auth_event),
            Some(("m.room.create", "")) if !version.version_12 => create = Some(auth_event),
            _ => {}
        }
    }
    PowerLevels::new(version, create.as_deref(), levels.as_deref())
        .and_then(|levels| levels.user(&node.event.sender))
        .unwrap_or(Power::Level(0))
}

/// Mainline ordering of these events based on the power levels: from the far end of the mainline to the
/// near one, then by time, then by id.
pub(super) fn by_mainline<'n, S: Source>(
    events: impl Iterator<Item = (&'n S::Id, &'n Node<S::Id>)>,
    power_levels: Option<(S::Id, Node<S::Id>)>,
    source: &S,
) -> Vec<(&'n S::Id, &'n Node<S::Id>)>
where
    S::Id: 'n,
{
    let mut mainline = Mainline { source, positions: BTreeMap::new(), length: 0, next: power_levels, last: None };
    let mut places: Vec<_> = events.map(|(id, node)| (Reverse(mainline.position(node)), id, node)).collect();
    places.sort_unstable_by(|(one_place, _, one), (other_place, _, other)| {
        let (one, other) = (&one.event, &other.event);
        (one_place, one.origin_server_ts, &one.id).cmp(&(other_place, other.origin_server_ts, &other.id))
    });
    places.into_iter().map(|(_, id, node)| (id, node)).collect()
}

/// The mainline position of what does not lead to the mainline: beyond its far end.
const OFF_MAINLINE: usize = usize::MAX;

/// The mainline, walked from its near end only as far as somebody's position asks for: the power levels of years that all have in common
/// are not visited.
struct Mainline<'a, S: Source> {
    source: &'a S,
    /// The positions of the power levels on it, from 0 for the nearest, and of others that lead to it.
    positions: BTreeMap<S::Id, usize>,
    /// How many of them are known.
    length: usize,
    /// The next on it, if it goes on.
    next: Option<(S::Id, Node<S::Id>)>,
    /// The auth events of the event whose position was asked for last, with that position: many cite the same.
    last: Option<(Arc<[S::Id]>, usize)>,
}

impl<S: Source> Mainline<'_, S> {
    /// The mainline position of an event.
    fn position(&mut self, node: &Node<S::Id>) -> usize {
        if let Some((cited, position)) = &self.last
            && *cited == node.auth_events
        {
            return *position;
        }
        let position = self.position_by(&node.auth_events);
        self.last = Some((Arc::clone(&node.auth_events), position));
        position
    }

    /// The mainline position of an event with these auth events. The walks from the event and along the mainline take turns until they meet.
    /// Positions are remembered, so that a set of events costs its own size and that of the power levels it leads to.
    fn position_by(&mut self, auth_events: &[S::Id]) -> usize {
        // Where there is no mainline nothing leads to it.
        if self.length == 0 && self.next.is_none() {
            return OFF_MAINLINE;
        }
        // The power levels that the event leads to, with the place of each on the way.
        let mut way: BTreeMap<S::Id, usize> = BTreeMap::new();
        let mut ahead = self.cited_power_levels(auth_events);
        let (position, steps) = loop {
            // A forged cycle ends the way.
            let here = ahead.take().filter(|(id, _)| !way.contains_key(id));
            if here.is_none() && way.is_empty() {
                break (OFF_MAINLINE, 0);
            }
            if let Some((id, levels)) = &here {
                if let Some(position) = self.positions.get(id) {
                    break (*position, way.len());
                }
                way.insert(id.clone(), way.len());
                ahead = self.cited_power_levels(&levels.auth_events);
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
    fn advance(&mut self) -> Option<(S::Id, usize)> {
        let (id, levels) = self.next.take().filter(|(id, _)| !self.positions.contains_key(id))?;
        let position = self.length;
        self.length += 1;
        self.positions.insert(id.clone(), position);
        self.next = self.cited_power_levels(&levels.auth_events);
        Some((id, position))
    }

    fn cited_power_levels(&self, auth_events: &[S::Id]) -> Option<(S::Id, Node<S::Id>)> {
        let mut known = auth_events.iter().filter_map(|id| Some((id, self.source.node(id)?)));
        let cited = known.find(|(_, node)| node.event.state_pair() == Some(POWER_LEVELS));
        cited.map(|(id, node)| (id.clone(), node))
    }
}
