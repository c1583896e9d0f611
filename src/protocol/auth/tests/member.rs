//! Rule 5.

use serde_json::{Value, json};

use super::{check, judge, parse_event, parse_state, versions, word};
use crate::keys::SigningKey;
use crate::scenario::CREATE;
use crate::version::RoomVersion;

fn join(user: &str) -> String {
    format!("{user} m.room.member {user} {{\"membership\":\"join\"}}")
}

fn member(sender: &str, target: &str, membership: &str) -> String {
    format!("{sender} m.room.member {target} {{\"membership\":\"{membership}\"}}")
}

#[test]
fn rule_5_1_a_member_event_has_a_target_and_a_membership() {
    let denied = "5.1 4.1 4.1 4.1 4.1 5.1";
    let state = "alice join\nrule public";
    check(denied, state, "bob m.room.member - {\"membership\":\"join\"}");
    check(denied, state, "bob m.room.member @bob {\"membership\":\"join\"}");
    check(denied, state, "bob m.room.member \"\" {\"membership\":\"join\"}");
    for content in ["{}", "{\"membership\":null}", "{\"membership\":1}", "{\"membership\":[\"join\"]}"] {
        check(denied, state, &format!("bob m.room.member bob {content}"));
    }
}

#[test]
fn rule_5_3_1_the_creator_joins_first() {
    let denied = ["5.2.6", "4.2.6", "4.2.6", "4.3.7", "4.3.7", "5.3.7"];
    for (number, version) in versions() {
        let first = |user: &str, prev: &[&str], state: &str| {
            let mut draft = parse_event(version, &join(user));
            draft.prev_events = prev.iter().map(|id| (*id).try_into().unwrap()).collect();
            word(&judge(version, &parse_state(version, state), &draft.build())).to_owned()
        };
        let denied = denied[super::COLUMNS[number - 1]];
        assert_eq!(first("alice", &[CREATE], ""), "ok");
        assert_eq!(first("alice", &["$prev:a"], ""), denied);
        assert_eq!(first("alice", &[CREATE, "$prev:a"], ""), denied);
        assert_eq!(first("bob", &[CREATE], ""), denied);
        assert_eq!(first("bob", &[CREATE], "create {\"additional_creators\":[\"@bob:b\"]}"), denied);
        // Until version 10 the content names the creator, from 11 on it is the sender.
        let named = if version.version_11 { [denied, "ok"] } else { ["ok", denied] };
        assert_eq!(first("bob", &[CREATE], "create {\"creator\":\"@bob:b\"}"), named[0]);
        assert_eq!(first("alice", &[CREATE], "create {\"creator\":\"@bob:b\"}"), named[1]);
    }
}

#[test]
fn rules_5_3_2_and_5_3_3_nobody_joins_for_others_or_when_banned() {
    check("5.2.2 4.2.2 4.2.2 4.3.2 4.3.2 5.3.2", "alice join\nrule public", &member("alice", "bob", "join"));
    check("5.2.3 4.2.3 4.2.3 4.3.3 4.3.3 5.3.3", "bob ban\nrule public", &join("bob"));
}

#[test]
fn rules_5_3_4_to_5_3_7_the_join_rule_decides() {
    let denied = "5.2.6 4.2.6 4.2.6 4.3.7 4.3.7 5.3.7";
    for state in ["rule invite", "", "m.room.join_rules \"\" alice {}"] {
        check(denied, state, &join("bob"));
        check(denied, &format!("bob leave\n{state}"), &join("bob"));
        check(denied, &format!("bob knock\n{state}"), &join("bob"));
    }
    for membership in ["invite", "join"] {
        check("ok", &format!("bob {membership}\nrule invite"), &join("bob"));
        check("ok", &format!("bob {membership}"), &join("bob"));
        check("5.2.6 4.2.6 ok ok ok ok", &format!("bob {membership}\nrule knock"), &join("bob"));
        check(denied, &format!("bob {membership}\nrule private"), &join("bob"));
    }
    check(denied, "bob leave\nrule knock", &join("bob"));
    check("ok", "rule public", &join("bob"));
    check("ok", "bob leave\nrule public", &join("bob"));
    check("ok", "bob knock\nrule public", &join("bob"));
}

