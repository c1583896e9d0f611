//! Transactions. One with what must not be lost has an id made of the places in the queue that it covers, so that it is sent again unchanged; what may be lost
//! travels in transactions of its own, which are not sent again.

use rand::RngExt as _;
use rooms::events;
use ruma::ServerName;
use serde::Serialize;
use serde_json::value::RawValue;
use store::{Lead, Range, Read as _};

use super::queue::{Item, NUMBERS, Place, QUEUE};
use crate::{
    Federation, Result,
    inbound::{EDUS_MAX, PDUS_MAX},
    known::{raw, written},
    presence::USERS_MAX,
};

/// What a transaction says.
#[derive(Serialize)]
struct Body<'a> {
    origin: &'a ServerName,
    origin_server_ts: u64,
    pdus: Vec<Box<RawValue>>,
    edus: Vec<Box<RawValue>>,
}

/// A transaction as it is on its way.
pub(super) struct Transaction {
    pub id: String,
    pub body: Box<RawValue>,
    pub places: Vec<Place>,
}

/// The end of a transaction that is on its way, and when it was begun (ms).
#[derive(Clone, Copy)]
pub(super) struct UnderWay {
    through: Place,
    at_ms: u64,
}

impl Federation {
    /// What is to be sent next: what must not be lost before what may be.
    pub(super) fn next_transaction(&self, server: &ServerName) -> Result<Option<Transaction>> {
        match self.next_lasting(server)? {
            Some(lasting) => Ok(Some(lasting)),
            None => self.next_fleeting(server),
        }
    }

    fn next_lasting(&self, server: &ServerName) -> Result<Option<Transaction>> {
        let db = self.store.snapshot();
        let Some(number) = db.get(&NUMBERS, &server.as_str())? else { return Ok(None) };
        let again = self.outbound.state.lock().under_way.get(server).copied();
        let (mut pdus, mut edus, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for row in db.range(&QUEUE, Range::of(&Lead((number,))))? {
            let ((_, seq, order), item) = row?;
            if again.is_some_and(|again| (seq, order) > again.through) {
                break;
            }
            match item {
                Item::Event(..) if pdus.len() == PDUS_MAX => break,
                Item::Edu(_) if edus.len() == EDUS_MAX => break,
                Item::Event(room, event) => match events::event(&db, room, event) {
                    Ok(stored) => pdus.push(raw(&stored.event.json)?),
                    // The room was purged.
                    Err(rooms::Error::NotFound(_)) => {}
                    Err(error) => return Err(error.into()),
                },
                Item::Edu(edu) => edus.push(raw(&edu)?),
            }
            places.push((seq, order));
        }
        let (Some(first), Some(through)) = (places.first().copied(), places.last().copied()) else { return Ok(None) };
        let began = again.unwrap_or(UnderWay { through, at_ms: self.now_ms() });
        self.outbound.state.lock().under_way.insert(server.to_owned(), began);
        let id = format!("{}.{}-{}.{}-{}", first.0.0, first.1, through.0.0, through.1, places.len());
        self.transaction(id, began.at_ms, pdus, edus, places).map(Some)
    }

    fn next_fleeting(&self, server: &ServerName) -> Result<Option<Transaction>> {
        let mut edus = self.outbound.fleeting(server);
        edus.extend(self.presence_of(&self.outbound.take_presence(server, USERS_MAX))?);
        let edus = edus.iter().map(written).collect::<Result<Vec<_>>>()?;
        if edus.is_empty() {
            return Ok(None);
        }
        let now_ms = self.now_ms();
        let id = format!("{now_ms}-{:x}", self.rng().random::<u64>());
        self.transaction(id, now_ms, Vec::new(), edus, Vec::new()).map(Some)
    }

    fn transaction(
        &self,
        id: String,
        origin_server_ts: u64,
        pdus: Vec<Box<RawValue>>,
        edus: Vec<Box<RawValue>>,
        places: Vec<Place>,
    ) -> Result<Transaction> {
        let body = Body { origin: self.name(), origin_server_ts, pdus, edus };
        Ok(Transaction { id, body: written(&body)?, places })
    }
}
