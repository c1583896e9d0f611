//! A test a condition and a default rule. Rows are rules or conditions in their JSON, an event, and what comes of it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use ruma::push::Ruleset;
use serde_json::{Value, json};

use super::*;
use crate::event::Event;
use crate::power_levels::PowerLevels;
use crate::scenario::{Draft, user};
use crate::version::RoomVersion;

/// A room of version 11 with this many members, in which alice has 50 and others nothing.
struct Room {
    members: u64,
    levels: Value,
}

const ROOM: Room = Room { members: 3, levels: Value::Null };

fn version() -> &'static RoomVersion {
    RoomVersion::named("11").unwrap()
}

fn event(sender: &str, kind: &str, key: Option<&str>, content: Value) -> Arc<Event> {
    Draft::new(version(), "$event:a", sender, kind, key, content).build()
}

fn message(content: Value) -> Arc<Event> {
    event("alice", "m.room.message", None, content)
}

impl Room {
    /// The matching rule and its effect for bob, as `rule: notify highlight sound=…`.
    fn verdict(&self, rules: &Ruleset, event: &Event) -> String {
        let create = Draft::create(version(), &json!({})).build();
        let levels = if self.levels.is_null() { json!({ "users": { "@alice:a": 50 } }) } else { self.levels.clone() };
        let levels = Draft::new(version(), "$levels:a", "alice", "m.room.power_levels", Some(""), levels).build();
        let levels = PowerLevels::new(version(), Some(&create), Some(&levels)).unwrap();
        let event = PushEvent::new(event, self.members, Some(levels));
        let bob = user("bob");
        let Some(matched) = evaluate(rules, &event, Member { user: &bob, display_name: Some("Bob B.") }) else {
            return "none".to_owned();
        };
        let mut verdict = format!("{}:", matched.rule.rule_id());
        if matched.notifies() {
            verdict += " notify";
        }
        if matched.highlights() {
            verdict += " highlight";
        }
        if let Some(sound) = matched.sound() {
            verdict += &format!(" sound={sound}");
        }
        verdict
    }
}

fn defaults() -> Ruleset {
    Ruleset::server_default(&user("bob"))
}

/// A ruleset with one override rule `r` of these conditions.
fn rule_with(conditions: Value) -> Ruleset {
    serde_json::from_value(json!({ "override": [
        { "rule_id": "r", "default": false, "enabled": true, "conditions": conditions, "actions": ["notify"] },
    ]}))
    .unwrap()
}

#[track_caller]
fn check_condition(expected: bool, condition: &Value, event: &Event) {
    check_condition_in(&ROOM, expected, condition, event);
}

#[track_caller]
fn check_condition_in(room: &Room, expected: bool, condition: &Value, event: &Event) {
    let verdict = room.verdict(&rule_with(json!([condition])), event);
    assert_eq!(verdict, if expected { "r: notify" } else { "none" }, "{condition} {}", event.json);
}

#[test]
fn event_match() {
    let topic = |topic: Value| event("alice", "m.room.topic", Some(""), json!({ "topic": topic }));
    let lunch = json!({ "kind": "event_match", "key": "content.topic", "pattern": "lunc?*" });
    check_condition(true, &lunch, &topic(json!("Lunch plans")));
    check_condition(true, &lunch, &topic(json!("LUNCH")));
    check_condition(false, &lunch, &topic(json!(" lunch")));
    check_condition(false, &lunch, &topic(json!("lunc")));
    check_condition(false, &lunch, &topic(Value::Null));
    let anything = json!({ "kind": "event_match", "key": "content.topic", "pattern": "*" });
    check_condition(false, &anything, &message(json!({})));
    check_condition(false, &anything, &topic(json!(1)));
    check_condition(true, &anything, &topic(json!("")));
    let body = |pattern: &str| json!({ "kind": "event_match", "key": "content.body", "pattern": pattern });
    check_condition(true, &body("ex*ple"), &message(json!({ "body": "An example event." })));
    check_condition(true, &body("ex*ple"), &message(json!({ "body": "An exciting triple-whammy" })));
    check_condition(false, &body("ex*ple"), &message(json!({ "body": "hexample" })));
    check_condition(false, &body("beer"), &message(json!({ "body": ["beer"] })));
    check_condition(true, &json!({ "kind": "event_match", "key": "room_id", "pattern": "!ROOM:*" }), &message(json!({})));
}

#[test]
fn event_property_is() {
    let is = |value: Value| json!({ "kind": "event_property_is", "key": "content.m\\.federate", "value": value });
    let has = |value: Value| message(json!({ "m.federate": value }));
    for value in [json!(true), json!(null), json!(7), json!("True")] {
        check_condition(true, &is(value.clone()), &has(value.clone()));
        for other in [json!("true"), json!(1), json!([value]), json!({}), json!(7.0), json!(false)] {
            check_condition(false, &is(value.clone()), &has(other));
        }
        check_condition(false, &is(value), &message(json!({})));
    }
}

