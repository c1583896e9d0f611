//! Keys and signatures between servers, as stories and as attacks.
#![allow(clippy::unwrap_used)]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, routing::get};
use federation::{Config, Error as Federation, keys::Wanted};
use http::Method;
use protocol::{keys::SigningKey, sign, verify::Validity};
use ruma::{ServerName, server_name};
use serde_json::{Value, json};

use crate::{
    Call, Class, Json, Result,
    client::With,
    federation::{Origin, federated},
    testing::{Ask, Hearth, Network, signing_key},
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn wanted(server: &ServerName, key_id: &str, at_ms: u64) -> Wanted {
    let mut wanted = Wanted::default();
    wanted.add(server, key_id, at_ms);
    wanted
}

/// What a server publishes with this key, before it is signed.
fn document(server: &str, key: &SigningKey, valid_until_ms: u64) -> Value {
    let keys = json!({ key.id(): { "key": key.public().to_base64() } });
    // No old keys, as servers written in Go say it.
    json!({ "server_name": server, "valid_until_ts": valid_until_ms, "verify_keys": keys, "old_verify_keys": null })
}

fn signed(mut document: Value, by: &str, key: &SigningKey) -> Value {
    sign::sign_json(document.as_object_mut().unwrap(), by, key).unwrap();
    document
}

/// A server that publishes this at its place, and counts how often.
fn publishing(network: &Network, name: &str, document: Value) -> (Arc<Router>, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let answer = move || {
        count.fetch_add(1, Ordering::SeqCst);
        let document = document.to_string();
        async move { document }
    };
    let router = Arc::new(Router::new().route("/_matrix/key/v2/server", get(answer)));
    network.connect(name, &router);
    (router, asked)
}

#[tokio::test]
async fn a_server_publishes_the_key_that_signed_the_answer() {
    let hearth = Hearth::start();
    let published = hearth.get("/_matrix/key/v2/server").await.ok();
    assert_eq!((&published["server_name"], &published["old_verify_keys"]), (&json!("hearth.test"), &json!({})));
    assert!(published["valid_until_ts"].as_u64().unwrap() > hearth.server.now_ms());
    let key = signing_key("hearth.test");
    assert_eq!(published["verify_keys"][key.id()]["key"], json!(key.public().to_base64()));
    sign::verify_json(published.as_object().unwrap(), "hearth.test", key.id(), &key.public()).unwrap();
}

#[tokio::test]
async fn keys_are_fetched_once_and_remembered_when_their_server_is_gone() {
    let network = Network::default();
    let (one, two) = (Hearth::named_in(&network, "one.test"), Hearth::named_in(&network, "two.test"));
    let name = server_name!("two.test");
    let wants = || wanted(name, "ed25519:test", one.server.now_ms());
    let keys = one.server.federation.fetch_keys(wants()).await.unwrap();
    let key = keys.key(name, "ed25519:test").unwrap();
    assert_eq!(key.key, signing_key("two.test").public());
    assert_eq!(key.validity, Validity::Until(two.server.now_ms() + DAY_MS));
    drop(two);
    assert!(one.server.federation.fetch_keys(wants()).await.unwrap().key(name, "ed25519:test").is_some());
    assert!(keys.key(name, "ed25519:other").is_none() && keys.key(server_name!("three.test"), "ed25519:test").is_none());
}

#[tokio::test]
async fn a_server_that_tells_no_keys_is_not_asked_by_each_who_waits() {
    let network = Network::default();
    let one = Hearth::named_in(&network, "one.test");
    let (_router, asked) = publishing(&network, "evil.test", json!({ "server_name": "evil.test" }));
    let name = server_name!("evil.test");
    let ask = || one.server.federation.fetch_keys(wanted(name, "ed25519:1", 0));
    let found = futures_util::future::join_all((0..20).map(|_| ask())).await;
    assert!(found.into_iter().all(|found| found.unwrap().key(name, "ed25519:1").is_none()));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    one.clock.advance(3_000);
    ask().await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2, "it is asked again after a pause");
}

