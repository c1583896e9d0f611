//! Walks along the event graph that other servers ask for, each bounded by what is returned.
//!
//! Specification: server-server API, "Backfilling and retrieving missing events".

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    sync::Arc,
};

use ruma::OwnedEventId;
use store::{Read, RoomNo};

use crate::{
    EventNo, Result,
    events::{self, StoredEvent},
};

/// The most events that a walk looks at.
const LOOKED_AT_MAX: usize = 1_000;

/// Events from these on towards older ones, these included, the deepest first: at most `limit`.
///
/// # Errors
/// As the database says.
pub fn history(db: &impl Read, room: RoomNo, from: &[OwnedEventId], limit: usize) -> Result<Vec<Arc<StoredEvent>>> {
    walk(db, room, from, &BTreeSet::new(), 0, limit)
}

/// The events that lie between `earliest` and `latest`, neither included, from `min_depth` on: at most `limit`, those nearest to `latest`, the oldest
/// first.
///
/// # Errors
/// As the database says.
pub fn between(
    db: &impl Read,
    room: RoomNo,
    earliest: &BTreeSet<OwnedEventId>,
    latest: &[OwnedEventId],
    min_depth: u64,
    limit: usize,
) -> Result<Vec<Arc<StoredEvent>>> {
    let mut parents = Vec::new();
    for id in latest {
        if let Some((_, stored)) = events::by_id(db, room, id)? {
            parents.extend(stored.event.prev_events.iter().filter(|id| !latest.contains(id)).cloned());
        }
    }
    let mut found = walk(db, room, &parents, earliest, min_depth, limit)?;
    found.reverse();
    Ok(found)
}

/// Events that are part of the room, along their parents, the deepest first.
fn walk(
    db: &impl Read,
    room: RoomNo,
    from: &[OwnedEventId],
    without: &BTreeSet<OwnedEventId>,
    min_depth: u64,
    limit: usize,
) -> Result<Vec<Arc<StoredEvent>>> {
    let mut found = Vec::new();
    let mut seen: BTreeSet<OwnedEventId> = BTreeSet::new();
    let mut unvisited: BinaryHeap<(u64, Reverse<u64>, EventNo)> = BinaryHeap::new();
    let mut visit = |ids: &[OwnedEventId], unvisited: &mut BinaryHeap<_>| -> Result<()> {
        for id in ids.iter().filter(|id| !without.contains(*id)) {
            if !seen.insert(id.clone()) {
                continue;
            }
            if let Some((no, stored)) = events::placed(db, room, id)?
                && stored.event.depth >= min_depth
            {
                unvisited.push((stored.event.depth, Reverse(stored.event.origin_server_ts), no));
            }
        }
        Ok(())
    };
    visit(from, &mut unvisited)?;
    for _ in 0..LOOKED_AT_MAX {
        let Some((_, _, no)) = unvisited.pop().filter(|_| found.len() < limit) else { break };
        let stored = events::event(db, room, no)?;
        visit(&stored.event.prev_events, &mut unvisited)?;
        // What was refused here is nobody's history.
        if stored.header.pos.is_some() {
            found.push(stored);
        }
    }
    Ok(found)
}
