//! Redaction: what of an event survives when its content is taken away.
//!
//! Specification: "Redactions" of each room version. Signatures and event ids cover the redacted form, so a key too many
//! or too few here breaks federation and not just looks.

use serde_json::Value;

use crate::{
    event::Event,
    json::Object,
    parse::{self, PduError},
    version::RoomVersion,
};

/// Strips an event in the federation format, in place. Doing it twice changes nothing more.
pub fn redact(event: &mut Object, version: &RoomVersion) {
    event.retain(|key, _| keeps_key(key, version));
    let kind = event.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(content) = event.get_mut("content") {
        match content {
            Value::Object(content) => redact_content(content, &kind, version),
            other => *other = Value::Object(Object::new()),
        }
    }
}

/// Strips the content of an event of this type, in place.
pub fn redact_content(content: &mut Object, kind: &str, version: &RoomVersion) {
    content.retain(|key, _| keeps_content_key(kind, key, version));
    if kind != "m.room.member" {
        return;
    }
    match content.get_mut("third_party_invite") {
        Some(Value::Object(invite)) => invite.retain(|key, _| key == "signed"),
        Some(_) => {
            content.remove("third_party_invite");
        }
        None => {}
    }
}

/// A copy of an event without what redaction takes away. It keeps its id.
///
/// # Errors
/// As [`crate::stored::event`]: only where the event's JSON is not that of an event, thus never for one that was parsed or built.
pub fn redacted(event: &Event, version: &RoomVersion) -> Result<Event, PduError> {
    let mut object = event.object()?;
    redact(&mut object, version);
    parse::event_from_object(&object, event.id.clone(), version)
}

fn keeps_key(key: &str, version: &RoomVersion) -> bool {
    match key {
        "event_id" | "type" | "room_id" | "sender" | "state_key" | "content" | "hashes" | "signatures" | "depth"
        | "prev_events" | "auth_events" | "origin_server_ts" => true,
        "prev_state" | "origin" | "membership" => !version.version_11,
        _ => false,
    }
}

