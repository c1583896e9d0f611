//! Rooms that a server enters without being told of all members: they are used at once, and what was believed meanwhile is put right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeSet, time::Duration};

use http::Method;
use rooms::{EventNo, check, partial};
use serde_json::{Value, json};

use super::{
    federation::{Running, enc, eventually, hears, is, join, membership, room, run, running, say},
    federation_hostile::{Evil, resigned},
};
use crate::testing::{Network, Person};

/// What servers are asked for the whole state.
pub(super) const STATE: &str = "/_matrix/federation/v1/state";
/// What servers are sent events with.
const SEND: &str = "/_matrix/federation/v1/send/";
/// What servers are given to let a user in.
const SEND_JOIN: &str = "/_matrix/federation/v2/send_join/";
/// What servers are asked for events in between.
pub(super) const MISSING: &str = "/_matrix/federation/v1/get_missing_events/";
/// A filter by which members are told as they are needed.
const LAZY: &str = "filter=%7B%22room%22%3A%7B%22state%22%3A%7B%22lazy_load_members%22%3Atrue%7D%7D%7D";

/// A room of alice, of one.test, with carol of hers and erin of three.test, which bob of two.test enters while nobody tells its members.
struct Story {
    network: Network,
    two: Running,
    one: Running,
    _three: Running,
    alice: Person,
    bob: Person,
    carol: Person,
    erin: Person,
    room: String,
}

impl Story {
    async fn new(version: &str) -> Self {
        let network = Network::default();
        let (one, two) = (running(&network, "one.test"), running(&network, "two.test"));
        let three = running(&network, "three.test");
        let (alice, carol) = (one.hearth.register("alice").await, one.hearth.register("carol").await);
        let (bob, erin) = (two.hearth.register("bob").await, three.hearth.register("erin").await);
        let room = room(&alice, json!({ "preset": "public_chat", "room_version": version, "name": "Hall" })).await;
        join(&carol, &room, "one.test").await;
        join(&erin, &room, "one.test").await;
        is(&alice, &room, &erin.user_id, "join").await;
        Self { network, two, one, _three: three, alice, bob, carol, erin, room }
    }

    /// The same with bob in it, who is not told of all members.
    async fn entered(version: &str) -> Self {
        let story = Self::new(version).await;
        story.network.hold(STATE);
        story.enters(&story.bob).await;
        assert!(story.is_partial());
        story
    }

    async fn enters(&self, who: &Person) {
        join(who, &self.room, "one.test").await;
        is(&self.alice, &self.room, &who.user_id, "join").await;
    }

    fn is_partial(&self) -> bool {
        let server = &self.two.hearth.server;
        let db = server.store.snapshot();
        let no = rooms::numbers::number(&db, self.room.as_str().try_into().unwrap()).unwrap().unwrap();
        partial::is_partial(&db, no).unwrap()
    }

    /// Lets the servers tell all, and waits until all is known.
    async fn told_all(&self) {
        self.network.let_go(STATE);
        self.becomes_whole().await;
    }

    async fn becomes_whole(&self) {
        eventually("a whole room", async || (!self.is_partial()).then_some(())).await;
        self.check();
    }

    /// What must hold of the copy of the room, whatever happened.
    fn check(&self) {
        let db = self.two.hearth.server.store.snapshot();
        let no = rooms::numbers::number(&db, self.room.as_str().try_into().unwrap()).unwrap().unwrap();
        assert_eq!(check::events(&db, no, EventNo(0), 10_000).unwrap().faults, Vec::new());
        assert_eq!(check::end(&db, no).unwrap(), Vec::new());
    }

    fn path(&self, rest: &str) -> String {
        format!("/_matrix/client/v3/rooms/{}/{rest}", enc(&self.room))
    }

    /// The joined users, as a user's server has them.
    async fn members(&self, of: &Person) -> BTreeSet<String> {
        let members = of.get(&self.path("members?membership=join")).await.ok();
        members["chunk"].as_array().unwrap().iter().map(|member| member["state_key"].as_str().unwrap().to_owned()).collect()
    }

