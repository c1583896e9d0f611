//! Which event is an ancestor of which, without walking: a chain cover, for the auth chains of a room and for its event DAG.
//!
//! Events stand in chains, each an ancestor of the next. The ancestors of an event are the first events of each chain up to some
//! place, so they are told by a map from chains to places: its *reach*, a tree that shares with those of its parents what is the
//! same. ("A Compression Technique to Materialize Transitive Closure", Jagadish 1990.)

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::auth;
use serde::{Deserialize, Serialize};
use store::{Lead, Owner, Preset, Range, Read, RoomNo, Table};

use crate::{
    Error, EventNo, Result,
    events::{self, Header, StoredEvent},
    head::OpenRoom,
    tree::{self, NodeNo, Union},
};

pub(crate) static AUTH_CHAINS: Table<(RoomNo, u32, u32), EventNo> =
    Table::new("auth_chains", "The state events of a room by their chain in its auth chains, and their place in that.")
        .owned_by(Owner::Room)
        .read_by(Preset::Scan);
pub(crate) static CITED: Table<(RoomNo, EventNo, EventNo), ()> =
    Table::new("auth_cited", "The state events of a room that name a state event among their auth events.")
        .owned_by(Owner::Room)
        .read_by(Preset::Scan);

/// The most events that are looked at to find an auth difference.
const LOOKED_AT_MAX: usize = 1 << 20;

/// Where an event stands among others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    chain: u32,
    /// Its place in its chain, from 1.
    place: u32,
    /// How far its ancestors go in each chain.
    reach: NodeNo,
}

impl Link {
    /// The tree of how far its ancestors go.
    pub(crate) fn reach(self) -> NodeNo {
        self.reach
    }

    /// Whether this is `other`, or has it among its ancestors.
    fn includes(self, db: &impl Read, room: RoomNo, other: Self) -> Result<bool> {
        if self.chain == other.chain {
            return Ok(self.place >= other.place);
        }
        Ok(tree::lookup(db, room, self.reach.0, other.chain)?.is_some_and(|place| place >= other.place))
    }
}

/// Whether an event is an ancestor of another along `prev_events`.
///
/// # Errors
/// As the database says.
pub fn is_before(db: &impl Read, room: RoomNo, one: EventNo, other: &Header) -> Result<bool> {
    let one = events::event(db, room, one)?;
    match (one.header.dag, other.dag) {
        (Some(before), Some(after)) => Ok(before != after && after.includes(db, room, before)?),
        _ => Ok(false),
    }
}

/// The link of an event with these parents in the event DAG. Of forward extremities, an accepted event may go on the chain of one.
pub(crate) fn link_in_dag(room: &mut OpenRoom<'_, '_>, parents: &[EventNo], extends: bool) -> Result<Link> {
    let mut links = Vec::with_capacity(parents.len());
    let mut last = None;
    for no in parents {
        let Some(link) = events::event(room.tx, room.no, *no)?.header.dag else { continue };
        if extends && last.is_none() && room.head.extremities.contains(no) {
            last = Some(link);
        }
        links.push(link);
    }
    let reach = match (links.as_slice(), last) {
        // The ancestors in the chain itself are told by the place in it.
        ([only], Some(_)) => only.reach,
        _ => reach_of(room, &links)?,
    };
    Ok(next(&mut room.head.dag_chains, last, reach))
}

