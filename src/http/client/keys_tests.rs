//! Keys, messages to devices and key backup as clients use them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use protocol::{
    json::{self, Numbers, Object},
    keys::SigningKey,
    sign,
};
use serde_json::{Value, json};

use crate::testing::{Hearth, Person};

const V3: &str = "/_matrix/client/v3";

fn path(rest: &str) -> String {
    format!("{V3}{rest}")
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed("x", &[seed; 32]).unwrap()
}

/// The object with a signature under this key id.
fn signed(object: Value, user: &str, key_id: &str, key: &SigningKey) -> Value {
    let Value::Object(mut object) = object else { panic!("not an object") };
    let text = json::canonical_without(&object, &["signatures", "unsigned"], Numbers::Normalised).unwrap();
    sign::add_signature(&mut object, user, key_id, key.sign(text.as_bytes()));
    Value::Object(object)
}

fn device_keys(person: &Person, seed: u8) -> Value {
    let key_id = format!("ed25519:{}", person.device_id);
    let keys = json!({
        "user_id": person.user_id,
        "device_id": person.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": { &key_id: key(seed).public().to_base64() },
    });
    signed(keys, &person.user_id, &key_id, &key(seed))
}

fn one_time_key(person: &Person, seed: u8) -> Value {
    let key_id = format!("ed25519:{}", person.device_id);
    signed(json!({ "key": key(seed).public().to_base64() }), &person.user_id, &key_id, &key(seed))
}

/// A cross-signing key, signed by the master key where it is another.
fn cross_signing_key(person: &Person, usage: &str, seed: u8, master: u8) -> Value {
    let public = key(seed).public().to_base64();
    let object = json!({ "user_id": person.user_id, "usage": [usage], "keys": { format!("ed25519:{public}"): public } });
    if seed == master {
        return object;
    }
    let master_id = format!("ed25519:{}", key(master).public().to_base64());
    signed(object, &person.user_id, &master_id, &key(master))
}

/// Two users who share a room, and the tokens of their first syncs.
async fn in_a_room(hearth: &Hearth) -> [(Person, String); 2] {
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let room = alice.post(&path("/createRoom"), json!({ "preset": "public_chat" })).await.ok();
    let room = room["room_id"].as_str().unwrap().to_owned();
    bob.post(&path(&format!("/join/{room}")), json!({})).await.ok();
    let mut synced = Vec::new();
    for person in [alice, bob] {
        let since = person.get(&path("/sync")).await.ok()["next_batch"].as_str().unwrap().to_owned();
        synced.push((person, since));
    }
    synced.try_into().ok().unwrap()
}

async fn sync(person: &Person, since: &str) -> Value {
    person.get(&path(&format!("/sync?since={since}"))).await.ok()
}

#[tokio::test]
async fn two_users_exchange_keys_and_hear_of_changes() {
    let hearth = Hearth::start();
    let [(alice, since), (bob, _)] = in_a_room(&hearth).await;
    let uploaded = json!({
        "device_keys": device_keys(&bob, 1),
        "one_time_keys": { "signed_curve25519:a": one_time_key(&bob, 2) },
        "fallback_keys": { "signed_curve25519:f": one_time_key(&bob, 3) },
    });
    let counts = bob.post(&path("/keys/upload"), uploaded).await.ok();
    assert_eq!(counts, json!({ "one_time_key_counts": { "signed_curve25519": 1 } }));

    let news = sync(&alice, &since).await;
    assert_eq!(news["device_lists"]["changed"], json!([bob.user_id]));
    let until = news["next_batch"].as_str().unwrap();
    let changes = alice.get(&path(&format!("/keys/changes?from={since}&to={until}"))).await.ok();
    assert_eq!(changes["changed"], json!([bob.user_id]));
    alice.get(&path(&format!("/keys/changes?from=nonsense&to={until}"))).await.fails(400, "M_INVALID_PARAM");
    alice.get(&path(&format!("/keys/changes?to={until}"))).await.fails(400, "M_MISSING_PARAM");
    let none = alice.get(&path(&format!("/keys/changes?from={until}&to={until}"))).await.ok();
    assert_eq!(none, json!({ "changed": [], "left": [] }));

    let asked = json!({ "device_keys": { &bob.user_id: [], "@carol:elsewhere.test": [] } });
    let found = alice.post(&path("/keys/query"), asked).await.ok();
    assert_eq!(found["device_keys"][&bob.user_id][&bob.device_id]["keys"], device_keys(&bob, 1)["keys"]);
    assert_eq!(found["failures"]["elsewhere.test"]["errcode"], "M_UNKNOWN", "there is nobody to ask");

    let claim = json!({ "one_time_keys": { &bob.user_id: { &bob.device_id: "signed_curve25519" } } });
    let claimed = alice.post(&path("/keys/claim"), claim.clone()).await.ok();
    let expected = json!({ &bob.user_id: { &bob.device_id: { "signed_curve25519:a": one_time_key(&bob, 2) } } });
    assert_eq!(claimed["one_time_keys"], expected);
    let news = bob.get(&path("/sync")).await.ok();
    assert_eq!(news["device_one_time_keys_count"], json!({ "signed_curve25519": 0 }), "so that the client uploads more");
    assert_eq!(news["device_unused_fallback_key_types"], json!(["signed_curve25519"]));
    let claimed = alice.post(&path("/keys/claim"), claim).await.ok();
    assert!(claimed["one_time_keys"][&bob.user_id][&bob.device_id].get("signed_curve25519:f").is_some());
    let news = bob.get(&path("/sync")).await.ok();
    assert_eq!(news["device_unused_fallback_key_types"], json!([]));
}

