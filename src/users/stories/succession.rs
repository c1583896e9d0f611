//! A room takes over from the one that it replaces what a user has set for that.

use ruma::{
    RoomId,
    push::{Action, ConditionalPushRule, NewConditionalPushRule, NewPushRule, NewSimplePushRule, PushCondition},
    room_id,
};
use serde_json::{Value, json, value::to_raw_value};
use store::{Lock, RoomNo};

use super::*;
use crate::{
    account_data::{self, TAG},
    push_rules::{self, Place},
    succession,
};

/// The numbers of the old room and of the new one.
const NOS: (RoomNo, RoomNo) = (RoomNo(1), RoomNo(2));

fn old() -> &'static RoomId {
    room_id!("!old:localhost")
}

fn new() -> &'static RoomId {
    room_id!("!new:localhost")
}

fn set(store: &Store, user: UserNo, room: Option<RoomNo>, kind: &str, content: Value) {
    account_data::set(store, user, room, kind, &to_raw_value(&content).unwrap()).unwrap().wait().unwrap();
}

fn content(store: &Store, user: UserNo, room: Option<RoomNo>, kind: &str) -> Value {
    let text = account_data::content(&store.snapshot(), user, room, kind).unwrap();
    text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
}

fn succeed(store: &Store, user: UserNo) {
    store
        .transact(&[Lock::User(user)], |tx| succession::succeed(tx, user, (NOS.0, old()), (NOS.1, new())))
        .unwrap()
        .wait()
        .unwrap();
}

#[test]
fn rules_tags_and_direct_chats_go_over_once() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    let muted = vec![PushCondition::EventMatch(serde_json::from_value(json!({ "key": "room_id", "pattern": old() })).unwrap())];
    for rule in [
        NewPushRule::Room(NewSimplePushRule::new(old().to_owned(), vec![Action::Notify])),
        NewPushRule::Override(NewConditionalPushRule::new(old().to_string(), muted, vec![])),
    ] {
        push_rules::put(&store, alice, rule, Place::default()).unwrap().wait().unwrap();
    }
    set(&store, alice, Some(NOS.0), TAG, json!({ "tags": { "u.work": { "order": 0.5 } } }));
    set(&store, alice, None, "m.direct", json!({ "@bob:localhost": ["!x:localhost", old()], "@eve:localhost": [], "odd": 5 }));
    succeed(&store, alice);

    let rules = push_rules::rules(&store.snapshot(), alice).unwrap();
    assert_eq!(rules.room.get(new().as_str()).unwrap().actions.len(), 1);
    let names: Vec<&str> = rules.override_.iter().take(3).map(|rule| rule.rule_id.as_str()).collect();
    assert_eq!(names, [".m.rule.master", new().as_str(), old().as_str()], "before the rules of the server");
    let ConditionalPushRule { conditions, .. } = rules.override_.get(new().as_str()).unwrap();
    assert_eq!(serde_json::to_value(&conditions[0]).unwrap()["pattern"], new().as_str());
    assert_eq!(content(&store, alice, Some(NOS.1), TAG), json!({ "tags": { "u.work": { "order": 0.5 } } }));
    assert_eq!(content(&store, alice, None, "m.direct")["@bob:localhost"], json!(["!x:localhost", old(), new()]));
    assert_eq!(content(&store, alice, None, "m.direct")["odd"], 5);

    // What the user says of the new room then, stays.
    set(&store, alice, Some(NOS.1), TAG, json!({ "tags": {} }));
    let before = store.snapshot().seq();
    succeed(&store, alice);
    assert_eq!(content(&store, alice, Some(NOS.1), TAG), json!({ "tags": {} }));
    assert_eq!(account_data::changed_since(&store.snapshot(), alice, before).unwrap().len(), 0);
}

#[test]
fn who_has_set_nothing_has_nothing_new() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    let before = store.snapshot().seq();
    succeed(&store, alice);
    assert_eq!(account_data::changed_since(&store.snapshot(), alice, before).unwrap().len(), 0);
}
