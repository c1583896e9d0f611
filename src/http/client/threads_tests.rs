//! Threads, and where in a room's history a time is.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};

use crate::testing::{Hearth, Person};

async fn room(who: &Person, more: Value) -> String {
    let made = who.post("/_matrix/client/v3/createRoom", more).await.ok();
    made["room_id"].as_str().unwrap().to_owned()
}

async fn join(who: &Person, room: &str) {
    who.post(&format!("/_matrix/client/v3/join/{room}"), json!({})).await.ok();
}

async fn leave(who: &Person, room: &str) {
    who.post(&format!("/_matrix/client/v3/rooms/{room}/leave"), json!({})).await.ok();
}

async fn say(who: &Person, room: &str, text: &str, thread: Option<&str>) -> String {
    let mut content = json!({ "msgtype": "m.text", "body": text });
    if let Some(root) = thread {
        content["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": root });
    }
    let sent = who.put(&format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{text}"), content).await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

fn threads(room: &str, query: &str) -> String {
    format!("/_matrix/client/v1/rooms/{room}/threads?{query}")
}

fn ids(page: &Value) -> Vec<&str> {
    page["chunk"].as_array().unwrap().iter().map(|event| event["event_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn threads_are_listed_with_the_newest_answer_first() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &room).await;
    assert_eq!(bob.get(&threads(&room, "")).await.ok(), json!({ "chunk": [] }));
    let mut roots = Vec::new();
    for name in ["a", "b", "c"] {
        roots.push(say(&alice, &room, name, None).await);
    }
    for (who, thread, name) in [(&alice, 0, "1"), (&bob, 1, "2"), (&alice, 2, "3"), (&alice, 0, "4")] {
        say(who, &room, name, Some(&roots[thread])).await;
    }
    let all = bob.get(&threads(&room, "")).await.ok();
    assert_eq!(ids(&all), [&roots[0], &roots[2], &roots[1]]);
    assert!(all["next_batch"].is_null());
    let newest = &all["chunk"][0]["unsigned"]["m.relations"]["m.thread"];
    assert_eq!((&newest["count"], &newest["current_user_participated"]), (&json!(2), &json!(false)));
    assert_eq!(newest["latest_event"]["content"]["body"], "4");
    assert_eq!(all["chunk"][0]["room_id"], room.as_str());
    assert_eq!(ids(&bob.get(&threads(&room, "include=participated")).await.ok()), [&roots[1]]);
    assert_eq!(alice.get(&threads(&room, "include=participated&limit=3")).await.ok()["chunk"].as_array().unwrap().len(), 3);

    let first = bob.get(&threads(&room, "limit=2")).await.ok();
    assert_eq!(ids(&first), [&roots[0], &roots[2]]);
    let token = first["next_batch"].as_str().unwrap();
    let second = bob.get(&threads(&room, &format!("limit=2&from={token}"))).await.ok();
    assert_eq!((ids(&second), second["next_batch"].is_null()), (vec![roots[1].as_str()], true));

    bob.get(&threads(&room, "limit=0")).await.fails(400, "M_INVALID_PARAM");
    bob.get(&threads(&room, "from=nonsense")).await.fails(400, "M_INVALID_PARAM");
    bob.get(&threads(&room, "include=some")).await.fails(400, "M_INVALID_PARAM");
    let eve = hearth.register("eve").await;
    eve.get(&threads(&room, "")).await.fails(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_thread_that_began_after_one_left_is_not_listed() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &room).await;
    let (old, new) = (say(&alice, &room, "old", None).await, say(&alice, &room, "new", None).await);
    say(&alice, &room, "seen", Some(&old)).await;
    leave(&bob, &room).await;
    say(&alice, &room, "unseen", Some(&old)).await;
    say(&alice, &room, "began%20later", Some(&new)).await;
    let page = bob.get(&threads(&room, "")).await.ok();
    assert_eq!(ids(&page), [&old]);
    let thread = &page["chunk"][0]["unsigned"]["m.relations"]["m.thread"];
    assert_eq!((&thread["latest_event"]["content"]["body"], &thread["count"]), (&json!("seen"), &json!(1)));
}

#[tokio::test]
async fn what_an_ignored_user_said_is_not_told_with_a_thread() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &room).await;
    let root = say(&bob, &room, "rude", None).await;
    say(&alice, &room, "no", Some(&root)).await;
    say(&bob, &room, "yes", Some(&root)).await;
    let path = format!("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", alice.user_id);
    alice.put(&path, json!({ "ignored_users": { &bob.user_id: {} } })).await.ok();
    let page = alice.get(&threads(&room, "")).await.ok();
    assert_eq!((ids(&page), &page["chunk"][0]["content"]), (vec![root.as_str()], &json!({})), "the root is shown as redacted");
    let thread = &page["chunk"][0]["unsigned"]["m.relations"]["m.thread"];
    assert_eq!((&thread["latest_event"]["content"]["body"], &thread["count"]), (&json!("no"), &json!(1)));
}

#[tokio::test]
async fn the_event_closest_to_a_time_is_found() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let visibility = json!([{ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } }]);
    let room = room(&alice, json!({ "preset": "public_chat", "initial_state": visibility })).await;
    let mut said = Vec::new();
    for name in ["a", "b"] {
        hearth.clock.advance(60_000);
        said.push(say(&alice, &room, name, None).await);
    }
    hearth.clock.advance(60_000);
    join(&bob, &room).await;
    let path = |ts: u64, dir: &str| format!("/_matrix/client/v1/rooms/{room}/timestamp_to_event?ts={ts}&dir={dir}");
    let found = alice.get(&path(0, "f")).await.ok();
    let began = found["origin_server_ts"].as_u64().unwrap();
    let event = |id: &Value| format!("/_matrix/client/v3/rooms/{room}/event/{}", id.as_str().unwrap());
    assert_eq!(alice.get(&event(&found["event_id"])).await.ok()["type"], "m.room.create");
    for (ts, dir, expected) in [
        (began + 60_000, "f", &said[0]),
        (began + 60_001, "f", &said[1]),
        (began + 60_000, "b", &said[0]),
        (began + 119_999, "b", &said[0]),
        (began + 120_000, "b", &said[1]),
    ] {
        let found = alice.get(&path(ts, dir)).await.ok();
        assert_eq!(found["event_id"], expected.as_str(), "{ts} {dir}");
    }
    alice.get(&path(began - 1, "b")).await.fails(404, "M_NOT_FOUND");
    alice.get(&path(began + 600_000, "f")).await.fails(404, "M_NOT_FOUND");
    alice.get(&path(0, "x")).await.fails(400, "M_INVALID_PARAM");

    // What came before the room said who sees it, all members see; what alice said then, she alone.
    for (ts, dir, expected) in [(began + 1, "f", began + 180_000), (began + 120_000, "b", began)] {
        assert_eq!(bob.get(&path(ts, dir)).await.ok()["origin_server_ts"], expected, "{dir}");
    }
    hearth.register("eve").await.get(&path(0, "f")).await.fails(403, "M_FORBIDDEN");
}
