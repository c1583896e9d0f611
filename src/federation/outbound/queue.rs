//! What each server is still to be told: durable, in order, filled from the logs of what is to be told.

use std::collections::{BTreeMap, BTreeSet};

use rooms::{
    EventNo, Pos, events,
    outgoing::{self, Acquainted, Outgoing},
    servers,
};
use ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};
use store::{Lead, Preset, Range, Read as _, RoomNo, Seq, Snapshot, Table, Tx, UserNo};
use users::key_changes::{self, Change};

use crate::{Error, Federation, Result, edus::Edu};

pub(crate) static NUMBERS: Table<String, u32> =
    Table::new("destination_numbers", "The number of each server that was told something.").cached();
pub(crate) static NAMES: Table<u32, String> = Table::new("destination_names", "The server of each number.").cached();
pub(crate) static COUNTER: Table<String, u32> = Table::new("destination_counter", "The last number drawn for a server.");
pub(crate) static QUEUE: Table<(u32, Seq, u32), Item> =
    Table::new("outbound_queues", "What each server is still to be told, in order.").read_by(Preset::Scan);

pub(crate) static CURSOR: Table<u32, Seq> = Table::new("outbound_cursors", "How far each log was told to other servers.");

/// The cursor of the log of changed keys.
const KEYS: u32 = 1;

/// Entries of a log that go into queues in one write.
const DISTRIBUTED_MAX: usize = 100;
/// Events of a queue beyond which those of a server that does not answer are reduced to the last of each room: it can fetch the others.
const QUEUE_MAX: usize = 1_000;

/// What a server is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Item {
    /// An event of a room.
    Event(RoomNo, EventNo),
    /// A message that must not be lost, as JSON.
    Edu(String),
}

impl Item {
    /// A message.
    pub(super) fn message(edu: &Edu) -> Result<Self> {
        Ok(Self::Edu(serde_json::to_string(edu).map_err(|error| Error::Internal(error.to_string()))?))
    }
}

/// Where an item stands in a queue.
pub(super) type Place = (Seq, u32);

/// What is new in the logs.
struct News {
    entries: Vec<Outgoing>,
    acquainted: Vec<((Pos, RoomNo), Acquainted)>,
    changed: Vec<((Seq, UserNo), Change)>,
}

/// What one write puts into queues.
#[derive(Default)]
pub(super) struct Filled {
    reached: BTreeSet<OwnedServerName>,
    order: u32,
}

impl Filled {
    /// Puts an item into the queues of servers.
    pub(super) fn put(&mut self, tx: &mut Tx<'_>, servers: impl IntoIterator<Item = OwnedServerName>, item: &Item) -> Result<()> {
        for server in servers {
            let number = number(tx, &server)?;
            let seq = tx.seq();
            tx.put(&QUEUE, &(number, seq, self.order), item)?;
            self.order += 1;
            self.reached.insert(server);
        }
        Ok(())
    }
}

impl Federation {
    /// Takes what is in the log into the queues.
    pub(super) async fn distribute_all(&self) -> Result<()> {
        loop {
            let db = self.store.snapshot();
            let entries = outgoing::oldest(&db, DISTRIBUTED_MAX)?;
            let acquainted = outgoing::acquainted(&db, DISTRIBUTED_MAX)?;
            let from = db.get(&CURSOR, &KEYS)?.unwrap_or(Seq(0));
            let changed = key_changes::after(&db, from, DISTRIBUTED_MAX)?;
            if entries.is_empty() && acquainted.is_empty() && changed.is_empty() {
                return Ok(());
            }
            let news = News { entries, acquainted, changed };
            let reached = self.store.transact(&[], |tx| self.distribute(tx, &news))?.durable().await?;
            self.outbound.due(reached);
        }
    }

    /// Takes entries out of the logs, and into queues where federation is not switched off.
    fn distribute(&self, tx: &mut Tx<'_>, news: &News) -> Result<BTreeSet<OwnedServerName>> {
        let mut filled = Filled::default();
        if self.config.enabled {
            self.fill(tx, news, &mut filled)?;
        }
        outgoing::taken(tx, &news.entries)?;
        news.acquainted.iter().try_for_each(|(place, _)| outgoing::introduced(tx, *place))?;
        if let Some(((last, _), _)) = news.changed.last() {
            tx.put(&CURSOR, &KEYS, last)?;
        }
        Ok(filled.reached)
    }

