//! Getting what an event cites and this server does not have: the events before it, its auth chain, or the state before it.
//!
//! Specification: server-server API, "Retrieving missing events" and "Retrieving the state of a room". What comes back is verified like
//! any other event, and bounded.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use protocol::{dag, parse::RawPdu, verify::Verified, version::RoomVersion};
use rooms::{
    events,
    receive::{self, Missing, OUTLIERS_MAX, Outcome},
};
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::{Ask, Error, Federation, Result, known::Known, path, query};

/// The most events that are asked for between what is here and an event.
const BETWEEN_MAX: usize = 50;
/// The most events of a gap: of more, the oldest lack something and are placed by the state before them.
const GAP_MAX: usize = 500;
/// How often a server is asked for the events of one gap.
const ROUNDS_MAX: usize = 20;
/// The most events that one request leads up to.
const LATEST_MAX: usize = 20;
/// The most events of a gap whose state is asked for.
const STATES_MAX: usize = 5;
/// Up to this many events of a state are fetched one by one.
const SINGLY_MAX: usize = 50;
/// Events that are fetched at one time.
const AT_ONCE: usize = 10;
/// The most events of a state, or of an auth chain.
const STATE_MAX: usize = 500_000;
/// The largest state, in bytes.
pub(crate) const STATE_BYTES_MAX: usize = 512 << 20;
/// How long a server may take to tell a state, while events of the room wait.
pub(crate) const STATE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest list of events that lie between others, in bytes.
const BETWEEN_BYTES_MAX: usize = 8 << 20;
/// How often an event is tried again after something was fetched.
const TRIES_MAX: usize = 4;

/// The room's prefix of a path.
macro_rules! v1 {
    ($($segment:expr),*) => { path(&["_matrix", "federation", "v1", $($segment),*]) };
}
pub(crate) use v1;

#[derive(Deserialize)]
struct Pdus {
    #[serde(deserialize_with = "protocol::json::null_is_empty")]
    pdus: Vec<Box<RawValue>>,
    #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
    auth_chain: Vec<Box<RawValue>>,
}

/// Events that are what they say.
#[derive(Default)]
pub(crate) struct Believed {
    pub events: Vec<Verified>,
    /// A server whose keys could not be had, but may come: there was more to believe.
    pub late: Option<OwnedServerName>,
}

impl Federation {
    /// Receives an event, and first what it cites, from the server that sent it.
    pub(crate) async fn receive(&self, from: &ServerName, room: &Known, event: Verified) -> Result<Outcome> {
        match self.receive_once(room, event.clone(), None).await? {
            Outcome::Missing(missing) => {
                if !missing.prev_events.is_empty() {
                    self.fetch_gap(from, room, &event).await?;
                }
                // The event itself is placed whatever its gap takes.
                self.receive_alone(from, room, event, &mut 1).await
            }
            outcome => Ok(outcome),
        }
    }

    /// Receives the events between what is here and an event. None, where one of them cannot be believed yet: of those that follow it the state would be
    /// taken from elsewhere, and it would not be asked for again.
    pub(crate) async fn fetch_gap(&self, from: &ServerName, room: &Known, event: &Verified) -> Result<()> {
        let mut states = STATES_MAX;
        let gap = self.missing_events(from, room, event).await?;
        let depth = gap.iter().chain([event]).map(|event| event.event().depth).min().unwrap_or(0);
        self.fetch_past(from, room, depth).await?;
        for older in gap {
            let id = older.event().id.clone();
            if let Err(error) = self.receive_alone(from, room, older, &mut states).await {
                tracing::debug!(%error, event = %id, room = %room.id, server = %from, "an event of a gap was left out");
            }
        }
        Ok(())
    }

    /// Receives an event; what it lacks is its auth chain, or the state before it.
    async fn receive_alone(&self, from: &ServerName, room: &Known, event: Verified, states: &mut usize) -> Result<Outcome> {
        let id = event.event().id.clone();
        let mut before: Option<Vec<OwnedEventId>> = None;
        for _ in 0..TRIES_MAX {
            let prev_events = match self.receive_once(room, event.clone(), before.clone()).await? {
                Outcome::Missing(Missing { prev_events, .. }) => prev_events,
                outcome => return Ok(outcome),
            };
            if prev_events.is_empty() || before.is_some() {
                self.fetch_auth_chain(from, room, &id).await?;
            } else if let Some(left) = states.checked_sub(1) {
                *states = left;
                before = Some(self.fetch_state(from, room, &id, STATE_TIMEOUT).await?);
            } else {
                break;
            }
        }
        Err(Error::BadAnswer("the server did not give what its event cites".to_owned()))
    }

