//! Rule 10.

use super::{check, check_as_of, versions};

/// Judges a change of power levels by bob, who is joined.
#[track_caller]
fn change(expected: &str, old: &str, new: &str) {
    check(expected, &format!("bob join\nlevels {old}"), &format!("bob m.room.power_levels \"\" {new}"));
}

/// Judges first power levels, by alice, who created the room.
#[track_caller]
fn first(expected: &str, new: &str) {
    check(expected, "alice join", &format!("alice m.room.power_levels \"\" {new}"));
}

const BOB_50: &str = r#""users":{"@bob:b":50},"state_default":50"#;

#[test]
fn rule_10_1_from_version_10_on_levels_are_integers() {
    for name in ["users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"] {
        for value in ["\"50\"", "null", "[]", "{}", "true"] {
            first("ok ok ok ok 9.1 10.1", &format!("{{\"{name}\":{value}}}"));
        }
        first("ok", &format!("{{\"{name}\":-5}}"));
    }
    // Before, what cannot be read fails once it has to be compared.
    change("10.3 9.3 9.3 9.3 9.1 10.1", &format!("{{{BOB_50}}}"), &format!("{{{BOB_50},\"ban\":null}}"));
    change("ok ok ok ok 9.1 10.1", &format!("{{{BOB_50}}}"), &format!("{{{BOB_50},\"ban\":\" +050 \"}}"));
}

#[test]
fn rule_10_2_from_version_10_on_events_and_notifications_are_objects_of_integers() {
    for name in ["events", "notifications"] {
        for value in ["[]", "null", "1", "{\"x\":\"1\"}", "{\"x\":null}", "{\"x\":{}}"] {
            first("ok ok ok ok 9.2 10.2", &format!("{{\"{name}\":{value}}}"));
        }
        first("ok", &format!("{{\"{name}\":{{\"x\":1}}}}"));
    }
    change("10.4 9.4 9.4 9.4 9.2 10.2", &format!("{{{BOB_50}}}"), &format!("{{{BOB_50},\"events\":[]}}"));
    change("ok 9.4 9.4 9.4 9.2 10.2", &format!("{{{BOB_50}}}"), &format!("{{{BOB_50},\"notifications\":[]}}"));
}

