//! The auth events selection, and rule 3 (2 before version 12).

use std::borrow::Cow;
use std::sync::Arc;

use super::{parse_event, parse_state, versions};
use crate::auth::{AuthEvent, auth_types_of, check_auth_events};
use crate::event::Event;
use crate::version::RoomVersion;

/// The selection as `type key` words, without what every event but that of creation has.
fn selection(version: &RoomVersion, event: &str) -> Vec<String> {
    let event = parse_event(version, event).build();
    auth_types_of(version, &event)
        .iter()
        .map(|(kind, key)| format!("{kind} {key}").trim_start_matches("m.room.").to_owned())
        .collect()
}

#[test]
fn every_event_but_creation_needs_power_levels_and_the_senders_membership() {
    for (_, version) in versions() {
        let mut expected = vec!["create ", "power_levels ", "member @bob:b"];
        if version.version_12 {
            expected.remove(0);
        }
        for event in ["bob m.room.message - {}", "bob m.room.topic \"\" {}", "bob m.room.member bob {\"membership\":\"leave\"}"] {
            assert_eq!(selection(version, event), expected, "version {}", version.id);
        }
        assert!(selection(version, "alice m.room.create \"\" {}").is_empty());
    }
}

#[test]
fn memberships_need_more() {
    let with = |number: usize, more: &str| {
        let create = if number == 12 { "" } else { "create |" };
        format!("{create}power_levels |member @bob:b{more}").split('|').map(str::to_owned).collect::<Vec<_>>()
    };
    let table = [
        ("bob m.room.member carol {\"membership\":\"ban\"}", "|member @carol:c"),
        ("bob m.room.member bob {\"membership\":\"join\"}", "|join_rules "),
        ("bob m.room.member carol {\"membership\":\"invite\"}", "|member @carol:c|join_rules "),
        ("bob m.room.member bob {\"membership\":\"knock\"}", "|join_rules "),
        ("bob m.room.member bob {\"membership\":\"leave\",\"join_authorised_via_users_server\":\"@anna:a\"}", ""),
        (
            "bob m.room.member carol {\"membership\":\"invite\",\"third_party_invite\":{\"signed\":{\"token\":\"t\"}}}",
            "|member @carol:c|join_rules |third_party_invite t",
        ),
        ("bob m.room.member bob {\"membership\":\"join\",\"third_party_invite\":{\"signed\":{\"token\":\"t\"}}}", "|join_rules "),
        ("bob m.room.member bob {\"membership\":\"invite\",\"third_party_invite\":{\"signed\":{\"token\":1}}}", "|join_rules "),
        ("bob m.room.member bob {\"membership\":\"join\",\"join_authorised_via_users_server\":\"@bob:b\"}", "|join_rules "),
        ("bob m.room.member bob {\"membership\":1}", ""),
        ("bob m.room.member bob {}", ""),
        ("bob m.room.member - {}", ""),
    ];
    for (number, version) in versions() {
        for (event, more) in table {
            assert_eq!(selection(version, event), with(number, more), "version {number} {event}");
        }
        let restricted = "bob m.room.member bob {\"membership\":\"join\",\"join_authorised_via_users_server\":\"@anna:a\"}";
        let more = if number >= 8 { "|join_rules |member @anna:a" } else { "|join_rules " };
        assert_eq!(selection(version, restricted), with(number, more), "version {number}");
    }
}

#[test]
fn keys_are_borrowed() {
    let version = RoomVersion::named("11").unwrap();
    let event = parse_event(version, "bob m.room.member carol {\"membership\":\"invite\"}").build();
    assert!(auth_types_of(version, &event).iter().all(|(_, key)| matches!(key, Cow::Borrowed(_))));
}

/// Judges a message by bob with these auth events, after a change of them.
#[track_caller]
fn check(expected: &str, number: usize, change: impl Fn(&mut Vec<(Event, bool)>)) {
    let version = &RoomVersion::all()[number - 1];
    let state = parse_state(version, "bob join\nalice join\nlevels {}\nrule public");
    let of = |kind: &str, key: &str| Event::clone(&state[&(kind.to_owned(), key.to_owned())]);
    let mut claimed = vec![(of("m.room.member", "@bob:b"), false), (of("m.room.power_levels", ""), false)];
    if !version.version_12 {
        claimed.push((of("m.room.create", ""), false));
    }
    change(&mut claimed);
    let event = parse_event(version, "bob m.room.message - {}").build();
    let claimed: Vec<_> = claimed.iter().map(|(event, rejected)| AuthEvent { event, rejected: *rejected }).collect();
    let verdict = check_auth_events(version, &event, &claimed);
    assert_eq!(super::word(&verdict), expected, "version {number}: {verdict:?}");
}

#[test]
fn t7_claimed_auth_events_are_those_selected_and_accepted_and_of_the_room() {
    for (number, version) in versions() {
        let rule = |old: &'static str, new: &'static str| if version.version_12 { new } else { old };
        check("ok", number, |_| {});
        // An event may have none for an entry, for the room may have had none.
        check("ok", number, |claimed| drop(claimed.remove(1)));
        check("ok", number, |claimed| drop(claimed.remove(0)));
        // Rule 3.1.
        check(rule("2.1", "3.1"), number, |claimed| {
            let mut twin = claimed[0].clone();
            twin.0.id = "$twin:a".try_into().unwrap();
            claimed.push(twin);
        });
        check(rule("2.1", "3.1"), number, |claimed| claimed.push(claimed[0].clone()));
        // Rule 3.2.
        check(rule("2.2", "3.2"), number, |claimed| claimed[1].0.kind = "m.room.join_rules".into());
        check(rule("2.2", "3.2"), number, |claimed| claimed[0].0.state_key = Some("@alice:a".into()));
        check(rule("2.2", "3.2"), number, |claimed| claimed[0].0.state_key = None);
        check(rule("2.2", "3.2"), number, |claimed| claimed[1].0.state_key = Some("x".into()));
        // Rule 3.3.
        check(rule("2.3", "3.3"), number, |claimed| claimed[0].1 = true);
        // Rule 3.5.
        check(rule("2.5", "3.5"), number, |claimed| claimed[0].0.room_id = "!other:a".try_into().unwrap());
    }
}

#[test]
fn the_create_event_is_claimed_until_version_11_and_never_after() {
    for (number, version) in versions() {
        if version.version_12 {
            check("3.2", number, |claimed| {
                claimed.push((Event::clone(&parse_state(version, "")[&("m.room.create".to_owned(), String::new())]), false));
            });
        } else {
            check("2.4", number, |claimed| drop(claimed.pop()));
        }
    }
}

#[test]
fn rule_1_alone_judges_creation() {
    for (_, version) in versions() {
        let event: Arc<Event> = parse_event(version, "alice m.room.create \"\" {}").build();
        assert!(check_auth_events(version, &event, &[AuthEvent { event: &event, rejected: true }]).is_ok());
    }
}