    fn everyone(&self) -> BTreeSet<String> {
        [&self.alice, &self.bob, &self.carol, &self.erin].into_iter().map(|user| user.user_id.clone()).collect()
    }

    async fn eager(&self, of: &Person, since: Option<&str>) -> Value {
        let since = since.map(|since| format!("?since={since}")).unwrap_or_default();
        of.get(&format!("/_matrix/client/v3/sync{since}")).await.ok()
    }

    async fn lazy(&self, of: &Person, since: Option<&str>) -> Value {
        let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
        of.get(&format!("/_matrix/client/v3/sync?{LAZY}{since}")).await.ok()
    }
}

/// The users whose membership a section of a room tells.
fn told_members(room: &Value) -> BTreeSet<String> {
    let state = room["state"]["events"].as_array().cloned().unwrap_or_default();
    let timeline = room["timeline"]["events"].as_array().cloned().unwrap_or_default();
    let members = state.into_iter().chain(timeline).filter(|event| event["type"] == "m.room.member");
    members.map(|event| event["state_key"].as_str().unwrap().to_owned()).collect()
}

/// The events of its timeline.
fn told_events(room: &Value) -> BTreeSet<String> {
    let timeline = room["timeline"]["events"].as_array().cloned().unwrap_or_default();
    timeline.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_room_is_used_before_all_its_members_are_known() {
    for version in ["1", "6", "10", "12"] {
        let story = Story::entered(version).await;
        let Story { alice, bob, carol, erin, room, .. } = &story;
        // Lazy-loading clients are shown it, others are not yet.
        let lazy = story.lazy(bob, None).await;
        let shown = &lazy["rooms"]["join"][room];
        let names: Vec<&Value> =
            shown["state"]["events"].as_array().unwrap().iter().map(|event| &event["content"]["name"]).collect();
        assert!(names.contains(&&json!("Hall")), "{shown}");
        let eager = story.eager(bob, None).await;
        assert!(eager["rooms"]["join"][room].is_null(), "{eager}");
        assert_eq!(bob.get("/_matrix/client/v3/joined_rooms").await.ok()["joined_rooms"], json!([room]));

        let said = say(bob, room, "from-bob").await;
        hears(alice, room, &said).await;
        hears(erin, room, &said).await;
        hears(bob, room, &say(alice, room, "from-alice").await).await;
        hears(bob, room, &say(carol, room, "from-carol").await).await;
        hears(bob, room, &say(erin, room, "from-erin").await).await;
        let news = story.lazy(bob, lazy["next_batch"].as_str()).await;
        let told = told_members(&news["rooms"]["join"][room]);
        assert!([alice, carol, erin].iter().all(|user| told.contains(&user.user_id)), "senders are known: {told:?}");

        let (waits, all) = (bob.get(&story.path("members")).into_future(), Duration::from_millis(50));
        assert!(tokio::time::timeout(all, waits).await.is_err(), "members are told once they are known");
        let waits = bob.get(&story.path("joined_members")).into_future();
        assert!(tokio::time::timeout(all, waits).await.is_err());

        story.told_all().await;
        assert_eq!(story.members(bob).await, story.everyone(), "version {version}");
        let eager = story.eager(bob, eager["next_batch"].as_str()).await;
        let shown = &eager["rooms"]["join"][room];
        assert_eq!(told_members(shown), story.everyone(), "{eager}");
        assert_eq!(shown["summary"]["m.joined_member_count"], 4, "{shown}");
        let lazy = story.lazy(bob, news["next_batch"].as_str()).await;
        assert_eq!(lazy["rooms"]["join"][room]["summary"]["m.joined_member_count"], 4, "{lazy}");
        let changed = lazy["device_lists"]["changed"].as_array().unwrap();
        assert!(changed.contains(&json!(erin.user_id)), "whose devices are new: {changed:?}");
        hears(alice, room, &say(bob, room, "later").await).await;
    }
}

#[tokio::test]
async fn a_client_that_wants_all_members_is_woken_once_they_are_known() {
    let story = Story::entered("11").await;
    let since = story.eager(&story.bob, None).await["next_batch"].as_str().unwrap().to_owned();
    let asked = story.bob.get(&format!("/_matrix/client/v3/sync?since={since}&timeout=20000"));
    let (answer, ()) = tokio::join!(asked.into_future(), async {
        hears(&story.bob, &story.room, &say(&story.alice, &story.room, "unheard").await).await;
        story.told_all().await;
    });
    assert_eq!(told_members(&answer.ok()["rooms"]["join"][&story.room]), story.everyone());
}

#[tokio::test]
async fn members_that_are_not_known_yet_type_and_read() {
    let story = Story::entered("11").await;
    let Story { bob, erin, room, .. } = &story;
    let said = say(bob, room, "hello").await;
    hears(erin, room, &said).await;
    erin.put(&story.path(&format!("typing/{}", enc(&erin.user_id))), json!({ "typing": true })).await.ok();
    erin.post(&story.path(&format!("receipt/m.read/{}", enc(&said))), json!({})).await.ok();
    let told = async |kind: &str| {
        let lazy = story.lazy(bob, None).await;
        let told = lazy["rooms"]["join"][room]["ephemeral"]["events"].as_array()?.iter().find(|event| event["type"] == kind)?;
        Some(told["content"].clone())
    };
    let typing = eventually("typing", async || told("m.typing").await.filter(|told| told["user_ids"] != json!([]))).await;
    assert_eq!(typing["user_ids"], json!([erin.user_id]));
    let read = eventually("a receipt", async || told("m.receipt").await).await;
    assert!(read[&said]["m.read"][&erin.user_id].is_object(), "{read}");
    // Of this server's own users it is known that they are not in it.
    let dave = story.two.hearth.register("dave").await;
    dave.put(&story.path(&format!("typing/{}", enc(&dave.user_id))), json!({ "typing": true })).await.fails(403, "M_FORBIDDEN");
    assert!(story.is_partial());
    story.told_all().await;
}

#[tokio::test]
async fn another_server_of_the_room_is_asked_where_the_first_is_gone() {
    let story = Story::entered("10").await;
    story.network.cut_off("one.test");
    story.told_all().await;
    assert!(story.network.asked("three.test", STATE) > 0);
    assert_eq!(story.members(&story.bob).await, story.everyone());
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let mut story = Story::entered("11").await;
    hears(&story.bob, &story.room, &say(&story.erin, &story.room, "before").await).await;
    let hearth = story.two.hearth.clone();
    story.two = run(hearth);
    hears(&story.bob, &story.room, &say(&story.erin, &story.room, "after").await).await;
    assert!(story.is_partial());
    story.told_all().await;
    assert_eq!(story.members(&story.bob).await, story.everyone());
}

#[tokio::test]
async fn a_second_user_enters_and_a_banned_one_does_not() {
    for version in ["6", "12"] {
        let story = Story::new(version).await;
        let (dave, frank) = (story.two.hearth.register("dave").await, story.two.hearth.register("frank").await);
        story.alice.post(&story.path("ban"), json!({ "user_id": frank.user_id })).await.ok();
        story.network.hold(STATE);
        story.enters(&story.bob).await;
        frank.post(&story.path("join"), json!({})).await.fails(403, "M_FORBIDDEN");
        story.enters(&dave).await;
        assert!(story.is_partial());
        let lazy = story.lazy(&dave, None).await;
        assert!(lazy["rooms"]["join"][&story.room].is_object(), "{lazy}");
        hears(&story.bob, &story.room, &say(&dave, &story.room, "hello").await).await;
        story.told_all().await;
        assert_eq!(membership(&story.bob, &story.room, &frank.user_id).await.as_deref(), Some("ban"), "version {version}");
        let mut everyone = story.everyone();
        everyone.insert(dave.user_id.clone());
        assert_eq!(story.members(&dave).await, everyone);
        assert_eq!(story.members(&story.alice).await, everyone);
    }
}

/// Of a join that was on its way when all became known members are left out, and what it follows is not here.
#[tokio::test]
async fn who_knows_a_room_that_is_entered_once_more_is_told_nothing_twice() {
    let story = Story::entered("11").await;
    let Story { network, alice, bob, room, .. } = &story;
    let dave = story.two.hearth.register("dave").await;
    network.hold(SEND);
    say(alice, room, "unheard").await;
    network.forge("one.test", MISSING, Some(&json!({ "events": [] })));
    network.hold(SEND_JOIN);
    let joins = network.asked("one.test", SEND_JOIN);
    let (first, ()) = tokio::join!(
        async {
            eventually("a join", async || (network.asked("one.test", SEND_JOIN) > joins).then_some(())).await;
            story.told_all().await;
            let first = story.eager(bob, None).await;
            network.hold(STATE);
            network.let_go(SEND_JOIN);
            first
        },
        story.enters(&dave)
    );
    assert!(story.is_partial());
    let (known, since) = (told_events(&first["rooms"]["join"][room]), first["next_batch"].as_str().unwrap());
    assert!(story.eager(bob, Some(since)).await["rooms"]["join"].is_null());
    network.forge("one.test", MISSING, None);
    network.let_go(SEND);
    let hello = say(alice, room, "hello").await;
    story.told_all().await;
    // Somebody reads on where a part of the past is missing, which is fetched.
    dave.get(&story.path("messages?dir=b&limit=50")).await.ok();
    let told = async || {
        let told = story.eager(bob, Some(since)).await["rooms"]["join"][room].clone();
        Some(told).filter(|told| told_events(told).contains(&hello))
    };
    let told = eventually("news", told).await;
    assert_eq!(told_events(&told).intersection(&known).count(), 0, "{told}");
    assert_eq!(told_members(&told), &story.everyone() | &BTreeSet::from([dave.user_id.clone()]));
}

#[tokio::test]
async fn a_user_leaves_before_all_is_known_and_comes_back() {
    for version in ["3", "11"] {
        let story = Story::entered(version).await;
        let Story { alice, bob, room, .. } = &story;
        let since = story.lazy(bob, None).await["next_batch"].as_str().unwrap().to_owned();
        bob.post(&story.path("leave"), json!({})).await.ok();
        is(alice, room, &bob.user_id, "leave").await;
        let left = story.lazy(bob, Some(&since)).await;
        assert!(left["rooms"]["leave"][room].is_object(), "{left}");
        say(alice, room, "unheard").await;
        story.enters(bob).await;
        assert!(story.is_partial());
        hears(bob, room, &say(alice, room, "heard").await).await;
        story.told_all().await;
        assert_eq!(story.members(bob).await, story.everyone(), "version {version}");
    }
}

#[tokio::test]
async fn a_user_is_removed_before_all_is_known() {
    for (how, membership) in [("kick", "leave"), ("ban", "ban")] {
        let story = Story::new("11").await;
        let dave = story.two.hearth.register("dave").await;
        story.network.hold(STATE);
        story.enters(&story.bob).await;
        story.enters(&dave).await;
        story.alice.post(&story.path(how), json!({ "user_id": dave.user_id })).await.ok();
        is(&dave, &story.room, &dave.user_id, membership).await;
        story.told_all().await;
        assert_eq!(story.members(&story.bob).await, story.everyone());
        is(&story.bob, &story.room, &dave.user_id, membership).await;
    }
}

#[tokio::test]
async fn a_state_that_cannot_be_right_is_not_believed() {
    let story = Story::new("11").await;
    let nothing = json!({ "pdu_ids": [], "auth_chain_ids": [] });
    let unknown = json!({ "pdu_ids": ["$nothing-that-exists-anywhere-at-all-in-this-w"], "auth_chain_ids": [] });
    let ids = "/_matrix/federation/v1/state_ids";
    story.network.forge("one.test", ids, Some(&nothing));
    story.network.forge("three.test", ids, Some(&unknown));
    story.enters(&story.bob).await;
    eventually("a question", async || (story.network.asked("three.test", ids) > 0).then_some(())).await;
    hears(&story.alice, &story.room, &say(&story.bob, &story.room, "still-here").await).await;
    assert!(story.is_partial());
    story.check();
    story.network.forge("three.test", ids, None);
    // After a while they are asked again.
    story.two.hearth.clock.advance(60_000);
    story.becomes_whole().await;
    assert_eq!(story.members(&story.bob).await, story.everyone());
}

#[tokio::test]
async fn a_server_is_told_that_its_event_is_rejected_once_all_is_known() {
    let story = Story::new("11").await;
    let (evil, mallory) = (Evil::new(&story.network, &story.one.hearth), "@mallory:evil.test");
    evil.join(&story.room, mallory).await;
    story.network.hold(STATE);
    story.enters(&story.bob).await;
    let (_, message) = evil.message(&story.room, mallory, "mine").await;
    let answered = async |topic: &str| {
        let (id, event) = resigned(&message, |event| {
            event.insert("type".to_owned(), json!("m.room.topic"));
            event.insert("state_key".to_owned(), json!(""));
            event.insert("content".to_owned(), json!({ "topic": topic }));
        });
        let path = format!("/_matrix/federation/v1/send/{topic}");
        let body = json!({ "origin": "evil.test", "origin_server_ts": 1, "pdus": [event], "edus": null });
        story.two.hearth.ask_by("evil.test", Method::PUT, &path, Some(&body)).await.ok()["pdus"][&id].clone()
    };
    // Whoever let mallory set the topic may be among those who are not known.
    assert_eq!(answered("early").await, json!({}));
    story.told_all().await;
    assert!(answered("late").await["error"].is_string());
    story.bob.get(&story.path("state/m.room.topic")).await.fails(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn who_does_not_know_all_members_lets_nobody_in() {
    let story = Story::entered("12").await;
    let four = running(&story.network, "four.test");
    let gina = four.hearth.register("gina").await;
    let enter = format!("/_matrix/client/v3/join/{}?via=two.test", enc(&story.room));
    gina.post(&enter, json!({})).await.fails(404, "M_NOT_FOUND");
    gina.post(&format!("/_matrix/client/v3/knock/{}?via=two.test", enc(&story.room)), json!({})).await.fails(404, "M_NOT_FOUND");
    story.told_all().await;
    gina.post(&enter, json!({})).await.ok();
    is(&story.alice, &story.room, &gina.user_id, "join").await;
}

#[tokio::test]
async fn a_room_is_purged_before_all_is_known() {
    let story = Story::entered("11").await;
    story.bob.post(&story.path("leave"), json!({})).await.ok();
    is(&story.alice, &story.room, &story.bob.user_id, "leave").await;
    let server = &story.two.hearth.server;
    let no = rooms::purge::begin(&server.store, &server.name, story.room.as_str().try_into().unwrap()).unwrap();
    while rooms::purge::step(&server.store, &server.name, no).unwrap() != rooms::purge::Step::Done {}
    assert_eq!(partial::rooms(&server.store.snapshot()).unwrap(), []);
    story.network.let_go(STATE);
    story.enters(&story.bob).await;
    story.becomes_whole().await;
    assert_eq!(story.members(&story.bob).await, story.everyone());
}

#[tokio::test]
async fn devices_are_kept_of_members_once_they_are_known() {
    let story = Story::entered("11").await;
    let Story { network, bob, erin, .. } = &story;
    let asked = json!({ "device_keys": { &erin.user_id: [] } });
    for (is_known, expected) in [(false, [1, 2]), (true, [3, 3])] {
        if is_known {
            story.told_all().await;
        }
        for expected in expected {
            bob.post("/_matrix/client/v3/keys/query", asked.clone()).await.ok();
            assert_eq!(network.asked("three.test", "/_matrix/federation/v1/user/keys/query"), expected);
        }
    }
}
