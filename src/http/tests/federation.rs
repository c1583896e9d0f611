//! Rooms across servers of one process: who joins, is told, is asked, and what is missing is fetched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{sync::Arc, time::Duration};

use http::Method;
use serde_json::{Value, json};

use crate::testing::{Hearth, Network, Person};

/// A server that tells others what there is to tell.
pub(super) struct Running {
    pub(super) hearth: Hearth,
    telling: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.telling.abort();
    }
}

pub(super) fn running(network: &Network, name: &str) -> Running {
    run(Hearth::named_in(network, name))
}

pub(super) fn run(hearth: Hearth) -> Running {
    let server = Arc::clone(&hearth.server);
    let telling = tokio::spawn(async move { server.federation.run(server.stopping()).await.unwrap() });
    Running { hearth, telling }
}

/// Asks until the answer is there. A test that hangs here lacks it.
pub(super) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} never happened");
}

pub(super) async fn room(of: &Person, request: Value) -> String {
    let created = of.post("/_matrix/client/v3/createRoom", request).await.ok();
    created["room_id"].as_str().unwrap().to_owned()
}

pub(super) fn enc(id: &str) -> String {
    federation::path(&[id])[1..].to_owned()
}

pub(super) async fn say(by: &Person, room: &str, txn: &str) -> String {
    let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{txn}", enc(room));
    let sent = by.put(&path, json!({ "msgtype": "m.text", "body": txn })).await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

pub(super) async fn join(who: &Person, room: &str, via: &str) {
    who.post(&format!("/_matrix/client/v3/join/{}?via={via}", enc(room)), json!({})).await.ok();
}

/// Two servers, and a user of each.
pub(super) async fn neighbours() -> (Network, Running, Running, Person, Person) {
    let network = Network::default();
    let (one, two) = (running(&network, "one.test"), running(&network, "two.test"));
    let (alice, bob) = (one.hearth.register("alice").await, two.hearth.register("bob").await);
    (network, one, two, alice, bob)
}

pub(super) async fn hears(who: &Person, room: &str, event: &str) {
    let path = format!("/_matrix/client/v3/rooms/{}/event/{}", enc(room), enc(event));
    eventually("an event", async || who.get(&path).await.status.is_success().then_some(())).await;
}

pub(super) async fn membership(of: &Person, room: &str, user: &str) -> Option<String> {
    let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.member/{}", enc(room), enc(user));
    let answer = of.get(&path).await;
    if !answer.status.is_success() {
        return None;
    }
    Some(answer.ok()["membership"].as_str()?.to_owned())
}

pub(super) async fn is(of: &Person, room: &str, user: &str, expected: &str) {
    eventually(expected, async || membership(of, room, user).await.filter(|found| found == expected)).await;
}

/// The bodies of the newest messages, the newest first.
async fn messages(of: &Person, room: &str, limit: usize) -> Vec<String> {
    let page = of.get(&format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit={limit}", enc(room))).await.ok();
    let chunk = page["chunk"].as_array().unwrap();
    chunk.iter().filter_map(|event| Some(event["content"]["body"].as_str()?.to_owned())).collect()
}

#[tokio::test]
async fn a_user_joins_a_room_of_another_server_and_they_talk() {
    for version in ["1", "2", "3", "5", "6", "8", "9", "10", "11", "12"] {
        let (_network, _one, _two, alice, bob) = neighbours().await;
        let room = room(&alice, json!({ "preset": "public_chat", "room_version": version })).await;
        for txn in ["a", "b", "c"] {
            say(&alice, &room, txn).await;
        }
        join(&bob, &room, "one.test").await;
        is(&alice, &room, &bob.user_id, "join").await;
        hears(&bob, &room, &say(&alice, &room, "d").await).await;
        hears(&alice, &room, &say(&bob, &room, "e").await).await;
        assert_eq!(
            messages(&bob, &room, 20).await,
            ["e", "d", "c", "b", "a"],
            "version {version}: what was before the join is fetched"
        );
        bob.post(&format!("/_matrix/client/v3/rooms/{}/leave", enc(&room)), json!({})).await.ok();
        is(&alice, &room, &bob.user_id, "leave").await;
        say(&alice, &room, "f").await;
        join(&bob, &room, "one.test").await;
        hears(&bob, &room, &say(&alice, &room, "g").await).await;
    }
}

#[tokio::test]
async fn what_was_said_before_a_join_is_read_from_where_the_sync_ends() {
    let (_network, _one, _two, alice, bob) = neighbours().await;
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    let said = say(&alice, &room, "before").await;
    join(&bob, &room, "one.test").await;
    let timeline = bob.get("/_matrix/client/v3/sync").await.ok()["rooms"]["join"][&room]["timeline"].clone();
    assert_eq!(timeline["limited"], json!(true));
    assert_eq!(timeline["events"].as_array().unwrap().len(), 1, "the join: {timeline}");
    let from = timeline["prev_batch"].as_str().unwrap();
    let page = bob.get(&format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=1&from={from}", enc(&room))).await.ok();
    assert_eq!(page["chunk"][0]["event_id"], json!(said));
}

#[tokio::test]
async fn what_nobody_can_give_now_is_not_taken_for_what_is_not_there() {
    let (network, _one, _two, alice, bob) = neighbours().await;
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    let said = say(&alice, &room, "before").await;
    join(&bob, &room, "one.test").await;
    network.cut_off("one.test");
    let messages = format!("/_matrix/client/v3/rooms/{}/messages?dir=b", enc(&room));
    let page = bob.get(&messages).await.ok();
    assert_eq!(page["chunk"].as_array().map(Vec::len), Some(1), "the join: {page}");
    let again = format!("{messages}&from={}", page["end"].as_str().unwrap());
    let page = bob.get(&again).await.ok();
    assert_eq!((&page["chunk"], &page["end"]), (&json!([]), &page["start"]));
    network.restore("one.test");
    hears(&bob, &room, &say(&alice, &room, "after").await).await;
    let page = bob.get(&again).await.ok();
    assert_eq!((&page["chunk"][0]["event_id"], page.get("end")), (&json!(said), None));
}

#[tokio::test]
async fn what_cannot_be_believed_yet_is_not_taken_for_what_is_not_there() {
    let (network, _one, _two, alice, bob) = neighbours().await;
    let three = running(&network, "three.test");
    let carol = three.hearth.register("carol").await;
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&carol, &room, "one.test").await;
    hears(&alice, &room, &say(&carol, &room, "before").await).await;
    // The keys of Carol's server are not to be had.
    network.cut_off("three.test");
    join(&bob, &room, "one.test").await;
    let page = bob.get(&format!("/_matrix/client/v3/rooms/{}/messages?dir=b", enc(&room))).await.ok();
    assert_eq!((page["chunk"].as_array().map(Vec::len), page["end"].is_string()), (Some(1), true), "the join: {page}");
}

#[tokio::test]
async fn what_was_said_while_a_server_was_away_is_shown_where_it_was_said() {
    let (_network, _one, _two, alice, bob) = neighbours().await;
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    say(&alice, &room, "before").await;
    join(&bob, &room, "one.test").await;
    hears(&bob, &room, &say(&alice, &room, "there").await).await;
    bob.post(&format!("/_matrix/client/v3/rooms/{}/leave", enc(&room)), json!({})).await.ok();
    is(&alice, &room, &bob.user_id, "leave").await;
    for number in 0..130 {
        say(&alice, &room, &format!("away{number}")).await;
    }
    join(&bob, &room, "one.test").await;
    hears(&bob, &room, &say(&alice, &room, "back").await).await;
    let expected = std::iter::once("back".to_owned())
        .chain((0..130).rev().map(|number| format!("away{number}")))
        .chain(["there", "before"].map(str::to_owned));
    assert_eq!(messages(&bob, &room, 1000).await, expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn what_comes_late_from_before_a_join_is_shown_where_it_was_said() {
    let (_network, one, two, alice, bob) = neighbours().await;
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    let mut said = Vec::new();
    for txn in ["a", "b", "c"] {
        said.push(say(&alice, &room, txn).await);
    }
    join(&bob, &room, "one.test").await;
    for late in [&said[1], &said[0]] {
        let pdu = pdu(&one, &room, late);
        let transaction = json!({ "origin": "one.test", "origin_server_ts": 1, "pdus": [pdu], "edus": [] });
        let path = format!("/_matrix/federation/v1/send/{}", enc(late));
        let answer = two.hearth.ask_by("one.test", Method::PUT, &path, Some(&transaction)).await.ok();
        assert_eq!(answer["pdus"][late.as_str()], json!({}));
    }
    hears(&bob, &room, &say(&alice, &room, "d").await).await;
    assert_eq!(messages(&bob, &room, 20).await, ["d", "c", "b", "a"]);
}

#[tokio::test]
async fn who_follows_to_an_upgraded_room_of_another_server_keeps_their_push_rules() {
    let (_network, _one, _two, alice, bob) = neighbours().await;
    let old = room(&alice, json!({ "preset": "public_chat", "room_version": "10" })).await;
    join(&bob, &old, "one.test").await;
    let rule = |room: &str| format!("/_matrix/client/v3/pushrules/global/room/{}", enc(room));
    bob.put(&rule(&old), json!({ "actions": [] })).await.ok();
    let upgrade = format!("/_matrix/client/v3/rooms/{}/upgrade", enc(&old));
    let upgraded = alice.post(&upgrade, json!({ "new_version": "11" })).await.ok();
    let new = upgraded["replacement_room"].as_str().unwrap();
    let tombstone = format!("/_matrix/client/v3/rooms/{}/state/m.room.tombstone/", enc(&old));
    eventually("the tombstone", async || bob.get(&tombstone).await.status.is_success().then_some(())).await;
    join(&bob, new, "one.test").await;
    bob.get(&rule(new)).await.ok();
    bob.get(&rule(&old)).await.ok();
}

#[tokio::test]
async fn an_invitation_is_signed_shown_accepted_or_declined() {
    for version in ["1", "9", "12"] {
        let (_network, _one, two, alice, bob) = neighbours().await;
        let carol = two.hearth.register("carol").await;
        let invited =
            json!({ "room_version": version, "name": "Den", "preset": "private_chat", "invite": [bob.user_id, carol.user_id] });
        let room = room(&alice, invited).await;
        let synced = bob.get("/_matrix/client/v3/sync").await.ok();
        let told = synced["rooms"]["invite"][&room]["invite_state"]["events"].as_array().unwrap().clone();
        assert!(told.iter().any(|event| event["content"]["name"] == "Den"), "{told:?}");
        assert!(
            told.iter().any(|event| event["content"]["membership"] == "invite" && event["state_key"] == bob.user_id),
            "{told:?}"
        );

        carol.post(&format!("/_matrix/client/v3/rooms/{}/leave", enc(&room)), json!({})).await.ok();
        is(&alice, &room, &carol.user_id, "leave").await;
        let synced = carol.get("/_matrix/client/v3/sync").await.ok();
        assert!(synced["rooms"]["invite"].as_object().is_none_or(|rooms| rooms.is_empty()), "{synced}");

        bob.post(&format!("/_matrix/client/v3/rooms/{}/join", enc(&room)), json!({})).await.ok();
        is(&alice, &room, &bob.user_id, "join").await;
        hears(&bob, &room, &say(&alice, &room, "hello").await).await;
        let synced = bob.get("/_matrix/client/v3/sync").await.ok();
        assert!(synced["rooms"]["join"][&room].is_object(), "{synced}");
    }
}

#[tokio::test]
async fn an_invited_server_is_told_once() {
    let network = Network::default();
    let (one, two) = (Hearth::named_in(&network, "one.test"), Hearth::named_in(&network, "two.test"));
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let room = room(&alice, json!({})).await;
    let path = format!("/_matrix/client/v3/rooms/{}", enc(&room));
    alice.post(&format!("{path}/invite"), json!({ "user_id": bob.user_id })).await.ok();
    let waiting = || rooms::outgoing::oldest(&one.server.snapshot(), 10).unwrap().len();
    assert_eq!(waiting(), 0, "it signed the invitation");
    alice.post(&format!("{path}/kick"), json!({ "user_id": bob.user_id })).await.ok();
    assert_eq!(waiting(), 1, "nobody in the room tells it that the invitation is taken back");
}

#[tokio::test]
async fn a_knock_is_told_and_let_in() {
    let (_network, _one, _two, alice, bob) = neighbours().await;
    let rules = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let room = room(&alice, json!({ "room_version": "11", "name": "Den", "initial_state": [rules] })).await;
    bob.post(&format!("/_matrix/client/v3/join/{}?via=one.test", enc(&room)), json!({})).await.fails(403, "M_FORBIDDEN");
    bob.post(&format!("/_matrix/client/v3/knock/{}?via=one.test", enc(&room)), json!({})).await.ok();
    is(&alice, &room, &bob.user_id, "knock").await;
    let synced = bob.get("/_matrix/client/v3/sync").await.ok();
    assert!(synced["rooms"]["knock"][&room]["knock_state"]["events"].as_array().unwrap().len() > 2, "{synced}");
    alice.post(&format!("/_matrix/client/v3/rooms/{}/invite", enc(&room)), json!({ "user_id": bob.user_id })).await.ok();
    bob.post(&format!("/_matrix/client/v3/rooms/{}/join", enc(&room)), json!({})).await.ok();
    is(&alice, &room, &bob.user_id, "join").await;
}

/// What a user who is in no room of this server is told of their membership.
pub(super) async fn section(of: &Person, room: &str) -> Option<String> {
    let synced = of.get("/_matrix/client/v3/sync").await.ok();
    ["invite", "knock", "join"].into_iter().find(|name| synced["rooms"][*name][room].is_object()).map(str::to_owned)
}

#[tokio::test]
async fn an_invitation_is_taken_back_and_a_knock_by_either_side() {
    for version in ["9", "12"] {
        let (_network, _one, two, alice, bob) = neighbours().await;
        let rules = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
        let room = room(&alice, json!({ "room_version": version, "initial_state": [rules] })).await;
        let bobs = json!({ "user_id": bob.user_id });
        let kick = format!("/_matrix/client/v3/rooms/{}/kick", enc(&room));
        let knock = format!("/_matrix/client/v3/knock/{}?via=one.test", enc(&room));

        alice.post(&format!("/_matrix/client/v3/rooms/{}/invite", enc(&room)), bobs.clone()).await.ok();
        assert_eq!(section(&bob, &room).await.as_deref(), Some("invite"));
        alice.post(&kick, bobs.clone()).await.ok();
        eventually("the end of the invitation", async || section(&bob, &room).await.is_none().then_some(())).await;

        bob.post(&knock, json!({})).await.ok();
        assert_eq!(section(&bob, &room).await.as_deref(), Some("knock"));
        alice.post(&kick, bobs).await.ok();
        eventually("the end of the knock", async || section(&bob, &room).await.is_none().then_some(())).await;

        two.hearth.clock.advance(1);
        bob.post(&knock, json!({})).await.ok();
        is(&alice, &room, &bob.user_id, "knock").await;
        bob.post(&format!("/_matrix/client/v3/rooms/{}/leave", enc(&room)), json!({})).await.ok();
        is(&alice, &room, &bob.user_id, "leave").await;
        assert_eq!(section(&bob, &room).await, None, "version {version}");
    }
}

#[tokio::test]
async fn members_of_one_room_may_join_another_by_way_of_its_server() {
    for version in ["8", "10", "12"] {
        let (_network, _one, two, alice, bob) = neighbours().await;
        let open = room(&alice, json!({ "room_version": version, "preset": "public_chat" })).await;
        let allow = json!([{ "type": "m.room_membership", "room_id": open }]);
        let rules = json!({ "type": "m.room.join_rules", "content": { "join_rule": "restricted", "allow": allow } });
        let inner = room(&alice, json!({ "room_version": version, "initial_state": [rules] })).await;
        let path = format!("/_matrix/client/v3/join/{}?via=one.test", enc(&inner));
        bob.post(&path, json!({})).await.fails(403, "M_FORBIDDEN");
        join(&bob, &open, "one.test").await;
        bob.post(&path, json!({})).await.ok();
        is(&alice, &inner, &bob.user_id, "join").await;
        // A second user of the same server joins by way of the first: nobody there may let her in, so the other server is asked.
        let carol = two.hearth.register("carol").await;
        join(&carol, &open, "two.test").await;
        carol.post(&path, json!({})).await.ok();
        is(&alice, &inner, &carol.user_id, "join").await;
    }
}

#[tokio::test]
async fn a_server_that_was_away_is_told_what_it_missed() {
    let (network, one, _two, alice, bob) = neighbours().await;
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &room, "one.test").await;
    network.cut_off("two.test");
    let mut last = String::new();
    for number in 0..120 {
        last = say(&alice, &room, &format!("n{number}")).await;
    }
    network.restore("two.test");
    one.hearth.clock.advance(24 * 60 * 60 * 1000);
    hears(&bob, &room, &last).await;
    let all = messages(&bob, &room, 200).await;
    assert_eq!(all.len(), 120, "{all:?}");
}

#[tokio::test]
async fn what_was_redacted_before_it_was_fetched_is_shown_as_such() {
    let (_network, _one, _two, alice, bob) = neighbours().await;
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    let regretted = say(&alice, &room, "regretted").await;
    join(&bob, &room, "one.test").await;
    let path = format!("/_matrix/client/v3/rooms/{}/redact/{}/r1", enc(&room), enc(&regretted));
    let redaction = alice.put(&path, json!({})).await.ok()["event_id"].as_str().unwrap().to_owned();
    hears(&bob, &room, &redaction).await;
    assert!(messages(&bob, &room, 50).await.is_empty());
    let path = format!("/_matrix/client/v3/rooms/{}/event/{}", enc(&room), enc(&regretted));
    let shown = bob.get(&path).await.ok();
    assert_eq!(shown["unsigned"]["redacted_because"]["event_id"], json!(redaction), "{shown}");
}

#[tokio::test]
async fn servers_that_wrote_at_the_same_time_agree() {
    let (network, one, two, alice, bob) = neighbours().await;
    let levels = json!({ "users": { bob.user_id.clone(): 100, alice.user_id.clone(): 100 } });
    let room =
        room(&alice, json!({ "preset": "public_chat", "room_version": "11", "power_level_content_override": levels })).await;
    join(&bob, &room, "one.test").await;
    is(&alice, &room, &bob.user_id, "join").await;
    network.cut_off("two.test");
    network.cut_off("one.test");
    let topic = format!("/_matrix/client/v3/rooms/{}/state/m.room.topic", enc(&room));
    for number in 0..5 {
        alice.put(&topic, json!({ "topic": format!("a{number}") })).await.ok();
        bob.put(&topic, json!({ "topic": format!("b{number}") })).await.ok();
    }
    for server in [&one, &two] {
        server.hearth.clock.advance(24 * 60 * 60 * 1000);
    }
    network.restore("one.test");
    network.restore("two.test");
    let (a, b) = (say(&alice, &room, "from-a").await, say(&bob, &room, "from-b").await);
    hears(&bob, &room, &a).await;
    hears(&alice, &room, &b).await;
    assert_eq!(alice.get(&topic).await.ok(), bob.get(&topic).await.ok());
}

async fn at_time(of: &Person, room: &str, ts: u64, dir: &str) -> Option<String> {
    let path = format!("/_matrix/client/v1/rooms/{}/timestamp_to_event?ts={ts}&dir={dir}", enc(room));
    let answer = of.get(&path).await;
    if !answer.status.is_success() {
        answer.fails(404, "M_NOT_FOUND");
        return None;
    }
    Some(answer.json()["event_id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn an_event_of_a_time_before_the_join_is_fetched() {
    let (_network, one, two, alice, bob) = neighbours().await;
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    let created_ms = one.hearth.server.now_ms();
    let mut said = Vec::new();
    for number in 0..130 {
        one.hearth.clock.advance(1000);
        said.push(say(&alice, &room, &format!("n{number}")).await);
    }
    one.hearth.clock.advance(1000);
    two.hearth.clock.advance(131 * 1000);
    join(&bob, &room, "one.test").await;
    let joined_ms = two.hearth.server.now_ms();
    assert_eq!(at_time(&bob, &room, joined_ms + 5000, "f").await, None, "nothing is asked of what is to come");
    assert_eq!(messages_here(&two, &room), 0);
    assert_eq!(at_time(&bob, &room, created_ms + 100_500, "b").await.as_ref(), Some(&said[99]));
    assert!(messages_here(&two, &room) < 130, "no more is fetched than leads there");
    assert_eq!(at_time(&bob, &room, created_ms + 1000, "f").await.as_ref(), Some(&said[0]));
    let around = format!("/_matrix/client/v3/rooms/{}/context/{}", enc(&room), enc(&said[0]));
    assert_eq!(bob.get(&around).await.ok()["event"]["content"]["body"], "n0");
    let eve = two.hearth.register("eve").await;
    let path = format!("/_matrix/client/v1/rooms/{}/timestamp_to_event?ts=1&dir=f", enc(&room));
    eve.get(&path).await.fails(403, "M_FORBIDDEN");
}

/// An event as one server tells it to another.
fn pdu(of: &Running, room: &str, id: &str) -> Value {
    let db = of.hearth.server.snapshot();
    let no = rooms::numbers::number(&db, room.try_into().unwrap()).unwrap().unwrap();
    let (_, stored) = rooms::events::by_id(&db, no, id.try_into().unwrap()).unwrap().unwrap();
    serde_json::from_str(&stored.event.json).unwrap()
}

/// The messages of a room that are on a server's disk.
fn messages_here(on: &Running, id: &str) -> usize {
    let db = on.hearth.server.snapshot();
    let no = rooms::numbers::number(&db, id.try_into().unwrap()).unwrap().unwrap();
    let all = rooms::timeline::read(&db, no, rooms::timeline::Direction::Forward, rooms::Pos(i64::MIN), None).unwrap();
    all.filter(|placed| placed.as_ref().unwrap().stored.event.kind.as_str() == "m.room.message").count()
}

#[tokio::test]
async fn who_is_cut_off_answers_of_what_is_here() {
    let (network, _one, _two, alice, bob) = neighbours().await;
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    say(&alice, &room, "before").await;
    join(&bob, &room, "one.test").await;
    network.cut_off("one.test");
    let found = at_time(&bob, &room, 1, "f").await.unwrap();
    let event = bob.get(&format!("/_matrix/client/v3/rooms/{}/event/{}", enc(&room), enc(&found))).await.ok();
    assert_eq!(event["type"], "m.room.member", "{event}");
    assert_eq!(at_time(&bob, &room, 1, "b").await, None);
}

#[tokio::test]
async fn where_federation_is_switched_off_nothing_waits_to_be_told() {
    let network = Network::default();
    let (one, two) = (Hearth::named_in(&network, "one.test"), running(&network, "two.test"));
    let (alice, bob) = (one.register("alice").await, two.hearth.register("bob").await);
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &room, "one.test").await;
    let last = say(&alice, &room, "unheard").await;
    let waiting = || rooms::outgoing::oldest(&one.server.snapshot(), 10).unwrap().len();
    assert!(waiting() > 0);
    // The same server after a restart with another configuration.
    let off = federation::Federation::new(federation::Parts {
        identity: Arc::clone(&one.server.identity),
        config: federation::Config { enabled: false, ..Default::default() },
        store: Arc::clone(&one.server.store),
        media: Arc::clone(&one.server.media),
        clock: one.clock.clone(),
        transport: Arc::new(network.clone()),
        online: None,
        computing: federation::Computing::default(),
        rng: one.server.rng(),
    });
    let running = Arc::clone(&off);
    let telling = tokio::spawn(async move { running.run(std::future::pending()).await.unwrap() });
    eventually("the end of the log", async || (waiting() == 0).then_some(())).await;
    say(&alice, &room, "unheard-too").await;
    eventually("the end of the log", async || (waiting() == 0).then_some(())).await;
    telling.abort();
    let edu = federation::Edu::new("m.direct_to_device", &json!({})).unwrap();
    off.tell_surely(vec![("two.test".try_into().unwrap(), edu)]).await.unwrap();
    let dump = one.server.store.dump(federation::TABLES).unwrap();
    let queued = dump.split("outbound_queues").nth(1).unwrap().lines().nth(1);
    assert!(queued.is_none_or(|line| !line.starts_with(' ')), "{dump}");
    let path = format!("/_matrix/client/v3/rooms/{}/event/{}", enc(&room), enc(&last));
    assert!(!bob.get(&path).await.status.is_success());
}

#[tokio::test]
async fn a_message_from_before_a_change_of_state_takes_nothing_of_it_back() {
    let (network, _one, two, alice, bob) = neighbours().await;
    let room = room(&alice, json!({ "preset": "public_chat", "topic": "old" })).await;
    join(&bob, &room, "one.test").await;
    is(&alice, &room, &bob.user_id, "join").await;
    network.cut_off("one.test");
    let late = say(&bob, &room, "late").await;
    let topic = format!("/_matrix/client/v3/rooms/{}/state/m.room.topic", enc(&room));
    alice.put(&topic, json!({ "topic": "new" })).await.ok();
    let since = alice.get("/_matrix/client/v3/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
    network.restore("one.test");
    two.hearth.clock.advance(24 * 60 * 60 * 1000);
    hears(&alice, &room, &late).await;
    for target in ["state", "state_after"] {
        let path = format!("/_matrix/client/v3/sync?since={since}&use_state_after={}", target == "state_after");
        let told = alice.get(&path).await.ok()["rooms"]["join"][&room].clone();
        assert_eq!(told["timeline"]["events"][0]["event_id"], json!(late), "{told}");
        assert!(told[target]["events"].as_array().unwrap().is_empty(), "{target}: {told}");
    }
}
