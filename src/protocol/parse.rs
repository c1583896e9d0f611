//! Reading events that other servers send: `RawPdu` -> `Parsed`, and from there [`crate::verify`] makes `Verified`.
//!
//! Specification: server-server API, "Checks performed on receipt of a PDU", step 1; "Event format" of each room version;
//! client-server API, "Size limits". Whatever the bytes are, the answer is an event or a [`PduError`], never a panic.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::{Value, value::RawValue};

use crate::{
    event::Event,
    hash::{self, NOT_SIGNED},
    ids::{self, InvalidId, MAX_ID_BYTES},
    json::{self, JsonError, Numbers, Object},
    power_levels::Memo,
    redact::redact,
    verify::{Parsed, required_signers},
    version::{EventIdFormat, RoomVersion},
};

/// The largest event in bytes: federation format, canonical, with all signatures and without `unsigned`, which every
/// server that passes it on may change.
pub const MAX_EVENT_BYTES: usize = 65_536;
/// The most that is read for one event: its JSON may have white space, escapes and `unsigned`.
pub const MAX_RAW_BYTES: usize = 1 << 20;
/// The most `prev_events` of an event.
pub const MAX_PREV_EVENTS: usize = 20;
/// The most `auth_events` of an event.
pub const MAX_AUTH_EVENTS: usize = 10;

