//! Telling other servers: a durable queue for each, filled from the log of what is to be told, and one transaction at a time on its way.
//!
//! Specification: server-server API, "Transactions". A transaction that was not acknowledged is sent again unchanged; a server that does not answer is waited for, without
//! costing anything, until it may be asked again or shows life.

mod introductions;
mod queue;
mod transaction;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
pub(crate) use queue::{COUNTER, CURSOR, NAMES, NUMBERS, QUEUE};
use ruma::{OwnedServerName, ServerName};
use serde_json::Value;
use store::{Topic, UserNo};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use transaction::UnderWay;

use crate::{Ask, Error, Federation, Result, edus::Edu, inbound::EDUS_MAX, path, presence};

/// Messages that may be lost (typing, receipts) that wait for one server. With one of presence they are a transaction.
const FLEETING_MAX: usize = EDUS_MAX - 1;
/// Users whose presence one server is still to be told. Of more it is told when they change again.
const PRESENCE_MAX: usize = 1_000;
/// How long a server may take to answer a transaction.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often those who wait for a server to be asked again are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Transactions on their way at one time, to all servers together.
const AT_ONCE: usize = 200;
/// When a server that refused is asked again, in milliseconds.
const RETRY_MS: u64 = 10_000;

/// What is on its way, and what waits only in memory.
#[derive(Default)]
pub(crate) struct Outbound {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Servers that may have something to be told.
    due: BTreeSet<OwnedServerName>,
    /// Servers that do not answer, and when they are asked again (ms).
    waiting: BTreeMap<OwnedServerName, u64>,
    /// Up to where the transaction goes that a server has not acknowledged.
    under_way: HashMap<OwnedServerName, UnderWay>,
    /// What waits for each server and may be lost.
    fleeting: HashMap<OwnedServerName, Vec<Edu>>,
    /// Whose presence each server is to be told. How that is, is looked up when it is said.
    presence: HashMap<OwnedServerName, BTreeSet<UserNo>>,
}

