//! What suspended users may do, over HTTP ("Account suspension").
#![allow(clippy::unwrap_used)]

use serde_json::json;

use crate::testing::Hearth;

#[tokio::test]
async fn a_suspended_user_reads_leaves_and_takes_back_and_nothing_else() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let create = "/_matrix/client/v3/createRoom";
    let made = alice.post(create, json!({ "preset": "public_chat" })).await.ok();
    let room = made["room_id"].as_str().unwrap();
    let other = bob.post(create, json!({ "preset": "public_chat", "invite": [alice.user_id] })).await.ok();
    let other = other["room_id"].as_str().unwrap();
    let path = |path: &str| format!("/_matrix/client/v3/rooms/{room}/{path}");
    bob.post(&path("join"), json!({})).await.ok();
    let text = json!({ "body": "hello", "msgtype": "m.text" });
    let own = alice.put(&path("send/m.room.message/1"), text.clone()).await.ok();
    let again = alice.put(&path("send/m.room.message/2"), text.clone()).await.ok();
    let bobs = bob.put(&path("send/m.room.message/1"), text.clone()).await.ok();
    let (own, again, bobs) = (own["event_id"].as_str().unwrap(), again["event_id"].as_str().unwrap(), &bobs["event_id"]);
    users::accounts::set_suspended(&hearth.server.store, alice.user, true).unwrap().durable().await.unwrap();

    alice.put(&path("send/m.room.message/3"), text).await.fails(403, "M_USER_SUSPENDED");
    alice.put(&path("state/m.room.topic"), json!({ "topic": "x" })).await.fails(403, "M_USER_SUSPENDED");
    alice.put(&path(&format!("redact/{}/1", bobs.as_str().unwrap())), json!({})).await.fails(403, "M_USER_SUSPENDED");
    alice.put(&path("send/m.room.redaction/4"), json!({ "redacts": bobs })).await.fails(403, "M_USER_SUSPENDED");
    alice.put(&path("redact/$none/5"), json!({})).await.fails(403, "M_USER_SUSPENDED");
    for what in ["kick", "ban", "invite"] {
        alice.post(&path(what), json!({ "user_id": bob.user_id })).await.fails(403, "M_USER_SUSPENDED");
    }
    alice.post(&format!("/_matrix/client/v3/join/{other}"), json!({})).await.fails(403, "M_USER_SUSPENDED");
    alice.post(&format!("/_matrix/client/v3/knock/{other}"), json!({})).await.fails(403, "M_USER_SUSPENDED");
    alice.post(create, json!({})).await.fails(403, "M_USER_SUSPENDED");
    alice.post(&path("upgrade"), json!({ "new_version": "12" })).await.fails(403, "M_USER_SUSPENDED");
    let alias = "/_matrix/client/v3/directory/room/%23x:hearth.test";
    alice.put(alias, json!({ "room_id": room })).await.fails(403, "M_USER_SUSPENDED");
    let presence = format!("/_matrix/client/v3/presence/{}/status", alice.user_id);
    alice.put(&presence, json!({ "presence": "online" })).await.fails(403, "M_USER_SUSPENDED");

    alice.get("/_matrix/client/v3/sync").await.ok();
    alice.get(&path("messages?dir=b")).await.ok();
    alice.put(&path(&format!("redact/{own}/6")), json!({})).await.ok();
    alice.put(&path("send/m.room.redaction/7"), json!({ "redacts": again })).await.ok();
    alice.post(&format!("/_matrix/client/v3/rooms/{other}/leave"), json!({})).await.ok();
    alice.post(&path("leave"), json!({})).await.ok();
    users::accounts::set_suspended(&hearth.server.store, alice.user, false).unwrap().durable().await.unwrap();
    alice.post(&path("join"), json!({})).await.ok();
}