#[tokio::test]
async fn unsound_requests_have_their_errcodes() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let fails = async |rest: &str, body: Value, errcode: &str| {
        alice.post(&path(rest), body).await.fails(400, errcode);
    };
    fails("/keys/upload", json!({ "device_keys": null }), "M_BAD_JSON").await;
    fails("/keys/upload", json!({ "device_keys": { "user_id": alice.user_id, "device_id": alice.device_id } }), "M_BAD_JSON")
        .await;
    fails("/keys/upload", json!({ "device_keys": device_keys(&bob, 1) }), "M_INVALID_PARAM").await;
    let upload = |seed| json!({ "one_time_keys": { "signed_curve25519:a": one_time_key(&alice, seed) } });
    alice.post(&path("/keys/upload"), upload(1)).await.ok();
    alice.post(&path("/keys/upload"), upload(1)).await.ok();
    fails("/keys/upload", upload(2), "M_INVALID_PARAM").await;
    fails("/keys/query", json!({ "device_keys": { &bob.user_id: { "device": true } } }), "M_BAD_JSON").await;
    fails("/keys/query", json!({}), "M_MISSING_PARAM").await;
    fails("/keys/claim", json!({ "one_time_keys": { "nobody": {} } }), "M_BAD_JSON").await;
    hearth.post(&path("/keys/upload"), json!({})).await.fails(401, "M_MISSING_TOKEN");
}

/// A user with a password.
async fn with_password(hearth: &Hearth, name: &str, password: &str) -> Person {
    let body = json!({ "username": name, "password": password, "auth": { "type": "m.login.dummy" } });
    let registered = hearth.post(&path("/register"), body).await.ok();
    let text = |key: &str| registered[key].as_str().unwrap().to_owned();
    let user_id = ruma::UserId::parse(text("user_id")).unwrap();
    let user = users::numbers::number(&hearth.server.snapshot(), &user_id).unwrap().unwrap();
    Person { hearth: hearth.clone(), user, user_id: text("user_id"), device_id: text("device_id"), token: text("access_token") }
}

#[tokio::test]
async fn replacing_cross_signing_keys_needs_the_password() {
    let hearth = Hearth::start();
    let alice = with_password(&hearth, "alice", "correct horse battery").await;
    let url = path("/keys/device_signing/upload");
    let first = json!({ "master_key": cross_signing_key(&alice, "master", 1, 1) });
    alice.post(&url, first.clone()).await.ok();
    alice.post(&url, first.clone()).await.ok();
    let mut more = json!({
        "self_signing_key": cross_signing_key(&alice, "self_signing", 2, 1),
        "user_signing_key": cross_signing_key(&alice, "user_signing", 3, 1),
    });
    let challenge = alice.post(&url, more.clone()).await;
    assert_eq!(challenge.status, 401);
    let challenge = challenge.json();
    assert_eq!(challenge["flows"], json!([{ "stages": ["m.login.password"] }]));
    let identifier = json!({ "type": "m.id.user", "user": alice.user_id });
    more["auth"] = json!({
        "type": "m.login.password", "identifier": identifier, "password": "wrong", "session": challenge["session"],
    });
    let refused = alice.post(&url, more.clone()).await;
    assert_eq!((refused.status.as_u16(), refused.json()["errcode"].clone()), (401, json!("M_FORBIDDEN")));
    more["auth"]["password"] = json!("correct horse battery");
    alice.post(&url, more.clone()).await.ok();
    alice.post(&url, more).await.ok();

    let found = alice.post(&path("/keys/query"), json!({ "device_keys": { &alice.user_id: [] } })).await.ok();
    assert_eq!(found["user_signing_keys"][&alice.user_id], cross_signing_key(&alice, "user_signing", 3, 1));
    let unsigned = json!({ "self_signing_key": cross_signing_key(&alice, "self_signing", 4, 4) });
    let bob = hearth.register("bob").await;
    bob.post(&url, unsigned).await.fails(400, "M_INVALID_PARAM");
    let alone = json!({ "self_signing_key": cross_signing_key(&bob, "self_signing", 4, 5) });
    bob.post(&url, alone.clone()).await.fails(400, "M_MISSING_PARAM");
    let mut broken = alone;
    broken["master_key"] = cross_signing_key(&bob, "master", 6, 6);
    bob.post(&url, broken).await.fails(400, "M_INVALID_SIGNATURE");
}

