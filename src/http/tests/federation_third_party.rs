//! Invitations by address across servers of one process: an identity server signs, and each server takes no more than it may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{Router, routing::get};
use http::Method;
use serde_json::{Value, json};

use super::{
    federation::{enc, is, join, membership, neighbours, room},
    federation_hostile::{EVIL, Evil},
};
use crate::testing::{Answer, Hearth, Network, Person, signing_key};

/// Where an exchange has what the identity server signed.
const SIGNED: &str = "/content/third_party_invite/signed";

/// What the identity server signs: that an address, which it gave a token for, belongs to a user.
fn signed(user: &str, token: &str, by: &str) -> Value {
    let mut signed = json!({ "mxid": user, "token": token });
    protocol::sign::sign_json(signed.as_object_mut().unwrap(), by, &signing_key(by)).unwrap();
    signed
}

/// Invites by address, as a client does that stored the invitation with the identity server.
async fn promise(by: &Person, room: &str, token: &str, more: Value) {
    let mut content = json!({ "display_name": "b...@x", "key_validity_url": "https://id.test/isvalid",
        "public_key": signing_key("id.test").public().to_base64() });
    content.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.third_party_invite/{token}", enc(room));
    by.put(&path, content).await.ok();
}

/// The identity server tells a server whose the address is now.
async fn bind(on: &Hearth, user: &str, room: &str, sender: &str, signed: Value) -> Answer {
    let invite = json!({ "medium": "email", "address": "bob@example.org", "mxid": user, "room_id": room, "sender": sender, "signed": signed });
    let body = json!({ "medium": "email", "address": "bob@example.org", "mxid": user, "invites": [invite] });
    on.ask(Method::PUT, "/_matrix/federation/v1/3pid/onbind").json(&body).await
}

/// An identity server that says whether its key is valid.
fn identity_server(network: &Network, valid: &Arc<AtomicBool>) -> Arc<Router> {
    let valid = Arc::clone(valid);
    let is_valid = async move || json!({ "valid": valid.load(Ordering::SeqCst) }).to_string();
    let router = Arc::new(Router::new().route("/isvalid", get(is_valid)));
    network.connect("id.test", &router);
    router
}

#[tokio::test]
async fn who_has_the_address_is_invited() {
    for version in ["1", "6", "11", "12"] {
        let (network, one, two, alice, bob) = neighbours().await;
        let carol = one.hearth.register("carol").await;
        let valid = Arc::new(AtomicBool::new(false));
        let _id = identity_server(&network, &valid);
        let room = room(&alice, json!({ "room_version": version })).await;
        promise(&alice, &room, "t1", json!({})).await;
        bind(&two.hearth, &bob.user_id, &room, &alice.user_id, signed(&bob.user_id, "t1", "id.test")).await.ok();
        assert_eq!(membership(&alice, &room, &bob.user_id).await, None, "the key was revoked");

        valid.store(true, Ordering::SeqCst);
        bind(&two.hearth, &bob.user_id, &room, &alice.user_id, signed(&bob.user_id, "t1", "id.test")).await.ok();
        let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.member/{}", enc(&room), enc(&bob.user_id));
        let invited = alice.get(&path).await.ok();
        assert_eq!(
            (&invited["membership"], &invited["third_party_invite"]["display_name"]),
            (&json!("invite"), &json!("b...@x"))
        );
        join(&bob, &room, "one.test").await;
        is(&alice, &room, &bob.user_id, "join").await;
        bind(&two.hearth, &bob.user_id, &room, &alice.user_id, signed(&bob.user_id, "t1", "id.test")).await.ok();
        assert_eq!(membership(&alice, &room, &bob.user_id).await.as_deref(), Some("join"), "who is in stays in");

        // One of the own server.
        promise(
            &alice,
            &room,
            "t2",
            json!({ "public_key": "nonsense", "public_keys": [{ "public_key": signing_key("id.test").public().to_base64() }] }),
        )
        .await;
        bind(&one.hearth, &carol.user_id, &room, &alice.user_id, signed(&carol.user_id, "t2", "id.test")).await.ok();
        is(&alice, &room, &carol.user_id, "invite").await;
    }
}