/// Why something is not an event of its room version. Such a PDU is dropped.
#[derive(Debug, thiserror::Error)]
pub enum PduError {
    /// It is not JSON, or has no canonical form in this version.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A key that the version demands is not there.
    #[error("the event has no {0}")]
    Missing(&'static str),
    /// A key has a value of the wrong type or form, or one that may not be there.
    #[error("the event's {0} is malformed")]
    Malformed(&'static str),
    /// An identifier breaks its grammar.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// A key is over its limit, or the JSON as a whole is.
    #[error("the event's {what} is over the limit of {limit}")]
    TooLarge {
        /// The key, or `JSON`.
        what: &'static str,
        /// The limit in bytes, or in entries of a list.
        limit: usize,
    },
}

/// An event as it came in: a JSON object of which nothing is known.
#[derive(Clone, Debug)]
pub struct RawPdu {
    object: Object,
}

impl RawPdu {
    /// Reads the JSON of one event, of at most [`MAX_RAW_BYTES`].
    ///
    /// # Errors
    /// [`JsonError::TooLarge`] and [`JsonError::Syntax`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, JsonError> {
        json::parse_object(bytes, MAX_RAW_BYTES).map(Self::from_object)
    }

    /// Takes an object that was read already.
    #[must_use]
    pub fn from_object(object: Object) -> Self {
        Self { object }
    }

    /// The `room_id` that it claims, to find its room version by. Create events of version 12 have none.
    #[must_use]
    pub fn room_id(&self) -> Option<&str> {
        self.object.get("room_id")?.as_str()
    }

    /// The `depth` that it claims.
    #[must_use]
    pub fn depth(&self) -> Option<u64> {
        self.object.get("depth")?.as_u64()
    }

    /// The version that it names if it is a create event; there, no key means version 1.
    #[must_use]
    pub fn created_version(&self) -> Option<&str> {
        if self.object.get("type")? != "m.room.create" {
            return None;
        }
        match self.object.get("content")?.get("room_version") {
            None => Some("1"),
            Some(version) => version.as_str(),
        }
    }

    /// The object itself, as for `unsigned`, which [`Self::parse`] drops.
    #[must_use]
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Checks format and limits as this room version has them, and computes id and hashes.
    /// From version 3 on an `event_id` is dropped: it is no part of events there.
    ///
    /// # Errors
    /// [`PduError`]: drop the event.
    pub fn parse(self, version: &'static RoomVersion) -> Result<Parsed, PduError> {
        let mut object = self.object;
        object.remove("unsigned");
        if version.event_ids != EventIdFormat::Chosen {
            object.remove("event_id");
        }
        let mut parts = Parts::read(&object, version)?;
        let intact = hash::content_hash_matches(&object, version)?;
        if !intact {
            redact(&mut object, version);
            parts = Parts::read(&object, version)?;
        }
        let signers = required_signers(&object, version)?;
        redact(&mut object, version);
        let signed = json::canonical_without(&object, &NOT_SIGNED, Numbers::of(version))?;
        let id = match hash::event_id(&hash::sha256(signed.as_bytes()), version) {
            Some(id) => id,
            None => chosen_event_id(&object, version)?,
        };
        let signatures = object_at(&object, "signatures")?.clone();
        Ok(Parsed::new(parts.into_event(id)?, signed, signatures, signers, intact, version))
    }
}

/// The event that an object without `unsigned` is, under an id that is known.
pub(crate) fn event_from_object(object: &Object, id: OwnedEventId, version: &RoomVersion) -> Result<Event, PduError> {
    Parts::read(object, version)?.into_event(id)
}

/// The id in an event of versions 1 and 2.
fn chosen_event_id(object: &Object, version: &RoomVersion) -> Result<OwnedEventId, PduError> {
    Ok(ids::event_id(text(object, "event_id")?, version)?)
}

/// An event that lacks its id, which can be had only after the rest was read.
struct Parts {
    /// `None` for the create event of version 12, whose id it comes from.
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    kind: String,
    state_key: Option<String>,
    origin_server_ts: u64,
    depth: u64,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    redacts: Option<OwnedEventId>,
    content: Box<RawValue>,
    json: Box<str>,
}

impl Parts {
    /// Checks and reads every key that a room version demands ("Event format").
    fn read(object: &Object, version: &RoomVersion) -> Result<Self, PduError> {
        let json = json::canonical_object(object, Numbers::of(version))?;
        check_size("JSON", json.len(), MAX_EVENT_BYTES)?;
        let content = object_at(object, "content")?;
        check_hashes_and_signatures(object)?;
        let kind = limited_text(object, "type", version)?;
        let state_key = if object.contains_key("state_key") { Some(limited_text(object, "state_key", version)?) } else { None };
        let max_depth = version.max_depth();
        Ok(Self {
            room_id: room_id(object, &kind, version)?,
            sender: ids::user_id(text(object, "sender")?)?,
            redacts: redacts(if version.version_11 { content } else { object }, &kind, version),
            kind,
            state_key,
            origin_server_ts: integer(object, "origin_server_ts", i64::MAX.unsigned_abs())?,
            depth: integer(object, "depth", max_depth)?,
            prev_events: references(object, "prev_events", MAX_PREV_EVENTS, version)?,
            auth_events: references(object, "auth_events", MAX_AUTH_EVENTS, version)?,
            content: raw(json::canonical_object(content, Numbers::of(version))?)?,
            json: json.into_boxed_str(),
        })
    }

