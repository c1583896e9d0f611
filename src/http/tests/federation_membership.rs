//! Who comes and goes in rooms across servers, where the servers do not know the same at the same time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use super::federation::{enc, eventually, hears, is, join, membership, neighbours, room, running, say, section};
use super::federation_hostile::NOTHING;
use crate::testing::{Hearth, Network, Person};

#[tokio::test]
async fn an_invitation_is_answered_before_its_event_has_arrived() {
    for version in ["9", "12"] {
        let network = Network::default();
        // One that invites, and then tells nobody of it.
        let (one, two) = (Hearth::named_in(&network, "one.test"), running(&network, "two.test"));
        let (alice, bob) = (one.register("alice").await, two.hearth.register("bob").await);
        let (carol, dave) = (two.hearth.register("carol").await, two.hearth.register("dave").await);
        let room = room(&alice, json!({ "room_version": version, "preset": "private_chat", "invite": [bob.user_id] })).await;
        let path = |what: &str| format!("/_matrix/client/v3/rooms/{}/{what}", enc(&room));
        bob.post(&path("join"), json!({})).await.ok();
        for user in [&carol, &dave] {
            alice.post(&path("invite"), json!({ "user_id": user.user_id })).await.ok();
            assert_eq!(section(user, &room).await.as_deref(), Some("invite"));
        }
        dave.post(&path("leave"), json!({})).await.ok();
        assert_eq!(membership(&alice, &room, &dave.user_id).await.as_deref(), Some("leave"), "version {version}");
        carol.post(&path("join"), json!({})).await.ok();
        assert_eq!(membership(&alice, &room, &carol.user_id).await.as_deref(), Some("join"), "version {version}");
    }
}

#[tokio::test]
async fn only_who_invited_takes_an_invitation_back() {
    let (_network, one, _two, alice, bob) = neighbours().await;
    let carol = one.hearth.register("carol").await;
    let common = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &common, "one.test").await;
    let anybody_invites = json!({ "invite": 0 });
    let room = room(&alice, json!({ "preset": "public_chat", "power_level_content_override": anybody_invites })).await;
    join(&carol, &room, "one.test").await;
    let path = |what: &str| format!("/_matrix/client/v3/rooms/{}/{what}", enc(&room));
    carol.post(&path("invite"), json!({ "user_id": bob.user_id })).await.ok();
    alice.post(&path("kick"), json!({ "user_id": bob.user_id })).await.ok();
    hears(&bob, &common, &say(&alice, &common, "after").await).await;
    assert_eq!(section(&bob, &room).await.as_deref(), Some("invite"), "that she may cannot be told without the room's state");
}

#[tokio::test]
async fn a_name_is_changed_in_a_restricted_room_with_what_a_client_was_told() {
    let (_network, _one, _two, alice, bob) = neighbours().await;
    let open = room(&alice, json!({ "room_version": "10", "preset": "public_chat" })).await;
    let allow = json!([{ "type": "m.room_membership", "room_id": open }]);
    let rules = json!({ "type": "m.room.join_rules", "content": { "join_rule": "restricted", "allow": allow } });
    let inner = room(&alice, json!({ "room_version": "10", "initial_state": [rules] })).await;
    join(&bob, &open, "one.test").await;
    is(&alice, &open, &bob.user_id, "join").await;
    join(&bob, &inner, "one.test").await;
    let own = format!("/_matrix/client/v3/rooms/{}/state/m.room.member/{}", enc(&inner), enc(&bob.user_id));
    let mut told = bob.get(&own).await.ok();
    assert_eq!(told["join_authorised_via_users_server"], json!(alice.user_id));
    told["displayname"] = json!("Bobby");
    bob.put(&own, told).await.ok();
    let seen = async || alice.get(&own).await.ok()["displayname"].as_str().map(str::to_owned).filter(|name| name == "Bobby");
    eventually("the new name", seen).await;
    bob.post(&format!("/_matrix/client/v3/rooms/{}/leave", enc(&inner)), json!({})).await.ok();
    is(&alice, &inner, &bob.user_id, "leave").await;
}

