//! Messages to devices, each delivered exactly once and in order.
//!
//! Specification: client-server API, "Send-to-Device messaging". A device's queue is ordered by the commit that brought
//! the message, so the position that a sync has delivered is one number. A message stays until the device presents a token
//! past it, which proves that it arrived; a message is never delivered after that, whether or not its row is gone yet.

use std::collections::BTreeMap;

use protocol::json::Object;
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use store::{Json, Lead, Lock, Owner, Pending, Preset, Range, Read, Seq, Store, Table, Topic, Tx, UserNo};

use crate::{
    KeyError,
    devices::{self, DeviceNo},
    keys::{ActingDevice, split_remote},
    numbers,
};

// These rows do not wake by themselves: a device that acknowledges deletes rows, and that is news to nobody.
static QUEUE: Table<(UserNo, DeviceNo, Seq), Json<Box<RawValue>>> = Table::new(
    "to_device",
    "Messages that wait for a device, as it gets them, by the commit that brought them: one message a commit.",
)
.owned_by(Owner::User)
.read_by(Preset::Scan);
static LENGTHS: Table<(UserNo, DeviceNo), Length> =
    Table::new("to_device_lengths", "How much waits in the to_device queue of a device, so that it can be limited.")
        .owned_by(Owner::User);
static SENT: Table<(UserNo, DeviceNo), Vec<[u8; 16]>> = Table::new(
    "to_device_sent",
    "Hashes of the event types and transaction ids that a device sent last: a repeated request sends nothing.",
)
.owned_by(Owner::User);

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 3] = [QUEUE.spec(), LENGTHS.spec(), SENT.spec()];

/// The most bytes of one message's content, as of an event.
pub const CONTENT_BYTES_MAX: usize = 65_536;
/// The longest event type.
const TYPE_BYTES_MAX: usize = 255;
/// The most messages of one request, each named device and each `*` counted once. Some clients send a room's keys to all
/// devices of its members at once.
pub const MESSAGES_MAX: usize = 20_000;
/// The most messages that wait for one device. What is sent to a full queue is dropped: such a device has been away for
/// long, and would find the oldest messages of use, if any.
pub const QUEUED_MAX: u32 = 100_000;
/// The most bytes that wait for one device.
pub const QUEUED_BYTES_MAX: u64 = 128 << 20;
/// The requests of a device that are remembered: more than it has under way at once.
const SENT_REMEMBERED: usize = 128;
/// The most messages deleted by one acknowledgement; later ones delete the rest.
const ACKNOWLEDGED_MAX: usize = 1_000;
/// All devices of a user of another server: their requests are remembered together.
const ELSEWHERE: DeviceNo = DeviceNo(0);
/// The device id that stands for all devices of a user.
const ALL_DEVICES: &str = "*";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Length {
    messages: u32,
    bytes: u64,
}

/// Contents by user and by device id, or `*` for all other devices of the user.
pub type Messages = BTreeMap<OwnedUserId, BTreeMap<String, Object>>;

/// What became of a request to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Whether the same request was here before, so that nothing was sent now, and nothing must go to other servers.
    pub repeated: bool,
    /// The messages to users of other servers.
    pub remote: BTreeMap<OwnedServerName, Messages>,
}

/// Sends messages to devices: `/sendToDevice/{eventType}/{txnId}`. Messages to unknown users and devices are dropped.
/// A request that the same device repeats is answered without sending again.
///
/// # Errors
/// [`KeyError::TooLarge`].
pub fn send(
    store: &Store,
    this: &ServerName,
    acting: &ActingDevice<'_>,
    event_type: &str,
    txn_id: &str,
    messages: Messages,
) -> Result<Pending<Sent>, KeyError> {
    check(event_type, &messages)?;
    let (local, remote) = split_remote(messages, this);
    let recipients = recipients(&store.snapshot(), &local)?;
    let mut locks = locks(&recipients);
    locks.push(Lock::User(acting.user));
    let request = request_hash(event_type, txn_id);
    store.transact(&locks, |tx| {
        if !remember(tx, (acting.user, acting.device), request)? {
            return Ok(Sent { repeated: true, remote: BTreeMap::new() });
        }
        enqueue(tx, acting.user_id, event_type, &recipients)?;
        Ok(Sent { repeated: false, remote })
    })
}

