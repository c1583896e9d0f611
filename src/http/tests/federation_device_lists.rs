//! Lists of devices of other servers' users: kept while a room is shared, brought up to date by what their servers tell, and asked for where
//! something was missed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use http::Method;
use serde_json::{Value, json};

use super::federation::{Running, enc, eventually, is, join, neighbours, room, running, say};
use crate::testing::{Hearth, Network, Person};

const QUERY: &str = "/_matrix/federation/v1/user/keys/query";
const DEVICES: &str = "/_matrix/federation/v1/user/devices/";

/// A room of alice, of a server that tells nothing by itself, with bob of another in it.
struct Story {
    network: Network,
    one: Hearth,
    two: Running,
    alice: Person,
    bob: Person,
    room: String,
}

impl Story {
    async fn new() -> Self {
        let network = Network::default();
        let (one, two) = (Hearth::named_in(&network, "one.test"), running(&network, "two.test"));
        let (alice, bob) = (one.register("alice").await, two.hearth.register("bob").await);
        upload_keys(&alice).await;
        let room = room(&alice, json!({ "preset": "public_chat" })).await;
        join(&bob, &room, "one.test").await;
        Self { network, one, two, alice, bob, room }
    }

    /// The same with a list that alice's server told, up to this update.
    async fn keeping(stream_id: u64, devices: &[&str]) -> Self {
        let story = Self::new().await;
        story.query(&story.bob).await;
        story.told(&story.update(stream_id, &[stream_id - 1], "any"), stream_id, devices).await;
        story
    }

    /// How often alice's server was asked for keys.
    fn asked(&self) -> usize {
        self.network.asked("one.test", QUERY) + self.network.asked("one.test", DEVICES)
    }

    async fn query(&self, by: &Person) -> Value {
        query(by, &self.alice).await
    }

    /// The devices that bob is told of.
    async fn devices(&self) -> Vec<String> {
        let told = self.query(&self.bob).await;
        told["device_keys"][&self.alice.user_id].as_object().unwrap().keys().cloned().collect()
    }

    fn update(&self, stream_id: u64, prev_id: &[u64], device: &str) -> Value {
        let keys = keys_of(&self.alice.user_id, device);
        json!({ "user_id": self.alice.user_id, "device_id": device, "stream_id": stream_id, "prev_id": prev_id, "keys": keys })
    }

    /// A server tells bob's of devices.
    async fn tells(&self, server: &str, contents: &[Value]) {
        let edus: Vec<Value> =
            contents.iter().map(|content| json!({ "edu_type": "m.device_list_update", "content": content })).collect();
        let body = json!({ "origin": server, "origin_server_ts": 1, "pdus": [], "edus": edus });
        // No two transactions of these tests say the same.
        let id = protocol::hash::sha256(body.to_string().as_bytes());
        let path = format!("/_matrix/federation/v1/send/{}", protocol::base64::encode_url_safe(&id));
        self.two.hearth.ask_by(server, Method::PUT, &path, Some(&body)).await.ok();
    }

    /// What alice's server answers who asks for her devices.
    fn answers(&self, stream_id: u64, devices: &[&str]) {
        let devices: Vec<Value> =
            devices.iter().map(|id| json!({ "device_id": id, "keys": keys_of(&self.alice.user_id, id) })).collect();
        let answer = json!({ "user_id": self.alice.user_id, "stream_id": stream_id, "devices": devices });
        self.network.forge("one.test", DEVICES, Some(&answer));
    }

    /// Alice's server tells something that makes bob's ask for the list, which is this.
    async fn told(&self, update: &Value, stream_id: u64, devices: &[&str]) {
        self.answers(stream_id, devices);
        let asked = self.asked();
        self.tells("one.test", std::slice::from_ref(update)).await;
        eventually("a fetch in the background", async || (self.asked() > asked).then_some(())).await;
        assert_eq!(self.devices().await, devices);
        assert_eq!(self.asked(), asked + 1);
    }
}

fn keys_of(user: &str, device: &str) -> Value {
    let key = protocol::base64::encode(&[device.bytes().last().unwrap(); 32]);
    json!({ "user_id": user, "device_id": device, "algorithms": ["m.olm.v1"], "keys": { format!("ed25519:{device}"): key },
        "signatures": {} })
}

async fn upload_keys(who: &Person) {
    let upload = json!({ "device_keys": keys_of(&who.user_id, &who.device_id) });
    who.post("/_matrix/client/v3/keys/upload", upload).await.ok();
}

async fn query(by: &Person, of: &Person) -> Value {
    by.post("/_matrix/client/v3/keys/query", json!({ "device_keys": { &of.user_id: [] } })).await.ok()
}

async fn leave(who: &Person, room: &str) {
    who.post(&format!("/_matrix/client/v3/rooms/{}/leave", enc(room)), json!({})).await.ok();
}

async fn since(who: &Person) -> String {
    who.get("/_matrix/client/v3/sync").await.ok()["next_batch"].as_str().unwrap().to_owned()
}

