//! What the tests of this crate share: a server with a key, and drafts of its events.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use ruma::{OwnedEventId, OwnedServerName, ServerName};
use serde_json::{Value, json};

use crate::{
    draft::{Draft, Reference},
    json::Object,
    keys::SigningKey,
    parse::{PduError, RawPdu},
    verify::{Parsed, Validity, VerifyKey},
    version::{EventIdFormat, RoomVersion},
};

/// When the fixtures' events are sent, in milliseconds since the epoch.
pub const NOW_MS: u64 = 1_700_000_000_000;

pub fn version(id: &str) -> &'static RoomVersion {
    RoomVersion::named(id).unwrap()
}

pub fn server(name: &str) -> OwnedServerName {
    ServerName::parse(name).unwrap()
}

/// The key of a server: always the same for the same name, another for another.
pub fn key_of(server: &str) -> SigningKey {
    SigningKey::from_seed("1", &crate::hash::sha256(server.as_bytes())).unwrap()
}

/// Knows the key `ed25519:1` of every server.
pub fn known_keys(server: &ServerName, key_id: &str) -> Option<VerifyKey> {
    (key_id == "ed25519:1").then(|| VerifyKey { key: key_of(server.as_str()).public(), validity: Validity::Until(NOW_MS + 1) })
}

pub fn object(value: Value) -> Object {
    let Value::Object(object) = value else { panic!("not an object: {value}") };
    object
}

/// Some event id of the version, another for each number, and what names it.
pub fn reference(version: &RoomVersion, number: u8) -> Reference {
    let hash = crate::hash::sha256(&[number]);
    let id: OwnedEventId =
        crate::hash::event_id(&hash, version).unwrap_or_else(|| format!("${number}:alice.org").try_into().unwrap());
    Reference { id, hash: (version.event_ids == EventIdFormat::Chosen).then_some(hash) }
}

pub fn room_id(version: &RoomVersion) -> &'static str {
    if version.version_12 { "!Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg" } else { "!room:alice.org" }
}

/// An event of `@alice:alice.org` in the fixtures' room.
pub fn draft(version: &RoomVersion, kind: &str, state_key: Option<&str>, content: Value) -> Draft {
    let creates = version.version_12 && kind == "m.room.create";
    Draft {
        room_id: (!creates).then(|| room_id(version).try_into().unwrap()),
        sender: "@alice:alice.org".try_into().unwrap(),
        kind: kind.to_owned(),
        state_key: state_key.map(ToOwned::to_owned),
        content: object(content),
        redacts: None,
        origin_server_ts: NOW_MS,
        depth: 12,
        prev_events: vec![reference(version, 1)],
        auth_events: vec![reference(version, 2), reference(version, 3)],
        opaque_id: (version.event_ids == EventIdFormat::Chosen).then(|| "opaque".to_owned()),
    }
}

pub fn message(version: &RoomVersion) -> Draft {
    draft(version, "m.room.message", None, json!({ "msgtype": "m.text", "body": "Hello" }))
}

/// A draft as other servers would send it: hashed and signed by its sender's server, after `change` was applied to it.
pub fn sent_by(server_name: &str, version: &RoomVersion, draft: Draft, change: impl FnOnce(&mut Object)) -> Object {
    let mut event = unsigned_object(version, draft);
    change(&mut event);
    crate::sign::hash_and_sign(&mut event, version, &server(server_name), &key_of(server_name)).unwrap();
    event
}

/// The event without hashes and signatures, built without `crate::draft`.
fn unsigned_object(version: &RoomVersion, draft: Draft) -> Object {
    let references = |list: Vec<Reference>| -> Value {
        list.into_iter()
            .map(|reference| match reference.hash {
                Some(hash) => json!([reference.id, { "sha256": crate::base64::encode(&hash) }]),
                None => json!(reference.id),
            })
            .collect()
    };
    let mut event = object(json!({
        "sender": draft.sender, "type": draft.kind, "content": draft.content, "depth": draft.depth,
        "origin_server_ts": draft.origin_server_ts, "prev_events": references(draft.prev_events),
        "auth_events": references(draft.auth_events),
    }));
    let mut put = |key: &str, value: Option<String>| value.map(|value| event.insert(key.to_owned(), Value::String(value)));
    put("room_id", draft.room_id.map(|id| id.to_string()));
    put("state_key", draft.state_key);
    put("event_id", draft.opaque_id.map(|opaque| format!("${opaque}:alice.org")));
    if let Some(redacts) = draft.redacts {
        if version.version_11 {
            event.get_mut("content").and_then(Value::as_object_mut).unwrap().insert("redacts".to_owned(), json!(redacts));
        } else {
            event.insert("redacts".to_owned(), json!(redacts));
        }
    }
    event
}

pub fn parse(event: &Object, version: &'static RoomVersion) -> Result<Parsed, PduError> {
    RawPdu::from_bytes(&serde_json::to_vec(event).unwrap()).unwrap().parse(version)
}
