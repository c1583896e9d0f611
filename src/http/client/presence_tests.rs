//! Presence over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use users::presence::{GONE_MS, IDLE_MS};

use crate::testing::{Hearth, Person};

const SYNC: &str = "/_matrix/client/v3/sync";

fn status(who: &Person) -> String {
    format!("/_matrix/client/v3/presence/{}/status", who.user_id)
}

/// Alice and Bob in a room, and Eve outside.
async fn people(hearth: &Hearth) -> (Person, Person, Person) {
    let (alice, bob, eve) = (hearth.register("alice").await, hearth.register("bob").await, hearth.register("eve").await);
    let made = alice.post("/_matrix/client/v3/createRoom", json!({ "preset": "public_chat" })).await.ok();
    bob.post(&format!("/_matrix/client/v3/join/{}", made["room_id"].as_str().unwrap()), json!({})).await.ok();
    (alice, bob, eve)
}

async fn sync(who: &Person, query: &str) -> (Value, String) {
    let answer = who.get(&format!("{SYNC}?{query}")).await.ok();
    let token = answer["next_batch"].as_str().unwrap().to_owned();
    (answer, token)
}

/// Where a client is that does not show its user as online.
async fn here(who: &Person) -> String {
    who.hearth.settle().await;
    sync(who, "set_presence=offline").await.1
}

/// Lets time pass, and the job see that it did.
async fn later(hearth: &Hearth, ms: u64) {
    hearth.clock.advance(ms);
    rooms::presence::refresh(&hearth.server.store, &hearth.server.online, hearth.server.now_ms()).unwrap();
    hearth.settle().await;
}

/// What an answer tells of one user.
fn told(answer: &Value, of: &Person) -> Vec<Value> {
    let events = answer["presence"]["events"].as_array().cloned().unwrap_or_default();
    assert!(events.iter().all(|event| event["type"] == "m.presence"));
    events.into_iter().filter(|event| event["sender"] == of.user_id.as_str()).map(|event| event["content"].clone()).collect()
}

#[tokio::test]
async fn a_word_reaches_those_who_share_a_room() {
    let hearth = Hearth::start();
    let (alice, bob, eve) = people(&hearth).await;
    let (bobs, eves) = (here(&bob).await, here(&eve).await);
    let query = format!("since={bobs}&timeout=20000&set_presence=offline");
    let waiting = sync(&bob, &query);
    let speaking = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        alice.put(&status(&alice), json!({ "presence": "online", "status_msg": "At the fire" })).await.ok()
    };
    let began = Instant::now();
    let ((answer, bobs), _) = tokio::join!(waiting, speaking);
    assert!(began.elapsed() < Duration::from_secs(10), "woken, not timed out");
    let expected = json!({ "presence": "online", "last_active_ago": 0, "status_msg": "At the fire", "currently_active": true });
    assert_eq!(told(&answer, &alice), std::slice::from_ref(&expected));
    assert_eq!(bob.get(&status(&alice)).await.ok(), expected);
    assert!(told(&sync(&bob, &format!("since={bobs}&set_presence=offline")).await.0, &alice).is_empty(), "told once");

    assert!(told(&sync(&eve, &format!("since={eves}")).await.0, &alice).is_empty(), "no room in common");
    assert!(told(&sync(&eve, "").await.0, &alice).is_empty());
    eve.get(&status(&alice)).await.fails(403, "M_FORBIDDEN");
    let nobody = "/_matrix/client/v3/presence/@nobody:hearth.test/status";
    assert_eq!(eve.get(nobody).await.fails(403, "M_FORBIDDEN"), eve.get(&status(&bob)).await.fails(403, "M_FORBIDDEN"));

    alice.put(&status(&alice), json!({ "presence": "unavailable" })).await.ok();
    let (answer, _) = sync(&bob, &format!("since={bobs}")).await;
    assert_eq!(told(&answer, &alice), [json!({ "presence": "unavailable", "last_active_ago": 0, "currently_active": false })]);
}

