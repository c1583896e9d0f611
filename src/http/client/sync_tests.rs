//! Syncing over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::testing::{Hearth, Person};

const SYNC: &str = "/_matrix/client/v3/sync";

/// A room of this user.
async fn room(who: &Person, more: Value) -> String {
    let made = who.post("/_matrix/client/v3/createRoom", more).await.ok();
    made["room_id"].as_str().unwrap().to_owned()
}

async fn join(who: &Person, room: &str) {
    who.post(&format!("/_matrix/client/v3/join/{room}"), json!({})).await.ok();
}

async fn say(who: &Person, room: &str, text: &str) -> String {
    let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{text}");
    let sent = who.put(&path, json!({ "msgtype": "m.text", "body": text })).await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

/// Asked before it is awaited, so that it may wait beside something else.
fn sync<Q: AsRef<str>>(who: &Person, query: Q) -> impl Future<Output = Value> + use<Q> {
    let asked = who.get(&format!("{SYNC}?{}", query.as_ref()));
    async move { asked.await.ok() }
}

fn token(answer: &Value) -> String {
    answer["next_batch"].as_str().unwrap().to_owned()
}

fn bodies(room: &Value) -> Vec<String> {
    let events = room["timeline"]["events"].as_array().cloned().unwrap_or_default();
    events.iter().filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

fn encoded(filter: &Value) -> String {
    filter.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn a_waiting_client_is_woken_by_what_is_said() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &room).await;
    let since = token(&sync(&bob, "").await);
    let began = Instant::now();
    let waiting = sync(&bob, format!("since={since}&timeout=20000"));
    let speaking = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        say(&alice, &room, "hello").await
    };
    let (told, event) = tokio::join!(waiting, speaking);
    assert!(began.elapsed() < Duration::from_secs(5));
    let joined = &told["rooms"]["join"][&room];
    assert_eq!(bodies(joined), ["hello"]);
    assert_eq!(joined["timeline"]["events"][0]["event_id"], event.as_str());
    assert!(joined["timeline"]["events"][0]["unsigned"]["transaction_id"].is_null(), "the transaction is of another device");
    let own = sync(&alice, "").await;
    let own = own["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(own["unsigned"]["transaction_id"], "hello");
}

#[tokio::test]
async fn a_client_that_waits_in_vain_is_answered_in_time_and_goes_on_from_there() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let room = room(&alice, json!({})).await;
    let since = token(&sync(&bob, "").await);
    let waiting = sync(&bob, format!("since={since}&timeout=100"));
    let (told, _) = tokio::join!(waiting, say(&alice, &room, "secret"));
    assert!(told["rooms"].is_null() && told["account_data"].is_null(), "{told}");
    assert!(told["device_one_time_keys_count"].is_object() && told["device_unused_fallback_key_types"].is_array());
    assert!(sync(&bob, format!("since={}", token(&told))).await["rooms"].is_null());
}

#[tokio::test]
async fn an_invitation_to_a_new_room_wakes_and_so_does_the_room_once_joined() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let since = token(&sync(&bob, "").await);
    let inviting = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        room(&alice, json!({ "name": "Lounge", "invite": [bob.user_id] })).await
    };
    let (told, room) = tokio::join!(sync(&bob, format!("since={since}&timeout=20000")), inviting);
    let stripped = told["rooms"]["invite"][&room]["invite_state"]["events"].as_array().unwrap();
    for kind in ["m.room.create", "m.room.name", "m.room.join_rules"] {
        assert!(stripped.iter().any(|event| event["type"] == kind), "{kind}");
    }
    let own = stripped.iter().find(|event| event["state_key"] == bob.user_id.as_str()).unwrap();
    assert_eq!(own["content"]["membership"], "invite");
    assert!(own["event_id"].is_null(), "stripped");

    join(&bob, &room).await;
    let joined = sync(&bob, format!("since={}", token(&told))).await;
    let of = &joined["rooms"]["join"][&room];
    assert_eq!(of["summary"]["m.joined_member_count"], 2);
    let speaking = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        say(&alice, &room, "welcome").await
    };
    let (told, _) = tokio::join!(sync(&bob, format!("since={}&timeout=20000", token(&joined))), speaking);
    assert_eq!(bodies(&told["rooms"]["join"][&room]), ["welcome"]);
}

#[tokio::test]
async fn garbage_is_refused_and_the_future_is_now() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &room).await;
    for since in ["garbage", "s", "s-1", "s1_2", "t5", "s99999999999999999999", "1"] {
        bob.get(&format!("{SYNC}?since={since}")).await.fails(400, "M_INVALID_PARAM");
    }
    for query in ["timeout=soon", "full_state=maybe"] {
        bob.get(&format!("{SYNC}?{query}")).await.fails(400, "M_INVALID_PARAM");
    }
    bob.get(&format!("{SYNC}?filter=%7B")).await.fails(400, "M_NOT_JSON");
    bob.get(&format!("{SYNC}?filter=77")).await.fails(400, "M_INVALID_PARAM");
    hearth.get(SYNC).await.fails(401, "M_MISSING_TOKEN");
    let waiting = sync(&bob, "since=s1000000000&timeout=20000");
    let speaking = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        say(&alice, &room, "heard").await
    };
    let (told, _) = tokio::join!(waiting, speaking);
    assert_eq!(bodies(&told["rooms"]["join"][&room]), ["heard"]);
    assert!(sync(&bob, "since=").await["rooms"]["join"][&room].is_object(), "an empty token is none");
}

