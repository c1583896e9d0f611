//! Rooms that lack what other servers have to tell, and are put right in the background. Of those that this server entered without being told of all members
//! the whole state is asked for, until a server tells one that can be right; and events that could not be placed ([`crate::staged`]) are tried again.
//!
//! Specification: server-server API, `omit_members` of "PUT send_join", and "Retrieving the state of a room". What is done with that state is in [`rooms::resync`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rooms::{
    EventNo, events, numbers,
    partial::{self, Partial},
    resync::{self, Before, Step},
    servers,
};
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};
use store::{RoomNo, Topic};
use tokio::{sync::Notify, task::JoinSet};

use crate::{Error, Federation, Result, known::Known};

/// Rooms that are put right at one time.
const AT_ONCE: usize = 5;
/// Servers that are asked for a state, one after the other, before the room waits.
const SERVERS_MAX: usize = 10;
/// How long a server may take to tell the state of a large room.
const TIMEOUT: Duration = Duration::from_secs(300);
/// How often rooms that wait are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long a room waits after it was tried in vain. Twice as long each time.
const WAIT: Duration = Duration::from_secs(10);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Rooms that are to be put right.
#[derive(Default)]
pub(crate) struct Resyncs {
    rooms: Mutex<BTreeMap<RoomNo, Waiting>>,
    changed: Notify,
}

/// How a room fares.
#[derive(Clone, Copy, Default)]
struct Waiting {
    /// When others are asked.
    at: Duration,
    /// How often they were, in vain.
    failures: u32,
}

impl Resyncs {
    /// Has a room looked at now.
    pub(crate) fn due(&self, room: RoomNo) {
        self.rooms.lock().insert(room, Waiting::default());
        self.changed.notify_one();
    }

    /// Has a room looked at after so many failures, unless it is for another reason.
    pub(crate) fn later(&self, room: RoomNo, failures: u32, now: Duration) {
        let wait = WAIT.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(WAIT_MAX);
        self.rooms.lock().entry(room).or_insert(Waiting { at: now + wait, failures });
    }
}