/// T9: what a server says of its keys holds for no longer than it may, and for no other server.
#[tokio::test]
async fn t9_key_documents_are_believed_within_bounds() {
    let network = Network::default();
    let hearth = Hearth::named_in(&network, "one.test");
    let (key, other) = (signing_key("evil.test"), signing_key("other.test"));
    let now_ms = hearth.server.now_ms();
    let lasting = document("evil.test", &key, now_ms + 1000 * DAY_MS);
    let mut many = lasting.clone();
    for number in 0..65 {
        many["verify_keys"][format!("ed25519:{number}")] = json!({ "key": other.public().to_base64() });
    }
    let mut spoiled = lasting.clone();
    spoiled["verify_keys"]["ed25519:b"] = json!({ "key": other.public().to_base64() });
    let mut spoiled = signed(spoiled, "evil.test", &key);
    spoiled["signatures"]["evil.test"]["ed25519:b"] = spoiled["signatures"]["evil.test"][key.id()].clone();
    let mut huge = lasting.clone();
    huge["pad"] = json!("x".repeat(70_000));
    let mut changed = signed(lasting.clone(), "evil.test", &key);
    changed["valid_until_ts"] = json!(now_ms + 2000 * DAY_MS);
    for (number, (what, refused)) in [
        ("unsigned", lasting.clone()),
        ("signed by another", signed(lasting.clone(), "other.test", &other)),
        ("signed with another key", signed(lasting.clone(), "evil.test", &other)),
        ("of another server", signed(document("one.test", &key, now_ms + DAY_MS), "evil.test", &key)),
        ("changed after it was signed", changed),
        ("with too many keys", signed(many, "evil.test", &key)),
        ("with one wrong signature", spoiled),
        ("too large", signed(huge, "evil.test", &key)),
        ("no document", json!([])),
    ]
    .into_iter()
    .enumerate()
    {
        let (_router, asked) = publishing(&network, "evil.test", refused);
        let name = server_name!("evil.test");
        hearth.clock.advance(DAY_MS);
        let keys = hearth.server.federation.fetch_keys(wanted(name, key.id(), 0)).await.unwrap();
        assert!(keys.key(name, key.id()).is_none(), "{number}: {what}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{what}");
    }
    let (_router, _) = publishing(&network, "evil.test", signed(lasting, "evil.test", &key));
    hearth.clock.advance(DAY_MS);
    let keys = hearth.server.federation.fetch_keys(wanted(server_name!("evil.test"), key.id(), 0)).await.unwrap();
    let validity = keys.key(server_name!("evil.test"), key.id()).unwrap().validity;
    assert_eq!(validity, Validity::Until(hearth.server.now_ms() + 7 * DAY_MS));
}

#[tokio::test]
async fn a_notary_answers_for_a_server_that_is_gone() {
    let network = Network::default();
    let config = Config { trusted_key_servers: vec![server_name!("notary.test").to_owned()], ..Config::default() };
    let one = Hearth::built_in(&network, "one.test", config);
    let notary = Hearth::named_in(&network, "notary.test");
    let gone = Hearth::named_in(&network, "gone.test");
    let seen = notary.get("/_matrix/key/v2/query/gone.test").await.ok();
    let seen = seen["server_keys"][0].as_object().unwrap().clone();
    for server in ["gone.test", "notary.test"] {
        sign::verify_json(&seen, server, "ed25519:test", &signing_key(server).public()).unwrap();
    }
    drop(gone);
    let name = server_name!("gone.test");
    let keys = one.server.federation.fetch_keys(wanted(name, "ed25519:test", one.server.now_ms())).await.unwrap();
    assert_eq!(keys.key(name, "ed25519:test").unwrap().key, signing_key("gone.test").public());

    let query = json!({ "server_keys": { "gone.test": {}, "notary.test": { "ed25519:test": { "minimum_valid_until_ts": 0 } }, "never.test": {} } });
    let answer = notary.post("/_matrix/key/v2/query", query).await.ok();
    let mut names: Vec<_> = answer["server_keys"].as_array().unwrap().iter().map(|keys| keys["server_name"].clone()).collect();
    names.sort_by_key(Value::to_string);
    assert_eq!(names, ["gone.test", "notary.test"]);
    let none = notary.post("/_matrix/key/v2/query", json!({ "server_keys": {} })).await.ok();
    assert_eq!(none, json!({ "server_keys": [] }));
    notary.get("/_matrix/key/v2/query/not%20a%20name").await.fails(400, "M_INVALID_PARAM");
    notary.post("/_matrix/key/v2/query", json!({ "server_keys": { "a/b": {} } })).await.fails(400, "M_BAD_JSON");
}