/// Delivers messages of a sender of another server to devices here, each message id once. The caller has checked that the sender belongs to the
/// server that sent them; users of other servers are passed over.
///
/// # Errors
/// [`KeyError::TooLarge`].
pub fn receive(
    store: &Store,
    this: &ServerName,
    sender: &UserId,
    event_type: &str,
    message_id: &str,
    messages: Messages,
) -> Result<Pending<()>, KeyError> {
    check(event_type, &messages)?;
    let (local, _) = split_remote(messages, this);
    let recipients = recipients(&store.snapshot(), &local)?;
    let by = (numbers::ensure(store, sender)?, ELSEWHERE);
    let mut locks = locks(&recipients);
    locks.push(Lock::User(by.0));
    store.transact(&locks, |tx| {
        if remember(tx, by, request_hash(event_type, message_id))? {
            enqueue(tx, sender, event_type, &recipients)?;
        }
        Ok(())
    })
}

/// Whether a request is none of the last ones of a device, which it is from now on.
fn remember(tx: &mut Tx<'_>, by: (UserNo, DeviceNo), request: [u8; 16]) -> store::Result<bool> {
    let mut sent = tx.get(&SENT, &by)?.unwrap_or_default();
    if sent.contains(&request) {
        return Ok(false);
    }
    sent.drain(..(sent.len() + 1).saturating_sub(SENT_REMEMBERED));
    sent.push(request);
    tx.put(&SENT, &by, &sent)?;
    Ok(true)
}

fn check(event_type: &str, messages: &Messages) -> Result<(), KeyError> {
    KeyError::limit("bytes of an event type", event_type.len(), TYPE_BYTES_MAX)?;
    KeyError::limit("messages", messages.values().map(BTreeMap::len).sum(), MESSAGES_MAX)?;
    for content in messages.values().flat_map(BTreeMap::values) {
        let length = serde_json::to_string(content).map_or(usize::MAX, |text| text.len());
        KeyError::limit("bytes of a message's content", length, CONTENT_BYTES_MAX)?;
    }
    Ok(())
}

type Recipients<'a> = Vec<(UserNo, &'a BTreeMap<String, Object>)>;

/// The users that are known here.
fn recipients<'a>(db: &impl Read, messages: &'a Messages) -> store::Result<Recipients<'a>> {
    let mut recipients = Vec::with_capacity(messages.len());
    for (user_id, contents) in messages {
        if let Some(user) = numbers::number(db, user_id)? {
            recipients.push((user, contents));
        }
    }
    Ok(recipients)
}

fn locks(recipients: &Recipients<'_>) -> Vec<Lock> {
    recipients.iter().map(|(user, _)| Lock::User(*user)).collect()
}

fn request_hash(event_type: &str, txn_id: &str) -> [u8; 16] {
    Sha256::digest(format!("{event_type}\0{txn_id}")).first_chunk().copied().unwrap_or_default()
}

/// A message as a device gets it.
#[derive(Serialize)]
struct Message<'a> {
    content: &'a Object,
    sender: &'a UserId,
    #[serde(rename = "type")]
    event_type: &'a str,
}

/// Puts messages into the queues of those devices that exist, and wakes their users.
fn enqueue(tx: &mut Tx<'_>, sender: &UserId, event_type: &str, recipients: &Recipients<'_>) -> store::Result<()> {
    let unencodable = |_| store::Error::Unencodable { table: QUEUE.spec().name };
    let mut queued = Vec::new();
    for &(user, contents) in recipients {
        for (id, content) in contents {
            let message = serde_json::value::to_raw_value(&Message { content, sender, event_type }).map_err(unencodable)?;
            for device in addressed(tx, user, id, contents)? {
                if let Some(length) = room_for(tx, user, device, &message)? {
                    queued.push((user, device, message.clone(), length));
                }
            }
        }
    }
    if queued.is_empty() {
        return Ok(());
    }
    let seq = tx.seq();
    for (user, device, message, length) in queued {
        tx.put(&QUEUE, &(user, device, seq), &Json(message))?;
        tx.put(&LENGTHS, &(user, device), &length)?;
        tx.touch(Topic::User(user));
    }
    Ok(())
}

/// The devices that an id stands for: one, or for `*` all that are not named themselves, or none where it is unknown. So
/// each device gets at most one message.
fn addressed(db: &impl Read, user: UserNo, id: &str, named: &BTreeMap<String, Object>) -> store::Result<Vec<DeviceNo>> {
    if id != ALL_DEVICES {
        return Ok(devices::number(db, user, id.into())?.into_iter().collect());
    }
    let all = devices::numbers(db, user)?.into_iter();
    Ok(all.filter(|(_, id)| !named.contains_key(id.as_str())).map(|(device, _)| device).collect())
}

