//! Rooms with a policy server, across servers of one process: what it signs is sent and shown, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    extract::State,
    routing::{get, post, put},
};
use http::StatusCode;
use protocol::{
    keys::{POLICY_KEY_ID, SigningKey},
    sign,
    version::RoomVersion,
};
use serde_json::{Value, json};

use super::{
    federation::{Running, enc, eventually, join, neighbours, room, running, say},
    federation_hostile::{EVIL, Evil, open_room},
};
use crate::testing::{Network, Person, signing_key};

const POLICY: &str = "policy.test";

/// The key that the room names, which is not the one of the server.
fn policy_key(seed: u8) -> SigningKey {
    SigningKey::from_seed("policy_server", &[seed; 32]).unwrap()
}

/// Signs all but spam, and what is forged with another key. The evil one adds what is not asked for.
async fn sign_event(State((name, asked)): State<(&'static str, Arc<AtomicUsize>)>, event: String) -> (StatusCode, String) {
    let event: Value = serde_json::from_str(&event).unwrap();
    asked.fetch_add(1, Ordering::SeqCst);
    assert_ne!(event["type"], "m.room.policy", "nobody is asked about this");
    let body = event["content"]["body"].as_str().or(event["content"]["reason"].as_str()).unwrap_or_default();
    if body.contains("spam") {
        return (StatusCode::BAD_REQUEST, json!({ "errcode": "M_FORBIDDEN", "error": "This looks like spam" }).to_string());
    }
    let key = policy_key(if body.contains("forged") { 2 } else { 1 });
    let mut signed = event.as_object().unwrap().clone();
    signed.remove("signatures");
    sign::cosign_object(&mut signed, RoomVersion::named("11").unwrap(), name.try_into().unwrap(), &key).unwrap();
    let mut signatures = signed["signatures"].clone();
    if name == EVIL {
        let key = signing_key(EVIL);
        let own = key.id();
        signatures[EVIL][own] = json!("nonsense");
        signatures["one.test"] = json!({ own: "nonsense" });
    }
    (StatusCode::OK, signatures.to_string())
}

struct PolicyServer {
    asked: Arc<AtomicUsize>,
    _router: Arc<Router>,
}

impl PolicyServer {
    /// Takes the place of a server whose user is in the room.
    fn replacing(network: &Network, now_ms: u64) -> Self {
        Self::named(network, POLICY, now_ms)
    }

    fn named(network: &Network, name: &'static str, now_ms: u64) -> Self {
        let key = signing_key(name);
        let mut document = json!({ "server_name": name, "valid_until_ts": now_ms + 1_000_000,
            "verify_keys": { key.id(): { "key": key.public().to_base64() } }, "old_verify_keys": {} });
        sign::sign_json(document.as_object_mut().unwrap(), name, &key).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let router = Router::new()
            .route("/_matrix/policy/v1/sign", post(sign_event))
            .route("/_matrix/key/v2/server", get(async move || document.to_string()))
            .route("/_matrix/federation/v1/send/{txn}", put(async || json!({ "pdus": {} }).to_string()))
            .with_state((name, Arc::clone(&asked)));
        let router = Arc::new(router);
        network.connect(name, &router);
        Self { asked, _router: router }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn designate(by: &Person, room: &str, content: Value) {
    by.put(&format!("/_matrix/client/v3/rooms/{}/state/m.room.policy/", enc(room)), content).await.ok();
}

fn designation() -> Value {
    // In the other alphabet of base64, as the specification's example has it.
    let key = policy_key(1).public().to_base64().replace('+', "-").replace('/', "_");
    json!({ "via": POLICY, "public_keys": { "ed25519": key } })
}

async fn try_to_say(by: &Person, room: &str, body: &str) -> crate::testing::Answer {
    let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{}", enc(room), enc(body));
    by.put(&path, json!({ "msgtype": "m.text", "body": body })).await
}

async fn sees(who: &Person, room: &str, event: &str) -> bool {
    who.get(&format!("/_matrix/client/v3/rooms/{}/event/{}", enc(room), enc(event))).await.status.is_success()
}

async fn comes_to_see(who: &Person, room: &str, event: &str) {
    eventually("an event", async || sees(who, room, event).await.then_some(())).await;
}

/// A room of Alice with a user of what becomes the policy server, and Bob.
async fn guarded(network: &Network, one: &Running, two: &Running) -> (Person, Person, String, PolicyServer) {
    let (alice, bob) = (one.hearth.register("alice").await, two.hearth.register("bob").await);
    let guard = running(network, POLICY);
    let room = room(&alice, json!({ "preset": "public_chat", "room_version": "11" })).await;
    join(&guard.hearth.register("guard").await, &room, "one.test").await;
    join(&bob, &room, "one.test").await;
    drop(guard);
    // Who did not reach it while it was no more asks again.
    for server in [one, two] {
        server.hearth.clock.advance(600_000);
    }
    let policy = PolicyServer::replacing(network, one.hearth.server.now_ms());
    (alice, bob, room, policy)
}

#[tokio::test]
async fn what_the_policy_server_signs_is_sent_and_nothing_else() {
    let network = Network::default();
    let (one, two) = (running(&network, "one.test"), running(&network, "two.test"));
    let (alice, bob, room, policy) = guarded(&network, &one, &two).await;
    say(&alice, &room, "before").await;
    designate(&alice, &room, designation()).await;
    assert_eq!(policy.asked(), 0);

    let fine = say(&alice, &room, "fine").await;
    assert_eq!((say(&alice, &room, "fine").await, policy.asked()), (fine.clone(), 1), "a transaction is sent once");
    comes_to_see(&bob, &room, &fine).await;
    assert_eq!(policy.asked(), 1, "the signature came with the event");
    let refused = try_to_say(&alice, &room, "spam").await.fails(400, "M_FORBIDDEN");
    assert_eq!(refused["error"], "This looks like spam", "as the policy server says it");
    try_to_say(&alice, &room, "forged").await.fails(403, "M_FORBIDDEN");
    comes_to_see(&alice, &room, &say(&bob, &room, "from-the-other-side").await).await;

    let kick = format!("/_matrix/client/v3/rooms/{}/kick", enc(&room));
    let asked = policy.asked();
    alice.post(&kick, json!({ "user_id": bob.user_id, "reason": "spam" })).await.fails(400, "M_FORBIDDEN");
    alice.post(&kick, json!({ "user_id": bob.user_id })).await.ok();
    assert_eq!(policy.asked(), asked + 2);
    join(&bob, &room, "one.test").await;
    let invited = two.hearth.register("carol").await;
    let invite = format!("/_matrix/client/v3/rooms/{}/invite", enc(&room));
    alice.post(&invite, json!({ "user_id": invited.user_id, "reason": "spam" })).await.fails(400, "M_FORBIDDEN");
    assert!(invited.get("/_matrix/client/v3/sync").await.ok()["rooms"]["invite"][&room].is_null());
    alice.post(&invite, json!({ "user_id": invited.user_id })).await.ok();
    let page = alice.get(&format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=50", enc(&room))).await.ok();
    let bodies: Vec<&str> =
        page["chunk"].as_array().unwrap().iter().filter_map(|event| event["content"]["body"].as_str()).collect();
    assert_eq!(bodies, ["from-the-other-side", "fine", "before"]);
}

#[tokio::test]
async fn who_does_not_ask_is_asked_about() {
    let network = Network::default();
    let (one, two) = (running(&network, "one.test"), running(&network, "two.test"));
    let (alice, _, room, policy) = guarded(&network, &one, &two).await;
    let evil = Evil::new(&network, &one.hearth);
    let mallory = format!("@mallory:{EVIL}");
    evil.join(&room, &mallory).await;
    designate(&alice, &room, designation()).await;
    for (body, shown) in [("harmless", true), ("spam", false), ("forged", false)] {
        let (id, event) = evil.message(&room, &mallory, body).await;
        assert_eq!(evil.send(body, &[event], &[]).await.ok()["pdus"][&id], json!({}), "the rules allow it");
        assert_eq!(sees(&alice, &room, &id).await, shown, "{body}");
    }
    assert_eq!(policy.asked(), 3);
    // Nothing that is said later hangs on what was not shown.
    let next = say(&alice, &room, "next").await;
    assert!(sees(&alice, &room, &next).await);
}

#[tokio::test]
async fn a_room_without_a_policy_server_that_takes_part_has_none() {
    let network = Network::default();
    let (one, two) = (running(&network, "one.test"), running(&network, "two.test"));
    let (alice, bob, room, policy) = guarded(&network, &one, &two).await;
    let key = designation()["public_keys"].clone();
    for content in [
        json!({ "via": "absent.test", "public_keys": key }),
        json!({ "via": POLICY }),
        json!({ "via": POLICY, "public_keys": { "other": "x" } }),
        json!({ "via": 5, "public_keys": key }),
        json!({ "via": "no name", "public_keys": key }),
        json!({}),
    ] {
        let body = content.to_string();
        designate(&alice, &room, content).await;
        try_to_say(&alice, &room, &body).await.ok();
    }
    assert_eq!(policy.asked(), 0);
    // A key that cannot be: whatever is signed is not signed by it.
    designate(&alice, &room, json!({ "via": POLICY, "public_keys": { "ed25519": "nonsense" } })).await;
    try_to_say(&alice, &room, "unsigned").await.fails(403, "M_FORBIDDEN");
    // One that is not there keeps all from talking, until the room does without it.
    designate(&alice, &room, designation()).await;
    network.cut_off(POLICY);
    try_to_say(&alice, &room, "unheard").await.fails(502, "M_UNKNOWN");
    designate(&alice, &room, json!({})).await;
    comes_to_see(&bob, &room, &say(&alice, &room, "heard").await).await;
}

/// T12: a policy server may have the name of a server whose users' events it signs: its signature stands beside theirs, and it brings no other.
#[tokio::test]
async fn t12_a_recommendation_replaces_no_signature() {
    let (network, one, _two, alice, bob) = neighbours().await;
    let room = open_room(&alice).await;
    join(&bob, &room, "one.test").await;
    let evil = Evil::new(&network, &one.hearth);
    let mallory = format!("@mallory:{EVIL}");
    evil.join(&room, &mallory).await;
    let server = PolicyServer::named(&network, EVIL, one.hearth.server.now_ms());
    let key = policy_key(1).public().to_base64();
    designate(&alice, &room, json!({ "via": EVIL, "public_keys": { "ed25519": key } })).await;

    // What it adds beside its signature would spoil those that are there.
    let fine = say(&alice, &room, "fine").await;
    comes_to_see(&bob, &room, &fine).await;
    let (id, event) = evil.message(&room, &mallory, "harmless").await;
    let own = event["signatures"][EVIL].as_object().unwrap().clone();
    assert_eq!(evil.send("t1", &[event], &[]).await.ok()["pdus"][&id], json!({}));
    assert!(sees(&alice, &room, &id).await);
    assert_eq!(server.asked(), 2);
    for (event, by) in [(&fine, "one.test"), (&id, EVIL)] {
        let told = evil.get(&format!("/_matrix/federation/v1/event/{}", enc(event))).await.ok();
        let signatures = &told["pdus"][0]["signatures"];
        let has_both = signatures[by].is_object() && signatures[EVIL][POLICY_KEY_ID].is_string();
        assert!(has_both && !signatures.to_string().contains("nonsense"), "{signatures}");
        if by == EVIL {
            assert!(own.iter().all(|(key, signature)| signatures[EVIL][key] == *signature), "{signatures}");
        }
    }
    // Who gets it from here believes it, and need not ask.
    comes_to_see(&bob, &room, &say(&alice, &room, "next").await).await;
    comes_to_see(&bob, &room, &id).await;
    assert_eq!(server.asked(), 3);
}
