//! Valid inputs with bytes changed: no parser panics, whatever it lets through comes back from its own print, and none takes
//! long.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use proptest::{collection, prelude::*, sample};
use ruma::push::Ruleset;
use serde_json::json;

use crate::{
    draft::build,
    fixtures::{draft, key_of, known_keys, server},
    ids,
    json::{self, Numbers},
    parse::RawPdu,
    push::{Member, PushEvent, evaluate},
    version::RoomVersion,
};

/// A change of bytes.
#[derive(Clone, Debug)]
enum Mutation {
    /// Another byte.
    Set(sample::Index, u8),
    /// The rest is gone.
    Cut(sample::Index),
    /// Text that means something to parsers.
    Insert(sample::Index, &'static str),
    /// A part is there twice.
    Repeat(sample::Index, sample::Index),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let words = vec![
        "\"",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "0",
        "-",
        "1e999",
        "1.5",
        "9007199254740992",
        "null",
        "\\u0000",
        "\\ud800",
        "\u{0}",
        "\u{202e}",
        "*",
        "?",
        "@",
        "!",
        "$",
        "#",
        "[::1]",
        ":99999",
        ".",
        "%",
        "=",
        "é",
    ];
    let place = any::<sample::Index>;
    let mutation = prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        place().prop_map(Mutation::Cut),
        (place(), sample::select(words)).prop_map(|(at, word)| Mutation::Insert(at, word)),
        (place(), place()).prop_map(|(from, to)| Mutation::Repeat(from, to)),
    ];
    collection::vec(mutation, 1..4)
}

fn mutated(text: &str, mutations: &[Mutation]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for mutation in mutations {
        let at = |index: &sample::Index, bytes: &[u8]| index.index(bytes.len() + 1);
        match mutation {
            Mutation::Set(index, byte) => {
                let at = at(index, &bytes);
                bytes.get_mut(at).into_iter().for_each(|old| *old = *byte);
            }
            Mutation::Cut(index) => bytes.truncate(at(index, &bytes)),
            Mutation::Insert(index, word) => {
                let at = at(index, &bytes);
                bytes.splice(at..at, word.bytes());
            }
            Mutation::Repeat(from, to) => {
                let (from, to) = (at(from, &bytes), at(to, &bytes));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(from..from, part);
            }
        }
    }
    bytes
}

fn versions() -> impl Strategy<Value = &'static RoomVersion> {
    sample::select(RoomVersion::all().iter().collect::<Vec<_>>())
}

/// The events of a small room, as they are on the wire.
fn event(version: &'static RoomVersion, kind: &str) -> String {
    let (state_key, content) = match kind {
        "m.room.member" => (Some("@alice:alice.org"), json!({ "membership": "join", "displayname": "Alice" })),
        "m.room.power_levels" => (Some(""), json!({ "users": { "@alice:alice.org": 100 }, "events_default": 0 })),
        "m.room.join_rules" => (Some(""), json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership" }] })),
        _ => {
            (None, json!({ "msgtype": "m.text", "body": "hello", "m.relates_to": { "event_id": "$a", "rel_type": "m.thread" } }))
        }
    };
    let built = build(version, draft(version, kind, state_key, content), &key_of("alice.org"), &server("alice.org")).unwrap();
    built.json.to_string()
}

fn kinds() -> impl Strategy<Value = &'static str> {
    sample::select(vec!["m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.message"])
}

fn quick<T>(work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    assert!(began.elapsed() < Duration::from_secs(5), "it takes long");
    done
}

