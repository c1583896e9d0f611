//! What servers ask each other for their users, as stories and as attacks.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use axum::{Router, routing::get};
use serde_json::{Value, json};

use crate::testing::{Hearth, Network, Person, signing_key};

fn pair(network: &Network) -> (Hearth, Hearth) {
    (Hearth::named_in(network, "one.test"), Hearth::named_in(network, "two.test"))
}

/// A server whose endpoints are these, and whose keys are right.
fn hostile(network: &Network, name: &str, now_ms: u64, router: Router) -> Arc<Router> {
    let key = signing_key(name);
    let mut document = json!({ "server_name": name, "valid_until_ts": now_ms + 1_000_000,
        "verify_keys": { key.id(): { "key": key.public().to_base64() } }, "old_verify_keys": {} });
    protocol::sign::sign_json(document.as_object_mut().unwrap(), name, &key).unwrap();
    let document = document.to_string();
    let router = Arc::new(router.route("/_matrix/key/v2/server", get(move || async move { document })));
    network.connect(name, &router);
    router
}

fn answers(text: Value) -> axum::routing::MethodRouter {
    let text = text.to_string();
    let other = text.clone();
    get(move || async move { text }).post(move || async move { other })
}

#[tokio::test]
async fn profiles_are_read_across_servers() {
    let network = Network::default();
    let (one, two) = pair(&network);
    let alice = one.register("alice").await;
    let path = format!("/_matrix/client/v3/profile/{}", alice.user_id);
    alice.put(&format!("{path}/displayname"), json!({ "displayname": "Alice" })).await.ok();
    alice.put(&format!("{path}/m.tz"), json!({ "m.tz": "Europe/Oslo" })).await.ok();
    assert_eq!(two.get(&path).await.ok(), json!({ "displayname": "Alice", "m.tz": "Europe/Oslo" }));
    assert_eq!(two.get(&format!("{path}/displayname")).await.ok(), json!({ "displayname": "Alice" }));
    two.get(&format!("{path}/avatar_url")).await.fails(404, "M_NOT_FOUND");
    two.get("/_matrix/client/v3/profile/@nobody:one.test").await.fails(404, "M_NOT_FOUND");
    network.cut_off("one.test");
    two.get(&path).await.fails(502, "M_UNKNOWN");
    two.get("/_matrix/client/v3/profile/@a:gone.test").await.fails(502, "M_UNKNOWN");
}

#[tokio::test]
async fn a_profile_of_a_hostile_server_is_only_what_it_may_be() {
    let network = Network::default();
    let one = Hearth::named_in(&network, "one.test");
    let profile = json!({ "displayname": { "x": 1 }, "avatar_url": 5, "m.tz": "UTC", "x".repeat(300): 1 });
    let route = Router::new().route("/_matrix/federation/v1/query/profile", answers(profile));
    let _evil = hostile(&network, "evil.test", one.server.now_ms(), route);
    assert_eq!(one.get("/_matrix/client/v3/profile/@eve:evil.test").await.ok(), json!({ "m.tz": "UTC" }));
    one.get("/_matrix/client/v3/profile/@eve:evil.test/displayname").await.fails(404, "M_NOT_FOUND");
    let huge = Router::new().route("/_matrix/federation/v1/query/profile", answers(json!({ "m.x": "x".repeat(70_000) })));
    let _huge = hostile(&network, "huge.test", one.server.now_ms(), huge);
    one.get("/_matrix/client/v3/profile/@eve:huge.test").await.fails(502, "M_UNKNOWN");
}

#[tokio::test]
async fn published_rooms_are_listed_and_searched_across_servers() {
    let network = Network::default();
    let (one, two) = pair(&network);
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    for name in ["Cats", "Dogs", "Birds"] {
        let room = json!({ "name": name, "visibility": "public", "preset": "public_chat" });
        alice.post("/_matrix/client/v3/createRoom", room).await.ok();
    }
    alice.post("/_matrix/client/v3/createRoom", json!({ "name": "Secret" })).await.ok();
    let first = bob.get("/_matrix/client/v3/publicRooms?server=one.test&limit=2").await.ok();
    assert_eq!((first["chunk"].as_array().unwrap().len(), &first["total_room_count_estimate"]), (2, &json!(3)));
    let next = first["next_batch"].as_str().unwrap();
    let second = bob.get(&format!("/_matrix/client/v3/publicRooms?server=one.test&limit=2&since={next}")).await.ok();
    assert_eq!((second["chunk"].as_array().unwrap().len(), second.get("next_batch")), (1, None));
    let search = json!({ "filter": { "generic_search_term": "cat" } });
    let found = bob.post("/_matrix/client/v3/publicRooms?server=one.test", search).await.ok();
    assert_eq!((found["chunk"][0]["name"].as_str(), found["chunk"].as_array().unwrap().len()), (Some("Cats"), 1));
    bob.get("/_matrix/client/v3/publicRooms?server=gone.test").await.fails(502, "M_UNKNOWN");
}

