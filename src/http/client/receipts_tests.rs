//! Receipts, read markers and typing as clients send them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};

use crate::testing::{Hearth, Person};

/// A user in a room of their own with one message: the room's path, and the message.
async fn room(hearth: &Hearth) -> (Person, String, String) {
    let alice = hearth.register("alice").await;
    let room = alice.post("/_matrix/client/v3/createRoom", json!({})).await.ok();
    let path = format!("/_matrix/client/v3/rooms/{}", room["room_id"].as_str().unwrap());
    let said = alice.put(&format!("{path}/send/m.room.message/1"), json!({ "msgtype": "m.text", "body": "hello" })).await.ok();
    (alice, path, said["event_id"].as_str().unwrap().to_owned())
}

async fn in_sync(person: &Person, path: &str, section: &str) -> Vec<Value> {
    let id = path.rsplit('/').next().unwrap();
    let synced = person.get("/_matrix/client/v3/sync").await.ok();
    synced["rooms"]["join"][id][section]["events"].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn receipts_of_all_types_are_taken() {
    let hearth = Hearth::start();
    let (alice, path, event) = room(&hearth).await;
    let receipt = |kind: &str, body: Value| alice.post(&format!("{path}/receipt/{kind}/{event}"), body);
    receipt("m.read", json!({})).await.ok();
    receipt("m.read.private", json!({ "thread_id": "main" })).await.ok();
    receipt("m.fully_read", json!({})).await.ok();
    for (kind, body) in [
        ("m.read", json!({ "thread_id": "" })),
        ("m.read", json!({ "thread_id": 1 })),
        ("m.read", json!({ "thread_id": "$other" })),
        ("m.fully_read", json!({ "thread_id": "main" })),
        ("m.seen", json!({})),
    ] {
        receipt(kind, body).await.fails(400, "M_INVALID_PARAM");
    }
    alice.post(&format!("{path}/receipt/m.read/$none"), json!({})).await.fails(404, "M_NOT_FOUND");
    let eve = hearth.register("eve").await;
    eve.post(&format!("{path}/receipt/m.read/{event}"), json!({})).await.fails(403, "M_FORBIDDEN");

    let told = in_sync(&alice, &path, "ephemeral").await;
    let user = &alice.user_id;
    let of = |kind: &str| told[0]["content"][&event][kind][user].clone();
    assert_eq!(told[0]["type"], "m.receipt");
    assert!(of("m.read")["thread_id"].is_null() && of("m.read")["ts"].is_u64());
    assert_eq!(of("m.read.private")["thread_id"], "main");
    let data = in_sync(&alice, &path, "account_data").await;
    assert!(data.contains(&json!({ "type": "m.fully_read", "content": { "event_id": event } })));
}

#[tokio::test]
async fn read_markers_set_several_at_once_or_none() {
    let hearth = Hearth::start();
    let (alice, path, event) = room(&hearth).await;
    let markers = format!("{path}/read_markers");
    alice.post(&markers, json!({})).await.ok();
    alice.post(&markers, json!({ "m.fully_read": event, "m.read": "$none" })).await.fails(404, "M_NOT_FOUND");
    assert!(in_sync(&alice, &path, "account_data").await.is_empty(), "all or nothing");
    alice.post(&markers, json!({ "m.fully_read": event, "m.read": event, "m.read.private": event })).await.ok();
    let content = in_sync(&alice, &path, "ephemeral").await[0]["content"][&event].clone();
    assert!(content["m.read"][&alice.user_id].is_object() && content["m.read.private"][&alice.user_id].is_object());
    assert_eq!(in_sync(&alice, &path, "account_data").await.len(), 1);
}

#[tokio::test]
async fn users_say_of_themselves_that_they_type() {
    let hearth = Hearth::start();
    let (alice, path, _) = room(&hearth).await;
    let eve = hearth.register("eve").await;
    let typing = format!("{path}/typing/{}", alice.user_id);
    eve.put(&typing, json!({ "typing": true })).await.fails(403, "M_FORBIDDEN");
    eve.put(&format!("{path}/typing/{}", eve.user_id), json!({ "typing": true })).await.fails(403, "M_FORBIDDEN");
    alice.put(&typing, json!({ "typing": true })).await.ok();
    // Typing waits for no disk; the message that follows it does.
    alice.put(&format!("{path}/send/m.room.message/2"), json!({ "msgtype": "m.text", "body": "done" })).await.ok();
    let told = [json!({ "type": "m.typing", "content": { "user_ids": [alice.user_id] } })];
    assert_eq!(in_sync(&alice, &path, "ephemeral").await, told);
    hearth.clock.advance(30_000);
    assert!(in_sync(&alice, &path, "ephemeral").await.is_empty());
}