#[test]
fn event_property_contains() {
    let contains = |value: Value| json!({ "kind": "event_property_contains", "key": "content.alt_aliases", "value": value });
    let has = |value: Value| message(json!({ "alt_aliases": value }));
    let aliases = has(json!(["#somewhere:example.org", [1], {}, 2, null]));
    check_condition(true, &contains(json!("#somewhere:example.org")), &aliases);
    check_condition(true, &contains(json!(2)), &aliases);
    check_condition(true, &contains(Value::Null), &aliases);
    check_condition(false, &contains(json!(":example.org")), &aliases);
    check_condition(false, &contains(json!(1)), &aliases);
    check_condition(false, &contains(json!("a")), &has(json!("a")));
    check_condition(false, &contains(json!("a")), &message(json!({})));
}

#[test]
fn contains_display_name() {
    let condition = json!({ "kind": "contains_display_name" });
    check_condition(true, &condition, &message(json!({ "body": "thanks bob b.!" })));
    check_condition(false, &condition, &message(json!({ "body": "bob bx" })));
    check_condition(false, &condition, &message(json!({ "body": 1 })));
    check_condition(false, &condition, &message(json!({})));
    // Without a name nothing contains it.
    let event = message(json!({ "body": "anything" }));
    let (event, bob) = (PushEvent::new(&event, 2, None), user("bob"));
    for display_name in [None, Some("")] {
        assert!(evaluate(&rule_with(json!([condition])), &event, Member { user: &bob, display_name }).is_none());
    }
}

#[test]
fn room_member_count() {
    let table =
        [("2", [false, true, false]), ("==2", [false, true, false]), ("<2", [true, false, false]), (">2", [false, false, true])];
    let table = table.into_iter().chain([("<=2", [true, true, false]), (">=2", [false, true, true])]);
    for (is, expected) in table {
        for (members, expected) in (1..).zip(expected) {
            let room = Room { members, ..ROOM };
            check_condition_in(&room, expected, &json!({ "kind": "room_member_count", "is": is }), &message(json!({})));
        }
    }
}

#[test]
fn sender_notification_permission() {
    let permission = |key: &str| json!({ "kind": "sender_notification_permission", "key": key });
    let by = |sender: &str| event(sender, "m.room.message", None, json!({}));
    check_condition(true, &permission("room"), &by("alice"));
    check_condition(false, &permission("room"), &by("carol"));
    check_condition(true, &permission("other"), &by("alice"));
    let open = Room { levels: json!({ "notifications": { "room": 0, "other": 1 } }), ..ROOM };
    check_condition_in(&open, true, &permission("room"), &by("carol"));
    check_condition_in(&open, false, &permission("other"), &by("carol"));
    let broken = Room { levels: json!({ "notifications": [], "users_default": 100 }), ..ROOM };
    check_condition_in(&broken, false, &permission("room"), &by("carol"));
    let (event, bob) = (by("alice"), user("bob"));
    let event = PushEvent::new(&event, 2, None);
    assert!(evaluate(&rule_with(json!([permission("room")])), &event, Member { user: &bob, display_name: None }).is_none());
}

#[test]
fn unknown_conditions_never_hold_and_all_must() {
    check_condition(false, &json!({ "kind": "org.example.always" }), &message(json!({})));
    check_condition(false, &json!({ "kind": "org.matrix.msc3931.room_version_supports", "feature": "x" }), &message(json!({})));
    let yes = json!({ "kind": "event_match", "key": "type", "pattern": "*" });
    let no = json!({ "kind": "event_match", "key": "type", "pattern": "x" });
    let event = message(json!({}));
    for (conditions, expected) in [(json!([yes, yes]), "r: notify"), (json!([yes, no]), "none"), (json!([]), "r: notify")] {
        assert_eq!(ROOM.verdict(&rule_with(conditions), &event), expected);
    }
}

#[test]
fn rules_go_by_kind_and_order_and_only_when_enabled() {
    let mut rules: Ruleset = serde_json::from_value(json!({
        "underride": [{ "rule_id": "u", "default": false, "enabled": true, "conditions": [], "actions": ["notify"] }],
        "sender": [{ "rule_id": "@alice:a", "default": false, "enabled": true, "actions": [] }],
        "room": [{ "rule_id": "!room:a", "default": false, "enabled": true, "actions": ["notify"] }],
        "content": [
            { "rule_id": "tea", "default": false, "enabled": true, "pattern": "tea", "actions": ["notify", { "set_tweak": "sound", "value": "bell" }] },
            { "rule_id": "time", "default": false, "enabled": true, "pattern": "time", "actions": ["notify"] },
        ],
        "override": [{ "rule_id": "o", "default": false, "enabled": true, "conditions": [], "actions": ["dont_notify"] }],
    }))
    .unwrap();
    let event = message(json!({ "body": "It's time for tea" }));
    for (kind, verdict) in [
        ("override", "o:"),
        ("content", "tea: notify sound=bell"),
        ("content", "time: notify"),
        ("room", "!room:a: notify"),
        ("sender", "@alice:a:"),
        ("underride", "u: notify"),
    ] {
        assert_eq!(ROOM.verdict(&rules, &event), verdict);
        rules
            .set_enabled(kind.into(), verdict.split_once(": ").map_or(verdict.trim_end_matches(':'), |parts| parts.0), false)
            .unwrap();
    }
    assert_eq!(ROOM.verdict(&rules, &event), "none");
}

