//! Transactions of other servers: events room by room, each failing alone, and what is not events.
//!
//! Specification: server-server API, "PUT send/{txnId}".

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future;
use protocol::{parse::RawPdu, verify::Verified};
use rooms::{
    acl,
    events::StoredEvent,
    members::{self, Membership},
    receive::{self, Outcome},
    remote,
};
use ruma::{OwnedEventId, OwnedUserId, RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use store::{Read as _, RoomNo, Table};

use crate::{Error, Federation, Result, edus::Edu, known::Known};

pub(crate) static ANSWERS: Table<String, Answered> =
    Table::new("inbound_transactions", "The last transaction of each other server, and what it was answered.");

/// The most events of a transaction.
pub const PDUS_MAX: usize = 50;
/// The most other messages of a transaction.
pub const EDUS_MAX: usize = 100;

/// What another server sends.
#[derive(Debug, Deserialize)]
pub struct Transaction {
    /// Events.
    #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
    pub pdus: Vec<Box<RawValue>>,
    /// All else.
    #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
    pub edus: Vec<Edu>,
}

/// What became of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processed {
    /// Why it was refused, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What became of each event.
pub type Answer = BTreeMap<OwnedEventId, Processed>;

/// A transaction that was answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answered {
    id: String,
    answer: BTreeMap<OwnedEventId, Option<String>>,
}

impl Federation {
    /// Takes in what another server sends. The same transaction again is answered the same.
    ///
    /// # Errors
    /// [`Error::TooMuch`] beyond [`PDUS_MAX`] and [`EDUS_MAX`]; else only where Hearth fails.
    pub async fn receive_transaction(&self, origin: &ServerName, id: &str, transaction: Transaction) -> Result<Answer> {
        let Transaction { pdus, edus } = transaction;
        if pdus.len() > PDUS_MAX || edus.len() > EDUS_MAX {
            return Err(Error::TooMuch);
        }
        let gate = self.inbound.at(origin.to_owned());
        let _alone = gate.lock().await;
        let seen = self.store.snapshot().get(&ANSWERS, &origin.as_str())?;
        if let Some(seen) = seen.filter(|seen| seen.id == id) {
            return Ok(seen.answer.into_iter().map(|(event, error)| (event, Processed { error })).collect());
        }
        // Encrypted events are worth nothing without the keys that are sent to devices: these come first, and wait for no event.
        let (to_device, edus): (Vec<Edu>, Vec<Edu>) = edus.into_iter().partition(Edu::is_to_device);
        self.receive_edus(origin, to_device).await?;
        let mut answer = Answer::new();
        let (rooms, unknown) = self.by_room(origin, pdus)?;
        self.end_invitations(origin, unknown).await?;
        for processed in future::join_all(rooms.into_iter().map(|room| self.receive_in_room(origin, room))).await {
            answer.extend(processed?);
        }
        let missed = self.receive_edus(origin, edus).await?;
        let row = Answered { id: id.to_owned(), answer: answer.iter().map(|(id, of)| (id.clone(), of.error.clone())).collect() };
        // This is on disk after all that was received.
        self.store.transact(&[], |tx| tx.put(&ANSWERS, &origin.as_str(), &row))?.durable().await?;
        self.device_lists.due(origin, missed);
        Ok(answer)
    }

    /// The events by their rooms, in their order.
    fn by_room(&self, origin: &ServerName, pdus: Vec<Box<RawValue>>) -> Result<(Vec<InRoom>, Vec<RawPdu>)> {
        let mut db = self.store.snapshot();
        let mut rooms: BTreeMap<String, Vec<(RawPdu, Box<RawValue>)>> = BTreeMap::new();
        for raw in pdus {
            let Ok(pdu) = RawPdu::from_bytes(raw.get().as_bytes()) else { continue };
            if let Some(room) = pdu.room_id().map(str::to_owned) {
                rooms.entry(room).or_default().push((pdu, raw));
            }
        }
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        for (id, pdus) in rooms {
            let Ok(id) = RoomId::parse(id) else { continue };
            let known = match self.known(&db, &id)? {
                // A user may have entered it since.
                None if !self.early.keep(origin, &id, &pdus) => {
                    db = self.store.snapshot();
                    self.known(&db, &id)?
                }
                known => known,
            };
            let Some(known) = known else {
                tracing::debug!(room = %id, server = %origin, "events of a room that this server is not in");
                unknown.extend(pdus.into_iter().map(|(pdu, _)| pdu));
                continue;
            };
            let denied = !acl::allows(&db, known.no, origin)?;
            found.push(InRoom { known, denied, pdus });
        }
        Ok((found, unknown))
    }

    /// Of events of rooms that this server is not in those count by which the server that told of an invitation or took a knock ends it.
    async fn end_invitations(&self, origin: &ServerName, pdus: Vec<RawPdu>) -> Result<()> {
        for pdu in pdus {
            let Some((user, room, member)) = self.standing_with(origin, &pdu)? else { continue };
            let version = rooms::numbers::room(&self.store.snapshot(), room)?.version()?;
            let Some(Ok(event)) = self.verify(vec![pdu], version).await?.pop() else { continue };
            let event = event.event();
            let ends = matches!(Membership::of(event), Membership::Leave | Membership::Ban);
            // Who may take it back cannot be told without the room's state, but that who invited may.
            let may = match Membership::of(&member.event) {
                Membership::Invite => event.sender == member.event.sender,
                _ => event.sender.server_name() == origin,
            };
            if ends && may {
                tracing::debug!(%user, room = %event.room_id, server = %origin, "an invitation or a knock was ended");
                remote::put(&self.store, (&event.room_id, version), event, &[], origin)?.durable().await?;
            }
        }
        Ok(())
    }