/// Whose keys a sync says to have changed.
async fn changed(who: &Person, since: &str) -> Value {
    who.get(&format!("/_matrix/client/v3/sync?since={since}")).await.ok()["device_lists"]["changed"].clone()
}

#[tokio::test]
async fn a_second_query_asks_nobody_even_while_the_server_is_away() {
    let story = Story::new().await;
    let Story { alice, bob, .. } = &story;
    let first = story.query(bob).await;
    assert_eq!(first["device_keys"][&alice.user_id][&alice.device_id], keys_of(&alice.user_id, &alice.device_id));
    assert_eq!(story.asked(), 1);
    story.network.cut_off("one.test");
    assert_eq!(story.query(bob).await, first);
    assert_eq!(first["failures"], json!({}));
    let named = json!({ "device_keys": { &alice.user_id: ["OTHER"] } });
    let named = bob.post("/_matrix/client/v3/keys/query", named).await.ok();
    assert_eq!(named["device_keys"], json!({ &alice.user_id: {} }));
    // One who entered later, too: the server was there before.
    let dora = story.two.hearth.register("dora").await;
    join(&dora, &story.room, "one.test").await;
    assert_eq!(story.query(&dora).await, first);
    assert_eq!(story.asked(), 1);
}

#[tokio::test]
async fn what_is_told_of_devices_is_applied_without_asking() {
    let story = Story::keeping(5, &["A"]).await;
    let asked = story.asked();
    let before = since(&story.bob).await;
    story.tells("one.test", &[story.update(6, &[5], "B")]).await;
    assert_eq!(story.devices().await, ["A", "B"]);
    assert_eq!(changed(&story.bob, &before).await, json!([story.alice.user_id]));
    let mut gone = story.update(7, &[6], "A");
    gone["deleted"] = json!(true);
    story.tells("one.test", &[gone.clone()]).await;
    assert_eq!(story.devices().await, ["B"]);
    let before = since(&story.bob).await;
    gone["again"] = json!(true);
    story.tells("one.test", &[gone]).await;
    assert_eq!(story.devices().await, ["B"]);
    assert_eq!(changed(&story.bob, &before).await, Value::Null, "nothing is new");
    assert_eq!(story.asked(), asked);
}

#[tokio::test]
async fn what_was_missed_is_asked_for_once_the_server_is_there() {
    let story = Story::keeping(5, &["A"]).await;
    let before = since(&story.bob).await;
    story.told(&story.update(8, &[7], "B"), 8, &["A", "B", "C"]).await;
    assert_eq!(changed(&story.bob, &before).await, json!([story.alice.user_id]));

    story.network.forge("one.test", DEVICES, None);
    story.network.cut_off("one.test");
    let asked = story.asked();
    let before = since(&story.bob).await;
    story.tells("one.test", &[story.update(10, &[9], "D")]).await;
    eventually("a fetch in the background", async || (story.asked() > asked).then_some(())).await;
    assert_eq!(changed(&story.bob, &before).await, json!([story.alice.user_id]), "clients hear of it all the same");
    let stale = story.query(&story.bob).await;
    assert_eq!(stale["device_keys"][&story.alice.user_id].as_object().unwrap().len(), 3, "what is kept serves");
    assert_eq!(stale["failures"]["one.test"]["errcode"], "M_UNKNOWN", "and the client knows");

    story.network.restore("one.test");
    story.answers(10, &["D"]);
    story.tells("one.test", &[]).await;
    assert_eq!(story.devices().await, ["D"]);
}

#[tokio::test]
async fn nobody_tells_of_users_of_others_or_of_strangers() {
    let story = Story::keeping(5, &["A"]).await;
    let three = Hearth::named_in(&story.network, "three.test");
    let erin = three.register("erin").await;
    upload_keys(&erin).await;
    let (asked, before) = (story.asked(), since(&story.bob).await);
    story.tells("three.test", &[story.update(6, &[5], "B"), story.update(9, &[8], "B")]).await;
    story.tells("three.test", &[json!({ "user_id": erin.user_id, "device_id": "E", "stream_id": 1, "prev_id": [] })]).await;
    assert_eq!(story.devices().await, ["A"]);
    assert_eq!(story.asked(), asked);
    assert_eq!(changed(&story.bob, &before).await, Value::Null);
    for asked in 1..3 {
        let told = query(&story.bob, &erin).await;
        assert!(told["device_keys"][&erin.user_id][&erin.device_id].is_object(), "{told}");
        assert_eq!(story.network.asked("three.test", QUERY), asked, "no room is shared, so nothing would be told");
    }
}

#[tokio::test]
async fn what_is_kept_counts_for_nothing_after_the_last_shared_room_ended() {
    let story = Story::new().await;
    story.query(&story.bob).await;
    leave(&story.bob, &story.room).await;
    story.query(&story.bob).await;
    assert_eq!(story.asked(), 2);
    join(&story.bob, &story.room, "one.test").await;
    story.query(&story.bob).await;
    story.query(&story.bob).await;
    assert_eq!(story.asked(), 3);
    // Who comes back at once may have missed something, too.
    leave(&story.bob, &story.room).await;
    join(&story.bob, &story.room, "one.test").await;
    story.query(&story.bob).await;
    assert_eq!(story.asked(), 4);
    // Another room goes on being shared.
    let other = room(&story.alice, json!({ "preset": "public_chat" })).await;
    join(&story.bob, &other, "one.test").await;
    story.query(&story.bob).await;
    assert_eq!(story.asked(), 4);
    drop(story.one);
}