/// The link of a new state event among auth chains. Events of one type and state key make a chain. What nobody may cite needs no link:
/// its ancestors are those that it cites and theirs.
pub(crate) fn link_by_auth(
    room: &mut OpenRoom<'_, '_>,
    no: EventNo,
    pair: (&str, &str),
    auth_events: &[EventNo],
) -> Result<Option<Link>> {
    let mut links = Vec::with_capacity(auth_events.len());
    let mut last = None;
    for cited in auth_events {
        let stored = events::event(room.tx, room.no, *cited)?;
        let Some(link) = stored.header.auth else { continue };
        if stored.event.state_pair() == Some(pair) {
            let is_end = !room.tx.contains(&AUTH_CHAINS, &(room.no, link.chain, link.place + 1))?;
            last = is_end.then_some(link);
        }
        links.push(link);
        room.tx.put(&CITED, &(room.no, *cited, no), &())?;
    }
    if !auth::may_be_cited(pair.0) {
        return Ok(None);
    }
    let reach = reach_of(room, &links)?;
    let link = next(&mut room.head.auth_chains, last, reach);
    room.tx.put(&AUTH_CHAINS, &(room.no, link.chain, link.place), &no)?;
    Ok(Some(link))
}

fn next(chains: &mut u32, last: Option<Link>, reach: NodeNo) -> Link {
    match last {
        Some(last) => Link { chain: last.chain, place: last.place + 1, reach },
        None => {
            *chains += 1;
            Link { chain: *chains, place: 1, reach }
        }
    }
}

/// These and all their ancestors.
fn reach_of(room: &mut OpenRoom<'_, '_>, parents: &[Link]) -> Result<NodeNo> {
    let Some(base) = parents.iter().map(|link| link.reach.0).max() else { return Ok(NodeNo(0)) };
    let mut further: BTreeMap<u32, u32> = BTreeMap::new();
    let mut reached = |chain: u32, place: u32| {
        let entry = further.entry(chain).or_default();
        *entry = place.max(*entry);
    };
    for link in parents {
        tree::compare(room.tx, room.no, (base, link.reach.0), 0, &mut |chain, had, has| {
            if has > had {
                reached(chain, has);
            }
            Ok(())
        })?;
        if tree::lookup(room.tx, room.no, base, link.chain)?.is_none_or(|place| place < link.place) {
            reached(link.chain, link.place);
        }
    }
    let further: Vec<(u32, u32)> = further.into_iter().collect();
    Ok(NodeNo(tree::insert_all(room.tx, room.no, &mut room.head, base, &further)?))
}

/// Events as a resolution keeps them that it reads each only once.
pub(crate) trait Known {
    /// An event, and its auth events that are known.
    fn with_auth_events(&self, no: EventNo) -> Result<(Arc<StoredEvent>, Arc<[EventNo]>)>;
}

/// The auth difference of states: what is in the full auth chain of some of them but not of all. A state's own events count as part of its
/// chain if they may be cited.
///
/// `conflicted` are the events of each state where the states differ, and `shared` tells whether an event is one that all have. It costs
/// the difference, not the chains.
pub(crate) fn auth_difference(
    db: &impl Read,
    room: RoomNo,
    conflicted: &[Vec<EventNo>],
    known: &impl Known,
    shared: impl Fn(EventNo) -> Result<bool>,
) -> Result<BTreeSet<EventNo>> {
    let reaches = conflicted.iter().map(|events| closure(known, events)).collect::<Result<Vec<Union>>>()?;
    let mut difference = BTreeSet::new();
    let mut search = Search { db, room, shared, looked_at: 0, known: BTreeMap::new() };
    tree::compare_unions(db, room, &reaches, &mut |chain, of_all, of_some| {
        for place in of_all + 1..=of_some {
            let no = db.get(&AUTH_CHAINS, &(room, chain, place))?.ok_or(Error::NotFound("an event of an auth chain"))?;
            if !search.leads_to_shared(no)? {
                difference.insert(no);
            }
        }
        Ok(())
    })?;
    Ok(difference)
}

/// How far these events and their auth chains go in each chain.
fn closure(known: &impl Known, events: &[EventNo]) -> Result<Union> {
    let mut reach = Union::default();
    // Many events cite the same.
    let mut seen: BTreeSet<EventNo> = BTreeSet::new();
    let mut reached = |link: Link| {
        reach.raise(link.chain, link.place);
        if link.reach != NodeNo(0) {
            reach.roots.insert(link.reach.0);
        }
    };
    for no in events {
        let (stored, auth_events) = known.with_auth_events(*no)?;
        if let Some(link) = stored.header.auth {
            reached(link);
            continue;
        }
        for no in auth_events.iter().filter(|no| seen.insert(**no)) {
            known.with_auth_events(*no)?.0.header.auth.into_iter().for_each(&mut reached);
        }
    }
    Ok(reach)
}

