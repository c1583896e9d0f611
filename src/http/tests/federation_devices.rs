//! Devices across servers of one process: who is told to ask for a user's devices when they come to share a room. And who is not told of events.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use axum::{Router, extract::Request, response::Response};
use federation::Transport as _;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    federation::{Running, enc, eventually, hears, is, join, room, run, running, say},
    federation_hostile::EVIL,
    federation_liars::{Liar, liar},
    partial_state::STATE,
};
use crate::testing::{Hearth, Network, Person};

/// A server, and the transactions that others sent it.
struct Hearing {
    running: Running,
    /// The network that the server is on.
    backstage: Network,
    transactions: Arc<Mutex<Vec<Value>>>,
    _front: Arc<Router>,
}

impl Hearing {
    fn new(network: &Network, name: &'static str, others: &[&Hearth]) -> Self {
        let backstage = Network::default();
        let running = running(&backstage, name);
        for other in others {
            backstage.connect(other.server.name.as_str(), other.federation());
        }
        let transactions = Arc::default();
        let heard = Arc::clone(&transactions);
        let stage = backstage.clone();
        let front = Router::new().fallback(move |request| heard_by(name, stage.clone(), Arc::clone(&heard), request));
        let front = Arc::new(front);
        network.connect(name, &front);
        Self { running, backstage, transactions, _front: front }
    }

    /// How often it was told to ask for a user's devices.
    fn told_of(&self, who: &Person) -> usize {
        let is_of = |edu: &&Value| edu["edu_type"] == "m.device_list_update" && edu["content"]["user_id"] == who.user_id;
        self.transactions.lock().iter().filter_map(|transaction| transaction["edus"].as_array()).flatten().filter(is_of).count()
    }

    /// Whether it was sent a message with this text.
    fn was_sent(&self, text: &str) -> bool {
        let transactions = self.transactions.lock();
        let mut pdus = transactions.iter().filter_map(|transaction| transaction["pdus"].as_array()).flatten();
        pdus.any(|pdu| pdu["content"]["body"] == text)
    }

    /// Waits until it was told of them more often than so.
    async fn is_told_of(&self, who: &Person, before: usize) -> usize {
        eventually("a change of devices", async || Some(self.told_of(who)).filter(|told| *told > before)).await
    }
}

async fn heard_by(name: &'static str, backstage: Network, heard: Arc<Mutex<Vec<Value>>>, request: Request) -> Response {
    let is_transaction = request.uri().path().starts_with("/_matrix/federation/v1/send/");
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    if is_transaction {
        heard.lock().push(serde_json::from_slice(&body).unwrap());
    }
    let answer = backstage.carry(name.try_into().unwrap(), http::Request::from_parts(parts, body)).await.unwrap();
    answer.map(axum::body::Body::from_stream)
}

/// Gives a user's device something to be told of.
async fn named(who: &Person, name: &str) {
    let path = format!("/_matrix/client/v3/devices/{}", who.device_id);
    who.put(&path, json!({ "display_name": name })).await.ok();
}

async fn leave(who: &Person, room: &str) {
    who.post(&format!("/_matrix/client/v3/rooms/{}/leave", enc(room)), json!({})).await.ok();
}

#[tokio::test]
async fn who_enters_a_room_has_their_devices_told_to_servers_that_shared_none_with_them() {
    let network = Network::default();
    let two = running(&network, "two.test");
    let one = Hearing::new(&network, "one.test", &[&two.hearth]);
    let alice = one.running.hearth.register("alice").await;
    let (bob, carol, dave) =
        (two.hearth.register("bob").await, two.hearth.register("carol").await, two.hearth.register("dave").await);
    let (first, second) =
        (room(&alice, json!({ "preset": "public_chat" })).await, room(&alice, json!({ "preset": "public_chat" })).await);
    named(&bob, "a phone").await;
    join(&bob, &first, "one.test").await;
    let told = one.is_told_of(&bob, 0).await;

    // One that gets a user's changes by another room is not told again.
    join(&bob, &second, "one.test").await;
    hears(&alice, &second, &say(&bob, &second, "a").await).await;
    assert_eq!(one.told_of(&bob), told);

    // What happened while no room was shared was not told.
    leave(&bob, &first).await;
    leave(&bob, &second).await;
    is(&alice, &first, &bob.user_id, "leave").await;
    is(&alice, &second, &bob.user_id, "leave").await;
    named(&bob, "another phone").await;
    join(&bob, &first, "one.test").await;
    let told = one.is_told_of(&bob, told).await;

    // Who enters by this server's own word, too, and not again for another name.
    named(&dave, "a laptop").await;
    join(&dave, &first, "one.test").await;
    let of_dave = one.is_told_of(&dave, 0).await;
    dave.put(&format!("/_matrix/client/v3/profile/{}/displayname", dave.user_id), json!({ "displayname": "D" })).await.ok();
    // Of whom there is nothing to tell nothing is told.
    join(&carol, &first, "one.test").await;
    hears(&alice, &first, &say(&carol, &first, "b").await).await;
    assert_eq!((one.told_of(&carol), one.told_of(&dave), one.told_of(&bob)), (0, of_dave, told));
}

