//! What holds for any input: no bytes make a panic, canonical JSON is a fixed point, redaction is idempotent, and no change
//! of a signed event goes unnoticed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::{collection, prelude::*, sample};
use serde_json::{Value, json};

use crate::{
    draft::{Draft, build},
    event::Event,
    fixtures::{draft, key_of, known_keys, message, server},
    json::{self, Numbers, Object},
    parse::RawPdu,
    redact::redact,
    sign,
    version::RoomVersion,
};

/// Few cases suffice where each builds and checks an event in every room version.
fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { cases: count, failure_persistence: None, ..ProptestConfig::default() }
}

fn versions() -> impl Strategy<Value = &'static RoomVersion> {
    sample::select(RoomVersion::all().iter().collect::<Vec<_>>())
}

/// Any JSON that all room versions allow.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-json::MAX_INTEGER..=json::MAX_INTEGER).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        sample::select(vec!["@a:b", "$a:b", "!a:b", "join", "m.room.member", "", "\u{0}"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            collection::btree_map(keys(), inner, 0..5).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// Keys that mean something to events, and others.
fn keys() -> impl Strategy<Value = String> {
    let known = [
        "auth_events",
        "content",
        "depth",
        "event_id",
        "hashes",
        "membership",
        "origin_server_ts",
        "prev_events",
        "redacts",
        "room_id",
        "sender",
        "sha256",
        "signatures",
        "signed",
        "state_key",
        "third_party_invite",
        "type",
        "unsigned",
        "users",
        "join_authorised_via_users_server",
    ];
    prop_oneof![sample::select(known.to_vec()).prop_map(ToOwned::to_owned), ".{0,4}"]
}

fn objects() -> impl Strategy<Value = Object> {
    collection::btree_map(keys(), values(), 0..8).prop_map(|entries| entries.into_iter().collect())
}

/// Drafts of any kind and content.
fn drafts(version: &'static RoomVersion) -> impl Strategy<Value = Draft> {
    let kinds = ["m.room.member", "m.room.create", "m.room.power_levels", "m.room.join_rules", "m.room.redaction", "org.example"];
    (sample::select(kinds.to_vec()), proptest::option::of(".{0,8}"), objects(), 0..=json::MAX_INTEGER.unsigned_abs()).prop_map(
        move |(kind, state_key, mut content, depth)| {
            // An authorising user who is none makes an event that nobody takes.
            content.remove("join_authorised_via_users_server");
            // An invite for a third party needs no signature of alice.org, and its content is not checked here.
            content.remove("third_party_invite");
            Draft { depth, ..draft(version, kind, state_key.as_deref(), Value::Object(content)) }
        },
    )
}

fn built(version: &'static RoomVersion, draft: Draft) -> Event {
    let built = build(version, draft, &key_of("alice.org"), &server("alice.org")).unwrap();
    Event::clone(&built)
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn canonical_json_read_and_written_again_is_the_same(value in values()) {
        let once = json::canonical(&value).unwrap();
        let again: Value = serde_json::from_str(&once).unwrap();
        prop_assert_eq!(&again, &value);
        prop_assert_eq!(json::canonical(&again).unwrap(), once);
    }

    #[test]
    fn lenient_floats_read_and_written_again_are_the_same(float in proptest::num::f64::NORMAL) {
        let object = crate::fixtures::object(json!({ "a": float }));
        if let Ok(once) = json::canonical_object(&object, Numbers::Lenient) {
            prop_assert_eq!(json::parse_object(once.as_bytes(), 1024).unwrap(), object);
        } else {
            prop_assert!(float.abs() >= 2f64.powi(63));
        }
    }

    #[test]
    fn redaction_is_idempotent_and_only_takes_away(event in objects(), version in versions()) {
        let mut once = event.clone();
        redact(&mut once, version);
        let mut twice = once.clone();
        redact(&mut twice, version);
        prop_assert_eq!(&twice, &once);
        prop_assert!(once.keys().all(|key| event.contains_key(key)));
    }

    #[test]
    fn no_bytes_make_a_panic(bytes in collection::vec(any::<u8>(), 0..200), version in versions()) {
        if let Ok(raw) = RawPdu::from_bytes(&bytes) {
            let _ = raw.parse(version).is_ok_and(|parsed| parsed.verify(known_keys).is_ok());
        }
    }

    #[test]
    fn no_object_makes_a_panic(object in objects(), version in versions()) {
        if let Ok(parsed) = RawPdu::from_object(object).parse(version) {
            prop_assert!(parsed.verify(known_keys).is_err());
        }
    }
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn what_is_signed_verifies_until_it_is_changed(mut value in objects(), other in values()) {
        value.remove("signatures");
        value.remove("type");
        sign::sign_json(&mut value, "a.org", &key_of("a.org")).unwrap();
        let key = key_of("a.org").public();
        prop_assert!(sign::verify_json(&value, "a.org", "ed25519:1", &key).is_ok());
        value.insert("type".to_owned(), other);
        prop_assert!(sign::verify_json(&value, "a.org", "ed25519:1", &key).is_err());
    }

    #[test]
    fn a_built_event_is_parsed_and_verified_as_the_same((version, draft) in versions().prop_flat_map(|v| (Just(v), drafts(v)))) {
        let event = built(version, draft);
        let parsed = RawPdu::from_bytes(event.json.as_bytes()).unwrap().parse(version).unwrap();
        prop_assert!(parsed.is_intact());
        let verified = parsed.verify(known_keys).unwrap();
        prop_assert_eq!(format!("{:?}", verified.event()), format!("{event:?}"));
    }

    #[test]
    fn a_valid_event_with_a_key_replaced_makes_no_panic(
        version in versions(), key in keys(), value in proptest::option::of(values()),
    ) {
        let mut object = built(version, message(version)).object().unwrap();
        match value {
            Some(value) => object.insert(key, value),
            None => object.remove(&key),
        };
        if let Ok(parsed) = RawPdu::from_object(object).parse(version) {
            let _ = parsed.verify(known_keys).is_ok();
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed(version in versions(), place in any::<sample::Index>(), bit in 0_u32..8) {
        let event = built(version, message(version));
        let mut bytes = event.json.as_bytes().to_vec();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let Ok(raw) = RawPdu::from_bytes(&bytes) else { return Ok(()) };
        let Ok(parsed) = raw.parse(version) else { return Ok(()) };
        let intact = parsed.is_intact();
        if let Ok(verified) = parsed.verify(known_keys) {
            // The essence is as it was signed. The content is too, or it is gone.
            prop_assert_eq!(&verified.id, &event.id);
            prop_assert_eq!((&verified.sender, verified.depth), (&event.sender, event.depth));
            prop_assert_eq!(verified.content.get(), if intact { event.content.get() } else { "{}" });
        }
    }
}