#[test]
fn nobody_is_notified_of_their_own_events() {
    assert_eq!(ROOM.verdict(&defaults(), &event("bob", "m.room.message", None, json!({ "body": "x" }))), "none");
}

#[test]
fn a_quiet_rule_neither_highlights_nor_sounds() {
    let mut rules = defaults();
    let actions =
        serde_json::from_value(json!(["dont_notify", { "set_tweak": "highlight" }, { "set_tweak": "sound", "value": "x" }]))
            .unwrap();
    rules.set_actions("underride".into(), ".m.rule.message", actions).unwrap();
    assert_eq!(ROOM.verdict(&rules, &message(json!({ "body": "x" }))), ".m.rule.message:");
}

/// Every default rule, each with an event that it decides about.
#[test]
fn default_rules() {
    let (pair, group) = (Room { members: 2, ..ROOM }, ROOM);
    let mention = json!({ "msgtype": "m.text", "body": "x", "m.mentions": { "user_ids": ["@carol:c", "@bob:b"] } });
    let room_mention = json!({ "msgtype": "m.text", "body": "x", "m.mentions": { "room": true } });
    let edit =
        json!({ "body": "* x", "m.relates_to": { "rel_type": "m.replace", "event_id": "$x" }, "m.new_content": { "body": "x" } });
    let rows = [
        (&group, message(json!({ "msgtype": "m.notice", "body": "x" })), ".m.rule.suppress_notices:"),
        (
            &group,
            event("alice", "m.room.member", Some("@bob:b"), json!({ "membership": "invite" })),
            ".m.rule.invite_for_me: notify sound=default",
        ),
        (&group, event("alice", "m.room.member", Some("@carol:c"), json!({ "membership": "invite" })), ".m.rule.member_event:"),
        (&group, event("alice", "m.room.member", Some("@bob:b"), json!({ "membership": "leave" })), ".m.rule.member_event:"),
        (&group, message(mention), ".m.rule.is_user_mention: notify highlight sound=default"),
        (&group, message(room_mention.clone()), ".m.rule.is_room_mention: notify highlight"),
        (&group, event("carol", "m.room.message", None, room_mention), ".m.rule.message: notify"),
        (&group, event("alice", "m.room.tombstone", Some(""), json!({})), ".m.rule.tombstone: notify highlight"),
        (&group, event("alice", "m.room.tombstone", None, json!({})), "none"),
        (&group, event("alice", "m.room.tombstone", Some("x"), json!({})), "none"),
        (&group, event("alice", "m.reaction", None, json!({})), ".m.rule.reaction:"),
        (&group, event("alice", "m.room.server_acl", Some(""), json!({})), ".m.rule.room.server_acl:"),
        (&group, message(edit), ".m.rule.suppress_edits:"),
        (&group, event("alice", "m.call.invite", None, json!({})), ".m.rule.call: notify sound=ring"),
        (&pair, event("alice", "m.room.encrypted", None, json!({})), ".m.rule.encrypted_room_one_to_one: notify sound=default"),
        (&pair, message(json!({ "body": "x" })), ".m.rule.room_one_to_one: notify sound=default"),
        (&group, message(json!({ "body": "x" })), ".m.rule.message: notify"),
        (&group, event("alice", "m.room.encrypted", None, json!({})), ".m.rule.encrypted: notify"),
        (&group, event("alice", "m.room.topic", Some(""), json!({ "topic": "x" })), "none"),
    ];
    let mut seen = std::collections::BTreeSet::from([".m.rule.master".to_owned()]);
    for (room, event, expected) in rows {
        let verdict = room.verdict(&defaults(), &event);
        assert_eq!(verdict, expected, "{}", event.json);
        seen.insert(verdict.split(':').next().unwrap().to_owned());
        // The master rule silences all.
        let mut silent = defaults();
        silent.set_enabled("override".into(), ".m.rule.master", true).unwrap();
        assert_eq!(room.verdict(&silent, &event), ".m.rule.master:");
    }
    for rule in &defaults() {
        assert!(seen.contains(rule.rule_id()), "no event for {}", rule.rule_id());
    }
}
