//! Rule 1.

use serde_json::json;

use super::{State, judge, versions, word};
use crate::scenario::Draft;
use crate::version::RoomVersion;

#[track_caller]
fn check_create(version: &RoomVersion, expected: &str, draft: &Draft) {
    let verdict = judge(version, &State::new(), &draft.build());
    assert_eq!(word(&verdict), expected, "version {}: {verdict:?}", version.id);
}

#[test]
fn rule_1_1_a_create_event_has_no_previous_events() {
    for (_, version) in versions() {
        let mut draft = Draft::create(version, &json!({}));
        check_create(version, "ok", &draft);
        draft.prev_events = vec!["$prev:a".try_into().unwrap()];
        check_create(version, "1.1", &draft);
    }
}

#[test]
fn rule_1_2_the_room_id_is_of_the_senders_server_until_version_11() {
    for (_, version) in versions().filter(|(_, version)| !version.version_12) {
        let mut draft = Draft::create(version, &json!({}));
        draft.room_id = "!room:b".try_into().unwrap();
        check_create(version, "1.2", &draft);
        draft.room_id = "!room".try_into().unwrap();
        check_create(version, "1.2", &draft);
    }
}

#[test]
fn rule_1_2_the_room_id_is_the_events_in_version_12() {
    let version = RoomVersion::named("12").unwrap();
    let mut draft = Draft::create(version, &json!({}));
    draft.names_room = true;
    check_create(version, "1.2", &draft);
    draft.names_room = false;
    draft.room_id = "!other".try_into().unwrap();
    check_create(version, "1.2", &draft);
}

#[test]
fn rule_1_3_the_version_is_the_rooms() {
    for (number, version) in versions() {
        for other in [json!("0"), json!("org.example"), json!(number), json!(null), json!((number % 12 + 1).to_string())] {
            check_create(version, "1.3", &Draft::create(version, &json!({ "room_version": other })));
        }
        let mut unnamed = Draft::create(version, &json!({}));
        unnamed.content.as_object_mut().unwrap().remove("room_version");
        check_create(version, if number == 1 { "ok" } else { "1.3" }, &unnamed);
    }
}

#[test]
fn rule_1_4_a_creator_is_named_until_version_10() {
    for (_, version) in versions() {
        let mut draft = Draft::create(version, &json!({}));
        draft.content.as_object_mut().unwrap().remove("creator");
        check_create(version, if version.version_11 { "ok" } else { "1.4" }, &draft);
    }
}

#[test]
fn rule_1_4_additional_creators_are_users_in_version_12() {
    let denied =
        [json!("@bob:b"), json!([1]), json!(["bob"]), json!(["@bob:b", "@bob"]), json!({}), json!(null), json!([["@bob:b"]])];
    for (_, version) in versions() {
        for creators in [json!([]), json!(["@bob:b", "@carol:c"])] {
            check_create(version, "ok", &Draft::create(version, &json!({ "additional_creators": creators })));
        }
        for creators in &denied {
            let draft = Draft::create(version, &json!({ "additional_creators": creators }));
            check_create(version, if version.version_12 { "1.4" } else { "ok" }, &draft);
        }
    }
}

#[test]
fn create_events_as_this_server_builds_them_are_allowed() {
    for (_, version) in versions() {
        let mut content = json!({ "room_version": version.id });
        if !version.version_11 {
            content["creator"] = json!("@alice:a");
        }
        let draft = crate::draft::Draft {
            room_id: (!version.version_12).then(|| "!room:a".try_into().unwrap()),
            sender: "@alice:a".try_into().unwrap(),
            kind: "m.room.create".into(),
            state_key: Some(String::new()),
            content: content.as_object().unwrap().clone(),
            redacts: None,
            origin_server_ts: 1,
            depth: 1,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            opaque_id: Some("create".into()).filter(|_| !version.redactions_checked_on_apply),
        };
        let server = crate::fixtures::server("a");
        let built = crate::draft::build(version, draft, &crate::fixtures::key_of("a"), &server).unwrap();
        let verdict = judge(version, &State::new(), built.event());
        assert_eq!(word(&verdict), "ok", "version {}: {verdict:?}", version.id);
    }
}