/// Whether redaction keeps this key of the content of an event of this type.
pub(crate) fn keeps_content_key(kind: &str, key: &str, version: &RoomVersion) -> bool {
    match (kind, key) {
        ("m.room.member", "membership")
        | ("m.room.join_rules", "join_rule")
        | ("m.room.history_visibility", "history_visibility")
        | (
            "m.room.power_levels",
            "ban" | "events" | "events_default" | "kick" | "redact" | "state_default" | "users" | "users_default",
        ) => true,
        ("m.room.member", "join_authorised_via_users_server") => version.redaction_keeps_join_authorised,
        ("m.room.member", "third_party_invite") | ("m.room.power_levels", "invite") | ("m.room.redaction", "redacts") => {
            version.version_11
        }
        ("m.room.create", "creator") => true,
        ("m.room.create", _) => version.version_11,
        ("m.room.join_rules", "allow") => version.redaction_keeps_allow,
        ("m.room.aliases", "aliases") => version.special_aliases,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::json;

    use super::*;
    use crate::fixtures::{object, parse as parse_fixture, sent_by};

    /// Says which room versions keep a key: as text, so that a table of the specification can be read beside it.
    fn versions_where(keeps: impl Fn(&RoomVersion) -> bool) -> String {
        let all = RoomVersion::all();
        let kept: Vec<&str> = all.iter().filter(|version| keeps(version)).map(|version| version.id).collect();
        match kept.as_slice() {
            [] => "none".to_owned(),
            [only] => (*only).to_owned(),
            [first, .., last] => format!("{first}-{last}"),
        }
    }

    #[test]
    fn content_keys_survive_in_the_versions_that_say_so() {
        let table = [
            ("m.room.member", "membership", "1-12"),
            ("m.room.member", "join_authorised_via_users_server", "9-12"),
            ("m.room.member", "displayname", "none"),
            ("m.room.create", "creator", "1-12"),
            ("m.room.create", "room_version", "11-12"),
            ("m.room.create", "anything", "11-12"),
            ("m.room.join_rules", "join_rule", "1-12"),
            ("m.room.join_rules", "allow", "8-12"),
            ("m.room.power_levels", "ban", "1-12"),
            ("m.room.power_levels", "events", "1-12"),
            ("m.room.power_levels", "events_default", "1-12"),
            ("m.room.power_levels", "kick", "1-12"),
            ("m.room.power_levels", "redact", "1-12"),
            ("m.room.power_levels", "state_default", "1-12"),
            ("m.room.power_levels", "users", "1-12"),
            ("m.room.power_levels", "users_default", "1-12"),
            ("m.room.power_levels", "invite", "11-12"),
            ("m.room.power_levels", "notifications", "none"),
            ("m.room.aliases", "aliases", "1-5"),
            ("m.room.history_visibility", "history_visibility", "1-12"),
            ("m.room.redaction", "redacts", "11-12"),
            ("m.room.redaction", "reason", "none"),
            ("m.room.message", "body", "none"),
            ("m.room.message", "membership", "none"),
            ("m.room.topic", "topic", "none"),
        ];
        for (kind, key, expected) in table {
            let keeps = |version: &RoomVersion| {
                let mut content = object(json!({ key: "value", "other key": 1 }));
                redact_content(&mut content, kind, version);
                content.contains_key(key)
            };
            assert_eq!(versions_where(keeps), expected, "{key} of {kind}");
        }
    }

    #[test]
    fn top_level_keys_survive_in_the_versions_that_say_so() {
        let always =
            "event_id type room_id sender state_key content hashes signatures depth prev_events auth_events origin_server_ts";
        let table = always.split(' ').map(|key| (key, "1-12")).chain([
            ("prev_state", "1-10"),
            ("origin", "1-10"),
            ("membership", "1-10"),
            ("redacts", "none"),
            ("unsigned", "none"),
            ("age_ts", "none"),
            ("org.example.key", "none"),
        ]);
        for (key, expected) in table {
            let keeps = |version: &RoomVersion| {
                let mut event = object(json!({ key: {} }));
                redact(&mut event, version);
                event.contains_key(key)
            };
            assert_eq!(versions_where(keeps), expected, "{key}");
        }
    }

    #[test]
    fn of_a_third_party_invite_only_what_is_signed_survives_and_only_from_version_11() {
        let cases = [
            (json!({ "display_name": "a", "signed": { "token": "t" } }), Some(json!({ "signed": { "token": "t" } }))),
            (json!({ "display_name": "a" }), Some(json!({}))),
            (json!("text"), None),
        ];
        for version in RoomVersion::all() {
            for (invite, expected) in &cases {
                let mut content = object(json!({ "membership": "invite", "third_party_invite": invite }));
                redact_content(&mut content, "m.room.member", version);
                let expected = expected.as_ref().filter(|_| version.version_11);
                assert_eq!(content.get("third_party_invite"), expected, "version {}", version.id);
            }
        }
    }

    #[test]
    fn a_redacted_event_keeps_its_id_and_its_signatures_hold() {
        for version in RoomVersion::all() {
            let sent = sent_by("alice.org", version, crate::fixtures::message(version), |_| {});
            let event = parse_fixture(&sent, version).unwrap().event().clone();
            let stripped = redacted(&event, version).unwrap();
            assert_eq!(stripped.content.get(), "{}");
            assert_eq!((&stripped.id, &stripped.room_id, &stripped.sender), (&event.id, &event.room_id, &event.sender));

            let received = parse_fixture(&stripped.object().unwrap(), version).unwrap();
            assert!(!received.is_intact());
            assert_eq!(received.event().id, event.id, "version {}", version.id);
            received.verify(crate::fixtures::known_keys).unwrap();
        }
    }
}