    /// The local user whose member event this is, the room, and their member event so far, where the server is the one that told of the room.
    fn standing_with(&self, origin: &ServerName, pdu: &RawPdu) -> Result<Option<(OwnedUserId, RoomNo, Arc<StoredEvent>)>> {
        let db = self.store.snapshot();
        let text = |key: &str| pdu.object().get(key).and_then(serde_json::Value::as_str);
        let room = text("room_id").and_then(|id| RoomId::parse(id).ok());
        let user = text("state_key").filter(|_| text("type") == Some("m.room.member")).and_then(|id| UserId::parse(id).ok());
        let (Some(room), Some(user)) = (room, user) else { return Ok(None) };
        let (Some(room), Some(no)) = (rooms::numbers::number(&db, &room)?, users::numbers::number(&db, &user)?) else {
            return Ok(None);
        };
        let told = remote::remote(&db, no, room)?.is_some_and(|told| told.via == origin);
        let Some(standing) = members::user_room(&db, no, room)? else { return Ok(None) };
        let waits = matches!(standing.membership, Membership::Invite | Membership::Knock);
        if !told || !waits || user.server_name() != self.name() {
            return Ok(None);
        }
        let member = remote::member_event(&db, no, room, &standing)?;
        Ok(Some((user, room, member)))
    }

    /// Receives the events of one room in their order. No other transaction's are received in it meanwhile.
    async fn receive_in_room(&self, origin: &ServerName, room: InRoom) -> Result<Answer> {
        let InRoom { known, denied, pdus } = room;
        let (pdus, texts): (Vec<_>, Vec<_>) = pdus.into_iter().unzip();
        let verified = self.verify(pdus, known.version).await?;
        let gate = self.rooms.at(known.no);
        let _alone = gate.lock().await;
        let mut events: Vec<Told> = Vec::with_capacity(verified.len());
        for (event, text) in verified.into_iter().zip(texts) {
            match event {
                Ok(event) => events.push((event, text)),
                Err(error) if self.late(&error).is_some() && !denied && self.stage(origin, known.no, &text)? => {}
                Err(error) => tracing::debug!(%error, room = %known.id, server = %origin, "an event was refused"),
            }
        }
        if denied {
            let refused = Processed { error: Some("the room's access list denies your server".to_owned()) };
            return Ok(events.into_iter().map(|(event, _)| (event.event().id.clone(), refused.clone())).collect());
        }
        let mut answer = Answer::new();
        let mut rest = events.as_slice();
        while let Some((first, _)) = rest.first() {
            let mut outcomes: Vec<_> = self.receive_together(&known, rest).await.into_iter().map(Ok).collect();
            if outcomes.is_empty() {
                // Something is missing for it, or it fails: alone.
                outcomes.push(self.receive(origin, &known, first.clone()).await);
            }
            let (received, others) = rest.split_at(outcomes.len());
            for ((event, text), outcome) in received.iter().zip(outcomes) {
                let processed = match outcome {
                    // While not all members are known this is not the last word.
                    Ok(Outcome::Rejected(_)) if rooms::partial::is_partial(&self.store.snapshot(), known.no)? => {
                        Processed::default()
                    }
                    // It counts as received, and is tried again.
                    Err(error) if error.is_theirs() && self.stage(origin, known.no, text)? => Processed::default(),
                    outcome => processed(origin, event, outcome),
                };
                answer.insert(event.event().id.clone(), processed);
            }
            rest = others;
        }
        Ok(answer)
    }

    /// What became of the first of these events, as far as nothing is missing for them: none where one of them fails.
    async fn receive_together(&self, known: &Known, events: &[Told]) -> Vec<Outcome> {
        let (store, no) = (self.store.clone(), known.no);
        let events: Vec<Verified> = events.iter().map(|(event, _)| event.clone()).collect();
        // The answer to the transaction waits for the disk once.
        let received = self.computed(move || Ok::<_, Error>(receive::receive_together(&store, no, &events)?.soft())).await;
        received.and_then(|received| received).unwrap_or_default()
    }
}

/// What the other server is told of an event.
fn processed(origin: &ServerName, event: &Verified, outcome: Result<Outcome>) -> Processed {
    let error = match outcome {
        Ok(Outcome::Rejected(reason)) => reason,
        Ok(_) => return Processed::default(),
        Err(error) => error.to_string(),
    };
    let event = event.event();
    tracing::debug!(event = %event.id, room = %event.room_id, server = %origin, error, "an event was refused");
    Processed { error: Some(error) }
}

/// An event that is what it says, and its text.
type Told = (Verified, Box<RawValue>);

struct InRoom {
    known: Known,
    denied: bool,
    /// The events as they were read, and their texts.
    pdus: Vec<(RawPdu, Box<RawValue>)>,
}