    fn into_event(self, id: OwnedEventId) -> Result<Event, PduError> {
        let room_id = match self.room_id {
            Some(room_id) => room_id,
            None => hash::room_id_of_create(&id).ok_or(PduError::Malformed("room_id"))?,
        };
        Ok(Event {
            id,
            room_id,
            sender: self.sender,
            kind: self.kind,
            state_key: self.state_key,
            origin_server_ts: self.origin_server_ts,
            depth: self.depth,
            prev_events: self.prev_events,
            auth_events: self.auth_events,
            redacts: self.redacts,
            content: self.content,
            json: self.json,
            levels: Memo::default(),
        })
    }
}

/// Canonical JSON as a value of its own.
pub(crate) fn raw(canonical: String) -> Result<Box<RawValue>, JsonError> {
    Ok(RawValue::from_string(canonical)?)
}

pub(crate) fn check_size(what: &'static str, size: usize, limit: usize) -> Result<(), PduError> {
    if size > limit { Err(PduError::TooLarge { what, limit }) } else { Ok(()) }
}

fn value<'a>(object: &'a Object, key: &'static str) -> Result<&'a Value, PduError> {
    object.get(key).ok_or(PduError::Missing(key))
}

fn text<'a>(object: &'a Object, key: &'static str) -> Result<&'a str, PduError> {
    value(object, key)?.as_str().ok_or(PduError::Malformed(key))
}

fn limited_text(object: &Object, key: &'static str, version: &RoomVersion) -> Result<String, PduError> {
    let text = text(object, key)?;
    let size = if version.sizes_in_bytes { text.len() } else { text.chars().count() };
    check_size(key, size, MAX_ID_BYTES)?;
    Ok(text.to_owned())
}

fn object_at<'a>(object: &'a Object, key: &'static str) -> Result<&'a Object, PduError> {
    value(object, key)?.as_object().ok_or(PduError::Malformed(key))
}

fn integer(object: &Object, key: &'static str, max: u64) -> Result<u64, PduError> {
    value(object, key)?.as_u64().filter(|integer| *integer <= max).ok_or(PduError::Malformed(key))
}

/// `hashes` must have a SHA-256, and `signatures` an object for each server. What these hold is checked when it is used.
fn check_hashes_and_signatures(object: &Object) -> Result<(), PduError> {
    text(object_at(object, "hashes")?, "sha256")?;
    if object_at(object, "signatures")?.values().all(Value::is_object) { Ok(()) } else { Err(PduError::Malformed("signatures")) }
}

fn room_id(object: &Object, kind: &str, version: &RoomVersion) -> Result<Option<OwnedRoomId>, PduError> {
    if version.version_12 && kind == "m.room.create" {
        return if object.contains_key("room_id") { Err(PduError::Malformed("room_id")) } else { Ok(None) };
    }
    Ok(Some(ids::room_id(text(object, "room_id")?, version)?))
}

/// The ids in `prev_events` or `auth_events`: ids, or in versions 1 and 2 pairs of an id and hashes. The hashes of others
/// are not read: they name an event a second time.
fn references(object: &Object, key: &'static str, limit: usize, version: &RoomVersion) -> Result<Vec<OwnedEventId>, PduError> {
    let items = value(object, key)?.as_array().ok_or(PduError::Malformed(key))?;
    check_size(key, items.len(), limit)?;
    let id = |item: &Value| {
        let id = match (version.event_ids, item) {
            (EventIdFormat::Chosen, Value::Array(pair)) => match pair.as_slice() {
                [Value::String(id), Value::Object(_)] => id,
                _ => return Err(PduError::Malformed(key)),
            },
            (EventIdFormat::Base64 | EventIdFormat::UrlSafe, Value::String(id)) => id,
            _ => return Err(PduError::Malformed(key)),
        };
        Ok(ids::event_id(id, version)?)
    };
    items.iter().map(id).collect()
}

/// What a redaction redacts, from `holder`: the event, or from version 11 on its content. It is no error where that is no
/// event id: such a redaction redacts nothing.
pub(crate) fn redacts(holder: &Object, kind: &str, version: &RoomVersion) -> Option<OwnedEventId> {
    if kind != "m.room.redaction" {
        return None;
    }
    ids::event_id(holder.get("redacts")?.as_str()?, version).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::json;

    use super::*;
    use crate::fixtures::{NOW_MS, draft, message, object, parse, reference, sent_by, version};

    /// A message as alice.org sends it in this version, with `change` applied before it is hashed and signed.
    fn sent(version_id: &str, change: impl FnOnce(&mut Object)) -> Object {
        sent_by("alice.org", version(version_id), message(version(version_id)), change)
    }

    /// The reason why a message with this key set to this value is no event; `null` stands for a key left out.
    fn refusal(version_id: &str, key: &str, value: Value) -> String {
        let event = sent(version_id, |event| {
            if value.is_null() {
                event.remove(key)
            } else {
                event.insert(key.to_owned(), value)
            };
        });
        parse(&event, version(version_id)).map(|_| ()).map_err(|error| error.to_string()).unwrap_err()
    }

    #[test]
    fn every_part_of_an_event_is_read() {
        for version in RoomVersion::all() {
            let mut draft = draft(version, "org.example", Some("key"), json!({ "b": 1, "a": "x" }));
            draft.depth = 77;
            let sent = sent_by("alice.org", version, draft, |event| {
                event.insert("unsigned".to_owned(), json!({ "age": 1.5 }));
            });
            let parsed = parse(&sent, version).unwrap();
            assert!(parsed.is_intact());
            let event = parsed.event();
            assert_eq!(event.room_id, crate::fixtures::room_id(version));
            assert_eq!(event.sender, "@alice:alice.org");
            assert_eq!(event.state_pair(), Some(("org.example", "key")));
            assert_eq!((event.origin_server_ts, event.depth), (NOW_MS, 77));
            assert_eq!(event.prev_events, [reference(version, 1).id]);
            assert_eq!(event.auth_events, [reference(version, 2).id, reference(version, 3).id]);
            assert_eq!(event.content.get(), r#"{"a":"x","b":1}"#);
            assert!(!event.json.contains("unsigned"));
            assert_eq!(event.json.contains("event_id"), version.event_ids == EventIdFormat::Chosen);

            let again = crate::stored::event(event.id.clone(), &event.json, version).unwrap();
            assert_eq!(format!("{again:?}"), format!("{event:?}"));
        }
    }

    #[test]
    fn required_keys_must_be_there() {
        let keys = ["sender", "type", "room_id", "origin_server_ts", "depth", "prev_events", "auth_events"];
        for version in ["1", "3", "6", "12"] {
            for key in keys {
                assert_eq!(refusal(version, key, Value::Null), format!("the event has no {key}"), "version {version}");
            }
        }
        assert_eq!(refusal("2", "event_id", Value::Null), "the event has no event_id");
        for key in ["content", "hashes", "signatures"] {
            let mut event = sent("10", |_| {});
            event.remove(key);
            assert_eq!(parse(&event, version("10")).unwrap_err().to_string(), format!("the event has no {key}"));
        }
    }

    #[test]
    fn keys_must_have_the_right_types() {
        let table = [
            ("sender", json!(1), "the event's sender is malformed"),
            ("sender", json!("alice"), "not a valid user id"),
            ("sender", json!("@alice:"), "not a valid user id"),
            ("type", json!({}), "the event's type is malformed"),
            ("state_key", json!(1), "the event's state_key is malformed"),
            ("room_id", json!([]), "the event's room_id is malformed"),
            ("room_id", json!("#room:alice.org"), "not a valid room id"),
            ("content", json!([]), "the event's content is malformed"),
            ("origin_server_ts", json!("1"), "the event's origin_server_ts is malformed"),
            ("origin_server_ts", json!(-1), "the event's origin_server_ts is malformed"),
            ("depth", json!(true), "the event's depth is malformed"),
            ("depth", json!(-1), "the event's depth is malformed"),
            ("prev_events", json!({}), "the event's prev_events is malformed"),
            ("prev_events", json!([1]), "the event's prev_events is malformed"),
            ("prev_events", json!(["$a"]), "not a valid event id"),
            ("auth_events", json!([["$a:alice.org", {}]]), "the event's auth_events is malformed"),
        ];
        for (key, value, reason) in table {
            assert_eq!(refusal("10", key, value.clone()), reason, "{key}: {value}");
        }
    }

    /// Hashing and signing it is not possible where the version has no canonical form, so that is done in another.
    fn parse_unsigned(version_id: &str, key: &str, value: Value) -> Result<Parsed, PduError> {
        let mut event = sent(version_id, |_| {});
        event.insert(key.to_owned(), value);
        parse(&event, version(version_id))
    }

    #[test]
    fn t10_numbers_are_integers_of_53_bits_from_version_6_on() {
        let huge = json!({ "deep": [9_007_199_254_740_992_u64] });
        for version in ["6", "12"] {
            let refusal = |value: &Value| parse_unsigned(version, "org.example", value.clone()).unwrap_err().to_string();
            assert_eq!(refusal(&json!(1.5)), "a number is not an integer");
            assert_eq!(refusal(&huge), "an integer is out of range");
        }
        for value in [json!(1.5), huge] {
            assert!(parse_unsigned("5", "org.example", value).is_ok());
        }
    }

    #[test]
    fn t10_depth_is_limited_by_version() {
        let (most, most_strict) = (json!(i64::MAX), json!((1_i64 << 53) - 1));
        assert_eq!(parse_unsigned("5", "depth", most.clone()).unwrap().event().depth, (1 << 63) - 1);
        assert!(parse_unsigned("5", "depth", json!(1_u64 << 63)).is_err());
        assert_eq!(parse_unsigned("6", "depth", most_strict).unwrap().event().depth, (1 << 53) - 1);
        assert!(parse_unsigned("6", "depth", most).is_err());
    }

    #[test]
    fn a_float_in_an_old_room_keeps_its_hash() {
        let powers = draft(version("5"), "m.room.power_levels", Some(""), json!({ "ban": 50.0, "kick": 1e16, "users": {} }));
        let parsed = parse(&sent_by("alice.org", version("5"), powers, |_| {}), version("5")).unwrap();
        assert!(parsed.is_intact());
        assert_eq!(parsed.event().content.get(), r#"{"ban":50.0,"kick":1e+16,"users":{}}"#);
    }

    #[test]
    fn t10_what_others_put_into_unsigned_cannot_make_an_event_invalid() {
        let mut event = sent("11", |_| {});
        event.insert("unsigned".to_owned(), json!({ "age": 1e300, "big": u64::MAX, "long": "x".repeat(MAX_EVENT_BYTES) }));
        assert!(parse(&event, version("11")).unwrap().is_intact());
    }

    #[test]
    fn an_event_id_is_ignored_where_it_is_no_part_of_events() {
        let mut event = sent("4", |_| {});
        let id = parse(&event, version("4")).unwrap().event().id.clone();
        event.insert("event_id".to_owned(), json!("$forged:alice.org"));
        let parsed = parse(&event, version("4")).unwrap();
        assert!(parsed.is_intact());
        assert_eq!(parsed.event().id, id);
    }

    #[test]
    fn sizes_are_limited_to_the_byte_or_in_old_versions_to_the_character() {
        for (version_id, at_limit) in [("11", "é".repeat(127) + "x"), ("10", "é".repeat(255))] {
            for key in ["type", "state_key"] {
                let changed = |event: &mut Object| drop(event.insert(key.to_owned(), json!(at_limit)));
                assert!(parse(&sent(version_id, changed), version(version_id)).is_ok());
                let reason = refusal(version_id, key, json!(format!("{at_limit}x")));
                assert_eq!(reason, format!("the event's {key} is over the limit of 255"));
            }
        }
        let pad = |length: usize| {
            move |event: &mut Object| drop(event.insert("content".to_owned(), json!({ "a": "x".repeat(length) })))
        };
        let empty = parse(&sent("10", pad(0)), version("10")).unwrap().event().json.len();
        let largest = parse(&sent("10", pad(MAX_EVENT_BYTES - empty)), version("10")).unwrap();
        assert_eq!(largest.event().json.len(), MAX_EVENT_BYTES);
        let too_large = parse(&sent("10", pad(MAX_EVENT_BYTES - empty + 1)), version("10")).unwrap_err();
        assert_eq!(too_large.to_string(), "the event's JSON is over the limit of 65536");
    }

    #[test]
    fn references_are_limited_in_number() {
        for version_id in ["2", "10"] {
            for (key, limit) in [("prev_events", MAX_PREV_EVENTS), ("auth_events", MAX_AUTH_EVENTS)] {
                let version = version(version_id);
                let ids = |count: usize| -> Value {
                    let one = |number: usize| {
                        let id = reference(version, u8::try_from(number).unwrap()).id;
                        if version_id == "2" { json!([id, { "sha256": "x" }]) } else { json!(id) }
                    };
                    (0..count).map(one).collect()
                };
                assert!(parse(&sent(version_id, |event| drop(event.insert(key.to_owned(), ids(limit)))), version).is_ok());
                let reason = refusal(version_id, key, ids(limit + 1));
                assert_eq!(reason, format!("the event's {key} is over the limit of {limit}"));
            }
        }
    }

    #[test]
    fn references_have_the_form_of_their_version() {
        let pair = json!([["$a:alice.org", { "sha256": "x" }]]);
        let read = |version_id: &str, value: &Value| {
            parse(&sent(version_id, |event| drop(event.insert("prev_events".to_owned(), value.clone()))), version(version_id))
                .map(|parsed| parsed.event().prev_events.len())
        };
        assert_eq!(read("2", &pair).unwrap(), 1);
        assert!(read("3", &pair).is_err());
        for malformed in [
            json!(["$a:alice.org"]),
            json!([["$a:alice.org"]]),
            json!([["$a:alice.org", "x"]]),
            json!([["$a:alice.org", {}, {}]]),
        ] {
            assert!(read("2", &malformed).is_err(), "{malformed}");
        }
    }

    #[test]
    fn t8_a_create_event_of_version_12_names_its_room_by_its_id() {
        let version = version("12");
        let create = draft(version, "m.room.create", Some(""), json!({ "room_version": "12" }));
        let sent = sent_by("alice.org", version, create, |_| {});
        let raw = RawPdu::from_object(sent.clone());
        assert_eq!((raw.room_id(), raw.created_version()), (None, Some("12")));
        let parsed = raw.parse(version).unwrap();
        assert_eq!(parsed.event().room_id.as_str()[1..], parsed.event().id.as_str()[1..]);

        let mut with_room = sent;
        with_room.insert("room_id".to_owned(), json!(crate::fixtures::room_id(version)));
        assert_eq!(parse(&with_room, version).unwrap_err().to_string(), "the event's room_id is malformed");
    }

    #[test]
    fn a_create_event_without_a_version_makes_a_room_of_version_1() {
        let created = |value: Value| RawPdu::from_object(object(value)).created_version().map(ToOwned::to_owned);
        assert_eq!(created(json!({ "type": "m.room.create", "content": {} })).as_deref(), Some("1"));
        assert_eq!(created(json!({ "type": "m.room.create", "content": { "room_version": "9" } })).as_deref(), Some("9"));
        assert_eq!(created(json!({ "type": "m.room.create", "content": { "room_version": 9 } })), None);
        assert_eq!(created(json!({ "type": "m.room.topic", "content": {} })), None);
    }

    #[test]
    fn a_redaction_names_its_event_where_the_version_has_it() {
        for version in RoomVersion::all() {
            let mut redaction = draft(version, "m.room.redaction", None, json!({ "reason": "spam" }));
            redaction.redacts = Some(reference(version, 9).id);
            let sent = sent_by("alice.org", version, redaction, |_| {});
            assert_eq!(sent.contains_key("redacts"), !version.version_11);
            let parsed = parse(&sent, version).unwrap();
            assert_eq!(parsed.event().redacts, Some(reference(version, 9).id), "version {}", version.id);

            let nonsense =
                sent_by("alice.org", version, draft(version, "m.room.redaction", None, json!({ "redacts": 1 })), |_| {});
            assert_eq!(parse(&nonsense, version).unwrap().event().redacts, None);
        }
    }
}
