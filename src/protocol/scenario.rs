//! Events for tests, unsigned and written short: `bob` is `@bob:b`, the user of that name on the server of its initial.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::event::Event;
use crate::power_levels::Memo;
use crate::version::RoomVersion;

/// The id of every scenario's create event.
pub(crate) const CREATE: &str = "$create:a";

/// The user of this name, or of this id.
pub(crate) fn user(name: &str) -> OwnedUserId {
    if name.starts_with('@') { name.try_into().unwrap() } else { format!("@{name}:{}", &name[..1]).try_into().unwrap() }
}

/// The id of the scenario's room.
pub(crate) fn room(version: &RoomVersion) -> OwnedRoomId {
    if version.version_12 { CREATE.replace('$', "!").try_into().unwrap() } else { "!room:a".try_into().unwrap() }
}

/// An event to be.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) id: OwnedEventId,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) sender: OwnedUserId,
    pub(crate) kind: String,
    pub(crate) state_key: Option<String>,
    pub(crate) content: Value,
    pub(crate) prev_events: Vec<OwnedEventId>,
    pub(crate) auth_events: Vec<OwnedEventId>,
    pub(crate) redacts: Option<OwnedEventId>,
    pub(crate) time: u64,
    pub(crate) depth: u64,
    /// Whether the event itself names its room, as all but create events of version 12 do.
    pub(crate) names_room: bool,
}

impl Draft {
    /// Something sent to the scenario's room, after an event `$prev:a`.
    pub(crate) fn new(version: &RoomVersion, id: &str, sender: &str, kind: &str, key: Option<&str>, content: Value) -> Draft {
        Draft {
            id: id.try_into().unwrap(),
            room_id: room(version),
            sender: user(sender),
            kind: kind.to_owned(),
            state_key: key.map(str::to_owned),
            content,
            prev_events: vec!["$prev:a".try_into().unwrap()],
            auth_events: Vec::new(),
            redacts: None,
            time: 0,
            depth: 1,
            names_room: true,
        }
    }

    /// The create event, by alice, with more content.
    pub(crate) fn create(version: &RoomVersion, more: &Value) -> Draft {
        let mut content = json!({ "room_version": version.id });
        if !version.version_11 {
            content["creator"] = json!("@alice:a");
        }
        for (key, value) in more.as_object().unwrap() {
            content[key] = value.clone();
        }
        let mut draft = Draft::new(version, CREATE, "alice", "m.room.create", Some(""), content);
        draft.prev_events.clear();
        draft.names_room = !version.version_12;
        draft
    }

    pub(crate) fn build(&self) -> Arc<Event> {
        let mut json = json!({
            "sender": self.sender, "type": self.kind, "content": self.content, "origin_server_ts": self.time, "depth": self.depth,
            "prev_events": self.prev_events, "auth_events": self.auth_events,
        });
        if self.names_room {
            json["room_id"] = json!(self.room_id);
        }
        if let Some(key) = &self.state_key {
            json["state_key"] = json!(key);
        }
        Arc::new(Event {
            id: self.id.clone(),
            room_id: self.room_id.clone(),
            sender: self.sender.clone(),
            kind: self.kind.clone(),
            state_key: self.state_key.clone(),
            origin_server_ts: self.time,
            depth: self.depth,
            prev_events: self.prev_events.clone(),
            auth_events: self.auth_events.clone(),
            redacts: self.redacts.clone(),
            content: RawValue::from_string(self.content.to_string()).unwrap(),
            json: json.to_string().into(),
            levels: Memo::default(),
        })
    }
}
