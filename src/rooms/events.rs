//! Events as they are stored: once, with the exact canonical bytes and a small header.

use std::sync::Arc;

use protocol::{event::Event, stored, version::RoomVersion};
use ruma::{EventId, OwnedEventId};
use serde::{Deserialize, Serialize};
use store::{Owner, Preset, Read, RoomNo, Table, Tx, UserNo, Value};

use crate::{EventNo, Pos, Result, state::Root};

pub(crate) static EVENTS: Table<(RoomNo, EventNo), StoredEvent> =
    Table::new("events", "Every event: a header, then its canonical JSON.").owned_by(Owner::Room).read_by(Preset::Blob).cached();
pub(crate) static EVENT_NOS: Table<String, (RoomNo, EventNo)> = Table::new("event_nos", "Where each event id is.").cached();

/// The format byte of rows.
const FORMAT: u8 = 3;

/// What Hearth knows of an event beside the event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Its id.
    pub id: OwnedEventId,
    /// Its room's version.
    version: String,
    /// Its place in the timeline; outliers have none.
    pub pos: Option<Pos>,
    /// The number of its sender.
    pub sender: UserNo,
    /// The room's state before it.
    pub before: Root,
    /// The room's state after it.
    pub after: Root,
    /// The transaction it was sent with, which only its device is told.
    pub txn: Option<Txn>,
    /// The redaction that was applied to it.
    pub redacted_by: Option<EventNo>,
    /// The state event that it took the place of.
    pub replaces: Option<EventNo>,
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
    /// A new event of a room.
    pub(crate) fn new(event: Arc<Event>, version: &RoomVersion, pos: Pos, sender: UserNo, before: Root) -> Self {
        let header = Header {
            id: event.id.clone(),
            version: version.id.to_owned(),
            pos: Some(pos),
            sender,
            before,
            after: before,
            txn: None,
            redacted_by: None,
            replaces: None,
        };
        Self { header, event }
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

/// An event by its number.
///
/// # Errors
/// [`crate::Error::NotFound`] where there is none.
pub fn event(db: &impl Read, room: RoomNo, no: EventNo) -> Result<Arc<StoredEvent>> {
    db.shared(&EVENTS, &(room, no))?.ok_or(crate::Error::NotFound("the event"))
}

/// Stores a new event.
pub(crate) fn put(tx: &mut Tx<'_>, room: RoomNo, no: EventNo, stored: &StoredEvent) -> Result<()> {
    tx.put(&EVENTS, &(room, no), stored)?;
    tx.put(&EVENT_NOS, &stored.header.id.as_str(), &(room, no))?;
    Ok(())
}

/// Stores an event in the form that its redaction leaves of it.
pub(crate) fn redact(tx: &mut Tx<'_>, room: RoomNo, no: EventNo, by: EventNo, redacted: Event) -> Result<()> {
    let mut stored = (*event(tx, room, no)?).clone();
    stored.header.redacted_by = Some(by);
    stored.event = Arc::new(redacted);
    tx.replace(&EVENTS, &(room, no), &stored)?;
    Ok(())
}
