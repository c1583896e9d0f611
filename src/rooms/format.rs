//! Events as clients see them, assembled from the stored text: contents are copied, never parsed and written again.
//!
//! Specification: client-server API, "Room event format".

use std::{collections::BTreeSet, sync::Arc};

use ruma::{OwnedEventId, UserId};
use serde::Serialize;
use serde_json::value::RawValue;
use store::{Read, RoomNo, UserNo};

use crate::{
    EventNo, Pos, Result,
    events::{self, StoredEvent},
    members::Membership,
    numbers, relations,
    relations::Summary,
};

/// For whom, and how, events are written.
#[derive(Clone, Debug)]
pub struct Format<'a> {
    /// Whose view it is.
    pub user: UserNo,
    /// The device, which is told the ids of its own transactions.
    pub device: Option<&'a str>,
    /// Whether each event says its room: in `/sync` the place in the response does.
    pub with_room_id: bool,
    /// The time, for ages.
    pub now_ms: u64,
    /// The last place that the viewer may know of: what relates to an event from behind it is not told.
    pub until: Pos,
    /// Whom the viewer ignores: what they said in relation to an event is not told with it.
    pub ignored: Arc<BTreeSet<UserNo>>,
}

/// Writes JSON objects key by key.
struct Writer(String);

impl Writer {
    fn open() -> Self {
        Self("{".to_owned())
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(key);
        self.0.push_str("\":");
    }

    fn raw(&mut self, key: &str, json: &str) {
        self.key(key);
        self.0.push_str(json);
    }

    fn text(&mut self, key: &str, text: &str) -> Result<()> {
        let text = serde_json::to_string(text).map_err(protocol::json::JsonError::from)?;
        self.raw(key, &text);
        Ok(())
    }

    fn has_any(&self) -> bool {
        self.0.len() > 1
    }

