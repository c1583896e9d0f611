//! Events as they are stored: once, with the exact canonical bytes and a small header.

use std::sync::{Arc, OnceLock};

use protocol::{event::Event, stored, version::RoomVersion};
use ruma::{EventId, OwnedEventId};
use serde::{Deserialize, Serialize};
use store::{Owner, Preset, Read, RoomNo, Table, Tx, UserNo, Value};

use crate::{EventNo, Pos, Result, chains::Link, state::Root};

pub(crate) static EVENTS: Table<(RoomNo, EventNo), StoredEvent> =
    Table::new("events", "Every event: a header, then its canonical JSON.").owned_by(Owner::Room).read_by(Preset::Blob).cached();
pub(crate) static EVENT_NOS: Table<String, (RoomNo, EventNo)> = Table::new("event_nos", "Where each event id is.").cached();

/// The format byte of rows.
const FORMAT: u8 = 4;

/// What Hearth knows of an event beside the event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Its id.
    pub id: OwnedEventId,
    /// Its room's version.
    version: String,
    /// Its place in the timeline; what clients are never shown has none.
    pub pos: Option<Pos>,
    /// What the checks on receipt said of it.
    pub standing: Standing,
    /// The number of its sender.
    pub sender: UserNo,
    /// The state before it: what its parents lead to.
    pub before: Root,
    /// The state after it.
    pub after: Root,
    /// The room's current state once it was here: another than [`Self::after`] where the room had forked.
    pub current: Root,
    /// Where it stands in the event DAG; outliers do not.
    pub(crate) dag: Option<Link>,
    /// Where it stands among auth chains, of events that others may cite.
    pub(crate) auth: Option<Link>,
    /// The transaction it was sent with, which only its device is told.
    pub txn: Option<Txn>,
    /// The redaction that was applied to it.
    pub redacted_by: Option<EventNo>,
    /// The state event that it took the place of.
    pub replaces: Option<EventNo>,
    /// The numbers of its auth events, once they were looked for and all were here: a note in memory.
    #[serde(skip)]
    pub(crate) cited: OnceLock<Arc<[EventNo]>>,
}

/// What the checks on receipt said of an event ("Checks performed on receipt of a PDU"). Once rejected, it stays so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It is part of the room.
    Accepted,
    /// The room's current state forbids it, though the state before it allowed it: it is in the DAG and nobody is shown it.
    SoftFailed(String),
    /// Its auth events or the state before it forbid it, by this rule: it changes no state.
    Rejected(String),
    /// It is known only because others cite it: the state before it is not known.
    Outlier,
}

/// A client's transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// The device that sent it.
    pub device: String,
    /// The id that the device chose.
    pub id: String,
}

/// An event with its header.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// What Hearth knows of it.
    pub header: Header,
    /// The event.
    pub event: Arc<Event>,
}

impl StoredEvent {
    /// An event of which no more is known than itself.
    pub(crate) fn outlier(event: Arc<Event>, version: &RoomVersion, sender: UserNo) -> Self {
        let header = Header {
            id: event.id.clone(),
            version: version.id.to_owned(),
            pos: None,
            standing: Standing::Outlier,
            sender,
            before: Root::default(),
            after: Root::default(),
            current: Root::default(),
            dag: None,
            auth: None,
            txn: None,
            redacted_by: None,
            replaces: None,
            cited: OnceLock::new(),
        };
        Self { header, event }
    }

    /// Whether it has a place in the event DAG, so that the state before it is known.
    #[must_use]
    pub fn is_placed(&self) -> bool {
        self.header.dag.is_some()
    }

    /// Whether it was rejected, and by which rule.
    #[must_use]
    pub fn rejection(&self) -> Option<&str> {
        match &self.header.standing {
            Standing::Rejected(reason) => Some(reason),
            _ => None,
        }
    }
}

impl Value for StoredEvent {
    fn encode(&self, out: &mut Vec<u8>) -> Option<()> {
        out.push(FORMAT);
        let taken = std::mem::take(out);
        *out = postcard::to_extend(&self.header, taken).ok()?;
        out.extend_from_slice(self.event.json.as_bytes());
        Some(())
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&FORMAT, body) = bytes.split_first()? else { return None };
        let (header, json) = postcard::take_from_bytes::<Header>(body).ok()?;
        let version = RoomVersion::named(&header.version)?;
        let event = stored::event(header.id.clone(), std::str::from_utf8(json).ok()?, version).ok()?;
        Some(Self { header, event: Arc::new(event) })
    }
}

/// Where an event is.
///
/// # Errors
/// As the database says.
pub fn find(db: &impl Read, id: &EventId) -> Result<Option<(RoomNo, EventNo)>> {
    Ok(db.shared(&EVENT_NOS, &id.as_str())?.map(|place| *place))
}

/// An event of a room by its id, if the room has it.
///
/// # Errors
/// As the database says.
pub fn by_id(db: &impl Read, room: RoomNo, id: &EventId) -> Result<Option<(EventNo, Arc<StoredEvent>)>> {
    match find(db, id)? {
        Some((home, no)) if home == room => Ok(Some((no, event(db, room, no)?))),
        _ => Ok(None),
    }
}

/// An event of a room by its id, if it has a place in the room's DAG.
///
/// # Errors
/// As the database says.
pub fn placed(db: &impl Read, room: RoomNo, id: &EventId) -> Result<Option<(EventNo, Arc<StoredEvent>)>> {
    Ok(by_id(db, room, id)?.filter(|(_, stored)| stored.is_placed()))
}

/// An event by its number.
///
/// # Errors
/// [`crate::Error::NotFound`] where there is none.
pub fn event(db: &impl Read, room: RoomNo, no: EventNo) -> Result<Arc<StoredEvent>> {
    db.shared(&EVENTS, &(room, no))?.ok_or(crate::Error::NotFound("the event"))
}

/// Stores a new event.
pub(crate) fn put(tx: &mut Tx<'_>, room: RoomNo, no: EventNo, stored: &StoredEvent) -> Result<()> {
    tx.put_shared(&EVENTS, &(room, no), &Arc::new(stored.clone()))?;
    tx.put(&EVENT_NOS, &stored.header.id.as_str(), &(room, no))?;
    Ok(())
}

/// Stores what became known of an event that is there.
pub(crate) fn replace(tx: &mut Tx<'_>, room: RoomNo, no: EventNo, stored: &StoredEvent) -> Result<()> {
    tx.replace(&EVENTS, &(room, no), stored)?;
    Ok(())
}

/// Stores an event in the form that its redaction leaves of it.
pub(crate) fn redact(tx: &mut Tx<'_>, room: RoomNo, no: EventNo, by: EventNo, redacted: Event) -> Result<()> {
    let mut stored = (*event(tx, room, no)?).clone();
    stored.header.redacted_by = Some(by);
    stored.event = Arc::new(redacted);
    replace(tx, room, no, &stored)
}