impl Federation {
    /// Puts rooms right.
    ///
    /// # Errors
    /// Where the store fails.
    pub(crate) async fn resync_all(self: &Arc<Self>) -> Result<()> {
        let db = self.store.snapshot();
        for room in partial::rooms(&db)?.into_iter().chain(self.rooms_with_staged(&db)?) {
            self.resyncs.due(room);
        }
        drop(db);
        let mut under_way: JoinSet<RoomNo> = JoinSet::new();
        let mut busy: BTreeSet<RoomNo> = BTreeSet::new();
        loop {
            self.start_resyncs(&mut under_way, &mut busy);
            tokio::select! {
                () = self.resyncs.changed.notified() => {}
                Some(done) = under_way.join_next() => {
                    if let Ok(room) = done { busy.remove(&room); }
                }
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    fn start_resyncs(self: &Arc<Self>, under_way: &mut JoinSet<RoomNo>, busy: &mut BTreeSet<RoomNo>) {
        let now = self.clock.elapsed();
        let mut rooms = self.resyncs.rooms.lock();
        let is_ready = |(room, waiting): &(&RoomNo, &Waiting)| waiting.at <= now && !busy.contains(*room);
        let ready = rooms.iter().filter(is_ready).take(AT_ONCE.saturating_sub(busy.len()));
        let ready: Vec<(RoomNo, u32)> = ready.map(|(room, waiting)| (*room, waiting.failures)).collect();
        for (room, failures) in ready {
            rooms.remove(&room);
            busy.insert(room);
            let federation = Arc::clone(self);
            under_way.spawn(async move {
                if let Err(error) = federation.put_right(room, failures).await {
                    tracing::info!(%error, room = room.0, failures, "a room lacks what other servers have to tell");
                    federation.resyncs.later(room, failures + 1, federation.clock.elapsed());
                }
                room
            });
        }
    }

    async fn put_right(&self, room: RoomNo, failures: u32) -> Result<()> {
        let resynced = self.resync(room, failures).await;
        self.receive_staged(room, failures).await?;
        resynced
    }

    /// Makes a room whole. Where this server is no longer in it, it stays as it is until it comes back.
    async fn resync(&self, room: RoomNo, failures: u32) -> Result<()> {
        loop {
            let db = self.store.snapshot();
            let id = match numbers::room(&db, room) {
                Ok(room) => room.id.clone(),
                // Purged meanwhile.
                Err(rooms::Error::UnknownRoom) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let (Some(partial), Some(known)) = (partial::partial(&db, room)?, self.known(&db, &id)?) else { return Ok(()) };
            let step = match partial::next(&db, room)? {
                Some((event, Some(id))) => self.resync_from(&known, &partial, (event, &id), failures).await?,
                _ => self.resync_step(room, None).await?,
            };
            if step == Step::Whole {
                return Ok(());
            }
        }
    }

    /// Goes on with the state before an event, from the first server that tells one which allows the event.
    async fn resync_from(
        &self,
        known: &Known,
        partial: &Partial,
        (event, id): (EventNo, &EventId),
        failures: u32,
    ) -> Result<Step> {
        let mut last = Error::NoServer;
        // More servers know the parent, and what is asked for is the same. Should it be refused, the event itself is asked about the next time.
        let parent = if failures.is_multiple_of(2) { self.only_parent(known, event)? } else { None };
        for server in self.resync_servers(known, partial, failures)? {
            let step = match self.fetch_before(&server, known, (event, id), parent.clone()).await {
                Ok(before) => self.resync_step(known.no, Some(before)).await,
                Err(error) => Err(error),
            };
            last = match step {
                Err(Error::Rooms(rooms::Error::Denied(denied))) => {
                    Error::BadAnswer(format!("a state that refuses the join: {denied}"))
                }
                Err(error) if error.is_theirs() => error,
                done => return done,
            };
            tracing::debug!(error = %last, room = %known.id, %server, "a server did not tell the whole state");
        }
        Err(last)
    }

    /// The parent of an event that has only one.
    fn only_parent(&self, known: &Known, event: EventNo) -> Result<Option<OwnedEventId>> {
        let stored = events::event(&self.store.snapshot(), known.no, event)?;
        Ok(match stored.event.prev_events.as_slice() {
            [parent] => Some(parent.clone()),
            _ => None,
        })
    }

    /// The state before an event, as a server tells it of the event or of its parent.
    async fn fetch_before(
        &self,
        server: &ServerName,
        known: &Known,
        (event, id): (EventNo, &EventId),
        parent: Option<OwnedEventId>,
    ) -> Result<Before> {
        let state = self.fetch_state(server, known, parent.as_deref().unwrap_or(id), TIMEOUT).await?;
        if let Some(parent) = &parent {
            let late = self.fetch_events(server, known, self.not_here([parent].into_iter())?).await?;
            if !self.not_here([parent].into_iter())?.is_empty() {
                return Err(late.map_or_else(|| Error::BadAnswer("the event before was not told".to_owned()), Error::KeysLate));
            }
        }
        Ok(Before { event, state, parent })
    }

    async fn resync_step(&self, room: RoomNo, before: Option<Before>) -> Result<Step> {
        let store = self.store.clone();
        let step = move || resync::step(&store, room, before.as_ref());
        Ok(self.computed(step).await??.durable().await?)
    }

    /// Whom to ask: the server that let this one in, then others; after each failure others than before.
    fn resync_servers(&self, known: &Known, partial: &Partial, failures: u32) -> Result<Vec<OwnedServerName>> {
        let mut others = servers::servers(&self.store.snapshot(), known.no)?.collect::<rooms::Result<Vec<_>>>()?;
        others.retain(|server| server != self.name() && *server != partial.via);
        let asked = (failures as usize).saturating_mul(SERVERS_MAX - 1).checked_rem(others.len()).unwrap_or(0);
        others.rotate_left(asked);
        Ok(std::iter::once(partial.via.clone()).chain(others).take(SERVERS_MAX).collect())
    }

    /// Waits until all members of a room are known, but no longer than this. Returns whether they are, or it is no use to wait because this server is no
    /// longer in the room.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn whole_within(&self, room: RoomNo, limit: Duration) -> Result<bool> {
        if !self.is_becoming_whole(room)? {
            return Ok(true);
        }
        let watch = self.store.watch(vec![Topic::Room(room)]);
        let becomes_whole = async {
            while self.is_becoming_whole(room)? {
                watch.changed().await;
            }
            Ok(true)
        };
        tokio::time::timeout(limit, becomes_whole).await.unwrap_or(Ok(false))
    }

    fn is_becoming_whole(&self, room: RoomNo) -> Result<bool> {
        let db = self.store.snapshot();
        Ok(partial::is_partial(&db, room)? && servers::is_in(&db, room, self.name())?)
    }
}
