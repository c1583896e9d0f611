//! What other servers ask of a room that they are in: its events, its states, what led to them. And what this server asks of them where its own
//! timeline ends: backfilling.
//!
//! Specification: server-server API, "Backfilling and retrieving missing events", "Retrieving the state of a room".

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use protocol::{redact, verify::Verified};
use rooms::{
    EventNo, Pos, chains, dag,
    events::{self, StoredEvent},
    partial, receive, state, timeline,
    timeline::Direction,
    times,
    visibility::ServerViewer,
};
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use store::Snapshot;

use crate::{
    Ask, Error, Federation, Result,
    fetch::{Believed, STATE_TIMEOUT, in_order, v1},
    known::{Known, raw},
    path, query,
};

/// The most events of one answer.
const LIMIT_MAX: usize = 100;
/// Events that are asked for at one time.
const BACKFILL: usize = 100;
/// The largest answer to that, in bytes.
const BACKFILL_BYTES_MAX: usize = 16 << 20;
/// The most events of an answer whose state is asked for: those that follow others than come with them. What is left out comes with a later answer.
const STATES_MAX: usize = 20;
/// Servers that are asked, one after the other.
const SERVERS_MAX: usize = 5;
/// The most events whose time is looked at.
const TIMES_MAX: usize = 1_000;
/// How long a server may take to say which event is closest to a time.
const CLOSEST_TIME: Duration = Duration::from_secs(10);
/// How long another server waits for a state that lacks members.
const WHOLE_WITHIN: Duration = Duration::from_secs(2);
/// How often older events are fetched to get at one of a time.
const TOWARDS_MAX: usize = 10;

/// A state and its auth chain.
#[derive(Debug, Serialize)]
pub struct State<T> {
    /// The events of the state.
    #[serde(rename = "pdus")]
    pub state: Vec<T>,
    /// What is in their auth chains.
    pub auth_chain: Vec<T>,
}

/// An event closest to a time.
#[derive(Debug, Serialize, Deserialize)]
pub struct Closest {
    /// The event.
    pub event_id: OwnedEventId,
    /// Its time, in milliseconds.
    pub origin_server_ts: u64,
}

/// What came of asking others for what a timeline lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backfilled {
    /// There is more to be shown now.
    More,
    /// Those who could have it gave nothing that is to be shown.
    Nothing,
    /// Nobody answered: there may be more another time.
    Unanswered,
}

impl Federation {
    /// An event of a room that the other server is in.
    ///
    /// # Errors
    /// [`rooms::Error::NotFound`] where it is not known, or not for them.
    pub fn event_for(&self, origin: &ServerName, id: &EventId) -> Result<Box<RawValue>> {
        let db = self.store.snapshot();
        let unknown = || rooms::Error::NotFound("the event");
        let (no, _) = events::find(&db, id)?.ok_or_else(unknown)?;
        let room = rooms::numbers::room(&db, no)?;
        let (known, no, stored) = self.asked_for(&db, origin, &room.id, id).map_err(|_| unknown())?;
        // Who may see an event is told by the state before it, but for those that states and auth chains are made of.
        if stored.rejection().is_some() || !(stored.is_placed() || stored.event.state_key.is_some()) {
            return Err(unknown().into());
        }
        let told = self.told(&db, &known, &mut ServerViewer::new(known.no, origin), no, &stored)?;
        Ok(told.ok_or_else(unknown)?)
    }

    /// The state before an event.
    ///
    /// # Errors
    /// As [`Federation::event_for`].
    pub fn state_for(&self, origin: &ServerName, room: &RoomId, at: &EventId) -> Result<State<Box<RawValue>>> {
        self.state_of(origin, room, at, |stored| raw(&stored.event.json))
    }

    /// The ids of the events of the state before an event.
    ///
    /// # Errors
    /// As [`Federation::event_for`].
    pub fn state_ids_for(&self, origin: &ServerName, room: &RoomId, at: &EventId) -> Result<State<OwnedEventId>> {
        self.state_of(origin, room, at, |stored| Ok(stored.header.id.clone()))
    }

