//! Devices across servers of one process: who is told to ask for a user's devices when they come to share a room.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use axum::{Router, extract::Request, response::Response};
use federation::Transport as _;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    federation::{Running, enc, eventually, hears, is, join, room, run, running, say},
    federation_hostile::EVIL,
    federation_liars::liar,
};
use crate::testing::{Hearth, Network, Person};

/// A server, and what others told it beside events.
struct Hearing {
    running: Running,
    edus: Arc<Mutex<Vec<Value>>>,
    _front: Arc<Router>,
}

impl Hearing {
    fn new(network: &Network, name: &'static str, others: &[&Hearth]) -> Self {
        let backstage = Network::default();
        let running = running(&backstage, name);
        for other in others {
            backstage.connect(other.server.name.as_str(), other.federation());
        }
        let edus = Arc::default();
        let heard = Arc::clone(&edus);
        let front = Router::new().fallback(move |request| heard_by(name, backstage.clone(), Arc::clone(&heard), request));
        let front = Arc::new(front);
        network.connect(name, &front);
        Self { running, edus, _front: front }
    }

    /// How often it was told to ask for a user's devices.
    fn told_of(&self, who: &Person) -> usize {
        let is_of = |edu: &&Value| edu["edu_type"] == "m.device_list_update" && edu["content"]["user_id"] == who.user_id;
        self.edus.lock().iter().filter(is_of).count()
    }

    /// Waits until it was told of them more often than so.
    async fn is_told_of(&self, who: &Person, before: usize) -> usize {
        eventually("a change of devices", async || Some(self.told_of(who)).filter(|told| *told > before)).await
    }
}

async fn heard_by(name: &'static str, backstage: Network, edus: Arc<Mutex<Vec<Value>>>, request: Request) -> Response {
    let is_transaction = request.uri().path().starts_with("/_matrix/federation/v1/send/");
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    if is_transaction {
        let transaction: Value = serde_json::from_slice(&body).unwrap();
        edus.lock().extend(transaction["edus"].as_array().into_iter().flatten().cloned());
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

#[tokio::test]
async fn servers_that_turn_out_to_be_in_a_room_are_told() {
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
    let room = room(&mallory, json!({ "preset": "public_chat" })).await;
    join(&erin, &room, EVIL).await;
    is(&mallory, &room, &erin.user_id, "join").await;
    named(&bob, "a phone").await;
    join(&bob, &room, EVIL).await;
    three.is_told_of(&bob, 0).await;
}