/// A document that only its notary signed is the notary's invention.
#[tokio::test]
async fn t9_a_notary_cannot_invent_keys() {
    let network = Network::default();
    let config = Config { trusted_key_servers: vec![server_name!("notary.test").to_owned()], ..Config::default() };
    let one = Hearth::built_in(&network, "one.test", config);
    let (notary, forged) = (signing_key("notary.test"), signing_key("forged"));
    let until_ms = one.server.now_ms() + DAY_MS;
    let own = signed(document("notary.test", &notary, until_ms), "notary.test", &notary).to_string();
    let mut claimed = document("victim.test", &signing_key("victim.test"), until_ms);
    claimed["verify_keys"]["ed25519:test"] = json!({ "key": forged.public().to_base64() });
    let invented = json!({ "server_keys": [signed(claimed, "notary.test", &notary)] }).to_string();
    let router = Router::new()
        .route("/_matrix/key/v2/server", get(move || async move { own }))
        .route("/_matrix/key/v2/query", axum::routing::post(move || async move { invented }));
    let router = Arc::new(router);
    network.connect("notary.test", &router);
    let name = server_name!("victim.test");
    let keys = one.server.federation.fetch_keys(wanted(name, "ed25519:test", until_ms)).await.unwrap();
    assert!(keys.key(name, "ed25519:test").is_none());
}

mod echo {
    use ruma::{api::auth_scheme::NoAuthentication, metadata};

    pub(super) struct Request;
    metadata! { method: PUT, rate_limited: true, authentication: NoAuthentication, path: "/_matrix/federation/v1/echo/{a}" }
}

async fn echo(call: Call<Origin>, request: With<echo::Request, Value>) -> Result<Json<Value>> {
    let (origin, arg) = (call.session.server_name, request.arg(0).to_owned());
    Ok(Json(json!({ "origin": origin, "arg": arg, "query": request.query, "body": request.body })))
}

/// Two servers, the second of which says what it was asked and by whom.
fn pair(network: &Network) -> (Hearth, Hearth) {
    let one = Hearth::named_in(network, "one.test");
    let two = Hearth::named_in(network, "two.test").serving(vec![federated(Class::Federation, echo)]);
    (one, two)
}

#[tokio::test]
async fn a_signed_request_is_answered_and_its_origin_known() {
    let network = Network::default();
    let (one, _two) = pair(&network);
    let path = federation::query(federation::path(&["_matrix", "federation", "v1", "echo", "!a/b:é"]), &[("x", "y z&")]);
    let body = json!({ "pdus": [{ "content": { "level": 50.0 } }] });
    let answer: Value = one.server.federation.put(server_name!("two.test"), path, &body).await.unwrap();
    assert_eq!(answer, json!({ "origin": "one.test", "arg": "!a/b:é", "query": "x=y%20z%26", "body": body }));
}