#[test]
fn rule_10_3_users_is_an_object_of_user_ids_and_levels() {
    let denied = "10.1 9.1 9.1 9.1 9.3 10.3";
    for users in ["[]", "null", "1", r#"{"bob":1}"#, r#"{"@bob":1}"#, r#"{"":1}"#, r#"{"@bob:b":null}"#, r#"{"@bob:b":"x"}"#] {
        first(denied, &format!("{{\"users\":{users}}}"));
        change(denied, &format!("{{{BOB_50}}}"), &format!("{{\"state_default\":50,\"users\":{users}}}"));
    }
    for level in ["\"50\"", "\" +050 \"", "\"-1\""] {
        first("ok ok ok ok 9.3 10.3", &format!("{{\"users\":{{\"@bob:b\":{level}}}}}"));
    }
    for level in ["\"\"", "\"5 0\"", "\"50.0\"", "\"+-5\"", "\"0x10\"", "\"1e3\"", "\"99999999999999999999\"", "[50]"] {
        first(denied, &format!("{{\"users\":{{\"@bob:b\":{level}}}}}"));
    }
    for level in ["50.5", "5.0e1"] {
        first("ok 9.1 9.1 9.1 9.3 10.3", &format!("{{\"users\":{{\"@bob:b\":{level}}}}}"));
    }
    first("ok", "{}");
    first("ok", r#"{"users":{}}"#);
}

#[test]
fn rule_10_4_in_version_12_users_lists_no_creator() {
    let state = "create {\"additional_creators\":[\"@carol:c\"]}\nalice join";
    for creator in ["@alice:a", "@carol:c"] {
        let event = format!("alice m.room.power_levels \"\" {{\"users\":{{\"{creator}\":100}}}}");
        check("ok ok ok ok ok 10.4", state, &event);
        check("ok ok ok ok ok 10.4", &format!("{state}\nlevels {{\"users\":{{\"@alice:a\":100}}}}"), &event);
    }
    check("ok", state, "alice m.room.power_levels \"\" {\"users\":{\"@bob:b\":100}}");
}

#[test]
fn rule_10_5_the_first_power_levels_are_free() {
    first("ok", r#"{"users":{"@bob:b":1000,"@carol:c":-7},"ban":1000,"events":{"x":1000}}"#);
}

#[test]
fn rule_10_6_single_levels_change_only_up_to_the_senders_power() {
    let (current, new) = ("10.3.1 9.3.1 9.3.1 9.3.1 9.5.1 10.6.1", "10.3.2 9.3.2 9.3.2 9.3.2 9.5.2 10.6.2");
    for name in ["users_default", "events_default", "ban", "redact", "kick", "invite"] {
        // Bob has 50 and may send power levels. `users_default` and `events_default` stay below him at first.
        let levels = |level: i64| format!("{{{BOB_50},\"{name}\":{level}}}");
        change("ok", &levels(50), &levels(0));
        change("ok", &levels(0), &levels(50));
        change("ok", &levels(0), &levels(-50));
        change(new, &levels(50), &levels(51));
        if name != "events_default" {
            change(current, &levels(51), &levels(50));
        }
        change("ok", &levels(51), &levels(51));
        // Added and removed.
        change("ok", &format!("{{{BOB_50}}}"), &levels(50));
        change("ok", &levels(50), &format!("{{{BOB_50}}}"));
        change(new, &format!("{{{BOB_50}}}"), &levels(51));
        change(current, &levels(51), &format!("{{{BOB_50}}}"));
    }
    // An absent level counts with its default: here bob has 40.
    let low = r#""users":{"@bob:b":40},"state_default":40"#;
    change(new, &format!("{{{low},\"ban\":0}}"), &format!("{{{low}}}"));
    change(current, &format!("{{{low}}}"), &format!("{{{low},\"ban\":0}}"));
    change("ok", &format!("{{{low},\"invite\":40}}"), &format!("{{{low}}}"));
    // `state_default` decides whether bob may send power levels at all, so it is beyond him only by an entry of `events`.
    let entry = r#""users":{"@bob:b":40},"events":{"m.room.power_levels":40}"#;
    change(new, &format!("{{{entry},\"state_default\":40}}"), &format!("{{{entry},\"state_default\":41}}"));
    change(current, &format!("{{{entry},\"state_default\":41}}"), &format!("{{{entry},\"state_default\":40}}"));
    change(new, &format!("{{{entry},\"state_default\":40}}"), &format!("{{{entry}}}"));
}

#[test]
fn rules_10_7_and_10_8_entries_change_only_up_to_the_senders_power() {
    let both = [
        ("events", "10.4.1 9.4.1 9.4.1 9.4.1 9.6.1 10.7.1", "10.5.1 9.5.1 9.5.1 9.5.1 9.7.1 10.8.1"),
        ("notifications", "ok 9.4.1 9.4.1 9.4.1 9.6.1 10.7.1", "ok 9.5.1 9.5.1 9.5.1 9.7.1 10.8.1"),
    ];
    for (map, current, new) in both {
        let levels = |entries: &str| format!("{{{BOB_50},\"{map}\":{{{entries}}}}}");
        change("ok", &levels(r#""x":50"#), &levels(r#""x":49"#));
        change("ok", &levels(r#""x":50"#), &levels(""));
        change("ok", &levels(""), &levels(r#""x":50"#));
        change("ok", &format!("{{{BOB_50}}}"), &levels(r#""x":50"#));
        change("ok", &levels(r#""x":51"#), &levels(r#""x":51"#));
        change(current, &levels(r#""x":51"#), &levels(r#""x":50"#));
        change(current, &levels(r#""x":51"#), &levels(""));
        change(current, &levels(r#""x":51"#), &format!("{{{BOB_50}}}"));
        change(new, &levels(r#""x":50"#), &levels(r#""x":51"#));
        change(new, &levels(""), &levels(r#""x":51"#));
        change(new, &levels(r#""x":51"#), &levels(r#""x":51,"y":51"#));
    }
}

#[test]
fn rules_10_9_and_10_10_users_change_only_below_the_sender_and_up_to_them() {
    let (current, new) = ("10.6.1 9.6.1 9.6.1 9.6.1 9.8.1 10.9.1", "10.7.1 9.7.1 9.7.1 9.7.1 9.9.1 10.10.1");
    let levels = |bob: i64, others: &str| format!("{{\"state_default\":50,\"users\":{{\"@bob:b\":{bob}{others}}}}}");
    let carol = |level: i64| levels(50, &format!(",\"@carol:c\":{level}"));
    change("ok", &carol(49), &carol(50));
    change("ok", &carol(49), &carol(-50));
    change("ok", &carol(49), &levels(50, ""));
    change("ok", &levels(50, ""), &carol(50));
    change(new, &levels(50, ""), &carol(51));
    change(new, &carol(49), &carol(51));
    change(current, &carol(50), &carol(49));
    change(current, &carol(50), &levels(50, ""));
    change(current, &carol(51), &carol(50));
    change("ok", &carol(51), &carol(51));
    // The sender's own entry.
    change("ok", &levels(50, ""), &levels(49, ""));
    change("ok", &levels(50, ""), r#"{"state_default":50}"#);
    change(new, &levels(50, ""), &levels(51, ""));
    // Another spelling of the same level is no change, where the version reads it.
    change("ok ok ok ok 9.3 10.3", &carol(51), &levels(50, ",\"@carol:c\":\"051\""));
}

#[test]
fn a_creator_of_version_12_changes_every_level() {
    let version = versions().last().unwrap().1;
    let old = r#"{"users":{"@bob:b":9007199254740991},"ban":9007199254740991,"events":{"x":9007199254740991}}"#;
    let state = format!("alice join\nbob join\nlevels {old}");
    check_as_of(version, "ok", &state, "alice m.room.power_levels \"\" {}");
    check_as_of(version, "ok", "alice join\nlevels {}", &format!("alice m.room.power_levels \"\" {old}"));
}

#[test]
fn power_levels_that_cannot_be_read_allow_no_change() {
    for old in [r#"{"users":{"@bob:b":50},"ban":[]}"#, r#"{"users":{"@bob:b":50},"events":{"x":[]}}"#] {
        let state = format!("bob join\nlevels {old}");
        for (_, version) in versions() {
            let draft = super::parse_event(version, r#"bob m.room.power_levels "" {"users":{"@bob:b":50}}"#);
            assert!(super::judge(version, &super::parse_state(version, &state), &draft.build()).is_err(), "{} {old}", version.id);
        }
    }
}
