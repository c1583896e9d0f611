//! Which rule allows an event, by its number in each version.

use super::{COLUMNS, parse_event, parse_state, versions};
use crate::auth::judge;
use crate::scenario::{CREATE, Draft};

/// Judges the row as of every version, as [`super::check`] does; `expected` are numbers of rules that allow.
#[track_caller]
fn allowed(expected: &str, state: &str, event: &str) {
    let columns: Vec<&str> = expected.split_whitespace().collect();
    for (number, version) in versions() {
        let expected = columns[COLUMNS[number - 1]];
        if expected != "-" {
            let (state, event) = (parse_state(version, state), parse_event(version, event).build());
            let verdict = judge(version, &event, |kind, key| state.get(&(kind.to_owned(), key.to_owned())).cloned());
            assert_eq!(verdict.as_ref().map(|allowed| allowed.rule), Ok(expected), "version {}: {verdict:?}", version.id);
        }
    }
}

#[test]
fn memberships_are_allowed_by_the_rules_of_their_kind() {
    let member = |sender: &str, target: &str, to: &str| format!("{sender} m.room.member {target} {{\"membership\":\"{to}\"}}");
    let join = member("bob", "bob", "join");
    allowed("5.2.4 4.2.4 4.2.4 4.3.4 4.3.4 5.3.4", "bob invite", &join);
    allowed("- - - 4.3.5.1 4.3.5.1 5.3.5.1", "bob invite\nrule restricted", &join);
    let authorised = "bob m.room.member bob {\"membership\":\"join\",\"join_authorised_via_users_server\":\"@alice:a\"}";
    allowed("- - - 4.3.5.3 4.3.5.3 5.3.5.3", "alice join\nrule restricted", authorised);
    allowed("5.2.5 4.2.5 4.2.5 4.3.6 4.3.6 5.3.6", "rule public", &join);
    allowed("5.3.4 4.3.4 4.3.4 4.4.4 4.4.4 5.4.4", "alice join", &member("alice", "bob", "invite"));
    allowed("5.4.1 4.4.1 4.4.1 4.5.1 4.5.1 5.5.1", "bob join", &member("bob", "bob", "leave"));
    allowed("5.4.4 4.4.4 4.4.4 4.5.4 4.5.4 5.5.4", "alice join\nbob join", &member("alice", "bob", "leave"));
    allowed("5.5.2 4.5.2 4.5.2 4.6.2 4.6.2 5.6.2", "alice join\nbob join", &member("alice", "bob", "ban"));
    allowed("- - 4.6.3 4.7.3 4.7.3 5.7.3", "rule knock", &member("bob", "bob", "knock"));
    for (number, version) in versions() {
        let mut first = parse_event(version, &member("alice", "alice", "join"));
        first.prev_events = vec![CREATE.try_into().unwrap()];
        let state = parse_state(version, "");
        let verdict = judge(version, &first.build(), |kind, key| state.get(&(kind.to_owned(), key.to_owned())).cloned());
        let expected = ["5.2.1", "4.2.1", "4.2.1", "4.3.1", "4.3.1", "5.3.1"][COLUMNS[number - 1]];
        assert_eq!(verdict.unwrap().rule, expected);
    }
}

#[test]
fn everything_else_is_allowed_by_the_last_rule_of_its_type() {
    let levels = "alice m.room.power_levels \"\" {\"users\":{\"@bob:b\":10}}";
    let owned = "alice m.room.power_levels \"\" {\"users\":{}}";
    allowed("10.2 9.2 9.2 9.2 9.4 10.5", "alice join", levels);
    allowed("- - - - - 10.11", "alice join\nlevels {\"users\":{}}", owned);
    let hers = "levels {\"users\":{\"@alice:a\":100}}";
    allowed(
        "10.8 9.8 9.8 9.8 9.10 -",
        &format!("alice join\n{hers}"),
        "alice m.room.power_levels \"\" {\"users\":{\"@alice:a\":90}}",
    );
    allowed("7.1 6.1 6.1 6.1 6.1 7.1", "alice join", "alice m.room.third_party_invite token {}");
    allowed("- 10 10 10 10 11", "alice join", "alice m.room.message - {}");
    for (number, version) in versions() {
        let state = parse_state(version, "alice join");
        let known = |kind: &str, key: &str| state.get(&(kind.to_owned(), key.to_owned())).cloned();
        let message = parse_event(version, "alice m.room.message - {}").build();
        let expected = ["12", "12", "11", "11", "11", "10", "10", "10", "10", "10", "10", "11"][number - 1];
        assert_eq!(judge(version, &message, known).unwrap().rule, expected);
        let create = Draft::create(version, &serde_json::json!({})).build();
        let expected = if number == 11 { "1.4" } else { "1.5" };
        assert_eq!(judge(version, &create, |_, _| None).unwrap().rule, expected);
        if number < 3 {
            let redaction = parse_event(version, "alice m.room.redaction - {}").build();
            assert_eq!(judge(version, &redaction, known).unwrap().rule, "11.1");
        }
        if number < 6 {
            let aliases = parse_event(version, "alice m.room.aliases a {}");
            let aliases = Draft { state_key: Some("a".to_owned()), ..aliases }.build();
            assert_eq!(judge(version, &aliases, known).unwrap().rule, "4.3");
        }
    }
}