/// Where to look for some events among the ancestors of others: in each chain the first of them.
pub(crate) fn first_places<'a>(events: impl Iterator<Item = &'a Arc<StoredEvent>>) -> Vec<(u32, u32)> {
    let mut places: BTreeMap<u32, u32> = BTreeMap::new();
    for link in events.filter_map(|stored| stored.header.auth) {
        let entry = places.entry(link.chain).or_insert(link.place);
        *entry = link.place.min(*entry);
    }
    places.into_iter().collect()
}

/// Whether an event is one of those whose [`first_places`] are given, or has one of them in its auth chain.
pub(crate) fn leads_to_any(db: &impl Read, room: RoomNo, event: &Header, places: &[(u32, u32)]) -> Result<bool> {
    let Some(link) = event.auth else { return Ok(false) };
    let own = places.binary_search_by_key(&link.chain, |(chain, _)| *chain).ok().and_then(|at| places.get(at));
    if own.is_some_and(|(_, first)| *first <= link.place) {
        return Ok(true);
    }
    tree::has_any(db, room, link.reach.0, 0, places)
}

/// Looks from events to those that cite them, for one that all states have: then all have it in their chains.
struct Search<'a, R, F> {
    db: &'a R,
    room: RoomNo,
    shared: F,
    looked_at: usize,
    /// What was found out.
    known: BTreeMap<EventNo, bool>,
}

impl<R: Read, F: Fn(EventNo) -> Result<bool>> Search<'_, R, F> {
    fn leads_to_shared(&mut self, from: EventNo) -> Result<bool> {
        let mut seen = BTreeSet::from([from]);
        let mut unvisited = vec![from];
        let mut found = self.is_shared(from)?;
        while !found && let Some(no) = unvisited.pop() {
            // Rows are read as they are needed: an old event may be cited by all members.
            for row in self.db.range(&CITED, Range::of(&Lead((self.room, no))))? {
                let ((_, _, citing), ()) = row?;
                self.looked_at += 1;
                if self.looked_at > LOOKED_AT_MAX {
                    return Err(Error::TooComplex);
                }
                if !seen.insert(citing) {
                    continue;
                }
                found = self.is_shared(citing)?;
                if found {
                    break;
                }
                if !self.known.contains_key(&citing) {
                    unvisited.push(citing);
                }
            }
        }
        if found {
            self.known.insert(from, true);
        } else {
            self.known.extend(seen.into_iter().map(|no| (no, false)));
        }
        Ok(found)
    }

    /// Whether all states have the event, or are known to have one that it leads to.
    fn is_shared(&self, no: EventNo) -> Result<bool> {
        self.known.get(&no).map_or_else(|| (self.shared)(no), |known| Ok(*known))
    }
}

/// The auth chain of these events, which they are themselves no part of but where one cites another: each event once.
///
/// # Errors
/// [`Error::TooComplex`] for more than [`LOOKED_AT_MAX`].
pub fn auth_chain(db: &impl Read, room: RoomNo, of: impl IntoIterator<Item = EventNo>) -> Result<Vec<EventNo>> {
    let mut seen = BTreeSet::new();
    let mut unvisited: Vec<EventNo> = of.into_iter().collect();
    while let Some(no) = unvisited.pop() {
        for id in &events::event(db, room, no)?.event.auth_events {
            if let Some((home, cited)) = events::find(db, id)?
                && home == room
                && seen.insert(cited)
            {
                unvisited.push(cited);
            }
        }
        if seen.len() > LOOKED_AT_MAX {
            return Err(Error::TooComplex);
        }
    }
    Ok(seen.into_iter().collect())
}