#[tokio::test]
async fn full_state_is_told_at_once_and_again() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let room = room(&alice, json!({ "name": "Lounge" })).await;
    let since = token(&sync(&alice, "").await);
    let told = sync(&alice, format!("since={since}&full_state=true&timeout=20000")).await;
    let of = &told["rooms"]["join"][&room];
    assert!(of["state"]["events"].as_array().unwrap().iter().any(|event| event["content"]["name"] == "Lounge"));
    assert!(of["timeline"]["events"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn state_after_is_told_under_the_name_it_was_asked_by() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let room = room(&alice, json!({ "name": "Lounge" })).await;
    for (asked, told) in
        [("use_state_after", "state_after"), ("org.matrix.msc4222.use_state_after", "org.matrix.msc4222.state_after")]
    {
        let answer = sync(&alice, format!("{asked}=true")).await;
        let of = &answer["rooms"]["join"][&room];
        assert!(of["state"].is_null());
        let state = of[told]["events"].as_array().unwrap();
        assert!(state.iter().any(|event| event["type"] == "m.room.member"), "members too: {answer}");
        let quiet = say(&alice, &room, asked).await;
        let more = sync(&alice, format!("{asked}=true&since={}", token(&answer))).await;
        let of = &more["rooms"]["join"][&room];
        assert_eq!(of["timeline"]["events"][0]["event_id"], quiet.as_str());
        assert!(of[told]["events"].as_array().unwrap().is_empty(), "present though empty");
    }
}

#[tokio::test]
async fn a_filter_is_named_or_given() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let room = room(&alice, json!({})).await;
    for text in ["one", "two", "three"] {
        say(&alice, &room, text).await;
    }
    let filter = json!({ "room": { "timeline": { "limit": 2, "types": ["m.room.mess*"] } } });
    let inline = sync(&alice, format!("filter={}", encoded(&filter))).await;
    assert_eq!(bodies(&inline["rooms"]["join"][&room]), ["two", "three"]);
    assert_eq!(inline["rooms"]["join"][&room]["timeline"]["limited"], true);
    let stored = alice.post(&format!("/_matrix/client/v3/user/{}/filter", alice.user_id), filter).await.ok();
    let named = sync(&alice, format!("filter={}", stored["filter_id"].as_str().unwrap())).await;
    assert_eq!(bodies(&named["rooms"]["join"][&room]), ["two", "three"]);

    // What the gap leaves out is to be had from where the timeline begins.
    let from = inline["rooms"]["join"][&room]["timeline"]["prev_batch"].as_str().unwrap();
    let before = alice.get(&format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&from={from}")).await.ok();
    assert_eq!(before["chunk"][0]["content"]["body"], "one");
}

#[tokio::test]
async fn to_device_messages_arrive_once_and_in_order_however_many() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    for number in 0..150 {
        let messages = json!({ "messages": { &bob.user_id: { &bob.device_id: { "number": number } } } });
        alice.put(&format!("/_matrix/client/v3/sendToDevice/m.test/{number}"), messages).await.ok();
    }
    let numbers = |answer: &Value| -> Vec<u64> {
        let events = answer["to_device"]["events"].as_array().cloned().unwrap_or_default();
        events.iter().map(|event| event["content"]["number"].as_u64().unwrap()).collect()
    };
    let first = sync(&bob, "").await;
    assert_eq!(numbers(&first), (0..100).collect::<Vec<_>>());
    assert_eq!(numbers(&sync(&bob, "").await), (0..100).collect::<Vec<_>>(), "not yet acknowledged");
    let second = sync(&bob, format!("since={}", token(&first))).await;
    assert_eq!(numbers(&second), (100..150).collect::<Vec<_>>());
    let third = sync(&bob, format!("since={}", token(&second))).await;
    assert!(numbers(&third).is_empty());
    assert!(numbers(&sync(&bob, format!("since={}", token(&second))).await).is_empty(), "acknowledged");
}

#[tokio::test]
async fn a_stop_answers_those_who_wait() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let since = token(&sync(&alice, "").await);
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        hearth.server.stop();
    };
    let (told, ()) = tokio::join!(sync(&alice, format!("since={since}&timeout=20000")), stopping);
    assert_eq!(token(&told)[..1], *"s");
}

#[tokio::test]
async fn a_changed_push_rule_holds_for_what_comes_after() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &room).await;
    let rule = "/_matrix/client/v3/pushrules/global/content/stove";
    alice.put(rule, json!({ "pattern": "stove", "actions": ["notify", { "set_tweak": "highlight" }] })).await.ok();
    let mut since = token(&sync(&alice, "").await);
    let counts = async |since: &mut String| {
        let told = sync(&alice, format!("since={since}")).await;
        *since = token(&told);
        let told = told["rooms"]["join"][&room]["unread_notifications"].clone();
        (told["notification_count"].as_u64(), told["highlight_count"].as_u64())
    };
    say(&bob, &room, "stoves").await;
    assert_eq!(counts(&mut since).await, (Some(1), Some(0)), "a word, not a part of one");
    let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/1");
    bob.put(&path, json!({ "msgtype": "m.text", "body": "the stove is warm" })).await.ok();
    assert_eq!(counts(&mut since).await, (Some(2), Some(1)));
    alice.put(&format!("{rule}/enabled"), json!({ "enabled": false })).await.ok();
    let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/2");
    let last = bob.put(&path, json!({ "msgtype": "m.text", "body": "no stove any more" })).await.ok();
    assert_eq!(counts(&mut since).await, (Some(3), Some(1)), "what highlighted once still does");
    let last = last["event_id"].as_str().unwrap();
    alice.post(&format!("/_matrix/client/v3/rooms/{room}/receipt/m.read.private/{last}"), json!({})).await.ok();
    assert_eq!(counts(&mut since).await, (Some(0), Some(0)));
}