const RULES: &str = r#"{"override":[{"rule_id":"a","default":false,"enabled":true,"actions":["notify",{"set_tweak":"highlight"}],"conditions":[{"kind":"event_match","key":"content.body","pattern":"h*l?o"},{"kind":"room_member_count","is":">=2"},{"kind":"event_property_is","key":"content.msgtype","value":"m.text"}]}],"content":[{"rule_id":"b","default":false,"enabled":true,"actions":["notify"],"pattern":"*hello*"}]}"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_event_is_read_as_it_is_printed_or_refused(version in versions(), kind in kinds(), mutations in mutations()) {
        let bytes = mutated(&event(version, kind), &mutations);
        let parsed = quick(|| RawPdu::from_bytes(&bytes).ok()?.parse(version).ok());
        if let Some(parsed) = parsed {
            let (id, json) = (parsed.event().id.clone(), parsed.event().json.to_string());
            let stored = crate::stored::event(id.clone(), &json, version).unwrap();
            prop_assert_eq!(&*stored.json, json.as_str());
            let again = RawPdu::from_bytes(json.as_bytes()).unwrap().parse(version).unwrap();
            prop_assert_eq!(&again.event().id, &id);
            let _ = parsed.verify(known_keys).is_ok();
        }
    }

    #[test]
    fn any_json_that_is_read_is_read_again_from_its_print(mutations in mutations(), bytes in collection::vec(any::<u8>(), 0..64)) {
        for bytes in [mutated(RULES, &mutations), bytes] {
            let Ok(object) = json::parse_object(&bytes, 1 << 16) else { continue };
            for numbers in [Numbers::Strict, Numbers::Lenient, Numbers::Normalised] {
                if let Ok(once) = json::canonical_object(&object, numbers) {
                    let again = json::parse_object(once.as_bytes(), 1 << 17).unwrap();
                    prop_assert_eq!(json::canonical_object(&again, numbers).unwrap(), once);
                }
            }
        }
    }

    #[test]
    fn an_identifier_that_is_taken_is_the_text_that_was_given(
        seed in sample::select(vec![
            "@alice:example.org", "!room:example.org:8448", "$event:[::1]:80", "#alias:1.2.3.4",
            "$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk", "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", "example.org", "ed25519:a_1",
        ]),
        mutations in mutations(),
        version in versions(),
        any in ".{0,300}",
    ) {
        for text in [String::from_utf8_lossy(&mutated(seed, &mutations)).into_owned(), any] {
            let taken = [
                ids::user_id(&text).map(|id| id.to_string()),
                ids::room_id(&text, version).map(|id| id.to_string()),
                ids::event_id(&text, version).map(|id| id.to_string()),
                ids::room_alias(&text).map(|id| id.to_string()),
                ids::server_name(&text).map(|id| id.to_string()),
            ];
            for id in taken.into_iter().flatten() {
                prop_assert_eq!(&id, &text);
                prop_assert!(id.len() <= ids::MAX_ID_BYTES + 6 && !id.contains('\0'), "{}", id);
            }
            if let Ok(id) = ids::new_user_id(&text, &server("example.org")) {
                prop_assert!(ids::user_id(id.as_str()).is_ok() && ids::is_compliant(&id));
            }
            let _ = (ids::is_opaque(&text), ids::is_namespaced(&text), ids::is_device_id(&text));
            let _ = (ids::is_server_key_id(&text), ids::is_key_version(&text));
        }
    }

    #[test]
    fn t29_changed_push_rules_are_judged_in_bounded_time(mutations in mutations(), pattern in "[a?* ]{0,200}", body in "[a ]{0,400}") {
        let version = RoomVersion::all().last().unwrap();
        let content = json!({ "msgtype": "m.text", "body": body });
        let built = build(version, draft(version, "m.room.message", None, content), &key_of("alice.org"), &server("alice.org"));
        let built = built.unwrap();
        let event = PushEvent::new(&built, 2, None);
        let member = Member { user: ruma::user_id!("@bob:alice.org"), display_name: Some(&pattern) };
        let named = RULES.replace("h*l?o", &pattern).replace("*hello*", &pattern);
        for bytes in [mutated(RULES, &mutations), named.into_bytes()] {
            if let Ok(rules) = serde_json::from_slice::<Ruleset>(&bytes) {
                let matched = quick(|| evaluate(&rules, &event, member).map(|matched| matched.rule.rule_id().to_owned()));
                let printed = serde_json::to_string(&rules).unwrap();
                let again: Ruleset = serde_json::from_str(&printed).unwrap();
                prop_assert_eq!(evaluate(&again, &event, member).map(|matched| matched.rule.rule_id().to_owned()), matched);
            }
        }
    }
}