#[test]
fn rule_5_3_5_a_member_who_may_invite_authorises_a_restricted_join() {
    let via =
        |user: &str| format!("bob m.room.member bob {{\"membership\":\"join\",\"join_authorised_via_users_server\":{user}}}");
    let cases = [
        ("restricted", "5.2.6 4.2.6 4.2.6 ok ok ok", "5.2.6 4.2.6 4.2.6 4.3.5.2 4.3.5.2 5.3.5.2"),
        ("knock_restricted", "5.2.6 4.2.6 4.2.6 4.3.7 ok ok", "5.2.6 4.2.6 4.2.6 4.3.7 4.3.5.2 5.3.5.2"),
    ];
    for (rule, allowed, denied) in cases {
        let base = format!("anna join\nrule {rule}");
        let weak = format!("{base}\nlevels {{\"invite\":50,\"users\":{{\"@anna:a\":49}}}}");
        let strong = format!("{base}\nlevels {{\"invite\":50,\"users\":{{\"@anna:a\":50}}}}");
        check(allowed, &base, &via("\"@anna:a\""));
        check(allowed, &strong, &via("\"@anna:a\""));
        check(denied, &weak, &via("\"@anna:a\""));
        check(denied, &base, &via("\"@carol:c\""));
        check(denied, &format!("{base}\ncarol invite"), &via("\"@carol:c\""));
        check(denied, &base, &via("\"anna\""));
        check(denied, &base, &via("null"));
        check(denied, &base, &join("bob"));
        // Who is a member already or invited needs nobody.
        check(allowed, &format!("{base}\nbob join"), &join("bob"));
        check(allowed, &format!("{base}\nbob invite"), &join("bob"));
        check(denied, &format!("{base}\nbob knock"), &join("bob"));
    }
    // Additional creators have the power in version 12.
    let creators = "create {\"additional_creators\":[\"@anna:a\"]}\nanna join\nrule restricted\nlevels {\"invite\":100}";
    check("- - - 4.3.5.2 4.3.5.2 ok", creators, &via("\"@anna:a\""));
}

#[test]
fn rules_5_4_2_to_5_4_5_members_with_the_invite_level_invite() {
    let event = member("bob", "carol", "invite");
    check("ok", "bob join", &event);
    for target in ["leave", "invite", "knock"] {
        check("ok", &format!("bob join\ncarol {target}"), &event);
    }
    for sender in ["leave", "invite", "ban", "knock"] {
        check("5.3.2 4.3.2 4.3.2 4.4.2 4.4.2 5.4.2", &format!("bob {sender}"), &event);
    }
    check("5.3.2 4.3.2 4.3.2 4.4.2 4.4.2 5.4.2", "", &event);
    for target in ["join", "ban"] {
        check("5.3.3 4.3.3 4.3.3 4.4.3 4.4.3 5.4.3", &format!("bob join\ncarol {target}"), &event);
    }
    let denied = "5.3.5 4.3.5 4.3.5 4.4.5 4.4.5 5.4.5";
    check(denied, "bob join\nlevels {\"invite\":1}", &event);
    check(denied, "bob join\nlevels {\"users_default\":-1}", &event);
    check("ok", "bob join\nlevels {\"invite\":1,\"users_default\":1}", &event);
    check(denied, "bob join\nlevels {\"invite\":{}}", &event);
}

#[test]
fn rule_5_5_1_a_user_leaves_what_they_are_in() {
    for membership in ["join", "invite"] {
        check("ok", &format!("bob {membership}"), &member("bob", "bob", "leave"));
    }
    check("5.4.1 4.4.1 ok ok ok ok", "bob knock", &member("bob", "bob", "leave"));
    for state in ["", "bob leave", "bob ban", "bob other"] {
        check("5.4.1 4.4.1 4.4.1 4.5.1 4.5.1 5.5.1", state, &member("bob", "bob", "leave"));
    }
}