#[tokio::test]
async fn a_hostile_directory_is_cut_to_what_was_asked_for() {
    let network = Network::default();
    let one = Hearth::named_in(&network, "one.test");
    let room = json!({ "room_id": "!a:evil.test", "num_joined_members": 1, "world_readable": false, "guest_can_join": false });
    let mut chunk = vec![room; 50];
    chunk.insert(0, json!({ "room_id": "nonsense" }));
    let answer = json!({ "chunk": chunk, "next_batch": "x".repeat(5000), "total_room_count_estimate": 1 });
    let route = Router::new().route("/_matrix/federation/v1/publicRooms", answers(answer));
    let _evil = hostile(&network, "evil.test", one.server.now_ms(), route);
    let found = one.get("/_matrix/client/v3/publicRooms?server=evil.test&limit=10").await.ok();
    assert_eq!((found["chunk"].as_array().unwrap().len(), found.get("next_batch")), (10, None));
}

/// The keys of a device, signed by itself.
fn device_keys(person: &Person) -> Value {
    let key = protocol::keys::SigningKey::from_seed("x", &[7; 32]).unwrap();
    let id = format!("ed25519:{}", person.device_id);
    let mut keys = json!({ "user_id": person.user_id, "device_id": person.device_id, "algorithms": ["m.olm.v1"],
        "keys": { &id: key.public().to_base64() } });
    let text = protocol::json::canonical(&keys).unwrap();
    keys["signatures"] = json!({ &person.user_id: { &id: key.sign(text.as_bytes()) } });
    keys
}

fn one_time_keys() -> Value {
    json!({ "signed_curve25519:AAAA": { "key": protocol::base64::encode(&[9; 32]), "signatures": {} } })
}

#[tokio::test]
async fn keys_are_queried_and_claimed_across_servers() {
    let network = Network::default();
    let (one, two) = pair(&network);
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let keys = device_keys(&alice);
    let upload = json!({ "device_keys": keys, "one_time_keys": one_time_keys() });
    alice.post("/_matrix/client/v3/keys/upload", upload).await.ok();
    let asked = json!({ "device_keys": { &alice.user_id: [], &bob.user_id: [], "@carol:gone.test": [] }, "timeout": 5000 });
    let found = bob.post("/_matrix/client/v3/keys/query", asked).await.ok();
    assert_eq!(found["device_keys"][&alice.user_id][&alice.device_id]["keys"], keys["keys"]);
    assert_eq!(found["device_keys"][&bob.user_id], json!({}));
    assert_eq!(found["failures"]["gone.test"]["errcode"], "M_UNKNOWN");
    assert!(found["failures"].get("one.test").is_none());
    let claim = json!({ "one_time_keys": { &alice.user_id: { &alice.device_id: "signed_curve25519" } } });
    let claimed = bob.post("/_matrix/client/v3/keys/claim", claim.clone()).await.ok();
    let got = &claimed["one_time_keys"][&alice.user_id][&alice.device_id];
    assert_eq!(got["signed_curve25519:AAAA"]["key"], one_time_keys()["signed_curve25519:AAAA"]["key"]);
    let again = bob.post("/_matrix/client/v3/keys/claim", claim).await.ok();
    assert_eq!(again["one_time_keys"], json!({}), "a key is handed out once");
    let user: ruma::OwnedUserId = alice.user_id.as_str().try_into().unwrap();
    let devices = two.server.federation.devices(&user).await.unwrap();
    assert!(devices.stream_id > 0);
    assert!(devices.keys.devices.contains_key(&alice.device_id));
}