#[tokio::test]
async fn what_is_not_here_is_redacted_by_those_who_may() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &room, "hearth.test").await;
    let path = format!("/_matrix/client/v3/rooms/{}/redact/{}/t", enc(&room), enc(NOTHING));
    bob.put(&path, json!({})).await.fails(404, "M_NOT_FOUND");
    alice.put(&path, json!({ "reason": "spam" })).await.ok();
}

#[tokio::test]
async fn users_of_other_servers_are_found_by_those_who_meet_them() {
    let (_network, one, _two, alice, bob) = neighbours().await;
    let carol = one.hearth.register("carol").await;
    let named = |name: &str| json!({ "displayname": name });
    bob.put(&format!("/_matrix/client/v3/profile/{}/displayname", enc(&bob.user_id)), named("Robert Tables")).await.ok();
    let found = async |by: &Person, term: &str| {
        let found = by.post("/_matrix/client/v3/user_directory/search", json!({ "search_term": term })).await.ok();
        let names = found["results"].as_array().unwrap().iter().map(|user| user["display_name"].clone());
        names.collect::<Vec<_>>()
    };
    assert!(found(&alice, "bob").await.is_empty(), "never heard of");
    let secret = room(&alice, json!({ "preset": "private_chat", "invite": [bob.user_id] })).await;
    join(&bob, &secret, "one.test").await;
    is(&alice, &secret, &bob.user_id, "join").await;
    for term in ["bob", "tables rob", &bob.user_id] {
        assert_eq!(found(&alice, term).await, ["Robert Tables"], "{term}");
        assert!(found(&carol, term).await.is_empty(), "who does not share the room, {term}");
    }
    let public = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &public, "one.test").await;
    is(&alice, &public, &bob.user_id, "join").await;
    assert_eq!(found(&carol, "tables").await, ["Robert Tables"], "who could meet them");
    for room in [&secret, &public] {
        let member = format!("/_matrix/client/v3/rooms/{}/state/m.room.member/{}", enc(room), enc(&bob.user_id));
        bob.put(&member, json!({ "membership": "join", "displayname": "Bobby" })).await.ok();
    }
    eventually("the new name", async || (found(&alice, "bob").await == ["Bobby"]).then_some(())).await;
    eventually("no old name", async || found(&carol, "tables").await.is_empty().then_some(())).await;
    for room in [&secret, &public] {
        bob.post(&format!("/_matrix/client/v3/rooms/{}/leave", enc(room)), json!({})).await.ok();
        is(&alice, room, &bob.user_id, "leave").await;
    }
    assert!(found(&alice, "bobby").await.is_empty(), "who is gone");
}

#[tokio::test]
async fn what_happens_while_a_server_enters_a_room_is_not_lost() {
    let (network, _one, _two, alice, bob) = neighbours().await;
    let three = running(&network, "three.test");
    let carol = three.hearth.register("carol").await;
    let common = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &common, "one.test").await;
    is(&alice, &common, &bob.user_id, "join").await;
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&carol, &room, "one.test").await;
    is(&alice, &room, &carol.user_id, "join").await;
    // Bob's server is told of the room's state, and lacks the key of Carol's to believe it.
    let keys = "/_matrix/key/v2/server";
    network.hold(keys);
    let kicked = async {
        is(&alice, &room, &bob.user_id, "join").await;
        let kick = format!("/_matrix/client/v3/rooms/{}/kick", enc(&room));
        alice.post(&kick, json!({ "user_id": bob.user_id })).await.ok();
        hears(&bob, &common, &say(&alice, &common, "after").await).await;
        network.let_go(keys);
    };
    tokio::join!(join(&bob, &room, "one.test"), kicked);
    is(&bob, &room, &bob.user_id, "leave").await;
}
