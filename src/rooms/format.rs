//! Events as clients see them, assembled from the stored text: contents are copied, never parsed and written again.
//!
//! Specification: client-server API, "Room event format".

use ruma::UserId;
use serde_json::value::RawValue;
use store::{Read, RoomNo, UserNo};

use crate::{
    EventNo, Pos, Result,
    events::{self, StoredEvent},
    members::Membership,
    numbers, relations,
};

/// For whom, and how, events are written.
#[derive(Clone, Copy, Debug)]
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
    } else if let Some(relations) = relations(db, room, stored, format)? {
        out.raw("m.relations", &relations);
    }
    Ok(out.close())
}

/// What is told of an event's relations with it ("Aggregations of child events"): its last edit, its thread.
fn relations(db: &impl Read, room: RoomNo, stored: &StoredEvent, format: &Format<'_>) -> Result<Option<String>> {
    let Some((_, no)) = events::find(db, &stored.header.id)? else { return Ok(None) };
    let Some(summary) = relations::summary(db, room, no)? else { return Ok(None) };
    let child = |no: Option<EventNo>| -> Result<Option<String>> {
        let Some(no) = no else { return Ok(None) };
        let event = events::event(db, room, no)?;
        let known = event.header.pos.is_some_and(|pos| pos <= format.until);
        if known { written(db, room, &event, Some(Writer::open().close()), true).map(Some) } else { Ok(None) }
    };
    let (edit, latest) = (child(summary.edit)?, child(summary.latest_reply)?);
    if edit.is_none() && latest.is_none() {
        return Ok(None);
    }
    let mut out = Writer::open();
    if let Some(edit) = edit {
        out.raw("m.replace", &edit);
    }
    if let Some(latest) = latest {
        let mut thread = Writer::open();
        thread.raw("latest_event", &latest);
        thread.raw("count", &summary.replies.to_string());
        let participated = relations::participates(db, room, (no, &stored.header), format.user)?;
        thread.raw("current_user_participated", if participated { "true" } else { "false" });
        out.raw("m.thread", &thread.close());
    }
    Ok(Some(out.close()))
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