    fn fill(&self, tx: &mut Tx<'_>, news: &News, filled: &mut Filled) -> Result<()> {
        for entry in &news.entries {
            let stored = events::event(tx, entry.room, entry.event)?;
            // Those that entered since it was sent have it in what they entered with, or may not know of it.
            let mut servers = servers::servers_at(tx, entry.room, entry.pos)?.collect::<rooms::Result<BTreeSet<_>>>()?;
            servers.extend(outgoing::told_beside(&stored.event).map(ToOwned::to_owned));
            // Who sent it knows of it already.
            servers.remove(stored.event.sender.server_name());
            servers.remove(self.name());
            filled.put(tx, servers, &Item::Event(entry.room, entry.event))?;
            if let Some(user) = self.entered(tx, entry.room, &stored)? {
                self.introduce(tx, (entry.pos, entry.room), &Acquainted::User(user), filled)?;
            }
        }
        for (place, who) in &news.acquainted {
            self.introduce(tx, *place, who, filled)?;
        }
        for (place, change) in &news.changed {
            let Some((edu, servers)) = self.keys_changed(tx, *place, change)? else { continue };
            filled.put(tx, servers, &Item::message(&edu)?)?;
        }
        Ok(())
    }

    /// Queues a message for servers that must not be lost.
    ///
    /// # Errors
    /// As the store.
    pub async fn tell_surely(&self, messages: Vec<(OwnedServerName, Edu)>) -> Result<()> {
        if !self.config.enabled {
            return Ok(());
        }
        let servers: BTreeSet<OwnedServerName> = messages.iter().map(|(server, _)| server.clone()).collect();
        let queue = |tx: &mut Tx<'_>| -> Result<()> {
            let mut filled = Filled::default();
            let mut others = messages.iter().filter(|(server, _)| server != self.name());
            others.try_for_each(|(server, edu)| filled.put(tx, [server.clone()], &Item::message(edu)?))
        };
        self.store.transact(&[], queue)?.durable().await?;
        self.outbound.due(servers);
        Ok(())
    }

    pub(super) fn queued_servers(&self, db: &Snapshot) -> Result<Vec<OwnedServerName>> {
        let mut found = Vec::new();
        let mut from = Range::of(&());
        while let Some(((number, ..), _)) = db.first(&QUEUE, from)? {
            if let Some(name) = db.get(&NAMES, &number)? {
                found.extend(OwnedServerName::try_from(name));
            }
            from = Range::of(&()).after(&(number, Seq(u64::MAX), u32::MAX));
        }
        Ok(found)
    }

    /// Reduces a long queue to the last event of each room. Messages that must not be lost stay.
    pub(super) fn reduce(&self, server: &ServerName) -> Result<()> {
        let db = self.store.snapshot();
        let Some(number) = db.get(&NUMBERS, &server.as_str())? else { return Ok(()) };
        let mut last: BTreeMap<RoomNo, Place> = BTreeMap::new();
        let mut older = Vec::new();
        let mut events = 0;
        for row in db.range(&QUEUE, Range::of(&Lead((number,))))? {
            let ((_, seq, order), item) = row?;
            if let Item::Event(room, _) = item {
                events += 1;
                older.extend(last.insert(room, (seq, order)));
            }
        }
        if events > QUEUE_MAX {
            self.store.transact(&[], |tx| remove(tx, number, &older))?.soft();
            // What was under way is another transaction now.
            self.outbound.state.lock().under_way.remove(server);
        }
        Ok(())
    }

    /// Takes what a server has acknowledged out of its queue.
    pub(super) async fn acknowledged(&self, server: &ServerName, places: &[Place]) -> Result<()> {
        let Some(number) = self.store.snapshot().get(&NUMBERS, &server.as_str())? else { return Ok(()) };
        self.store.transact(&[], |tx| remove(tx, number, places))?.durable().await?;
        self.outbound.state.lock().under_way.remove(server);
        Ok(())
    }
}

fn remove(tx: &mut Tx<'_>, server: u32, places: &[Place]) -> store::Result<()> {
    places.iter().try_for_each(|(seq, order)| tx.delete(&QUEUE, &(server, *seq, *order)))
}

/// The number of a server, drawn where it has none.
fn number(tx: &mut Tx<'_>, server: &ServerName) -> Result<u32> {
    if let Some(number) = tx.latest(&NUMBERS, &server.as_str())? {
        return Ok(number);
    }
    let drawn = tx.draw(&COUNTER, "server")?;
    tx.put(&NUMBERS, &server.as_str(), &drawn)?;
    tx.put(&NAMES, &drawn, &server.to_string())?;
    Ok(drawn)
}