#[test]
fn rules_5_5_2_to_5_5_5_members_with_the_kick_level_kick_whom_they_outrank() {
    let event = member("bob", "carol", "leave");
    let levels =
        |bob: i64, carol: i64| format!("levels {{\"kick\":40,\"ban\":60,\"users\":{{\"@bob:b\":{bob},\"@carol:c\":{carol}}}}}");
    check("5.4.2 4.4.2 4.4.2 4.5.2 4.5.2 5.5.2", &format!("bob leave\ncarol join\n{}", levels(100, 0)), &event);
    let denied = "5.4.5 4.4.5 4.4.5 4.5.5 4.5.5 5.5.5";
    for target in ["join", "invite", "knock", "leave"] {
        let members = format!("bob join\ncarol {target}");
        check("ok", &format!("{members}\n{}", levels(40, 39)), &event);
        check(denied, &format!("{members}\n{}", levels(39, 0)), &event);
        check(denied, &format!("{members}\n{}", levels(50, 50)), &event);
        check(denied, &format!("{members}\n{}", levels(50, 51)), &event);
    }
    // An unban needs both levels.
    let unban = "5.4.3 4.4.3 4.4.3 4.5.3 4.5.3 5.5.3";
    check(unban, &format!("bob join\ncarol ban\n{}", levels(59, 0)), &event);
    check("ok", &format!("bob join\ncarol ban\n{}", levels(60, 0)), &event);
    check(denied, &format!("bob join\ncarol ban\n{}", levels(60, 60)), &event);
    let low_ban = "bob join\ncarol ban\nlevels {\"ban\":0,\"kick\":10}";
    check(denied, low_ban, &event);
    // The defaults are 50.
    check(denied, "bob join\ncarol join\nlevels {\"users\":{\"@bob:b\":49}}", &event);
    check("ok", "bob join\ncarol join\nlevels {\"users\":{\"@bob:b\":50}}", &event);
    check(denied, "bob join\ncarol join", &event);
}

#[test]
fn rule_5_6_members_with_the_ban_level_ban_whom_they_outrank() {
    let event = member("bob", "carol", "ban");
    let levels =
        |bob: i64, carol: i64| format!("levels {{\"kick\":90,\"ban\":60,\"users\":{{\"@bob:b\":{bob},\"@carol:c\":{carol}}}}}");
    check("5.5.1 4.5.1 4.5.1 4.6.1 4.6.1 5.6.1", &format!("bob leave\n{}", levels(100, 0)), &event);
    let denied = "5.5.3 4.5.3 4.5.3 4.6.3 4.6.3 5.6.3";
    check("ok", &format!("bob join\n{}", levels(60, 59)), &event);
    check("ok", &format!("bob join\ncarol ban\n{}", levels(60, 59)), &event);
    check(denied, &format!("bob join\n{}", levels(59, 0)), &event);
    check(denied, &format!("bob join\n{}", levels(60, 60)), &event);
    check(denied, "bob join\ncarol join", &event);
}

#[test]
fn creators_of_version_12_cannot_be_kicked_or_banned() {
    let state = "create {\"additional_creators\":[\"@carol:c\"]}\nalice join\nbob join\ncarol join\n\
                 levels {\"users\":{\"@bob:b\":100}}";
    check("ok ok ok ok ok 5.5.5", state, &member("bob", "carol", "leave"));
    check("ok ok ok ok ok 5.6.3", state, &member("bob", "carol", "ban"));
    check("ok ok ok ok ok 5.6.3", state, &member("bob", "alice", "ban"));
    // Nor can creators remove each other.
    check("5.5.3 4.5.3 4.5.3 4.6.3 4.6.3 5.6.3", state, &member("alice", "carol", "ban"));
}

#[test]
fn rule_5_7_outsiders_knock_where_the_join_rule_allows_it() {
    let event = member("bob", "bob", "knock");
    for rule in ["invite", "public", "restricted", "private"] {
        check("5.6 4.6 4.6.1 4.7.1 4.7.1 5.7.1", &format!("rule {rule}"), &event);
    }
    check("5.6 4.6 ok ok ok ok", "rule knock", &event);
    check("5.6 4.6 4.6.1 4.7.1 ok ok", "rule knock_restricted", &event);
    check("5.6 4.6 4.6.1 4.7.1 4.7.1 5.7.1", "", &event);
    check("5.6 4.6 4.6.2 4.7.2 4.7.2 5.7.2", "rule knock", &member("carol", "bob", "knock"));
    for membership in ["ban", "invite", "join"] {
        check("5.6 4.6 4.6.4 4.7.4 4.7.4 5.7.4", &format!("bob {membership}\nrule knock"), &event);
    }
    for membership in ["leave", "knock"] {
        check("5.6 4.6 ok ok ok ok", &format!("bob {membership}\nrule knock"), &event);
    }
}