    /// Receives an event once. Where the room's policy server has not signed it, it is asked to.
    async fn receive_once(&self, room: &Known, event: Verified, before: Option<Vec<OwnedEventId>>) -> Result<Outcome> {
        let (store, no) = (self.store.clone(), room.no);
        let (again, given) = (event.clone(), before.clone());
        let receive = move || match before {
            Some(before) => receive::receive_with_state(&store, no, event, &before),
            None => receive::receive(&store, no, event),
        };
        // The answer to the transaction waits for the disk once.
        let policy = match self.computed(receive).await??.soft() {
            Outcome::Unsigned(policy) => policy,
            outcome => return Ok(outcome),
        };
        let event = match self.recommended(&policy, room, again.event()).await {
            Ok(signed) => signed,
            Err(error) if error.is_theirs() => {
                tracing::debug!(%error, event = %again.event().id, room = %room.id, %policy, "an event is not recommended");
                again
            }
            Err(error) => return Err(error),
        };
        let store = self.store.clone();
        Ok(self.computed(move || receive::receive_asked(&store, no, event, given.as_deref())).await??.soft())
    }

    /// The events between what is here and an event, the oldest first: asked for again from the oldest that came, until they meet what is here. None where
    /// the server does not tell.
    async fn missing_events(&self, from: &ServerName, room: &Known, event: &Verified) -> Result<Vec<Verified>> {
        let mut gap: BTreeMap<OwnedEventId, Verified> = BTreeMap::new();
        let mut latest = vec![event.event().id.clone()];
        for _ in 0..ROUNDS_MAX {
            let before = gap.len();
            let Believed { events, late } = self.missing_before(from, room, &latest).await?;
            if let Some(server) = late {
                return Err(Error::KeysLate(server));
            }
            for older in events {
                if older.event().id != event.event().id {
                    gap.insert(older.event().id.clone(), older);
                }
            }
            latest = self.lacking(room, &gap)?;
            if gap.len() == before || gap.len() >= GAP_MAX || latest.is_empty() {
                break;
            }
        }
        Ok(in_order(gap.into_values().collect(), |event| event.event().prev_events.clone()))
    }

    /// Those of these events that follow one which is neither here nor among them.
    fn lacking(&self, room: &Known, gap: &BTreeMap<OwnedEventId, Verified>) -> Result<Vec<OwnedEventId>> {
        let db = self.store.snapshot();
        let mut lacking = Vec::new();
        for (id, event) in gap {
            for parent in event.event().prev_events.iter().filter(|parent| !gap.contains_key(*parent)) {
                if events::placed(&db, room.no, parent)?.is_none() {
                    lacking.push(id.clone());
                    break;
                }
            }
        }
        lacking.truncate(LATEST_MAX);
        Ok(lacking)
    }