#[tokio::test]
async fn nothing_but_what_was_promised_and_signed_invites() {
    let network = Network::default();
    let one = Hearth::named_in(&network, "one.test");
    let (alice, carol) = (one.register("alice").await, one.register("carol").await);
    let mallory = format!("@mallory:{EVIL}");
    let evil = Evil::new(&network, &one);
    let room = room(&alice, json!({ "room_version": "11" })).await;
    promise(&alice, &room, "t1", json!({ "key_validity_url": null })).await;
    let exchange = |change: &dyn Fn(&mut Value)| {
        let mut asked = json!({ "type": "m.room.member", "room_id": room, "sender": alice.user_id, "state_key": mallory,
            "content": { "membership": "invite", "third_party_invite": { "display_name": "m", "signed": signed(&mallory, "t1", "id.test") } } });
        change(&mut asked);
        asked
    };
    let path = format!("/_matrix/federation/v1/exchange_third_party_invite/{}", enc(&room));
    let set = |at: &'static str, value: Value| move |asked: &mut Value| *asked.pointer_mut(at).unwrap() = value.clone();
    for (change, status, errcode) in [
        (set("/type", json!("m.room.power_levels")), 400, "M_INVALID_PARAM"),
        (set("/content/membership", json!("join")), 400, "M_INVALID_PARAM"),
        (set("/content/membership", json!("owner")), 400, "M_BAD_JSON"),
        (set("/room_id", json!("!other:one.test")), 400, "M_INVALID_PARAM"),
        (set("/sender", json!(mallory)), 400, "M_INVALID_PARAM"),
        (set("/sender", json!(carol.user_id)), 403, "M_FORBIDDEN"),
        (set("/state_key", json!(carol.user_id)), 403, "M_FORBIDDEN"),
        (set("/state_key", json!(format!("@other:{EVIL}"))), 403, "M_FORBIDDEN"),
        (set(SIGNED, signed(&mallory, "t2", "id.test")), 403, "M_FORBIDDEN"),
        (set(SIGNED, signed(&mallory, "", "id.test")), 403, "M_FORBIDDEN"),
        (set(SIGNED, signed(&mallory, "t1", EVIL)), 403, "M_FORBIDDEN"),
        (set(SIGNED, signed(&carol.user_id, "t1", "id.test")), 403, "M_FORBIDDEN"),
        (set(SIGNED, json!({ "mxid": mallory, "token": "t1", "signatures": 5 })), 403, "M_FORBIDDEN"),
    ] {
        evil.put(&path, &exchange(&change)).await.fails(status, errcode);
    }
    let elsewhere = format!("/_matrix/federation/v1/exchange_third_party_invite/{}", enc("!none:one.test"));
    evil.put(&elsewhere, &exchange(&set("/room_id", json!("!none:one.test")))).await.fails(404, "M_NOT_FOUND");
    assert_eq!(membership(&alice, &room, &mallory).await, None);

    bind(&one, "@nobody:one.test", &room, &alice.user_id, json!({})).await.fails(404, "M_NOT_FOUND");
    bind(&one, &mallory, &room, &alice.user_id, json!({})).await.fails(404, "M_NOT_FOUND");
    bind(&one, &carol.user_id, &room, &alice.user_id, signed(&mallory, "t1", "id.test")).await.ok();
    bind(&one, &carol.user_id, &room, "@gone:gone.test", signed(&carol.user_id, "t1", "id.test")).await.ok();
    assert_eq!(membership(&alice, &room, &carol.user_id).await, None);
    let body = json!({ "medium": "email", "address": "a", "mxid": carol.user_id, "invites": vec![json!({ "medium": "email", "address": "a",
        "mxid": carol.user_id, "room_id": room, "sender": alice.user_id, "signed": {} }); 21] });
    one.ask(Method::PUT, "/_matrix/federation/v1/3pid/onbind").json(&body).await.fails(400, "M_INVALID_PARAM");
}
