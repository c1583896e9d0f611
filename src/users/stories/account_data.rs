use serde_json::{Value, json, value::RawValue};
use store::{Lock, Seq};

use super::*;
use crate::{Error, account_data};

const HERE: Option<RoomNo> = Some(RoomNo(7));

fn set(store: &Store, user: UserNo, room: Option<RoomNo>, event_type: &str, content: &Value) -> Result<Seq> {
    let content = RawValue::from_string(content.to_string()).unwrap();
    account_data::set(store, user, room, event_type, &content)?.wait()?;
    Ok(store.snapshot().seq())
}

/// What a sync since then shows, as text.
fn news(store: &Store, user: UserNo, since: Seq) -> Vec<String> {
    let changed = account_data::changed_since(&store.snapshot(), user, since).unwrap();
    changed.into_iter().map(|data| format!("{:?} {} {}", data.room.map(|room| room.0), data.event_type, data.content)).collect()
}

#[test]
fn a_sync_shows_each_piece_once_in_the_order_it_was_last_set() {
    let store = store();
    let ((alice, _), (bob, _)) = (register(&store, "alice"), register(&store, "bob"));
    let start = store.snapshot().seq();
    set(&store, alice, None, "m.direct", &json!({})).unwrap();
    let middle = set(&store, alice, HERE, "org.example", &json!({ "n": 1 })).unwrap();
    set(&store, alice, None, "m.direct", &json!({ "@b:x": [] })).unwrap();
    set(&store, bob, None, "m.direct", &json!({ "secret": true })).unwrap();
    assert_eq!(news(&store, alice, start), ["Some(7) org.example {\"n\":1}", "None m.direct {\"@b:x\":[]}"]);
    assert_eq!(news(&store, alice, middle), ["None m.direct {\"@b:x\":[]}"]);
    let last = store.snapshot().seq();
    assert_eq!(news(&store, alice, last), [""; 0]);
    set(&store, alice, None, "m.direct", &json!({ "@b:x": [] })).unwrap();
    assert_eq!(news(&store, alice, last), [""; 0], "nothing changed");
    assert_eq!(news(&store, alice, Seq(u64::MAX)), [""; 0], "a since of the future");
    let of_all_rooms = account_data::all(&store.snapshot(), alice, None).unwrap();
    assert_eq!(of_all_rooms.iter().map(|data| data.event_type.as_str()).collect::<Vec<_>>(), ["m.direct", "m.push_rules"]);
    assert_eq!(account_data::all(&store.snapshot(), alice, HERE).unwrap().len(), 1);
}

#[test]
fn clients_do_not_set_what_the_server_controls() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    for (room, event_type) in [(None, "m.push_rules"), (HERE, "m.fully_read"), (None, "m.fully_read"), (HERE, "m.push_rules")] {
        assert!(matches!(set(&store, alice, room, event_type, &json!({})), Err(Error::ServerControlled)), "{event_type}");
    }
    assert!(matches!(set(&store, alice, None, "m.direct", &json!([])), Err(Error::BadJson(_))));
    assert!(matches!(set(&store, alice, None, &"x".repeat(256), &json!({})), Err(Error::InvalidParam(_))));
    assert!(matches!(set(&store, alice, None, "", &json!({})), Err(Error::InvalidParam(_))));
    let huge = json!({ "x": "x".repeat(account_data::CONTENT_MAX_BYTES) });
    assert!(matches!(set(&store, alice, None, "m.direct", &huge), Err(Error::TooLarge { .. })));
    let change = |tx: &mut store::Tx<'_>| account_data::put(tx, alice, HERE, account_data::FULLY_READ, "{\"event_id\":\"$x\"}");
    store.transact(&[Lock::User(alice)], change).unwrap().wait().unwrap();
    let marker = account_data::content(&store.snapshot(), alice, HERE, account_data::FULLY_READ).unwrap();
    assert_eq!(marker.unwrap(), "{\"event_id\":\"$x\"}");
}

#[test]
fn tags_are_a_piece_of_account_data() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    let content = |order: f64| json!({ "order": order }).as_object().unwrap().clone();
    let start = store.snapshot().seq();
    account_data::set_tag(&store, alice, RoomNo(7), "m.favourite", content(0.5)).unwrap().wait().unwrap();
    account_data::set_tag(&store, alice, RoomNo(7), "u.work", content(0.1)).unwrap().wait().unwrap();
    account_data::delete_tag(&store, alice, RoomNo(7), "m.favourite").unwrap().wait().unwrap();
    account_data::delete_tag(&store, alice, RoomNo(7), "m.favourite").unwrap().wait().unwrap();
    assert_eq!(news(&store, alice, start), ["Some(7) m.tag {\"tags\":{\"u.work\":{\"order\":0.1}}}"]);
    assert!(account_data::set_tag(&store, alice, RoomNo(7), &"x".repeat(256), content(0.1)).is_err());
    for n in 1..account_data::TAGS_MAX {
        account_data::set_tag(&store, alice, RoomNo(7), &n.to_string(), content(0.1)).unwrap().wait().unwrap();
    }
    assert!(matches!(account_data::set_tag(&store, alice, RoomNo(7), "one more", content(0.1)), Err(Error::TooLarge { .. })));
    set(&store, alice, HERE, "m.tag", &json!({ "tags": 5 })).unwrap();
    assert!(account_data::tags(&store.snapshot(), alice, RoomNo(7)).unwrap().is_empty(), "nonsense is no tag");
}

#[test]
fn ignored_users_are_read_leniently() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    let ignored = |store: &Store| account_data::ignored_users(&store.snapshot(), alice).unwrap();
    assert!(ignored(&store).is_empty());
    set(&store, alice, None, "m.ignored_user_list", &json!({ "ignored_users": { "@bob:x": {}, "nonsense": 1 } })).unwrap();
    assert_eq!(ignored(&store).into_iter().collect::<Vec<_>>(), ["@bob:x"]);
    set(&store, alice, None, "m.ignored_user_list", &json!({ "ignored_users": [] })).unwrap();
    assert!(ignored(&store).is_empty());
}
