//! An event as push rules see it.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::event::Event;
use crate::power_levels::PowerLevels;

/// An event and what of its room the rules ask for, prepared once for all members.
pub struct PushEvent<'a> {
    pub(super) event: &'a Event,
    pub(super) member_count: u64,
    levels: Option<PowerLevels<'a>>,
    /// The properties of the client's format: rules are written for it.
    properties: Map<String, Value>,
}

impl<'a> PushEvent<'a> {
    /// An event in a room with this many joined members and these power levels. Without levels nobody may notify the
    /// whole room.
    #[must_use]
    pub fn new(event: &'a Event, member_count: u64, levels: Option<PowerLevels<'a>>) -> Self {
        let content: Value = serde_json::from_str(event.content.get()).unwrap_or_default();
        let mut properties = Map::new();
        properties.insert("content".to_owned(), content);
        properties.insert("event_id".to_owned(), json!(event.id));
        properties.insert("origin_server_ts".to_owned(), json!(event.origin_server_ts));
        properties.insert("room_id".to_owned(), json!(event.room_id));
        properties.insert("sender".to_owned(), json!(event.sender));
        properties.insert("type".to_owned(), json!(event.kind));
        if let Some(state_key) = &event.state_key {
            properties.insert("state_key".to_owned(), json!(state_key));
        }
        if let Some(redacts) = &event.redacts {
            properties.insert("redacts".to_owned(), json!(redacts));
        }
        PushEvent { event, member_count, levels, properties }
    }

    /// The property at a dot-separated path.
    pub(super) fn property(&self, path: &str) -> Option<&Value> {
        let (name, mut rest) = first_name(path);
        let mut value = self.properties.get(&*name)?;
        while let Some(path) = rest {
            let (name, more) = first_name(path);
            value = value.as_object()?.get(&*name)?;
            rest = more;
        }
        Some(value)
    }

    /// Whether the sender has the power for a kind of notification.
    pub(super) fn may_notify(&self, kind: &str) -> bool {
        self.levels.as_ref().is_some_and(|levels| {
            let (power, needed) = (levels.user(&self.event.sender), levels.notification(kind));
            matches!((power, needed), (Ok(power), Ok(needed)) if power >= needed)
        })
    }
}

/// Cuts the first name off a path. `\.` and `\\` stand for a dot and a backslash; other backslashes are as they are.
///
/// Specification: appendices, "Dot-separated property paths".
fn first_name(path: &str) -> (Cow<'_, str>, Option<&str>) {
    let mut escaped = false;
    let mut escapes = false;
    for (index, byte) in path.bytes().enumerate() {
        match byte {
            b'.' if !escaped => return (unescaped(&path[..index], escapes), Some(&path[index + 1..])),
            b'\\' if !escaped => (escaped, escapes) = (true, true),
            _ => escaped = false,
        }
    }
    (unescaped(path, escapes), None)
}

fn unescaped(name: &str, escapes: bool) -> Cow<'_, str> {
    if !escapes {
        return Cow::Borrowed(name);
    }
    let mut plain = String::with_capacity(name.len());
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('\\', Some(next @ ('.' | '\\'))) => {
                plain.push(*next);
                characters.next();
            }
            _ => plain.push(character),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::scenario::Draft;
    use crate::version::RoomVersion;

    #[test]
    fn paths_lead_to_properties() {
        let version = RoomVersion::named("11").unwrap();
        let content = json!({ "body": "hi", "m.mentions": { "room": true }, "a": { "b.c": { "": 1 } }, "x\\y": 2, "q\\.": 3, "list": [1], "e": {} });
        let event = Draft::new(version, "$e:a", "alice", "m.room.topic", Some("key"), content).build();
        let event = PushEvent::new(&event, 1, None);
        let cases = [
            ("type", json!("m.room.topic")),
            ("state_key", json!("key")),
            ("sender", json!("@alice:a")),
            ("room_id", json!("!room:a")),
            ("event_id", json!("$e:a")),
            ("content.body", json!("hi")),
            (r"content.m\.mentions.room", json!(true)),
            (r"content.a.b\.c.", json!(1)),
            (r"content.x\\y", json!(2)),
            (r"content.x\y", json!(2)),
            (r"content.q\\\.", json!(3)),
            ("content.list", json!([1])),
            ("content.e", json!({})),
        ];
        for (path, expected) in cases {
            assert_eq!(event.property(path), Some(&expected), "{path}");
        }
        for path in [
            "",
            ".",
            "content.",
            "content.m.mentions.room",
            r"content\.body",
            "content.list.0",
            "content.body.x",
            "depth",
            "hashes",
            r"content.q\\.",
        ] {
            assert_eq!(event.property(path), None, "{path}");
        }
    }
}
