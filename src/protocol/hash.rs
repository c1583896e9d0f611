//! The two hashes of an event, and the event id that one of them is.
//!
//! Specification: server-server API, "Signing Events"; "Event IDs" of each room version.

use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    base64,
    event::Event,
    json::{self, JsonError, Numbers, Object},
    parse::PduError,
    redact::redact,
    version::{EventIdFormat, RoomVersion},
};

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// What the content hash leaves out.
pub(crate) const NOT_HASHED: [&str; 3] = ["hashes", "signatures", "unsigned"];
/// What signatures and the reference hash leave out.
pub(crate) const NOT_SIGNED: [&str; 2] = ["signatures", "unsigned"];

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// The hash of the complete event, redactable parts included ("Calculating the content hash for an event").
///
/// # Errors
/// Where the event has no canonical form in its room version.
pub fn content_hash(event: &Object, version: &RoomVersion) -> Result<Hash, JsonError> {
    Ok(sha256(json::canonical_without(event, &NOT_HASHED, Numbers::of(version))?.as_bytes()))
}

/// Whether `hashes.sha256` of the event is its content hash.
///
/// # Errors
/// As [`content_hash`].
pub fn content_hash_matches(event: &Object, version: &RoomVersion) -> Result<bool, JsonError> {
    let claimed = event.get("hashes").and_then(|hashes| hashes.get("sha256")).and_then(Value::as_str).and_then(base64::decode);
    Ok(claimed.as_deref() == Some(content_hash(event, version)?.as_slice()))
}

/// The bytes that the signatures and the reference hash of an event cover: redacted, canonical.
///
/// # Errors
/// Where the event has no canonical form in its room version.
pub fn essential_json(mut event: Object, version: &RoomVersion) -> Result<String, JsonError> {
    redact(&mut event, version);
    json::canonical_without(&event, &NOT_SIGNED, Numbers::of(version))
}

/// The hash of what redaction leaves of an event ("Calculating the reference hash for an event").
///
/// # Errors
/// Where the event's JSON has no canonical form, thus never for one that was parsed or built.
pub fn reference_hash(event: &Event, version: &RoomVersion) -> Result<Hash, PduError> {
    Ok(sha256(essential_json(event.object()?, version)?.as_bytes()))
}

/// The event id that a reference hash makes, or `None` in versions 1 and 2, whose servers choose ids.
#[must_use]
pub fn event_id(reference_hash: &Hash, version: &RoomVersion) -> Option<OwnedEventId> {
    let encoded = match version.event_ids {
        EventIdFormat::Chosen => return None,
        EventIdFormat::Base64 => base64::encode(reference_hash),
        EventIdFormat::UrlSafe => base64::encode_url_safe(reference_hash),
    };
    EventId::parse(format!("${encoded}")).ok()
}

/// The room id that the id of a create event makes, in version 12: the same with the sigil of rooms.
#[must_use]
pub fn room_id_of_create(event_id: &EventId) -> Option<OwnedRoomId> {
    let opaque = event_id.as_str().strip_prefix('$')?;
    RoomId::parse(format!("!{opaque}")).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::json;

    use super::*;
    use crate::fixtures::{object, version};

    /// The content hash and the event id of an event that has neither.
    fn hash_and_id(event: &Value, version_id: &str) -> (String, String) {
        let (version, mut event) = (version(version_id), object(event.clone()));
        let hash = base64::encode(&content_hash(&event, version).unwrap());
        event.insert("hashes".to_owned(), json!({ "sha256": hash }));
        let id = event_id(&sha256(essential_json(event, version).unwrap().as_bytes()), version).unwrap();
        (hash, id.to_string())
    }

    fn event(kind: &str, state_key: Option<&str>, content: Value) -> Value {
        let mut event = json!({
            "sender": "@a:domain", "origin": "domain", "origin_server_ts": 1_000_000, "depth": 3, "prev_events": [],
            "auth_events": [], "unsigned": { "age": 3 }, "type": kind, "room_id": "!x:domain", "content": content,
        });
        if let Some(state_key) = state_key {
            event["state_key"] = json!(state_key);
        }
        event
    }

    // The expected values come from the Python code of the specification, completed to a script.

    #[test]
    fn a_message_has_the_ids_that_python_computes() {
        let message = event("m.room.message", None, json!({ "body": "日本 \"quoted\"\n", "n": [1, -2, null, true] }));
        let hash = "GcbH0jSYqpwgUjgKi/VNy/q1wSUjlP9hZZemHUiIelM".to_owned();
        for (version, id) in [
            ("3", "$h5bl+7vsY/jDNCHT+EKW93mcYNwqZ5G8bwrEEiw8U/o"),
            ("4", "$h5bl-7vsY_jDNCHT-EKW93mcYNwqZ5G8bwrEEiw8U_o"),
            ("10", "$h5bl-7vsY_jDNCHT-EKW93mcYNwqZ5G8bwrEEiw8U_o"),
            ("11", "$gpS83Rs4YnPp4bFUEmN984OENkpIyCNjSFd-6lUie_c"),
        ] {
            assert_eq!(hash_and_id(&message, version), (hash.clone(), id.to_owned()), "version {version}");
        }
    }

    #[test]
    fn a_member_event_has_the_ids_that_python_computes() {
        let member = event(
            "m.room.member",
            Some("@a:domain"),
            json!({ "membership": "join", "displayname": "A", "join_authorised_via_users_server": "@b:domain",
                    "third_party_invite": { "display_name": "x", "signed": { "token": "t" } } }),
        );
        let hash = "GY5vDaUCNfLACuXSTR4O+D0p3lKKzZmYgkeWsWBIbHA".to_owned();
        for (version, id) in [
            ("3", "$i4UP/Tn4x9yJ60s2r8EEHggnZuN5ItEBNZCCH60yYU8"),
            ("8", "$i4UP_Tn4x9yJ60s2r8EEHggnZuN5ItEBNZCCH60yYU8"),
            ("9", "$-HVdBsI6G5mnqTdvj3Nci_Pq7pWZMVZRutC3jfeyE4I"),
            ("11", "$PO4HS7pZSXRJ76GyFIyNd5v8DrhKBYDXF8FrpXS7E0c"),
        ] {
            assert_eq!(hash_and_id(&member, version), (hash.clone(), id.to_owned()), "version {version}");
        }
    }

    #[test]
    fn the_id_of_a_create_event_makes_the_room_id_of_version_12() {
        let mut create = event("m.room.create", Some(""), json!({ "room_version": "12", "creator": "@a:domain", "x": 1 }));
        create.as_object_mut().unwrap().remove("room_id");
        let (_, id) = hash_and_id(&create, "12");
        assert_eq!(id, "$NV7tlHOIbv-Fux6jH9iGp9XTNQccMYQCfDKSZJto9sE");
        let room = room_id_of_create(&EventId::parse(id).unwrap()).unwrap();
        assert_eq!(room, "!NV7tlHOIbv-Fux6jH9iGp9XTNQccMYQCfDKSZJto9sE");
    }

    #[test]
    fn servers_choose_ids_in_versions_1_and_2() {
        assert_eq!(event_id(&[0; 32], version("1")), None);
        assert_eq!(event_id(&[0; 32], version("2")), None);
    }
}