    /// Waits a little for the state before an event, where it lacks members and may soon be whole.
    ///
    /// # Errors
    /// As [`Federation::event_for`].
    pub async fn state_is_whole(&self, origin: &ServerName, room: &RoomId, at: &EventId) -> Result<()> {
        let waits = {
            let db = self.store.snapshot();
            let (known, no, _) = self.asked_for(&db, origin, room, at)?;
            partial::is_partial_at(&db, known.no, no)?.then_some(known.no)
        };
        if let Some(room) = waits {
            self.whole_within(room, WHOLE_WITHIN).await?;
        }
        Ok(())
    }

    fn state_of<T>(
        &self,
        origin: &ServerName,
        room: &RoomId,
        at: &EventId,
        of: impl Fn(&StoredEvent) -> Result<T>,
    ) -> Result<State<T>> {
        let db = self.store.snapshot();
        let (known, no, stored) = self.asked_for(&db, origin, room, at)?;
        if !stored.is_placed() || partial::is_partial_at(&db, known.no, no)? {
            return Err(rooms::Error::NotFound("the state before the event").into());
        }
        let numbers = state::all(&db, known.no, stored.header.before)?;
        let chain = chains::auth_chain(&db, known.no, numbers.iter().copied())?;
        let made =
            |numbers: Vec<EventNo>| numbers.into_iter().map(|no| of(&*events::event(&db, known.no, no)?)).collect::<Result<_>>();
        Ok(State { state: made(numbers)?, auth_chain: made(chain)? })
    }

    /// The auth chain of an event.
    ///
    /// # Errors
    /// As [`Federation::event_for`].
    pub fn auth_chain_for(&self, origin: &ServerName, room: &RoomId, id: &EventId) -> Result<Vec<Box<RawValue>>> {
        let db = self.store.snapshot();
        let (known, no, _) = self.asked_for(&db, origin, room, id)?;
        let chain = chains::auth_chain(&db, known.no, [no])?;
        chain.into_iter().map(|no| raw(&events::event(&db, known.no, no)?.event.json)).collect()
    }

    /// These events and those before them, the newest first.
    ///
    /// # Errors
    /// As [`Federation::event_for`].
    pub fn history_for(
        &self,
        origin: &ServerName,
        room: &RoomId,
        from: &[OwnedEventId],
        limit: usize,
    ) -> Result<Vec<Box<RawValue>>> {
        let db = self.store.snapshot();
        let (known, until) = self.shared_with(&db, room, origin)?;
        self.all_written(&db, (&known, until), origin, &dag::history(&db, known.no, from, limit.min(LIMIT_MAX))?)
    }

    /// The events between those that the other server has and those that it wants to lead up to.
    ///
    /// # Errors
    /// As [`Federation::event_for`].
    pub fn between_for(
        &self,
        origin: &ServerName,
        room: &RoomId,
        earliest: &BTreeSet<OwnedEventId>,
        latest: &[OwnedEventId],
        (min_depth, limit): (u64, usize),
    ) -> Result<Vec<Box<RawValue>>> {
        let db = self.store.snapshot();
        let (known, until) = self.shared_with(&db, room, origin)?;
        self.all_written(
            &db,
            (&known, until),
            origin,
            &dag::between(&db, known.no, earliest, latest, min_depth, limit.min(LIMIT_MAX))?,
        )
    }

    /// The event of a room that is closest to a time.
    ///
    /// # Errors
    /// As [`Federation::event_for`].
    pub fn closest_for(&self, origin: &ServerName, room: &RoomId, ts: u64, direction: Direction) -> Result<Closest> {
        let db = self.store.snapshot();
        let (known, until) = self.shared_with(&db, room, origin)?;
        let mut viewer = ServerViewer::new(known.no, origin);
        for found in times::closest(&db, known.no, ts, direction)?.take(TIMES_MAX) {
            let (origin_server_ts, no) = found?;
            let stored = events::event(&db, known.no, no)?;
            if no <= until && viewer.sees(&db, &stored)? {
                return Ok(Closest { event_id: stored.header.id.clone(), origin_server_ts });
            }
        }
        Err(rooms::Error::NotFound("an event at that time").into())
    }