#[tokio::test]
async fn devices_are_told_after_a_restart() {
    let network = Network::default();
    let two = Hearth::named_in(&network, "two.test");
    let one = Hearing::new(&network, "one.test", &[&two]);
    let (alice, bob) = (one.running.hearth.register("alice").await, two.register("bob").await);
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    named(&bob, "a phone").await;
    join(&bob, &room, "one.test").await;
    assert_eq!(one.told_of(&bob), 0);
    let _two = run(two);
    one.is_told_of(&bob, 0).await;
}

/// Erin of three.test is in a room of a server that tells two.test, which bob enters by its way, that nobody else is.
struct Concealed {
    network: Network,
    three: Hearing,
    _two: Running,
    _liar: Liar,
    mallory: Person,
    bob: Person,
    erin: Person,
    room: String,
}

impl Concealed {
    async fn new() -> Self {
        let network = Network::default();
        let two = running(&network, "two.test");
        let liar = liar(&network, &two.hearth, |path, answer| {
            if path.contains("send_join") {
                answer["servers_in_room"] = json!([EVIL]);
            }
        });
        let three = Hearing::new(&network, "three.test", &[&two.hearth, &liar.honest.hearth]);
        liar.backstage.connect("three.test", three.running.hearth.federation());
        let mallory = liar.honest.hearth.register("mallory").await;
        let (bob, erin) = (two.hearth.register("bob").await, three.running.hearth.register("erin").await);
        // With a name, so that no members are told for want of one.
        let room = room(&mallory, json!({ "preset": "public_chat", "name": "Den" })).await;
        join(&erin, &room, EVIL).await;
        is(&mallory, &room, &erin.user_id, "join").await;
        named(&bob, "a phone").await;
        network.hold(STATE);
        join(&bob, &room, EVIL).await;
        Self { network, three, _two: two, _liar: liar, mallory, bob, erin, room }
    }
}

#[tokio::test]
async fn servers_that_turn_out_to_be_in_a_room_are_told() {
    let story = Concealed::new().await;
    story.network.let_go(STATE);
    story.three.is_told_of(&story.bob, 0).await;
}

/// They counted on being told for as long as they were in it, and do so now by another room.
#[tokio::test]
async fn servers_that_turn_out_to_have_been_in_a_room_are_told() {
    let story = Concealed::new().await;
    let Concealed { network, three, mallory, bob, erin, room: first, .. } = &story;
    named(bob, "another phone").await;
    let second = room(bob, json!({ "preset": "public_chat" })).await;
    join(erin, &second, "two.test").await;
    leave(erin, first).await;
    is(mallory, first, &erin.user_id, "leave").await;
    hears(bob, first, &say(mallory, first, "farewell").await).await;
    hears(erin, &second, &say(bob, &second, "hello").await).await;
    assert_eq!(three.told_of(bob), 0);
    network.let_go(STATE);
    three.is_told_of(bob, 0).await;
}

#[tokio::test]
async fn what_was_said_before_a_server_entered_is_not_told_to_it() {
    let network = Network::default();
    let two = Hearth::named_in(&network, "two.test");
    let one = Hearing::new(&network, "one.test", &[&two]);
    let three = Hearing::new(&network, "three.test", &[&two]);
    one.backstage.connect("three.test", three.running.hearth.federation());
    let (alice, bob) = (one.running.hearth.register("alice").await, two.register("bob").await);
    let carol = three.running.hearth.register("carol").await;
    let room = room(&bob, json!({ "preset": "public_chat" })).await;
    join(&alice, &room, "two.test").await;
    // Nothing is told yet: it waits.
    say(&bob, &room, "before").await;
    join(&carol, &room, "two.test").await;
    let after = say(&bob, &room, "after").await;
    let _two = run(two);
    hears(&alice, &room, &after).await;
    hears(&carol, &room, &after).await;
    assert!(one.was_sent("before") && one.was_sent("after") && three.was_sent("after"));
    assert!(!three.was_sent("before"));
}