    async fn missing_before(&self, from: &ServerName, room: &Known, latest: &[OwnedEventId]) -> Result<Believed> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(deserialize_with = "protocol::json::null_is_empty")]
            events: Vec<Box<RawValue>>,
        }
        let earliest = self.extremities(room)?;
        let body = json!({ "earliest_events": earliest, "latest_events": latest, "limit": BETWEEN_MAX, "min_depth": 0 });
        let ask = Ask::post(v1!("get_missing_events", room.id.as_str()), &body)?.body_max(BETWEEN_BYTES_MAX);
        let answer: Answer = match self.call(from, ask).await {
            Ok(answer) => answer,
            Err(error) if error.is_theirs() => {
                tracing::debug!(%error, room = %room.id, server = %from, "missing events were not told");
                return Ok(Believed::default());
            }
            Err(error) => return Err(error),
        };
        self.verified(answer.events.into_iter().take(BETWEEN_MAX).collect(), room.version).await
    }

    fn extremities(&self, room: &Known) -> Result<Vec<OwnedEventId>> {
        let db = self.store.snapshot();
        let ids =
            rooms::head(&db, room.no)?.extremities.into_iter().map(|no| Ok(events::event(&db, room.no, no)?.header.id.clone()));
        ids.collect()
    }

    /// Fetches the auth chain of an event.
    pub(crate) async fn fetch_auth_chain(&self, from: &ServerName, room: &Known, event: &EventId) -> Result<()> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(deserialize_with = "protocol::json::null_is_empty")]
            auth_chain: Vec<Box<RawValue>>,
        }
        let ask = Ask::get(v1!("event_auth", room.id.as_str(), event.as_str())).body_max(STATE_BYTES_MAX);
        let answer: Answer = self.call(from, ask).await?;
        self.receive_outliers(room, answer.auth_chain).await?.map_or(Ok(()), |late| Err(Error::KeysLate(late)))
    }

    /// Fetches the state before an event, of which each part may take so long. Events of it that cannot be believed are no part of it.
    ///
    /// # Errors
    /// [`Error::KeysLate`] where they may be later.
    pub(crate) async fn fetch_state(
        &self,
        from: &ServerName,
        room: &Known,
        event: &EventId,
        timeout: Duration,
    ) -> Result<Vec<OwnedEventId>> {
        #[derive(Deserialize)]
        struct Ids {
            #[serde(deserialize_with = "protocol::json::null_is_empty")]
            pdu_ids: Vec<OwnedEventId>,
            #[serde(deserialize_with = "protocol::json::null_is_empty")]
            auth_chain_ids: Vec<OwnedEventId>,
        }
        let at = [("event_id", event.as_str())];
        let ask = Ask::get(query(v1!("state_ids", room.id.as_str()), &at)).timeout(timeout).body_max(STATE_BYTES_MAX);
        let Ids { pdu_ids, auth_chain_ids } = self.call(from, ask).await?;
        if pdu_ids.len().saturating_add(auth_chain_ids.len()) > STATE_MAX {
            return Err(Error::BadAnswer(format!("a state of more than {STATE_MAX} events")));
        }
        let missing = self.not_here(pdu_ids.iter().chain(&auth_chain_ids))?;
        let late = if missing.len() <= SINGLY_MAX {
            self.fetch_events(from, room, missing).await?
        } else {
            let ask = Ask::get(query(v1!("state", room.id.as_str()), &at)).timeout(timeout).body_max(STATE_BYTES_MAX);
            let Pdus { pdus, auth_chain } = self.call(from, ask).await?;
            self.receive_outliers(room, auth_chain.into_iter().chain(pdus).collect()).await?
        };
        let told = pdu_ids.len();
        let here = self.here(pdu_ids)?;
        match late {
            Some(server) if here.len() < told => Err(Error::KeysLate(server)),
            _ => Ok(here),
        }
    }

    /// Those of these events that are here.
    pub(crate) fn here(&self, mut ids: Vec<OwnedEventId>) -> Result<Vec<OwnedEventId>> {
        let gone: BTreeSet<OwnedEventId> = self.not_here(ids.iter())?.into_iter().collect();
        ids.retain(|id| !gone.contains(id));
        Ok(ids)
    }

    pub(crate) fn not_here<'a>(&self, ids: impl Iterator<Item = &'a OwnedEventId>) -> Result<Vec<OwnedEventId>> {
        let db = self.store.snapshot();
        let mut missing = Vec::new();
        for id in ids {
            if events::find(&db, id)?.is_none() {
                missing.push(id.clone());
            }
        }
        Ok(missing)
    }

    /// Stores these events as far as a server has them. One that it does not answer for is not one that it does not have.
    pub(crate) async fn fetch_events(
        &self,
        from: &ServerName,
        room: &Known,
        ids: Vec<OwnedEventId>,
    ) -> Result<Option<OwnedServerName>> {
        let fetched: Vec<Result<Pdus>> = stream::iter(ids)
            .map(|id| async move { self.get(from, v1!("event", id.as_str())).await })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let (mut raw, mut unanswered) = (Vec::with_capacity(fetched.len()), None);
        for pdus in fetched {
            match pdus {
                Ok(pdus) => raw.extend(pdus.pdus.into_iter().next()),
                Err(Error::Refused(_) | Error::BadAnswer(_)) => {}
                Err(error) => unanswered = Some(error),
            }
        }
        let late = self.receive_outliers(room, raw).await?;
        unanswered.map_or(Ok(late), Err)
    }

    /// Stores events that others cite. What cannot be believed, or lacks something, is left out. Returns whose keys may let one be believed later.
    pub(crate) async fn receive_outliers(&self, room: &Known, raw: Vec<Box<RawValue>>) -> Result<Option<OwnedServerName>> {
        if raw.len() > STATE_MAX {
            return Err(Error::BadAnswer(format!("more than {STATE_MAX} events")));
        }
        let Believed { events, late } = self.verified(raw, room.version).await?;
        self.put_outliers(room, events).await?;
        Ok(late)
    }

    /// Stores events that others cite, in an order in which each finds what it cites.
    pub(crate) async fn put_outliers(&self, room: &Known, events: Vec<Verified>) -> Result<()> {
        let ordered = in_order(events, |event| event.event().auth_events.clone());
        let mut rest = ordered.into_iter().peekable();
        while rest.peek().is_some() {
            let chunk: Vec<Verified> = rest.by_ref().take(OUTLIERS_MAX).collect();
            let (store, no) = (self.store.clone(), room.no);
            // What looks for them next must find them.
            self.computed(move || receive::receive_outliers(&store, no, chunk)).await??.durable().await?;
        }
        Ok(())
    }

    /// The events among these that are what they say.
    pub(crate) async fn verified(&self, raw: Vec<Box<RawValue>>, version: &'static RoomVersion) -> Result<Believed> {
        let read = |raw: Box<RawValue>| Ok(RawPdu::from_bytes(raw.get().as_bytes())?);
        let mut believed = Believed::default();
        for event in self.verify_read(raw, read, version).await? {
            match event {
                Ok(event) => believed.events.push(event),
                Err(error) => {
                    tracing::debug!(%error, "an event that another server gave cannot be believed");
                    believed.late = believed.late.or_else(|| self.late(&error));
                }
            }
        }
        Ok(believed)
    }
}

/// The events so that each comes after those of them that it cites.
pub(crate) fn in_order(events: Vec<Verified>, cites: impl Fn(&Verified) -> Vec<OwnedEventId>) -> Vec<Verified> {
    let cited = events.iter().map(|event| (event.event().id.clone(), cites(event).into_iter().collect())).collect();
    let mut by_id: BTreeMap<OwnedEventId, Verified> = events.into_iter().map(|event| (event.event().id.clone(), event)).collect();
    dag::topological_order(&cited, |_| ()).into_iter().filter_map(|id| by_id.remove(&id)).collect()
}