/// T26: what a server says of keys is believed of its own users alone, and where the keys signed it.
#[tokio::test]
async fn t26_keys_of_a_hostile_server_are_checked() {
    let network = Network::default();
    let one = Hearth::named_in(&network, "one.test");
    let (alice, other) = (one.register("alice").await, one.register("other").await);
    let eve = Person { user_id: "@eve:evil.test".into(), device_id: "EVE".into(), ..other.clone() };
    let good = device_keys(&eve);
    let mut forged = good.clone();
    forged["algorithms"] = json!(["m.none"]);
    let of_alice = device_keys(&alice);
    let told = json!({
        "device_keys": {
            "@eve:evil.test": { "EVE": good, "OTHER": good, "FORGED": forged, "TEXT": "x" },
            &alice.user_id: { &alice.device_id: of_alice },
        },
        "master_keys": { "@eve:evil.test": { "user_id": "@eve:evil.test", "usage": ["master"], "keys": { "ed25519:a": "b" } },
            &alice.user_id: { "user_id": alice.user_id } },
        "self_signing_keys": { "@eve:evil.test": { "user_id": "@eve:evil.test", "usage": ["self_signing"], "keys": {} } },
    });
    let claimed = json!({ "one_time_keys": {
        "@eve:evil.test": { "EVE": { "signed_curve25519:A": "no", "other:A": "x" }, "MORE": { "signed_curve25519:A": {} } },
        &alice.user_id: { &alice.device_id: one_time_keys() },
    } });
    let routes = Router::new()
        .route("/_matrix/federation/v1/user/keys/query", answers(told))
        .route("/_matrix/federation/v1/user/keys/claim", answers(claimed));
    let _evil = hostile(&network, "evil.test", one.server.now_ms(), routes);
    let query = json!({ "device_keys": { "@eve:evil.test": [], &alice.user_id: [] } });
    let found = alice.post("/_matrix/client/v3/keys/query", query).await.ok();
    let devices: Vec<_> = found["device_keys"]["@eve:evil.test"].as_object().unwrap().keys().collect();
    assert_eq!(devices, ["EVE"]);
    assert_eq!(found["device_keys"][&alice.user_id], json!({}), "another server says nothing of this server's users");
    assert_eq!((&found["master_keys"], &found["self_signing_keys"]), (&json!({}), &json!({})));
    let claim = json!({ "one_time_keys": { "@eve:evil.test": { "EVE": "signed_curve25519" } } });
    let found = alice.post("/_matrix/client/v3/keys/claim", claim).await.ok();
    assert_eq!(found["one_time_keys"], json!({}));
}

