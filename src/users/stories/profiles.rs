use serde_json::{Value, json};
use store::Lock;

use super::*;
use crate::{Error, accounts, numbers, profiles};

fn set(store: &Store, user: UserNo, name: &str, value: Value) -> Result<()> {
    Ok(profiles::put(store, user, name, value)?.wait()?)
}

#[test]
fn fields_are_set_read_and_deleted() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    set(&store, alice, "displayname", json!("Alice")).unwrap();
    set(&store, alice, "m.tz", json!("Europe/Oslo")).unwrap();
    set(&store, alice, "org.example.job", json!({ "title": [null, 1.5] })).unwrap();
    profiles::delete(&store, alice, "m.tz").unwrap().wait().unwrap();
    profiles::delete(&store, alice, "m.tz").unwrap().wait().unwrap();
    let profile = profiles::profile(&store.snapshot(), alice).unwrap();
    assert_eq!(Value::Object(profile), json!({ "displayname": "Alice", "org.example.job": { "title": [null, 1.5] } }));
    set(&store, alice, "displayname", json!("")).unwrap();
    assert_eq!(profiles::field(&store.snapshot(), alice, "displayname").unwrap(), None, "an empty name is none");
}

#[test]
fn a_change_waits_for_the_job_that_writes_it_into_rooms() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    set(&store, alice, "m.tz", json!("Europe/Oslo")).unwrap();
    assert_eq!(profiles::pending_changes(&store.snapshot(), 10).unwrap(), [], "rooms have no time zones");
    set(&store, alice, "displayname", json!("Alice")).unwrap();
    let first = profiles::pending_changes(&store.snapshot(), 10).unwrap();
    set(&store, alice, "displayname", json!("Alice")).unwrap();
    assert_eq!(profiles::pending_changes(&store.snapshot(), 10).unwrap(), first, "nothing changed");
    set(&store, alice, "avatar_url", json!("mxc://localhost/a")).unwrap();
    profiles::change_done(&store, alice, first[0].1).unwrap().wait().unwrap();
    let second = profiles::pending_changes(&store.snapshot(), 10).unwrap();
    assert_eq!(second.len(), 1, "another change came while the job ran");
    profiles::change_done(&store, alice, second[0].1).unwrap().wait().unwrap();
    assert_eq!(profiles::pending_changes(&store.snapshot(), 10).unwrap(), []);
}

#[test]
fn the_first_name_of_an_account_is_in_no_room_yet() {
    let store = store();
    let (id, new) = (user_id("alice"), NewAccount { displayname: Some("Alice".into()), ..person() });
    let alice = numbers::ensure(&store, &id).unwrap();
    store.transact(&[Lock::User(alice)], |tx| accounts::create(tx, alice, &id, new, 0)).unwrap().wait().unwrap();
    let db = store.snapshot();
    assert_eq!(profiles::field(&db, alice, "displayname").unwrap(), Some(json!("Alice")));
    assert_eq!(profiles::pending_changes(&db, 10).unwrap(), [], "nobody else can have seen another name");
}

#[test]
fn hostile_fields_are_refused() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    for name in ["", "Displayname", "job", "m.t z", ".x", "m/../x"] {
        assert!(matches!(set(&store, alice, name, json!("x")), Err(Error::InvalidParam(_))), "{name}");
    }
    assert!(matches!(set(&store, alice, &format!("m.{}", "x".repeat(254)), json!(1)), Err(Error::KeyTooLarge)));
    assert!(matches!(set(&store, alice, "displayname", json!({})), Err(Error::BadJson(_))));
    assert!(matches!(set(&store, alice, "m.tz", json!(1)), Err(Error::BadJson(_))));
    assert!(matches!(set(&store, alice, "displayname", json!("x".repeat(1025))), Err(Error::InvalidParam(_))));
    let half = "x".repeat(profiles::PROFILE_MAX_BYTES / 2);
    set(&store, alice, "org.example.a", json!(half)).unwrap();
    assert!(matches!(set(&store, alice, "org.example.b", json!(half)), Err(Error::ProfileTooLarge)));
    set(&store, alice, "org.example.a", json!(half)).unwrap();
}