    /// Fetches older events of a room where its timeline lacks them at or before a place.
    ///
    /// # Errors
    /// Only where Hearth fails.
    pub async fn backfill(&self, room: &RoomId, before: Pos) -> Result<Backfilled> {
        let db = self.store.snapshot();
        let Some(known) = self.known(&db, room)? else { return Ok(Backfilled::Nothing) };
        let Some((gap, missing)) = timeline::gap(&db, known.no, before)? else { return Ok(Backfilled::Nothing) };
        let gate = self.rooms.at(known.no);
        let _alone = gate.lock().await;
        if timeline::gap(&self.store.snapshot(), known.no, before)? != Some((gap, missing.clone())) {
            return Ok(Backfilled::More);
        }
        let (mut answered, mut silent, mut late) = (false, false, false);
        for server in self.backfill_servers(&db, &known, gap)? {
            match self.backfill_from(&server, &known, gap, &missing).await {
                Ok(0) => answered = true,
                Ok(_) => return Ok(Backfilled::More),
                Err(error) if error.is_theirs() => {
                    // It is there, and cannot be believed yet.
                    late |= matches!(error, Error::KeysLate(_));
                    silent |= !matches!(error, Error::Refused(_) | Error::BadAnswer(_));
                    tracing::debug!(%error, room = %room, %server, "no older events");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(if late || silent && !answered { Backfilled::Unanswered } else { Backfilled::Nothing })
    }

    /// Fetches older events from before this server entered a room, where an event of this depth may be one of them or follow one: what is placed as history first
    /// is not taken for news when others cite it.
    pub(crate) async fn fetch_past(&self, from: &ServerName, known: &Known, depth: u64) -> Result<()> {
        let db = self.store.snapshot();
        let Some(entered) = rooms::servers::since(&db, known.no, self.name())? else { return Ok(()) };
        let Some((gap, missing)) = timeline::gap(&db, known.no, entered)? else { return Ok(()) };
        if timeline::last_until(&db, known.no, gap)?.is_none_or(|after| after.stored.event.depth < depth) {
            return Ok(());
        }
        match self.backfill_from(from, known, gap, &missing).await {
            Err(error) if error.is_theirs() => {
                tracing::debug!(%error, room = %known.id, server = %from, "no older events");
                Ok(())
            }
            fetched => fetched.map(drop),
        }
    }

    /// Fetches older events of a room up to the one closest to a time, where its timeline lacks those of that time and another server knows of one.
    ///
    /// # Errors
    /// Only where Hearth fails: where no server answers, what is here has to do.
    pub async fn fetch_time(&self, room: &RoomId, ts: u64, direction: Direction) -> Result<()> {
        let db = self.store.snapshot();
        let Some(known) = self.known(&db, room)? else { return Ok(()) };
        let Some(gap) = gap_at(&db, &known, ts)? else { return Ok(()) };
        for server in self.backfill_servers(&db, &known, gap)? {
            let closest = match self.closest(&server, &known, ts, direction).await {
                Ok(closest) => closest,
                Err(error) if error.is_theirs() => {
                    tracing::debug!(%error, %room, %server, "no event at that time");
                    continue;
                }
                Err(error) => return Err(error),
            };
            // What it says of the time counts for nothing: the event itself does, once it is here and verified.
            for _ in 0..TOWARDS_MAX {
                if events::placed(&self.store.snapshot(), known.no, &closest.event_id)?.is_some()
                    || self.backfill(room, gap).await? != Backfilled::More
                {
                    break;
                }
            }
            return Ok(());
        }
        Ok(())
    }

    /// What another server says is closest to a time, where that is no farther than what is here.
    async fn closest(&self, server: &ServerName, known: &Known, ts: u64, direction: Direction) -> Result<Closest> {
        let (ts_text, dir) = (ts.to_string(), if direction == Direction::Forward { "f" } else { "b" });
        let asked = [("ts", ts_text.as_str()), ("dir", dir)];
        let ask = Ask::get(query(v1!("timestamp_to_event", known.id.as_str()), &asked)).timeout(CLOSEST_TIME);
        let closest: Closest = self.call(server, ask).await?;
        let db = self.store.snapshot();
        let here = times::closest(&db, known.no, ts, direction)?.next().transpose()?.map(|(here, _)| here);
        let is_closer = match direction {
            Direction::Forward => closest.origin_server_ts >= ts && here.is_none_or(|here| closest.origin_server_ts < here),
            Direction::Backward => closest.origin_server_ts <= ts && here.is_none_or(|here| closest.origin_server_ts > here),
        };
        if is_closer { Ok(closest) } else { Err(Error::BadAnswer("an event that is no closer".to_owned())) }
    }

    /// Whom to ask: the server of the event before which others are missing, then others in the room.
    fn backfill_servers(&self, db: &Snapshot, known: &Known, gap: Pos) -> Result<Vec<OwnedServerName>> {
        let first = timeline::last_until(db, known.no, gap)?.map(|placed| placed.stored.event.sender.server_name().to_owned());
        let all = rooms::servers::servers(db, known.no)?.take(SERVERS_MAX).collect::<rooms::Result<Vec<_>>>()?;
        let mut servers: Vec<OwnedServerName> = first.into_iter().filter(|first| all.contains(first)).collect();
        for server in all {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        servers.retain(|server| server != self.name());
        Ok(servers)
    }

    async fn backfill_from(&self, server: &ServerName, known: &Known, gap: Pos, missing: &[String]) -> Result<usize> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(deserialize_with = "protocol::json::null_is_empty")]
            pdus: Vec<Box<RawValue>>,
        }
        let limit = BACKFILL.to_string();
        let from = missing.iter().map(|id| ("v", id.as_str())).chain([("limit", limit.as_str())]);
        let ask = Ask::get(query(v1!("backfill", known.id.as_str()), &from.collect::<Vec<_>>())).body_max(BACKFILL_BYTES_MAX);
        let answer: Answer = self.call(server, ask).await?;
        let pdus = answer.pdus.into_iter().take(BACKFILL).collect();
        let Believed { events, late } = self.verified(pdus, known.version).await?;
        let events = self.leading_to(known, missing, events)?;
        let events = in_order(events, |event| event.event().prev_events.clone());
        let here: BTreeSet<OwnedEventId> = events.iter().map(|event| event.event().id.clone()).collect();
        let mut with_states = Vec::with_capacity(events.len());
        let mut states = STATES_MAX;
        for event in events {
            let inner = event.event();
            // The create event follows nothing; of the others the first of each line need the state before them.
            let outside: Vec<OwnedEventId> = inner.prev_events.iter().filter(|parent| !here.contains(*parent)).cloned().collect();
            let state = match (self.all_placed(known, &outside)?, states) {
                (true, _) => None,
                (false, 0) => continue,
                (false, left) => {
                    states = left - 1;
                    Some(self.fetch_state(server, known, &inner.id, STATE_TIMEOUT).await?)
                }
            };
            self.fetch_cited(server, known, &event).await?;
            with_states.push((event, state));
        }
        let (store, no) = (self.store.clone(), known.no);
        match (self.computed(move || receive::receive_history(&store, no, gap, with_states)).await??.durable().await?, late) {
            (0, Some(server)) => Err(Error::KeysLate(server)),
            (placed, _) => Ok(placed),
        }
    }

    /// An event of a room that the other server may ask for.
    fn asked_for(
        &self,
        db: &Snapshot,
        origin: &ServerName,
        room: &RoomId,
        id: &EventId,
    ) -> Result<(Known, EventNo, Arc<StoredEvent>)> {
        let (known, until) = self.shared_with(db, room, origin)?;
        let found = events::by_id(db, known.no, id)?.filter(|(no, _)| *no <= until);
        let (no, stored) = found.ok_or(rooms::Error::NotFound("the event"))?;
        Ok((known, no, stored))
    }

    /// Those of these events that lead to what is missing by way of events that are not here: others have their place elsewhere.
    fn leading_to(&self, known: &Known, missing: &[String], events: Vec<Verified>) -> Result<Vec<Verified>> {
        let db = self.store.snapshot();
        let mut events: HashMap<OwnedEventId, Verified> =
            events.into_iter().map(|event| (event.event().id.clone(), event)).collect();
        let mut unvisited: Vec<OwnedEventId> = missing.iter().filter_map(|id| EventId::parse(id).ok()).collect();
        let mut leading = Vec::with_capacity(events.len());
        while let Some(id) = unvisited.pop() {
            if events::placed(&db, known.no, &id)?.is_some() {
                continue;
            }
            if let Some(event) = events.remove(&id) {
                unvisited.extend(event.event().prev_events.iter().cloned());
                leading.push(event);
            }
        }
        Ok(leading)
    }

    fn all_written(
        &self,
        db: &Snapshot,
        (known, until): (&Known, EventNo),
        origin: &ServerName,
        found: &[Arc<StoredEvent>],
    ) -> Result<Vec<Box<RawValue>>> {
        let mut viewer = ServerViewer::new(known.no, origin);
        let mut all = Vec::with_capacity(found.len());
        for stored in found {
            let Some((_, no)) = events::find(db, &stored.header.id)?.filter(|(_, no)| *no <= until) else { continue };
            all.extend(self.told(db, known, &mut viewer, no, stored)?);
        }
        Ok(all)
    }

    /// An event as another server may have it. Where the state before it is partial it is not known who may see it: those of this server's own users were
    /// sent to all, others are for others to tell.
    fn told(
        &self,
        db: &Snapshot,
        known: &Known,
        viewer: &mut ServerViewer<'_>,
        no: EventNo,
        stored: &StoredEvent,
    ) -> Result<Option<Box<RawValue>>> {
        if !partial::is_partial_at(db, known.no, no)? {
            return written(db, known, viewer, stored).map(Some);
        }
        let is_own = stored.event.sender.server_name() == self.name();
        is_own.then(|| raw(&stored.event.json)).transpose()
    }

    /// Whether all these events have their places in the room.
    pub(crate) fn all_placed(&self, known: &Known, ids: &[OwnedEventId]) -> Result<bool> {
        let db = self.store.snapshot();
        for id in ids {
            if events::placed(&db, known.no, id)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fetches the auth chain of an older event where it is not here.
    async fn fetch_cited(&self, server: &ServerName, known: &Known, event: &Verified) -> Result<()> {
        let event = event.event();
        if self.not_here(event.auth_events.iter())?.is_empty() {
            return Ok(());
        }
        self.fetch_auth_chain(server, known, &event.id).await
    }
}

/// The gap in a room's timeline in which a time lies: the first event from that time on is not before it, and what the gap lacks is older.
fn gap_at(db: &Snapshot, known: &Known, ts: u64) -> Result<Option<Pos>> {
    let Some((_, no)) = times::closest(db, known.no, ts, Direction::Forward)?.next().transpose()? else { return Ok(None) };
    let Some(pos) = events::event(db, known.no, no)?.header.pos else { return Ok(None) };
    let Some((gap, _)) = timeline::gap(db, known.no, pos)? else { return Ok(None) };
    let after = timeline::last_until(db, known.no, gap)?;
    Ok(after.filter(|after| after.stored.event.origin_server_ts >= ts).map(|_| gap))
}

/// An event as another server may have it: what is not for its users is redacted, so that the graph stays whole.
fn written(db: &Snapshot, known: &Known, viewer: &mut ServerViewer<'_>, stored: &StoredEvent) -> Result<Box<RawValue>> {
    if viewer.sees(db, stored)? {
        return raw(&stored.event.json);
    }
    let redacted = redact::redacted(&stored.event, known.version).map_err(rooms::Error::from)?;
    raw(&redacted.json)
}