    fn close(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// An event as a client sees it. `membership` is what the viewer's was at the event, where it is known.
///
/// # Errors
/// As the database says.
pub fn client_event(
    db: &impl Read,
    room: RoomNo,
    stored: &StoredEvent,
    membership: Option<Membership>,
    format: &Format<'_>,
) -> Result<Box<RawValue>> {
    let unsigned = unsigned(db, room, stored, membership, format)?;
    raw(written(db, room, stored, Some(unsigned), format.with_room_id)?)
}

/// An event as an invited or knocking user sees it: type, state key, sender, content.
///
/// Specification: "Stripped state".
///
/// # Errors
/// As the database says.
pub fn stripped(stored: &StoredEvent) -> Result<Box<RawValue>> {
    let event = &stored.event;
    let mut out = Writer::open();
    out.text("type", &event.kind)?;
    out.text("state_key", event.state_key.as_deref().unwrap_or_default())?;
    out.text("sender", event.sender.as_str())?;
    out.raw("content", event.content.get());
    raw(out.close())
}

fn written(db: &impl Read, room: RoomNo, stored: &StoredEvent, unsigned: Option<String>, with_room_id: bool) -> Result<String> {
    let event = &stored.event;
    let mut out = Writer(String::with_capacity(event.json.len() + 256));
    out.0.push('{');
    out.text("type", &event.kind)?;
    out.text("event_id", event.id.as_str())?;
    out.text("sender", event.sender.as_str())?;
    out.raw("origin_server_ts", &event.origin_server_ts.to_string());
    out.raw("content", event.content.get());
    if let Some(key) = &event.state_key {
        out.text("state_key", key)?;
    }
    if let Some(redacts) = &event.redacts {
        out.text("redacts", redacts.as_str())?;
    }
    if with_room_id {
        out.text("room_id", numbers::room(db, room)?.id.as_str())?;
    }
    if let Some(unsigned) = unsigned {
        out.raw("unsigned", &unsigned);
    }
    Ok(out.close())
}

fn unsigned(
    db: &impl Read,
    room: RoomNo,
    stored: &StoredEvent,
    membership: Option<Membership>,
    format: &Format<'_>,
) -> Result<String> {
    let header = &stored.header;
    let mut out = Writer::open();
    out.raw("age", &format.now_ms.saturating_sub(stored.event.origin_server_ts).to_string());
    if let Some(membership) = membership {
        out.text("membership", membership.as_str())?;
    }
    if let Some(txn) =
        header.txn.as_ref().filter(|txn| header.sender == format.user && Some(txn.device.as_str()) == format.device)
    {
        out.text("transaction_id", &txn.id)?;
    }
    if let Some(replaced) = header.replaces {
        let replaced = events::event(db, room, replaced)?;
        out.text("replaces_state", replaced.header.id.as_str())?;
        out.raw("prev_content", replaced.event.content.get());
        out.text("prev_sender", replaced.event.sender.as_str())?;
    }
    if let Some(by) = header.redacted_by {
        out.raw("redacted_because", &redacted_because(db, room, by)?);
    } else if let Some(relations) = relations(db, room, stored, format, true)? {
        out.raw("m.relations", &relations);
    }
    Ok(out.close())
}

/// What is told of an event's relations with it ("Aggregations of child events"): its last edit, what refers to it, and,
/// where `with_thread`, its thread.
fn relations(
    db: &impl Read,
    room: RoomNo,
    stored: &StoredEvent,
    format: &Format<'_>,
    with_thread: bool,
) -> Result<Option<String>> {
    let Some((_, no)) = events::find(db, &stored.header.id)? else { return Ok(None) };
    let Some(summary) = relations::summary(db, room, no)? else { return Ok(None) };
    let mut out = Writer::open();
    if let Some(edit) = summary.edit {
        let edit = events::event(db, room, edit)?;
        if is_told(&edit, format) {
            out.raw("m.replace", &written(db, room, &edit, Some(Writer::open().close()), true)?);
        }
    }
    let mut references = Vec::new();
    for reference in &summary.references {
        let reference = events::event(db, room, *reference)?;
        if is_told(&reference, format) {
            references.push(Reference { event_id: reference.header.id.clone() });
        }
    }
    if !references.is_empty() {
        let chunk = serde_json::to_string(&Chunk { chunk: references }).map_err(protocol::json::JsonError::from)?;
        out.raw("m.reference", &chunk);
    }
    if with_thread && let Some(thread) = thread(db, room, (no, stored), &summary, format)? {
        out.raw("m.thread", &thread);
    }
    Ok(out.has_any().then(|| out.close()))
}

/// Whether an event may be told of with the one that it relates to.
fn is_told(child: &StoredEvent, format: &Format<'_>) -> bool {
    child.header.pos.is_some_and(|pos| pos <= format.until) && !format.ignored.contains(&child.header.sender)
}

/// What is told of a thread with its root.
fn thread(
    db: &impl Read,
    room: RoomNo,
    (no, root): (EventNo, &StoredEvent),
    summary: &Summary,
    format: &Format<'_>,
) -> Result<Option<String>> {
    let Some((latest, replies)) = relations::thread(db, room, no, summary, format)? else { return Ok(None) };
    let latest = events::event(db, room, latest)?;
    let mut unsigned = Writer::open();
    // Without its own thread, so that no loop of events can be one of these.
    if let Some(relations) = relations(db, room, &latest, format, false)? {
        unsigned.raw("m.relations", &relations);
    }
    let mut out = Writer::open();
    out.raw("latest_event", &written(db, room, &latest, Some(unsigned.close()), true)?);
    out.raw("count", &replies.to_string());
    let participated = relations::participates(db, room, (no, &root.header), format.user)?;
    out.raw("current_user_participated", if participated { "true" } else { "false" });
    Ok(Some(out.close()))
}

/// The aggregation of `m.reference`.
#[derive(Serialize)]
struct Chunk {
    chunk: Vec<Reference>,
}

#[derive(Serialize)]
struct Reference {
    event_id: OwnedEventId,
}

fn redacted_because(db: &impl Read, room: RoomNo, by: EventNo) -> Result<String> {
    written(db, room, &*events::event(db, room, by)?, None, true)
}

fn raw(json: String) -> Result<Box<RawValue>> {
    Ok(RawValue::from_string(json).map_err(protocol::json::JsonError::from)?)
}

/// Whether this is the member event of this user.
#[must_use]
pub fn is_member_event_of(stored: &StoredEvent, user: &UserId) -> bool {
    stored.event.state_pair() == Some(("m.room.member", user.as_str()))
}