#[tokio::test]
async fn signatures_are_checked_one_by_one() {
    let hearth = Hearth::start();
    let [(alice, since), (bob, _)] = in_a_room(&hearth).await;
    bob.post(&path("/keys/upload"), json!({ "device_keys": device_keys(&bob, 1) })).await.ok();
    let keys = json!({
        "master_key": cross_signing_key(&bob, "master", 2, 2),
        "self_signing_key": cross_signing_key(&bob, "self_signing", 3, 2),
    });
    bob.post(&path("/keys/device_signing/upload"), keys).await.ok();
    let self_signing = format!("ed25519:{}", key(3).public().to_base64());
    let good = signed(device_keys(&bob, 1), &bob.user_id, &self_signing, &key(3));
    let forged = signed(device_keys(&bob, 1), &bob.user_id, &self_signing, &key(9));
    let upload = |object: &Value| json!({ &bob.user_id: { &bob.device_id: object, "LOST": object } });
    let url = path("/keys/signatures/upload");
    let failures = bob.post(&url, upload(&forged)).await.ok();
    assert_eq!(failures["failures"][&bob.user_id][&bob.device_id]["errcode"], "M_INVALID_SIGNATURE");
    let failures = bob.post(&url, upload(&good)).await.ok();
    assert_eq!(failures["failures"][&bob.user_id]["LOST"]["errcode"], "M_NOT_FOUND");
    assert!(failures["failures"][&bob.user_id].get(&bob.device_id).is_none());
    let found = alice.post(&path("/keys/query"), json!({ "device_keys": { &bob.user_id: [] } })).await.ok();
    assert_eq!(found["device_keys"][&bob.user_id][&bob.device_id]["signatures"], good["signatures"]);
    assert_eq!(sync(&alice, &since).await["device_lists"]["changed"], json!([bob.user_id]));
}

#[tokio::test]
async fn a_message_to_a_device_comes_down_one_sync() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let since = bob.get(&path("/sync")).await.ok()["next_batch"].as_str().unwrap().to_owned();
    let url = path("/sendToDevice/m.test/txn1");
    let body = json!({ "messages": { &bob.user_id: { "*": { "n": 1 } }, "@carol:elsewhere.test": { "*": {} } } });
    assert_eq!(alice.put(&url, body.clone()).await.ok(), json!({}));
    alice.put(&url, body).await.ok();
    let news = sync(&bob, &since).await;
    assert_eq!(news["to_device"]["events"], json!([{ "content": { "n": 1 }, "sender": alice.user_id, "type": "m.test" }]));
    assert_eq!(sync(&bob, &since).await["to_device"]["events"].as_array().unwrap().len(), 1, "the answer may be lost");
    let after = sync(&bob, news["next_batch"].as_str().unwrap()).await;
    assert!(after.get("to_device").is_none_or(|part| part["events"] == json!([])), "{after}");
    hearth.settle().await;
    let news = bob.get(&path("/sync")).await.ok();
    assert!(news.get("to_device").is_none_or(|part| part["events"] == json!([])), "{news}");

    alice.put(&path("/sendToDevice/m.test/txn2"), json!({})).await.fails(400, "M_MISSING_PARAM");
    let no_content = json!({ "messages": { &bob.user_id: { "*": "text" } } });
    alice.put(&path("/sendToDevice/m.test/txn3"), no_content).await.fails(400, "M_BAD_JSON");
    let large = json!({ "messages": { &bob.user_id: { "*": { "padding": "x".repeat(70_000) } } } });
    alice.put(&path("/sendToDevice/m.test/txn4"), large).await.fails(413, "M_TOO_LARGE");
}