/// The length of the queue with this message, or `None` where it is full.
fn room_for(db: &impl Read, user: UserNo, device: DeviceNo, message: &RawValue) -> store::Result<Option<Length>> {
    let mut length = db.get(&LENGTHS, &(user, device))?.unwrap_or_default();
    length.messages = length.messages.saturating_add(1);
    length.bytes = length.bytes.saturating_add(message.get().len() as u64);
    if length.messages > QUEUED_MAX || length.bytes > QUEUED_BYTES_MAX {
        tracing::warn!(user = user.0, "a message to a device was dropped: its queue is full");
        return Ok(None);
    }
    Ok(Some(length))
}

/// Messages for a sync to deliver.
#[derive(Debug, Default)]
pub struct Waiting {
    /// In order: objects of `content`, `sender` and `type`.
    pub events: Vec<Box<RawValue>>,
    /// The position that is delivered with them, for the token that the device presents next: `until`, or less where more
    /// messages wait than the limit.
    pub through: Seq,
}

/// The messages for a device after `since`, the position its token says (0 where it has none), up to `until`, the
/// snapshot's: at most `limit`.
///
/// # Errors
/// As the store.
pub fn pending(db: &impl Read, user: UserNo, device: DeviceNo, since: Seq, until: Seq, limit: usize) -> store::Result<Waiting> {
    let range = Range::of(&Lead((user, device))).after(&(user, device, since)).through(&(user, device, until));
    let mut waiting = Waiting { events: Vec::new(), through: until };
    let mut last = since;
    for row in db.range(&QUEUE, &range)? {
        let ((.., seq), message) = row?;
        if waiting.events.len() >= limit {
            waiting.through = last;
            break;
        }
        last = seq;
        waiting.events.push(message.0);
    }
    Ok(waiting)
}

/// Deletes what a device has received: all up to the position that its token says. Nothing waits for the disk: a message
/// that a crash brings back is before the token, so it is not delivered, and deleted the next time.
///
/// # Errors
/// As the store.
pub fn acknowledge(store: &Store, user: UserNo, device: DeviceNo, up_to: Seq) -> store::Result<()> {
    let received = Range::of(&Lead((user, device))).through(&(user, device, up_to));
    let db = store.snapshot();
    // Mostly there is nothing, which one row tells faster than a look for the first of many.
    let waits = db.get(&LENGTHS, &(user, device))?.is_some_and(|length| length.messages > 0);
    if !waits || db.first(&QUEUE, &received)?.is_none() {
        return Ok(());
    }
    store.note(&[Lock::User(user)], |tx| {
        let rows = tx.range(&QUEUE, &received)?.take(ACKNOWLEDGED_MAX);
        let rows = rows.map(|row| row.map(|(key, message)| (key, message.0.get().len() as u64)));
        let rows = rows.collect::<store::Result<Vec<_>>>()?;
        let mut length = tx.get(&LENGTHS, &(user, device))?.unwrap_or_default();
        for (key, bytes) in rows {
            tx.delete(&QUEUE, &key)?;
            length.messages = length.messages.saturating_sub(1);
            length.bytes = length.bytes.saturating_sub(bytes);
        }
        tx.put(&LENGTHS, &(user, device), &length)
    })
}

/// Forgets all that waits for a device, and what it sent.
pub(crate) fn forget(tx: &mut Tx<'_>, user: UserNo, device: DeviceNo) -> store::Result<()> {
    let rows = tx.range(&QUEUE, &Range::of(&Lead((user, device))))?.map(|row| row.map(|(key, _)| key));
    for key in rows.collect::<store::Result<Vec<_>>>()? {
        tx.delete(&QUEUE, &key)?;
    }
    tx.delete(&LENGTHS, &(user, device))?;
    tx.delete(&SENT, &(user, device))
}

/// Makes a queue look full.
#[cfg(test)]
pub(crate) fn fill(store: &Store, user: UserNo, device: DeviceNo) {
    let full = Length { messages: QUEUED_MAX, bytes: 0 };
    let filled = store.transact(&[Lock::User(user)], |tx| tx.put(&LENGTHS, &(user, device), &full));
    assert!(filled.is_ok_and(|pending| pending.wait().is_ok()));
}
