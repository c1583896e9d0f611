//! The rules that hold for events of any type, and those of aliases, redactions and third-party invites.

use serde_json::json;

use super::{State, check, check_as_of, judge, parse_event, parse_state, versions, word};
use crate::auth::redaction_applies;
use crate::power_levels::PowerLevels;
use crate::scenario::Draft;

#[test]
fn rule_2_the_create_event_is_that_of_the_room() {
    for (_, version) in versions() {
        let event = parse_event(version, "alice m.room.message - {}").build();
        let expected = if version.version_12 { "2" } else { "2.4" };
        assert_eq!(word(&judge(version, &State::new(), &event)), expected);

        let mut state = parse_state(version, "alice join");
        assert_eq!(word(&judge(version, &state, &event)), "ok");
        let mut other = Draft::create(version, &json!({}));
        other.room_id = "!other:a".try_into().unwrap();
        state.insert(("m.room.create".into(), String::new()), other.build());
        assert_eq!(word(&judge(version, &state, &event)), expected, "version {}", version.id);
    }
}

#[test]
fn rule_2_the_room_id_is_the_create_events_in_version_12() {
    for (_, version) in versions() {
        let event = parse_event(version, "alice m.room.message - {}").build();
        let mut state = parse_state(version, "alice join");
        let mut other = Draft::create(version, &json!({}));
        other.id = "$other:a".try_into().unwrap();
        state.insert(("m.room.create".into(), String::new()), other.build());
        assert_eq!(word(&judge(version, &state, &event)), if version.version_12 { "2" } else { "ok" });
    }
}

#[test]
fn rule_4_a_room_that_does_not_federate_is_its_servers_own() {
    let closed = "create {\"m.federate\":false}\nalice join\nanna join\nbob join\nrule public";
    let denied = "3 3 3 3 3 4";
    check("ok", closed, "anna m.room.message - {}");
    check(denied, closed, "bob m.room.message - {}");
    check(denied, closed, "carol m.room.member carol {\"membership\":\"join\"}");
    check("ok", closed, "amy m.room.member amy {\"membership\":\"join\"}");
    for open in ["true", "null", "\"false\"", "0"] {
        check("ok", &format!("create {{\"m.federate\":{open}}}\nbob join"), "bob m.room.message - {}");
    }
}

#[test]
fn rule_4_aliases_are_of_the_senders_server_until_version_5() {
    let state = "alice join\nlevels {\"users\":{\"@alice:a\":100}}";
    for (number, version) in versions() {
        let special = number <= 5;
        let expect = |rule, else_rule: &'static str| if special { rule } else { else_rule };
        let not_joined = if version.version_12 { "6" } else { "5" };
        let weak = if version.version_12 { "8" } else { "7" };
        check_as_of(version, expect("4.1", "ok"), state, "alice m.room.aliases - {}");
        check_as_of(version, expect("4.2", "ok"), state, "alice m.room.aliases b.example {}");
        check_as_of(version, expect("4.2", "ok"), state, "alice m.room.aliases :a {}");
        // Not even membership is needed.
        let mut draft = parse_event(version, "bob m.room.aliases - {}");
        draft.state_key = Some("b".into());
        let mut verdict = judge(version, &parse_state(version, state), &draft.build());
        assert_eq!(word(&verdict), expect("ok", not_joined));
        verdict = judge(version, &parse_state(version, &format!("{state}\nbob join")), &draft.build());
        assert_eq!(word(&verdict), expect("ok", weak));
    }
}

#[test]
fn rule_6_the_sender_is_joined() {
    let denied = "6 5 5 5 5 6";
    check("ok", "bob join", "bob m.room.message - {}");
    check(denied, "", "bob m.room.message - {}");
    for membership in ["leave", "ban", "invite", "knock", "other"] {
        check(denied, &format!("bob {membership}"), "bob m.room.message - {}");
    }
    // The creator is no exception.
    check(denied, "", "alice m.room.topic \"\" {}");
}

#[test]
fn rule_7_third_party_invites_need_the_invite_level() {
    let event = "bob m.room.third_party_invite token.x {}";
    let denied = "7.1 6.1 6.1 6.1 6.1 7.1";
    check("ok", "bob join", event);
    check("ok", "bob join\nlevels {\"invite\":10,\"users\":{\"@bob:b\":10}}", event);
    check(denied, "bob join\nlevels {\"invite\":10,\"users\":{\"@bob:b\":9}}", event);
    check(denied, "bob join\nlevels {\"invite\":\"x\"}", event);
    // Only the invite level counts.
    check("ok", "bob join\nlevels {\"events\":{\"m.room.third_party_invite\":100}}", event);
    check("6 5 5 5 5 6", "", event);
}

