//! Aliases, and what is told of rooms to who is not in them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};

use crate::testing::{Hearth, Person};

async fn room(who: &Person, more: Value) -> String {
    let made = who.post("/_matrix/client/v3/createRoom", more).await.ok();
    made["room_id"].as_str().unwrap().to_owned()
}

fn summary(room: &str) -> String {
    format!("/_matrix/client/v1/room_summary/{}", room.replace('#', "%23"))
}

#[tokio::test]
async fn a_public_room_is_told_of_to_anybody() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let encryption = json!([{ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } }]);
    let more = json!({ "preset": "public_chat", "name": "Lounge", "room_alias_name": "lounge", "initial_state": encryption });
    let room = room(&alice, more).await;
    // Without a join rule it is public.
    let mut expected = json!({
        "room_id": room, "name": "Lounge", "canonical_alias": "#lounge:hearth.test",
        "num_joined_members": 1, "world_readable": false, "guest_can_join": false,
        "encryption": "m.megolm.v1.aes-sha2", "room_version": "12",
    });
    assert_eq!(hearth.get(&summary(&room)).await.ok(), expected);
    assert_eq!(hearth.get(&summary("#lounge:hearth.test")).await.ok(), expected);
    for (who, membership) in [(&alice, "join"), (&bob, "leave")] {
        expected["membership"] = json!(membership);
        assert_eq!(who.get(&summary(&room)).await.ok(), expected);
    }
    hearth.get(&summary("#none:hearth.test")).await.fails(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_private_room_is_as_one_that_is_not_there() {
    let hearth = Hearth::start();
    let (alice, bob, eve) = (hearth.register("alice").await, hearth.register("bob").await, hearth.register("eve").await);
    let private = room(&alice, json!({ "invite": [bob.user_id], "room_version": "11" })).await;
    assert_eq!(bob.get(&summary(&private)).await.ok()["membership"], "invite");
    let missing = eve.get(&summary("!missing:hearth.test")).await.fails(404, "M_NOT_FOUND");
    assert_eq!(eve.get(&summary(&private)).await.fails(404, "M_NOT_FOUND"), missing);
    assert_eq!(hearth.get(&summary(&private)).await.fails(404, "M_NOT_FOUND"), missing);

    hearth.clock.advance(1);
    let club = room(&eve, json!({})).await;
    let rules = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club }] });
    let restricted = room(&alice, json!({ "initial_state": [{ "type": "m.room.join_rules", "content": rules }] })).await;
    let told = eve.get(&summary(&restricted)).await.ok();
    assert_eq!((&told["join_rule"], &told["allowed_room_ids"]), (&json!("restricted"), &json!([club])));
    bob.get(&summary(&restricted)).await.fails(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn aliases_that_are_published_name_the_room() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let other = room(&alice, json!({ "room_alias_name": "other" })).await;
    hearth.clock.advance(1);
    let room = room(&alice, json!({ "room_alias_name": "mine" })).await;
    let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.canonical_alias");
    let set = |content: Value| alice.put(&path, content);
    set(json!({ "alias": "#mine:hearth.test", "alt_aliases": ["#other:hearth.test"] })).await.fails(400, "M_BAD_ALIAS");
    set(json!({ "alias": "#none:hearth.test" })).await.fails(400, "M_BAD_ALIAS");
    for malformed in [json!("mine"), json!("#mine"), json!(7), json!("!mine:hearth.test")] {
        set(json!({ "alias": malformed })).await.fails(400, "M_INVALID_PARAM");
        set(json!({ "alt_aliases": [malformed] })).await.fails(400, "M_INVALID_PARAM");
    }
    set(json!({ "alt_aliases": "#mine:hearth.test" })).await.fails(400, "M_INVALID_PARAM");
    alice.post(&format!("/_matrix/client/v3/rooms/{room}/invite"), json!({ "user_id": bob.user_id })).await.ok();
    bob.post(&format!("/_matrix/client/v3/join/{room}"), json!({})).await.ok();
    bob.put("/_matrix/client/v3/directory/room/%23second:hearth.test", json!({ "room_id": room })).await.ok();
    set(json!({ "alias": "#mine:hearth.test", "alt_aliases": ["#second:hearth.test"] })).await.ok();
    bob.delete("/_matrix/client/v3/directory/room/%23second:hearth.test").await.ok();
    assert_eq!(alice.get(&path).await.ok()["alt_aliases"], json!(["#second:hearth.test"]), "he has no power over this");
    set(json!({ "alias": null, "alt_aliases": ["#second:hearth.test"] })).await.ok();
    set(json!({})).await.ok();
    set(json!({ "alt_aliases": ["#second:hearth.test"] })).await.fails(400, "M_BAD_ALIAS");

    hearth.clock.advance(1);
    let create = |alias: &str, published: &str| {
        let initial = json!([{ "type": "m.room.canonical_alias", "content": { "alias": published } }]);
        alice.post("/_matrix/client/v3/createRoom", json!({ "room_alias_name": alias, "initial_state": initial }))
    };
    create("third", "#other:hearth.test").await.fails(400, "M_BAD_ALIAS");
    create("third", "third").await.fails(400, "M_INVALID_PARAM");
    create("third", "#third:hearth.test").await.ok();
    assert_ne!(other, room);
}

#[tokio::test]
async fn an_alias_that_is_deleted_is_no_longer_published() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let room = room(&alice, json!({ "room_alias_name": "one" })).await;
    let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.canonical_alias");
    let named = |name: &str| format!("/_matrix/client/v3/directory/room/%23{name}:hearth.test");
    for name in ["two", "three", "four"] {
        alice.put(&named(name), json!({ "room_id": room })).await.ok();
    }
    let more = json!(["#two:hearth.test", "#three:hearth.test"]);
    alice.put(&path, json!({ "alias": "#one:hearth.test", "alt_aliases": more, "org.example": 1 })).await.ok();
    for (gone, left) in [
        ("four", json!({ "alias": "#one:hearth.test", "alt_aliases": more, "org.example": 1 })),
        ("two", json!({ "alias": "#one:hearth.test", "alt_aliases": ["#three:hearth.test"], "org.example": 1 })),
        ("one", json!({ "alt_aliases": ["#three:hearth.test"], "org.example": 1 })),
        ("three", json!({ "org.example": 1 })),
    ] {
        alice.delete(&named(gone)).await.ok();
        assert_eq!(alice.get(&path).await.ok(), left, "{gone}");
    }
}

#[tokio::test]
async fn an_alias_is_given_once() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let room = alice.post("/_matrix/client/v3/createRoom", json!({})).await.ok();
    let path = "/_matrix/client/v3/directory/room/%23hall:hearth.test";
    alice.put(path, json!({ "room_id": room["room_id"] })).await.ok();
    assert_eq!(hearth.get(path).await.ok()["room_id"], room["room_id"]);
    alice.put(path, json!({ "room_id": room["room_id"] })).await.fails(409, "M_UNKNOWN");
    let again = alice.post("/_matrix/client/v3/createRoom", json!({})).await.ok();
    assert_ne!(again["room_id"], room["room_id"], "made in the same millisecond");
    let named = json!({ "room_alias_name": "hall" });
    alice.post("/_matrix/client/v3/createRoom", named).await.fails(400, "M_ROOM_IN_USE");
}
