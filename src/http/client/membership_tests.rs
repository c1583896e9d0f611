//! Who enters and leaves rooms, and what they say of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};

use crate::testing::{Hearth, Person};

const V3: &str = "/_matrix/client/v3";

async fn room(who: &Person, more: Value) -> String {
    let made = who.post(&format!("{V3}/createRoom"), more).await.ok();
    made["room_id"].as_str().unwrap().to_owned()
}

fn of(room: &str, rest: &str) -> String {
    format!("{V3}/rooms/{room}/{rest}")
}

#[tokio::test]
async fn what_is_said_with_a_join_is_content_of_the_event() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let room = room(&alice, json!({ "preset": "public_chat", "room_alias_name": "hall" })).await;
    let member = of(&room, &format!("state/m.room.member/{}", bob.user_id));
    let name = format!("{V3}/profile/{}/displayname", bob.user_id);
    bob.put(&name, json!({ "displayname": "Bob" })).await.ok();
    for path in [of(&room, "join"), format!("{V3}/join/{room}"), format!("{V3}/join/%23hall:hearth.test?via=hearth.test")] {
        let said = json!({
            "foo": "bar", "reason": "why not", "membership": "ban", "join_authorised_via_users_server": alice.user_id,
            "third_party_signed": { "token": "x" }, "avatar_url": null,
        });
        bob.post(&path, said).await.ok();
        let expected = json!({ "membership": "join", "foo": "bar", "reason": "why not", "displayname": "Bob" });
        assert_eq!(alice.get(&member).await.ok(), expected, "{path}");
        bob.post(&of(&room, "leave"), json!({ "reason": "bye", "foo": 1 })).await.ok();
        assert_eq!(alice.get(&member).await.ok(), json!({ "membership": "leave", "reason": "bye" }));
        bob.post(&path, json!({ "displayname": ["Bob"] })).await.fails(400, "M_BAD_JSON");
        bob.post(&path, json!({ "reason": 1 })).await.fails(400, "M_BAD_JSON");
    }
    bob.post(&format!("{V3}/join/{room}"), json!({ "displayname": "Bobby" })).await.ok();
    assert_eq!(alice.get(&member).await.ok()["displayname"], "Bobby", "a name for this room");
    bob.post(&format!("{V3}/join/hall"), json!({})).await.fails(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn an_invitation_to_an_empty_room_is_declined() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let room = room(&alice, json!({ "invite": [bob.user_id] })).await;
    alice.post(&of(&room, "leave"), json!({})).await.ok();
    let since = bob.get(&format!("{V3}/sync")).await.ok();
    assert!(since["rooms"]["invite"][&room].is_object(), "{since}");
    bob.post(&of(&room, "leave"), json!({})).await.ok();
    let since = since["next_batch"].as_str().unwrap();
    let news = bob.get(&format!("{V3}/sync?since={since}")).await.ok();
    assert!(news["rooms"]["leave"][&room].is_object(), "{news}");
    assert!(bob.get(&format!("{V3}/sync")).await.ok()["rooms"]["invite"].get(&room).is_none());
    bob.post(&of(&room, "leave"), json!({})).await.ok();
    hearth.register("eve").await.post(&of(&room, "leave"), json!({})).await.fails(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_room_is_forgotten_once_it_was_left() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let room = room(&alice, json!({})).await;
    alice.post(&of(&room, "forget"), json!({})).await.fails(400, "M_UNKNOWN");
    alice.post(&of(&room, "leave"), json!({})).await.ok();
    alice.get(&of(&room, "messages?dir=b")).await.ok();
    alice.post(&of(&room, "forget"), json!({})).await.ok();
    alice.get(&of(&room, "messages?dir=b")).await.fails(403, "M_FORBIDDEN");
    alice.get(&of(&room, "messages")).await.fails(403, "M_FORBIDDEN");
}
