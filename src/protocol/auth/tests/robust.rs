//! Whatever a content is, there is a verdict, and no malformed power level gives power.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{State, judge, versions};
use crate::auth::auth_types_of;
use crate::scenario::Draft;

/// Values that the rules read in some place, and others.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "join",
            "invite",
            "ban",
            "leave",
            "knock",
            "public",
            "restricted",
            "@bob:b",
            "@alice:a",
            "12",
            "",
            "@",
            "50"
        ])
        .prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..4).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    let known = [
        "membership",
        "join_rule",
        "users",
        "events",
        "notifications",
        "users_default",
        "events_default",
        "state_default",
        "ban",
        "kick",
        "invite",
        "redact",
        "creator",
        "additional_creators",
        "room_version",
        "m.federate",
        "third_party_invite",
        "signed",
        "mxid",
        "token",
        "signatures",
        "public_key",
        "public_keys",
        "join_authorised_via_users_server",
        "@bob:b",
        "@alice:a",
    ];
    prop_oneof![prop::sample::select(known.map(str::to_owned).to_vec()), "\\PC{0,8}"]
}

fn content() -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => prop::collection::vec((key(), value()), 0..8).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        1 => value(),
    ]
}

fn kind() -> impl Strategy<Value = String> {
    let kinds = ["create", "member", "power_levels", "join_rules", "third_party_invite", "aliases", "redaction", "message"];
    prop::sample::select(kinds.map(|kind| format!("m.room.{kind}")).to_vec())
}

fn state_key() -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop::sample::select(["", "@bob:b", "@alice:a", "b", "x"].map(str::to_owned).to_vec()))
}

proptest! {
    #[test]
    fn t32_every_content_has_a_verdict(
        state in prop::collection::vec((kind(), state_key(), content()), 0..6),
        kind in kind(),
        key in state_key(),
        content in content(),
    ) {
        for (_, version) in versions() {
            let mut room = State::new();
            for (kind, key, content) in &state {
                let key = key.clone().unwrap_or_default();
                let draft = Draft::new(version, crate::scenario::CREATE, "alice", kind, Some(&key), content.clone());
                room.insert((kind.clone(), key), draft.build());
            }
            let event = Draft::new(version, "$event:b", "bob", &kind, key.as_deref(), content.clone()).build();
            let _verdict = judge(version, &room, &event);
            prop_assert!(auth_types_of(version, &event).len() <= 6);
        }
    }
}
