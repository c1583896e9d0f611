//! What guests may do, over HTTP ("Guest Access").
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use users::accounts::Kind;

use crate::testing::{Hearth, Person};

async fn room(who: &Person, guest_access: Value) -> String {
    // Rooms are told apart by their create event, thus by their time.
    who.hearth.clock.advance(1);
    let access = json!([{ "type": "m.room.guest_access", "content": guest_access }]);
    let made = who.post("/_matrix/client/v3/createRoom", json!({ "preset": "public_chat", "initial_state": access })).await.ok();
    made["room_id"].as_str().unwrap().to_owned()
}

fn of(room: &str, path: &str) -> String {
    format!("/_matrix/client/v3/rooms/{room}/{path}")
}

async fn membership(hearth: &Hearth, alice: &Person, room: &str, of_user: &Person) -> Value {
    let done = rooms::guests::expel(&hearth.server.store, &hearth.server.identity, hearth.server.now_ms());
    done.unwrap();
    alice.get(&of(room, &format!("state/m.room.member/{}", of_user.user_id))).await.ok()["membership"].clone()
}

#[tokio::test]
async fn guests_join_where_they_may_and_leave_where_they_no_longer_may() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let guest = hearth.register_as("guest", Kind::Guest, false).await;
    let (open, closed) = (room(&alice, json!({ "guest_access": "can_join" })).await, room(&alice, json!({})).await);
    for path in [of(&closed, "join"), format!("/_matrix/client/v3/join/{closed}")] {
        guest.post(&path, json!({})).await.fails(403, "M_GUEST_ACCESS_FORBIDDEN");
    }
    let member = of(&closed, &format!("state/m.room.member/{}", guest.user_id));
    guest.put(&member, json!({ "membership": "join" })).await.fails(403, "M_GUEST_ACCESS_FORBIDDEN");
    alice.post(&of(&closed, "invite"), json!({ "user_id": guest.user_id })).await.ok();
    guest.post(&of(&closed, "join"), json!({})).await.fails(403, "M_GUEST_ACCESS_FORBIDDEN");
    bob.post(&of(&closed, "join"), json!({})).await.ok();

    for who in [&guest, &bob] {
        who.post(&of(&open, "join"), json!({})).await.ok();
    }
    guest.put(&of(&open, "send/m.room.message/1"), json!({ "body": "hello", "msgtype": "m.text" })).await.ok();
    let access = of(&open, "state/m.room.guest_access");
    alice.put(&access, json!({ "guest_access": "can_join", "note": "still" })).await.ok();
    assert_eq!(membership(&hearth, &alice, &open, &guest).await, "join");
    alice.put(&access, json!({ "guest_access": "forbidden" })).await.ok();
    assert_eq!(membership(&hearth, &alice, &open, &guest).await, "leave");
    assert_eq!(membership(&hearth, &alice, &open, &bob).await, "join");
    let rows = hearth.server.store.dump(rooms::TABLES).unwrap();
    assert!(rows.contains("guests_withdrawn\n") && !rows.contains("guests_withdrawn\n  "), "the job is done");
}

#[tokio::test]
async fn guests_use_only_what_is_theirs() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let guest = hearth.register_as("guest", Kind::Guest, false).await;
    let room = room(&alice, json!({ "guest_access": "can_join" })).await;
    guest.post(&of(&room, "join"), json!({})).await.ok();
    let sent = alice.put(&of(&room, "send/m.room.message/1"), json!({ "body": "hello", "msgtype": "m.text" })).await.ok();
    let event = sent["event_id"].as_str().unwrap();
    let profile = format!("/_matrix/client/v3/profile/{}", guest.user_id);

    let open =
        ["state", "messages?dir=b", "members", "state/m.room.create", &format!("context/{event}"), &format!("event/{event}")];
    for path in open {
        guest.get(&of(&room, path)).await.ok();
    }
    for path in ["sync", "devices", "account/whoami", &format!("devices/{}", guest.device_id)] {
        guest.get(&format!("/_matrix/client/v3/{path}")).await.ok();
    }
    guest.put(&format!("{profile}/displayname"), json!({ "displayname": "Visitor" })).await.ok();
    guest.delete(&format!("{profile}/displayname")).await.ok();
    guest.put("/_matrix/client/v3/sendToDevice/m.test/1", json!({ "messages": {} })).await.ok();
    for (path, body) in
        [("keys/query", json!({ "device_keys": {} })), ("keys/claim", json!({ "one_time_keys": {} })), ("keys/upload", json!({}))]
    {
        guest.post(&format!("/_matrix/client/v3/{path}"), body).await.ok();
    }

    guest
        .put(&format!("{profile}/avatar_url"), json!({ "avatar_url": "mxc://a/b" }))
        .await
        .fails(403, "M_GUEST_ACCESS_FORBIDDEN");
    guest.put(&of(&room, &format!("redact/{event}/1")), json!({})).await.fails(403, "M_GUEST_ACCESS_FORBIDDEN");
    for path in ["pushrules/", "joined_rooms", "capabilities", "account/3pid"] {
        guest.get(&format!("/_matrix/client/v3/{path}")).await.fails(403, "M_GUEST_ACCESS_FORBIDDEN");
    }
    for path in ["createRoom", "publicRooms", &format!("rooms/{room}/forget"), &format!("knock/{room}"), "account/deactivate"] {
        guest.post(&format!("/_matrix/client/v3/{path}"), json!({})).await.fails(403, "M_GUEST_ACCESS_FORBIDDEN");
    }
    guest.post(&of(&room, "leave"), json!({})).await.ok();
}