#[tokio::test]
async fn media_is_downloaded_from_other_servers_once() {
    let network = Network::default();
    let (one, two) = pair(&network);
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let upload = alice.ask(http::Method::POST, "/_matrix/media/v3/upload?filename=n%C3%A4me.txt").body("hello\r\n--world");
    let uri = upload.header("content-type", "text/plain").await.ok()["content_uri"].as_str().unwrap().to_owned();
    let path = format!("/_matrix/client/v1/media/download/{}", uri.strip_prefix("mxc://").unwrap());
    for _ in 0..2 {
        let file = bob.get(&path).await;
        assert_eq!((file.status.as_u16(), file.body.as_ref()), (200, b"hello\r\n--world".as_slice()));
        assert_eq!(file.headers["content-type"], "text/plain");
        assert!(file.headers["content-disposition"].to_str().unwrap().contains("n%C3%A4me.txt"));
        network.cut_off("one.test");
    }
    bob.get("/_matrix/client/v1/media/download/one.test/other").await.fails(502, "M_UNKNOWN");
    bob.get("/_matrix/client/v1/media/download/one.test/..%2Fx").await.fails(404, "M_NOT_FOUND");
    network.restore("one.test");
    two.clock.advance(60_000);
    two.server.federation.note_life(ruma::server_name!("one.test")).unwrap();
    two.settle().await;
    bob.get("/_matrix/client/v1/media/download/one.test/other").await.fails(404, "M_NOT_FOUND");
    two.get(&path.replace("/_matrix/client/v1/media", "/_matrix/media/v3")).await.fails(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_download_waits_for_an_upload_on_another_server() {
    let network = Network::default();
    let (one, two) = pair(&network);
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let created = alice.post("/_matrix/media/v1/create", json!({})).await.ok();
    let id = created["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned();
    let path = format!("/_matrix/client/v1/media/download/{id}");
    bob.get(&format!("{path}?timeout_ms=1")).await.fails(504, "M_NOT_YET_UPLOADED");
    let late = format!("{path}?timeout_ms=20000");
    let waiting = bob.get(&late);
    let upload = alice.ask(http::Method::PUT, &format!("/_matrix/media/v3/upload/{id}")).body("late");
    let (file, uploaded) = futures_util::future::join(waiting.into_future(), upload.into_future()).await;
    uploaded.ok();
    assert_eq!(file.body.as_ref(), b"late");
}

#[tokio::test]
async fn t30_media_of_a_hostile_server_is_bounded_and_safe() {
    let network = Network::default();
    let one = Hearth::named_in(&network, "one.test");
    let alice = one.register("alice").await;
    let part = |headers: &str, body: &str| {
        let text = format!("--b\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--b\r\n{headers}\r\n{body}\r\n--b--");
        get(move || async move { ([("content-type", "multipart/mixed; boundary=b")], text) })
    };
    let place = |id: &str| format!("/_matrix/federation/v1/media/download/{id}");
    let routes = Router::new()
        .route(&place("script"), part("Content-Type: text/html\r\n", "<script>"))
        .route(&place("there"), part("Location: https://cdn.test/file\r\n", ""))
        .route(&place("nowhere"), part("Location: https://gone.test/file\r\n", ""))
        .route(
            &place("short"),
            get(|| async { ([("content-type", "multipart/mixed; boundary=b")], "--b\r\n\r\n{}\r\n--b\r\n\r\nab") }),
        )
        .route(&place("plain"), get(|| async { "text" }))
        .route(&place("empty"), get(|| async { ([("content-type", "multipart/mixed; boundary=b")], "--b--") }));
    let _evil = hostile(&network, "evil.test", one.server.now_ms(), routes);
    let cdn = Arc::new(Router::new().route("/file", get(|| async { ([("content-type", "image/png")], "picture") })));
    network.connect("cdn.test", &cdn);
    let download = |id: &str| alice.get(&format!("/_matrix/client/v1/media/download/evil.test/{id}"));
    let script = download("script").await;
    assert_eq!(script.headers["content-disposition"], "attachment");
    assert!(script.headers["content-security-policy"].to_str().unwrap().starts_with("sandbox"));
    let there = download("there").await;
    assert_eq!((there.body.as_ref(), &there.headers["content-type"]), (b"picture".as_slice(), &"image/png".parse().unwrap()));
    for id in ["nowhere", "short", "plain", "empty"] {
        download(id).await.fails(502, "M_UNKNOWN");
    }
}

#[tokio::test]
async fn a_space_is_told_as_far_as_the_other_server_may_know_it() {
    let network = Network::default();
    let (one, two) = pair(&network);
    let alice = one.register("alice").await;
    let make =
        async |body: Value| alice.post("/_matrix/client/v3/createRoom", body).await.ok()["room_id"].as_str().unwrap().to_owned();
    let space = make(json!({ "preset": "public_chat", "name": "Space", "creation_content": { "type": "m.space" } })).await;
    let (open, closed) =
        (make(json!({ "preset": "public_chat", "name": "Open" })).await, make(json!({ "name": "Closed" })).await);
    for (child, content) in [
        (open.as_str(), json!({ "via": ["one.test"], "suggested": true })),
        (&closed, json!({ "via": ["one.test"] })),
        ("!unknown:three.test", json!({ "via": ["three.test"] })),
        ("!removed:one.test", json!({})),
    ] {
        let path = federation::path(&["_matrix", "client", "v3", "rooms", &space, "state", "m.space.child", child]);
        alice.put(&path, content).await.ok();
    }
    let to = ruma::server_name!("one.test");
    let place = |room: &str| federation::path(&["_matrix", "federation", "v1", "hierarchy", room]);
    let told: Value = two.server.federation.get(to, place(&space)).await.unwrap();
    let children: Vec<_> = told["children"].as_array().unwrap().iter().map(|child| child["name"].clone()).collect();
    assert_eq!((&told["room"]["name"], children), (&json!("Space"), vec![json!("Open")]));
    assert_eq!(told["inaccessible_children"], json!([closed]));
    assert_eq!(told["room"]["children_state"].as_array().unwrap().len(), 3);
    let suggested: Value =
        two.server.federation.get(to, federation::query(place(&space), &[("suggested_only", "true")])).await.unwrap();
    assert_eq!(suggested["room"]["children_state"].as_array().unwrap().len(), 1);
    let hidden = two.server.federation.get::<Value>(to, place(&closed)).await.unwrap_err();
    let unknown = two.server.federation.get::<Value>(to, place("!none:one.test")).await.unwrap_err();
    assert_eq!(hidden.to_string(), unknown.to_string(), "one may not tell a hidden room from none");
}

#[tokio::test]
async fn other_servers_are_told_no_more_than_they_may_know() {
    let network = Network::default();
    let (one, two) = pair(&network);
    let alice = one.register("alice").await;
    let ask = |path: String| two.server.federation.get::<Value>(ruma::server_name!("one.test"), path);
    let v1 = |rest: &[&str]| federation::path(&[&["_matrix", "federation", "v1"], rest].concat());
    assert!(ask(v1(&["user", "devices", "@nobody:one.test"])).await.is_err());
    assert!(ask(federation::query(v1(&["query", "profile"]), &[("user_id", "@bob:two.test")])).await.is_err());
    assert!(ask(v1(&["media", "download", "a.b"])).await.is_err());
    let body = json!({ "device_keys": { "@bob:two.test": [], &alice.user_id: [] } });
    let place = v1(&["user", "keys", "query"]);
    let told: Value = two.server.federation.post(ruma::server_name!("one.test"), place, &body).await.unwrap();
    let users: Vec<_> = told["device_keys"].as_object().unwrap().keys().collect();
    assert_eq!((users, told.get("user_signing_keys")), (vec![&alice.user_id], None));
}

/// A cross-signing key of a user.
fn cross_signing_key(user: &str, usage: &str, key: &protocol::keys::SigningKey) -> Value {
    let public = key.public().to_base64();
    json!({ "user_id": user, "usage": [usage], "keys": { format!("ed25519:{public}"): public } })
}

/// The key with one signature.
fn signed_by(mut key: Value, user: &str, by: &protocol::keys::SigningKey) -> Value {
    key.as_object_mut().unwrap().remove("signatures");
    let signature = by.sign(protocol::json::canonical(&key).unwrap().as_bytes());
    key["signatures"] = json!({ user: { format!("ed25519:{}", by.public().to_base64()): signature } });
    key
}

#[tokio::test]
async fn who_verified_a_user_of_another_server_sees_so_and_nobody_else_does() {
    let network = Network::default();
    let (one, two) = pair(&network);
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let carol = one.register("carol").await;
    let key = |seed| protocol::keys::SigningKey::from_seed("x", &[seed; 32]).unwrap();
    for (person, seed) in [(&alice, 1), (&bob, 4)] {
        let (user, master) = (&person.user_id, key(seed));
        let upload = json!({ "master_key": cross_signing_key(user, "master", &master),
            "self_signing_key": signed_by(cross_signing_key(user, "self_signing", &key(seed + 1)), user, &master),
            "user_signing_key": signed_by(cross_signing_key(user, "user_signing", &key(seed + 2)), user, &master) });
        person.post("/_matrix/client/v3/keys/device_signing/upload", upload).await.ok();
    }
    let master = async |by: &Person| {
        let told = by.post("/_matrix/client/v3/keys/query", json!({ "device_keys": { &bob.user_id: [] } })).await.ok();
        told["master_keys"][&bob.user_id].clone()
    };
    let bobs = master(&alice).await;
    let name = key(4).public().to_base64();
    let sign = async |signed: Value| {
        let body = json!({ &bob.user_id: { &name: signed } });
        alice.post("/_matrix/client/v3/keys/signatures/upload", body).await.ok()["failures"].clone()
    };
    assert_eq!(sign(signed_by(bobs.clone(), &alice.user_id, &key(3))).await, json!({}));
    let seen = master(&alice).await;
    let (signer, of_alice) = (format!("ed25519:{}", key(3).public().to_base64()), &seen["signatures"][&alice.user_id]);
    assert!(of_alice[&signer].is_string(), "{seen}");
    for other in [&bob, &carol] {
        assert!(master(other).await["signatures"][&alice.user_id].is_null(), "whom one trusts is one's own affair");
    }
    // What is not the key that the other server tells, or not signed, is refused.
    let mut invented = cross_signing_key(&bob.user_id, "master", &key(4));
    invented["more"] = json!(1);
    assert!(sign(signed_by(invented, &alice.user_id, &key(3))).await[&bob.user_id][&name].is_object());
    assert!(sign(signed_by(bobs.clone(), &alice.user_id, &key(9))).await[&bob.user_id][&name].is_object());
    network.cut_off("two.test");
    assert!(sign(signed_by(bobs, &alice.user_id, &key(3))).await[&bob.user_id][&name].is_object());
}