impl Outbound {
    fn due(&self, servers: impl IntoIterator<Item = OwnedServerName>) {
        let mut state = self.state.lock();
        for server in servers {
            if !state.waiting.contains_key(&server) {
                state.due.insert(server);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// A server shows life: what waits for it is sent.
    pub(crate) fn alive(&self, server: &ServerName) {
        let mut state = self.state.lock();
        if state.waiting.remove(server).is_some() {
            state.due.insert(server.to_owned());
            drop(state);
            self.changed.notify_one();
        }
    }

    fn fleeting(&self, server: &ServerName) -> Vec<Edu> {
        self.state.lock().fleeting.remove(server).unwrap_or_default()
    }

    /// Servers that answer are to be told how a user is.
    pub(crate) fn presence(&self, servers: BTreeSet<OwnedServerName>, user: UserNo) {
        let mut state = self.state.lock();
        for server in servers.iter().filter(|server| !state.waiting.contains_key(*server)).collect::<Vec<_>>() {
            let users = state.presence.entry(server.clone()).or_default();
            if users.len() < PRESENCE_MAX {
                users.insert(user);
            }
        }
        drop(state);
        self.due(servers);
    }

    /// At most `limit` of the users whose presence a server is to be told.
    fn take_presence(&self, server: &ServerName, limit: usize) -> BTreeSet<UserNo> {
        let mut state = self.state.lock();
        let Some(users) = state.presence.get_mut(server) else { return BTreeSet::new() };
        let rest = users.iter().nth(limit).copied().map(|next| users.split_off(&next)).unwrap_or_default();
        let taken = std::mem::replace(users, rest);
        if users.is_empty() {
            state.presence.remove(server);
        }
        taken
    }
}

impl Federation {
    /// Tells other servers what there is to tell. What is not acknowledged when this is dropped is sent again after the next start.
    ///
    /// # Errors
    /// Where the store fails.
    pub(crate) async fn tell_all(self: &Arc<Self>) -> Result<()> {
        let watch = self.store.watch(vec![Topic::Outgoing]);
        if !self.config.enabled {
            loop {
                self.distribute_all().await?;
                watch.changed().await;
            }
        }
        let mut sending: JoinSet<OwnedServerName> = JoinSet::new();
        let mut busy: BTreeSet<OwnedServerName> = BTreeSet::new();
        self.outbound.due(self.queued_servers(&self.store.snapshot())?);
        let (mut tick, mut spread) = (interval(TICK), interval(presence::SPREAD));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        spread.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.distribute_all().await?;
            self.start_due(&mut sending, &mut busy);
            tokio::select! {
                // In this order, and not in one that is drawn: a simulation must go the same way again.
                biased;
                Some(done) = sending.join_next() => {
                    if let Ok(server) = done { busy.remove(&server); }
                }
                () = watch.changed() => {}
                () = self.outbound.changed.notified() => {}
                _ = tick.tick() => self.wake_waiting(),
                _ = spread.tick() => self.spread_presence()?,
            }
        }
    }

    fn start_due(self: &Arc<Self>, sending: &mut JoinSet<OwnedServerName>, busy: &mut BTreeSet<OwnedServerName>) {
        let mut state = self.outbound.state.lock();
        let ready: Vec<OwnedServerName> =
            state.due.iter().filter(|server| !busy.contains(*server)).take(AT_ONCE.saturating_sub(busy.len())).cloned().collect();
        for server in ready {
            state.due.remove(&server);
            busy.insert(server.clone());
            let federation = Arc::clone(self);
            sending.spawn(async move {
                federation.send_all(&server).await;
                server
            });
        }
    }

    fn wake_waiting(&self) {
        let now_ms = self.now_ms();
        let mut state = self.outbound.state.lock();
        let due: Vec<OwnedServerName> =
            state.waiting.iter().filter(|(_, at)| **at <= now_ms).map(|(server, _)| server.clone()).collect();
        for server in due {
            state.waiting.remove(&server);
            state.due.insert(server);
        }
    }

    /// Tells servers something that may be lost: who does not answer now is not told.
    pub fn tell(&self, servers: impl IntoIterator<Item = OwnedServerName>, edu: &Edu) {
        let servers: Vec<OwnedServerName> = servers.into_iter().filter(|server| server != self.name()).collect();
        let mut state = self.outbound.state.lock();
        for server in &servers {
            if state.waiting.contains_key(server) {
                continue;
            }
            let queue = state.fleeting.entry(server.clone()).or_default();
            if queue.len() < FLEETING_MAX {
                queue.push(edu.clone());
            }
        }
        drop(state);
        self.outbound.due(servers);
    }

    /// Sends a server all that there is for it, or until it does not answer.
    async fn send_all(&self, server: &ServerName) {
        loop {
            match self.send_next(server).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    let until_ms = self.backed_off_until(server).ok().flatten().unwrap_or_else(|| self.now_ms() + RETRY_MS);
                    tracing::debug!(%error, %server, "a transaction was not acknowledged");
                    let reduced = self.reduce(server);
                    if let Err(error) = reduced {
                        tracing::error!(%error, %server, "the queue of a server cannot be reduced");
                    }
                    let mut state = self.outbound.state.lock();
                    state.fleeting.remove(server);
                    state.presence.remove(server);
                    state.due.remove(server);
                    state.waiting.insert(server.to_owned(), until_ms);
                    return;
                }
            }
        }
    }

    /// Sends the next transaction. Returns whether there was one.
    async fn send_next(&self, server: &ServerName) -> Result<bool> {
        let Some(transaction) = self.next_transaction(server)? else { return Ok(false) };
        let ask = Ask::put(path(&["_matrix", "federation", "v1", "send", &transaction.id]), &transaction.body)?.timeout(TIMEOUT);
        let answer: Value = match self.call(server, ask).await {
            Ok(answer) => answer,
            // It will never take this one.
            Err(Error::Refused(refusal)) if matches!(refusal.status.as_u16(), 400 | 413) => {
                tracing::warn!(%server, %refusal, "a server refuses a transaction for good: it is dropped");
                Value::Null
            }
            Err(error) => return Err(error),
        };
        for (event, said) in answer.get("pdus").and_then(Value::as_object).into_iter().flatten() {
            if let Some(error) = said.get("error") {
                tracing::debug!(%server, event, %error, "a server refuses an event");
            }
        }
        self.acknowledged(server, &transaction.places).await?;
        Ok(true)
    }
}