#[test]
fn rule_5_8_other_memberships_are_unknown() {
    check("5.6 4.6 4.7 4.8 4.8 5.8", "alice join", &member("alice", "bob", "other"));
    check("5.6 4.6 4.7 4.8 4.8 5.8", "alice join", &member("alice", "bob", ""));
}

/// What an identity server signs for bob, with a change.
fn signed(change: impl Fn(&mut Value)) -> Value {
    let mut signed = json!({ "mxid": "@bob:b", "token": "t.oken" });
    let object = signed.as_object_mut().unwrap();
    crate::sign::sign_json(object, "id.example", &identity_key()).unwrap();
    change(&mut signed);
    signed
}

fn identity_key() -> SigningKey {
    SigningKey::from_seed("0", &[7; 32]).unwrap()
}

#[track_caller]
fn check_third_party(column: usize, expected: &str, state: &str, invite: &Value) {
    let number = [5, 6, 7, 9, 11, 12][column];
    let version: &RoomVersion = &RoomVersion::all()[number - 1];
    let content = json!({ "membership": "invite", "third_party_invite": invite });
    let event = parse_event(version, &format!("alice m.room.member bob {content}")).build();
    let verdict = judge(version, &parse_state(version, state), &event);
    assert_eq!(word(&verdict), expected, "version {number}: {verdict:?}");
}

#[test]
fn rule_5_4_1_a_third_party_invite_is_signed_by_its_key() {
    let key = identity_key().public().to_base64();
    let promise = |content: Value| format!("m.room.third_party_invite t.oken alice {content}");
    let single = promise(json!({ "public_key": key }));
    let listed = promise(json!({ "public_key": "AAAA", "public_keys": [{ "public_key": "?" }, 1, { "public_key": key }] }));
    for (column, prefix) in ["5.3.1", "4.3.1", "4.3.1", "4.4.1", "4.4.1", "5.4.1"].into_iter().enumerate() {
        let row = |expected: &str, state: &str, invite: &Value| {
            let expected = if expected == "ok" { expected.to_owned() } else { format!("{prefix}.{expected}") };
            check_third_party(column, &expected, state, invite);
        };
        let good = json!({ "display_name": "b…", "signed": signed(|_| {}) });
        row("ok", &single, &good);
        row("ok", &listed, &good);
        row("ok", &single, &json!({ "signed": signed(|signed| signed["unsigned"] = json!({ "age": 1 })) }));
        row("1", &format!("{single}\nbob ban"), &good);
        for invite in [json!(null), json!({}), json!("signed"), json!([])] {
            row("2", &single, &invite);
        }
        for part in ["mxid", "token"] {
            row("3", &single, &json!({ "signed": signed(|signed| drop(signed.as_object_mut().unwrap().remove(part))) }));
            row("3", &single, &json!({ "signed": signed(|signed| signed[part] = json!(1)) }));
        }
        row("3", &single, &json!({ "signed": null }));
        row("4", &single, &json!({ "signed": signed(|signed| signed["mxid"] = json!("@carol:c")) }));
        row("5", "alice join", &good);
        row("5", &single, &json!({ "signed": signed(|signed| signed["token"] = json!("other")) }));
        row("6", &single.replacen("alice", "anna", 1), &good);
        row("8", &single, &json!({ "signed": signed(|signed| signed["extra"] = json!(1)) }));
        row("8", &single, &json!({ "signed": signed(|signed| drop(signed.as_object_mut().unwrap().remove("signatures"))) }));
        row("8", &promise(json!({})), &good);
        let other = SigningKey::from_seed("0", &[8; 32]).unwrap().public().to_base64();
        row("8", &promise(json!({ "public_key": other })), &good);
        row("8", &promise(json!({ "public_keys": key })), &good);
    }
}

#[test]
fn the_signatures_of_a_third_party_invite_are_tried_up_to_a_limit() {
    let key = identity_key().public().to_base64();
    let other = SigningKey::from_seed("0", &[8; 32]).unwrap().public().to_base64();
    let keys = |before: usize| {
        let mut keys = vec![json!({ "public_key": other }); before];
        keys.push(json!({ "public_key": key }));
        format!("m.room.third_party_invite t.oken alice {}", json!({ "public_keys": keys }))
    };
    let invite = json!({ "signed": signed(|_| {}) });
    check_third_party(5, "ok", &keys(100), &invite);
    check_third_party(5, "5.4.1.8", &keys(1000), &invite);
}