#[tokio::test]
async fn who_syncs_is_online_then_idle_then_gone() {
    let hearth = Hearth::start();
    let (alice, bob, _) = people(&hearth).await;
    let since = here(&bob).await;
    let (_, alices) = sync(&alice, "").await;
    hearth.settle().await;
    let (answer, since) = sync(&bob, &format!("since={since}&set_presence=offline")).await;
    assert_eq!(told(&answer, &alice)[0]["presence"], "online");
    assert!(told(&answer, &bob).is_empty());

    // Asking again and again is no activity, and nobody is told of it.
    let mut alices = alices;
    for _ in 0..(IDLE_MS / 20_000 - 1) {
        later(&hearth, 20_000).await;
        alices = sync(&alice, &format!("since={alices}")).await.1;
    }
    hearth.settle().await;
    let (answer, since) = sync(&bob, &format!("since={since}&set_presence=offline")).await;
    assert!(told(&answer, &alice).is_empty());
    later(&hearth, 20_000).await;
    let (answer, since) = sync(&bob, &format!("since={since}&set_presence=offline")).await;
    assert_eq!(
        told(&answer, &alice),
        [json!({ "presence": "unavailable", "last_active_ago": IDLE_MS, "currently_active": false })]
    );

    // To send something is.
    sync(&alice, &format!("since={alices}")).await;
    alice.post("/_matrix/client/v3/createRoom", json!({})).await.ok();
    let rooms = alice.get("/_matrix/client/v3/joined_rooms").await.ok();
    let path = format!("/_matrix/client/v3/rooms/{}/typing/{}", rooms["joined_rooms"][0].as_str().unwrap(), alice.user_id);
    alice.put(&path, json!({ "typing": true })).await.ok();
    hearth.settle().await;
    let (answer, since) = sync(&bob, &format!("since={since}&set_presence=offline")).await;
    assert_eq!(told(&answer, &alice)[0]["presence"], "online");

    later(&hearth, GONE_MS).await;
    let (answer, _) = sync(&bob, &format!("since={since}&set_presence=offline")).await;
    assert_eq!(told(&answer, &alice), [json!({ "presence": "offline", "last_active_ago": GONE_MS })]);
    assert!(told(&sync(&bob, "set_presence=offline").await.0, &alice).is_empty(), "who is gone is not listed");
}

#[tokio::test]
async fn a_client_says_how_its_user_is() {
    let hearth = Hearth::start();
    let (alice, bob, _) = people(&hearth).await;
    sync(&alice, "set_presence=unavailable").await;
    hearth.settle().await;
    let (answer, since) = sync(&bob, "set_presence=offline").await;
    assert_eq!(told(&answer, &alice)[0]["presence"], "unavailable");
    assert_eq!(told(&answer, &bob), [json!({ "presence": "offline" })], "one who is not to be seen");
    sync(&alice, "set_presence=online").await;
    hearth.settle().await;
    let filter = "%7B%22presence%22%3A%7B%22not_types%22%3A%5B%22m.presence%22%5D%7D%7D";
    let (answer, _) = sync(&bob, &format!("since={since}&filter={filter}")).await;
    assert!(answer["presence"].is_null(), "the filter wants none");
    let (answer, _) = sync(&bob, &format!("since={since}")).await;
    assert_eq!(told(&answer, &alice)[0]["presence"], "online");
    sync(&alice, "set_presence=offline").await;
    later(&hearth, 1).await;
    assert_eq!(bob.get(&status(&alice)).await.ok()["presence"], "offline");
}

#[tokio::test]
async fn who_meets_is_told_of_the_other_and_who_waits_stays() {
    let hearth = Hearth::start();
    let (alice, _, eve) = people(&hearth).await;
    alice.put(&status(&alice), json!({ "presence": "online" })).await.ok();
    let since = here(&eve).await;
    let rooms = alice.get("/_matrix/client/v3/joined_rooms").await.ok();
    eve.post(&format!("/_matrix/client/v3/join/{}", rooms["joined_rooms"][0].as_str().unwrap()), json!({})).await.ok();
    let (answer, since) = sync(&eve, &format!("since={since}&set_presence=offline")).await;
    assert_eq!(told(&answer, &alice)[0]["presence"], "online");

    let (_, alices) = sync(&alice, "").await;
    hearth.settle().await;
    let waiting = tokio::spawn(alice.get(&format!("{SYNC}?since={alices}&timeout=20000")).into_future());
    tokio::time::sleep(Duration::from_millis(100)).await;
    later(&hearth, GONE_MS).await;
    later(&hearth, GONE_MS).await;
    assert_eq!(eve.get(&status(&alice)).await.ok()["presence"], "online", "a request of hers waits");
    waiting.abort();
    let _ = waiting.await;
    later(&hearth, GONE_MS).await;
    let (answer, _) = sync(&eve, &format!("since={since}")).await;
    assert_eq!(told(&answer, &alice)[0]["presence"], "offline");
}

#[tokio::test]
async fn hostile_words_are_refused() {
    let hearth = Hearth::start();
    let (alice, bob, _) = people(&hearth).await;
    bob.put(&status(&alice), json!({ "presence": "online" })).await.fails(403, "M_FORBIDDEN");
    alice.put(&status(&alice), json!({ "presence": "asleep" })).await.fails(400, "M_BAD_JSON");
    alice.put(&status(&alice), json!({})).await.fails(400, "M_MISSING_PARAM");
    let long = json!({ "presence": "online", "status_msg": "x".repeat(1025) });
    alice.put(&status(&alice), long).await.fails(400, "M_INVALID_PARAM");
    assert_eq!(alice.get(&status(&alice)).await.ok(), json!({ "presence": "offline" }));
}

#[tokio::test]
async fn where_it_is_switched_off_nobody_is_online() {
    let hearth = Hearth::with_users(users::Config { presence: false, ..users::Config::default() });
    let (alice, bob, _) = people(&hearth).await;
    alice.put(&status(&alice), json!({ "presence": "online" })).await.ok();
    assert_eq!(bob.get(&status(&alice)).await.ok(), json!({ "presence": "offline" }));
    assert!(sync(&bob, "").await.0["presence"].is_null());
}