#[tokio::test]
async fn a_user_who_comes_back_is_asked_for_again() {
    let (network, _one, _two, alice, bob) = neighbours().await;
    upload_keys(&alice).await;
    let room = room(&bob, json!({ "preset": "public_chat" })).await;
    let asked = || network.asked("one.test", QUERY);
    join(&alice, &room, "two.test").await;
    is(&bob, &room, &alice.user_id, "join").await;
    query(&bob, &alice).await;
    let before = asked();
    leave(&alice, &room).await;
    is(&bob, &room, &alice.user_id, "leave").await;
    query(&bob, &alice).await;
    assert_eq!(asked(), before + 1);
    join(&alice, &room, "two.test").await;
    is(&bob, &room, &alice.user_id, "join").await;
    let told = query(&bob, &alice).await;
    assert!(told["device_keys"][&alice.user_id][&alice.device_id].is_object(), "{told}");
    assert_eq!(asked(), before + 2);
}

#[tokio::test]
async fn servers_of_hearth_tell_each_other_of_devices() {
    let (network, one, _two, alice, bob) = neighbours().await;
    let hashed = users::passwords::hash("correct horse", &mut one.hearth.server.rng()).unwrap();
    let store = &one.hearth.server.store;
    users::accounts::set_password(store, alice.user, hashed, None, &[]).unwrap().durable().await.unwrap();
    let asked = || network.asked("one.test", QUERY) + network.asked("one.test", DEVICES);
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &room, "one.test").await;
    assert_eq!(query(&bob, &alice).await["device_keys"][&alice.user_id], json!({}));
    upload_keys(&alice).await;
    eventually("the device", async || query(&bob, &alice).await["device_keys"][&alice.user_id].get(&alice.device_id).cloned())
        .await;
    // From then on each change is told with what was before it, and nobody asks.
    let (before, first) = (since(&bob).await, asked());
    let path = format!("/_matrix/client/v3/devices/{}", alice.device_id);
    alice.put(&path, json!({ "display_name": "a phone" })).await.ok();
    eventually("the change", async || changed(&bob, &before).await.as_array().map(|users| assert_eq!(users.len(), 1))).await;
    let told = query(&bob, &alice).await;
    assert_eq!(told["device_keys"][&alice.user_id][&alice.device_id]["unsigned"], json!({ "device_display_name": "a phone" }));
    let login = json!({ "type": "m.login.password", "user": "alice", "password": "correct horse" });
    let session = one.hearth.post("/_matrix/client/v3/login", login).await.ok();
    let text = |key: &str| session[key].as_str().unwrap().to_owned();
    let other = Person { device_id: text("device_id"), token: text("access_token"), ..alice.clone() };
    upload_keys(&other).await;
    let devices = async |count: usize| {
        let told = query(&bob, &alice).await["device_keys"][&alice.user_id].clone();
        Some(told).filter(|told| told.as_object().unwrap().len() == count)
    };
    let told = eventually("another device", async || devices(2).await).await;
    assert_eq!(told[&other.device_id]["keys"], keys_of(&alice.user_id, &other.device_id)["keys"]);
    other.post("/_matrix/client/v3/logout", json!({})).await.ok();
    let told = eventually("one less", async || devices(1).await).await;
    assert!(told[&alice.device_id].is_object());
    assert_eq!(asked(), first);
}

#[tokio::test]
async fn a_server_that_always_tells_of_missing_changes_is_asked_one_thing_at_a_time() {
    let story = Story::keeping(5, &["A"]).await;
    let asked = story.asked();
    story.network.hold(DEVICES);
    for number in 0..5_u64 {
        let updates: Vec<Value> = (0..20).map(|other| story.update(100 * number + other, &[7], "B")).collect();
        story.tells("one.test", &updates).await;
    }
    eventually("a fetch in the background", async || (story.asked() > asked).then_some(())).await;
    say(&story.bob, &story.room, "meanwhile").await;
    assert_eq!(story.asked(), asked + 1);
    story.network.let_go(DEVICES);
    assert_eq!(story.devices().await, ["A"]);
    assert!(story.asked() <= asked + 3, "{}", story.asked() - asked);
}

#[tokio::test]
async fn a_server_may_answer_null_for_what_is_empty() {
    let story = Story::new().await;
    let empty = json!({ "device_keys": { &story.alice.user_id: {} }, "master_keys": null, "self_signing_keys": null });
    story.network.forge("one.test", QUERY, Some(&empty));
    let told = story.query(&story.bob).await;
    assert_eq!((&told["failures"], &told["device_keys"]), (&json!({}), &json!({ &story.alice.user_id: {} })));
    assert_eq!(story.query(&story.bob).await, told);
    assert_eq!(story.asked(), 1, "that she has no devices is known");
}