#[tokio::test]
async fn whoever_does_not_prove_to_be_a_server_is_refused() {
    let network = Network::default();
    let (_one, two) = pair(&network);
    let path = "/_matrix/federation/v1/echo/x?q=1";
    let key = signing_key("one.test");
    let header = |method: &str, uri: &str, origin: &str, destination: &str, content: &Value, key: &SigningKey| {
        let (from, to): (&ServerName, &ServerName) = (origin.try_into().unwrap(), destination.try_into().unwrap());
        let signed = federation::x_matrix::Signed { method, uri, origin: from, destination: to, content: content.as_object() };
        federation::x_matrix::header(from, to, key.id(), &key.sign(signed.canonical().unwrap().as_bytes()))
    };
    let body = json!({ "a": 1 });
    let ask = |authorization: &str| -> Ask { two.ask(Method::PUT, path).json(&body).header("authorization", authorization) };
    let right = header("PUT", path, "one.test", "two.test", &body, &key);
    ask(&right).await.ok();
    let without_destination = right.replace(r#"destination="two.test","#, "");
    ask(&without_destination).await.ok();
    two.ask(Method::PUT, path).json(&body).await.fails(401, "M_UNAUTHORIZED");
    for (what, wrong) in [
        ("another scheme", "Bearer abc".to_owned()),
        ("another method", header("POST", path, "one.test", "two.test", &body, &key)),
        ("another query", header("PUT", "/_matrix/federation/v1/echo/x?q=2", "one.test", "two.test", &body, &key)),
        ("another body", header("PUT", path, "one.test", "two.test", &json!({ "a": 2 }), &key)),
        ("another destination", header("PUT", path, "one.test", "three.test", &body, &key)),
        (
            "a signature for another destination",
            header("PUT", path, "one.test", "three.test", &body, &key).replace("three", "two"),
        ),
        ("another's key", header("PUT", path, "one.test", "two.test", &body, &signing_key("two.test"))),
        ("another's name", right.replace("one.test", "three.test")),
        ("the server's own name", header("PUT", path, "two.test", "two.test", &body, &signing_key("two.test"))),
        ("an unknown key", right.replace("ed25519:test", "ed25519:new")),
        ("no key", right.replace("ed25519:test", "rsa:test")),
    ] {
        let told = ask(&wrong).await;
        assert_eq!(told.fails(401, "M_UNAUTHORIZED")["errcode"], json!("M_UNAUTHORIZED"), "{what}");
    }
}

#[tokio::test]
async fn federation_can_be_switched_off_both_ways() {
    let network = Network::default();
    let off = Hearth::built_in(&network, "off.test", Config { enabled: false, ..Config::default() });
    let on = Hearth::named_in(&network, "on.test");
    off.get("/_matrix/key/v2/server").await.fails(403, "M_FORBIDDEN");
    let path = federation::path(&["_matrix", "federation", "v1", "version"]);
    let refused = off.server.federation.get::<Value>(server_name!("on.test"), path.clone()).await.unwrap_err();
    assert!(matches!(refused, Federation::Disabled), "{refused}");
    let refused = on.server.federation.get::<Value>(server_name!("on.test"), path.clone()).await.unwrap_err();
    assert!(matches!(refused, Federation::Itself), "{refused}");
    let version = on.server.federation.get::<Value>(server_name!("off.test"), path).await.unwrap();
    assert_eq!(version["server"]["name"], json!("Hearth"));
}

#[tokio::test]
async fn t28_a_server_that_is_gone_is_asked_less_often_until_it_shows_life() {
    let network = Network::default();
    let (one, two) = (Hearth::named_in(&network, "one.test"), Hearth::named_in(&network, "two.test"));
    let (from, to) = (server_name!("one.test"), server_name!("two.test"));
    let path = || federation::path(&["_matrix", "federation", "v1", "version"]);
    let ask = || one.server.federation.get::<Value>(to, path());
    network.cut_off("two.test");
    assert!(matches!(ask().await, Err(Federation::Unreachable(_))));
    one.settle().await;
    assert!(matches!(ask().await, Err(Federation::BackedOff { .. })));
    let mut last = 0;
    for _ in 0..6 {
        let until_ms = one.server.federation.backed_off_until(to).unwrap().unwrap();
        let wait_ms = until_ms - one.server.now_ms();
        assert!(wait_ms > last, "{wait_ms} after {last}");
        last = wait_ms;
        one.clock.advance(wait_ms);
        assert!(matches!(ask().await, Err(Federation::Unreachable(_))));
        one.settle().await;
    }
    network.restore("two.test");
    assert!(matches!(ask().await, Err(Federation::BackedOff { .. })));
    one.server.federation.note_life(to).unwrap();
    one.settle().await;
    ask().await.unwrap();
    two.server.federation.get::<Value>(from, path()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_gone_is_asked_again_though_the_clock_was_set_back() {
    let network = Network::default();
    let (one, _two) = pair(&network);
    let to = server_name!("two.test");
    let ask = || one.server.federation.get::<Value>(to, federation::path(&["_matrix", "federation", "v1", "version"]));
    network.cut_off("two.test");
    assert!(matches!(ask().await, Err(Federation::Unreachable(_))));
    one.settle().await;
    one.clock.set_back(3_600_000);
    assert_eq!(one.server.federation.backed_off_until(to).unwrap(), None);
    assert!(matches!(ask().await, Err(Federation::Unreachable(_))));
    one.settle().await;
    let until_ms = one.server.federation.backed_off_until(to).unwrap().unwrap();
    assert!(until_ms - one.server.now_ms() < 15_000, "the second wait");
}