#[tokio::test]
async fn more_messages_than_a_sync_holds_come_page_by_page() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let mut since = bob.get(&path("/sync")).await.ok()["next_batch"].as_str().unwrap().to_owned();
    for n in 0..250 {
        let body = json!({ "messages": { &bob.user_id: { &bob.device_id: { "n": n } } } });
        alice.put(&path(&format!("/sendToDevice/m.test/t{n}")), body).await.ok();
    }
    let mut got = Vec::new();
    for _ in 0..3 {
        let news = sync(&bob, &since).await;
        since = news["next_batch"].as_str().unwrap().to_owned();
        let events = news["to_device"]["events"].as_array().unwrap().clone();
        got.extend(events.iter().map(|event| event["content"]["n"].as_u64().unwrap()));
    }
    assert_eq!(got, (0..250).collect::<Vec<_>>());
}

#[tokio::test]
async fn room_keys_are_backed_up() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let at = |rest: &str| path(&format!("/room_keys{rest}"));
    alice.get(&at("/version")).await.fails(404, "M_NOT_FOUND");
    let data = json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": { "public_key": "a" } });
    let version = alice.post(&at("/version"), data.clone()).await.ok()["version"].as_str().unwrap().to_owned();
    let mut current = data.clone();
    current.as_object_mut().unwrap().extend(as_object(json!({ "count": 0, "etag": "0", "version": version })));
    assert_eq!(alice.get(&at("/version")).await.ok(), current);
    assert_eq!(alice.get(&at(&format!("/version/{version}"))).await.ok(), current);
    alice.get(&at("/version/9")).await.fails(404, "M_NOT_FOUND");

    let key = |index: u64| json!({ "first_message_index": index, "forwarded_count": 0, "is_verified": true, "session_data": { "a": "b" } });
    let in_version = |rest: &str| at(&format!("/keys{rest}?version={version}"));
    let all = json!({ "rooms": { "!one:x": { "sessions": { "s1": key(5), "s2": key(5) } } } });
    assert_eq!(alice.put(&in_version(""), all.clone()).await.ok(), json!({ "count": 2, "etag": "1" }));
    assert_eq!(alice.get(&in_version("")).await.ok(), all);
    let room = json!({ "sessions": { "s3": key(5) } });
    assert_eq!(alice.put(&in_version("/!two:x"), room.clone()).await.ok()["count"], 3);
    assert_eq!(alice.get(&in_version("/!two:x")).await.ok(), room);
    assert_eq!(alice.get(&in_version("/!none:x")).await.ok(), json!({ "sessions": {} }));
    assert_eq!(alice.put(&in_version("/!one:x/s1"), key(7)).await.ok()["etag"], "2", "a worse key changes nothing");
    alice.put(&in_version("/!one:x/s1"), key(3)).await.ok();
    assert_eq!(alice.get(&in_version("/!one:x/s1")).await.ok(), key(3));
    alice.get(&in_version("/!one:x/s9")).await.fails(404, "M_NOT_FOUND");
    alice.put(&in_version("/!one:x/s1"), json!({ "is_verified": true })).await.fails(400, "M_MISSING_PARAM");

    let second = alice.post(&at("/version"), data).await.ok()["version"].clone();
    let wrong = alice.put(&in_version(""), all).await.fails(403, "M_WRONG_ROOM_KEYS_VERSION");
    assert_eq!(wrong["current_version"], second);
    assert_eq!(alice.delete(&in_version("/!one:x/s1")).await.ok()["count"], 2);
    assert_eq!(alice.delete(&in_version("/!one:x")).await.ok()["count"], 1);
    assert_eq!(alice.delete(&in_version("")).await.ok()["count"], 0);
    alice.delete(&at(&format!("/version/{version}"))).await.ok();
    alice.delete(&at(&format!("/version/{version}"))).await.ok();
    alice.get(&in_version("")).await.fails(404, "M_NOT_FOUND");
    let bob = hearth.register("bob").await;
    bob.get(&at("/version")).await.fails(404, "M_NOT_FOUND");
}

fn as_object(value: Value) -> Object {
    let Value::Object(object) = value else { panic!("not an object") };
    object
}