#[test]
fn rule_8_the_type_needs_its_level() {
    let denied = "8 7 7 7 7 8";
    // Without power levels: 0 for messages, 50 for state, and the creator has 100 or more.
    check("ok", "bob join", "bob m.room.message - {}");
    check(denied, "bob join", "bob m.room.topic \"\" {}");
    check("ok", "alice join", "alice m.room.topic \"\" {}");
    // With them: the defaults of the event, and of an empty event.
    check(denied, "bob join\nlevels {}", "bob m.room.topic \"\" {}");
    check("ok", "bob join\nlevels {}", "bob m.room.message - {}");
    check(denied, "bob join\nlevels {\"events_default\":1}", "bob m.room.message - {}");
    check("ok", "bob join\nlevels {\"state_default\":0}", "bob m.room.topic \"\" {}");
    check("ok", "bob join\nlevels {\"users_default\":50}", "bob m.room.topic \"\" {}");
    check(denied, "bob join\nlevels {\"users_default\":50,\"users\":{\"@bob:b\":49}}", "bob m.room.topic \"\" {}");
    // An entry of `events` goes before the defaults.
    check("ok", "bob join\nlevels {\"events_default\":9,\"events\":{\"m.room.message\":0}}", "bob m.room.message - {}");
    check(denied, "bob join\nlevels {\"events\":{\"m.room.message\":1}}", "bob m.room.message - {}");
    check("ok", "bob join\nlevels {\"events\":{\"m.room.topic\":0}}", "bob m.room.topic \"\" {}");
    check("ok", "bob join\nlevels {\"events_default\":-1,\"users_default\":-1}", "bob m.room.message - {}");
    check(denied, "bob join\nlevels {\"users_default\":-1}", "bob m.room.message - {}");
    // A level that cannot be read gives nothing.
    check(denied, "bob join\nlevels {\"events_default\":[]}", "bob m.room.message - {}");
    check(denied, "bob join\nlevels {\"users\":[]}", "bob m.room.message - {}");
}

#[test]
fn rule_8_creators_of_version_12_stand_above_all() {
    let state =
        "create {\"additional_creators\":[\"@bob:b\"]}\nalice join\nbob join\nlevels {\"events_default\":9007199254740991}";
    check("8 7 7 7 7 ok", state, "alice m.room.message - {}");
    check("8 7 7 7 7 ok", state, "bob m.room.message - {}");
    check("8 7 7 7 7 8", &format!("{state}\ncarol join"), "carol m.room.message - {}");
    // Before version 12 the creator has 100 only where there are no power levels.
    check("8 7 7 7 7 ok", "alice join\nlevels {}", "alice m.room.topic \"\" {}");
}

#[test]
fn rule_9_a_state_key_of_a_user_is_the_senders() {
    let state = "bob join\nlevels {\"state_default\":0}";
    check("ok", state, "bob org.example bob {}");
    check("ok", state, "bob org.example b.example {}");
    check("9 8 8 8 8 9", state, "bob org.example carol {}");
    check("9 8 8 8 8 9", state, "bob org.example @ {}");
}

#[test]
fn rule_11_redactions_are_judged_here_only_in_versions_1_and_2() {
    for (number, version) in versions() {
        let denied = if number <= 2 { "11.3" } else { "ok" };
        let row = |expected, levels: &str, redacts: Option<&str>| {
            let mut draft = parse_event(version, "bob m.room.redaction - {}");
            draft.redacts = redacts.map(|id| id.try_into().unwrap());
            let state = parse_state(version, &format!("bob join\nlevels {levels}"));
            assert_eq!(word(&judge(version, &state, &draft.build())), expected, "version {number} {levels} {redacts:?}");
        };
        row("ok", r#"{"redact":10,"users":{"@bob:b":10}}"#, Some("$event:a"));
        row(denied, r#"{"redact":10,"users":{"@bob:b":9}}"#, Some("$event:a"));
        row("ok", r#"{"redact":10,"users":{"@bob:b":9}}"#, Some("$other:b"));
        row(denied, "{}", Some("$opaque"));
        row("ok", "{}", None);
        row(denied, r#"{"redact":"x"}"#, Some("$other:b"));
    }
}

#[test]
fn redactions_apply_by_power_or_by_server_from_version_3_on() {
    for (number, version) in versions() {
        let row = |expected: bool, levels: &str, redacted: &Draft| {
            let state = parse_state(version, &format!("levels {levels}"));
            let of = |kind: &str| state[&(kind.to_owned(), String::new())].clone();
            let (create, levels) = (of("m.room.create"), of("m.room.power_levels"));
            let levels = PowerLevels::new(version, Some(&create), Some(&levels)).unwrap();
            let redaction = parse_event(version, "bob m.room.redaction - {}").build();
            let applies = redaction_applies(version, &levels, &redaction, &redacted.build());
            assert_eq!(applies, expected || number <= 2 && redacted.room_id == redaction.room_id, "version {number}");
        };
        let of_carol = parse_event(version, "carol m.room.message - {}");
        let of_bert = parse_event(version, "bert m.room.message - {}");
        row(true, r#"{"redact":10,"users":{"@bob:b":10}}"#, &of_carol);
        row(false, r#"{"redact":10,"users":{"@bob:b":9}}"#, &of_carol);
        row(true, r#"{"redact":10,"users":{"@bob:b":9}}"#, &of_bert);
        row(false, r#"{"redact":"x"}"#, &of_carol);
        let elsewhere = Draft { room_id: "!other:a".try_into().unwrap(), ..of_bert };
        row(false, r#"{"redact":0}"#, &elsewhere);
    }
}
