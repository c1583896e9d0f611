//! Servers that lie: what they send is refused, alone, and changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    routing::{get, put},
};
use http::Method;
use protocol::{json::Object, sign, version::RoomVersion};
use serde_json::{Value, json};

use super::{
    federation::{Running, enc, eventually, hears, is, join, membership, room, running, say},
    partial_state::MISSING,
};
use crate::testing::{Answer, Hearth, Network, Person, signing_key};

pub(super) const EVIL: &str = "evil.test";
/// The id of an event that nobody has.
pub(super) const NOTHING: &str = "$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A server that is on the network, and whose requests and events are made by hand.
pub(super) struct Evil<'a> {
    victim: &'a Hearth,
    _own: Hearth,
}

impl<'a> Evil<'a> {
    pub(super) fn new(network: &Network, victim: &'a Hearth) -> Self {
        Self { victim, _own: Hearth::named_in(network, EVIL) }
    }

    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.victim.ask_by(EVIL, method, path, body).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    pub(super) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::PUT, path, Some(body)).await
    }

    /// The event by which a user would join, before it is hashed and signed.
    async fn template(&self, room: &str, user: &str) -> Object {
        let path = format!("/_matrix/federation/v1/make_join/{}/{}?ver=11", enc(room), enc(user));
        let mut event = self.get(&path).await.ok()["event"].as_object().unwrap().clone();
        event.insert("origin_server_ts".to_owned(), json!(self.victim.server.now_ms()));
        event
    }

    async fn send_join(&self, room: &str, id: &str, event: &Object) -> Answer {
        let path = format!("/_matrix/federation/v2/send_join/{}/{}", enc(room), enc(id));
        self.put(&path, &Value::Object(event.clone())).await
    }

    pub(super) async fn join(&self, room: &str, user: &str) {
        let event = self.template(room, user).await;
        let (id, event) = signed(event);
        self.send_join(room, &id, &event).await.ok();
    }

    pub(super) async fn send(&self, txn: &str, pdus: &[Value], edus: &[Value]) -> Answer {
        let body = json!({ "origin": EVIL, "origin_server_ts": 1, "pdus": pdus, "edus": edus });
        self.put(&format!("/_matrix/federation/v1/send/{txn}"), &body).await
    }

    /// A message at the end of the room, as its make_join tells that.
    pub(super) async fn message(&self, room: &str, user: &str, body: &str) -> (String, Value) {
        let mut event = self.template(room, "@other:evil.test").await;
        let create_and_levels = event["auth_events"].as_array().unwrap().clone();
        let member = self.victim_state(room, user).await;
        let mut auth: Vec<Value> = create_and_levels;
        auth.push(json!(member));
        // Join rules are no part of what allows a message.
        let rules = self.victim_event_id(room, "m.room.join_rules", "").await;
        auth.retain(|id| *id != json!(rules));
        event.insert("auth_events".to_owned(), Value::Array(auth));
        event.insert("type".to_owned(), json!("m.room.message"));
        event.insert("sender".to_owned(), json!(user));
        event.remove("state_key");
        event.insert("content".to_owned(), json!({ "msgtype": "m.text", "body": body }));
        let (id, event) = signed(event);
        (id, Value::Object(event))
    }

    /// A message that follows what nobody has.
    pub(super) async fn orphan(&self, room: &str, user: &str, body: &str) -> (String, Value) {
        let (_, message) = self.message(room, user, body).await;
        resigned(&message, |event| drop(event.insert("prev_events".to_owned(), json!([NOTHING]))))
    }

    async fn victim_state(&self, room: &str, user: &str) -> String {
        self.victim_event_id(room, "m.room.member", user).await
    }

    async fn victim_event_id(&self, room: &str, kind: &str, key: &str) -> String {
        let db = self.victim.server.snapshot();
        let no = rooms::numbers::number(&db, room.try_into().unwrap()).unwrap().unwrap();
        let root = rooms::head(&db, no).unwrap().state;
        rooms::state::event(&db, no, root, kind, key).unwrap().unwrap().header.id.to_string()
    }
}

/// An event that was signed, with something else in it, and signed again.
pub(super) fn resigned(event: &Value, change: impl FnOnce(&mut Object)) -> (String, Value) {
    let mut event = event.as_object().unwrap().clone();
    event.retain(|key, _| !["hashes", "signatures"].contains(&key.as_str()));
    change(&mut event);
    let (id, event) = signed(event);
    (id, Value::Object(event))
}

/// The event, hashed and signed, and its id.
pub(super) fn signed(mut event: Object) -> (String, Object) {
    let version = RoomVersion::named("11").unwrap();
    sign::hash_and_sign(&mut event, version, EVIL.try_into().unwrap(), &signing_key(EVIL)).unwrap();
    let raw = protocol::parse::RawPdu::from_object(event.clone()).parse(version).unwrap();
    (raw.event().id.to_string(), event)
}

/// A server on a network of its own, and a user of it with an open room.
pub(super) async fn victim() -> (Network, Running, Person, String) {
    let network = Network::default();
    let one = running(&network, "one.test");
    let alice = one.hearth.register("alice").await;
    let room = open_room(&alice).await;
    (network, one, alice, room)
}

pub(super) async fn open_room(alice: &Person) -> String {
    room(alice, json!({ "preset": "public_chat", "room_version": "11" })).await
}

/// T2, T3: what is joined with must be the join of a user of the server that sends it, of the room and with the id of the path, and signed.
#[tokio::test]
async fn t2_t3_a_join_is_what_its_path_and_signature_say() {
    let network = Network::default();
    let one = running(&network, "one.test");
    let alice = one.hearth.register("alice").await;
    let (room, other) = (open_room(&alice).await, open_room(&alice).await);
    let evil = Evil::new(&network, &one.hearth);
    let user = "@mallory:evil.test";
    let template = evil.template(&room, user).await;
    let (id, right) = signed(template.clone());
    let changed = |key: &str, value: Value| {
        let mut event = template.clone();
        event.insert(key.to_owned(), value);
        signed(event)
    };
    for (what, (event_id, event), at) in [
        ("another id", ("$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".to_owned(), right.clone()), &room),
        ("another room", (id.clone(), right.clone()), &other),
        ("another membership", changed("content", json!({ "membership": "leave" })), &room),
        ("another type", changed("type", json!("m.room.topic")), &room),
        ("another user's", changed("state_key", json!("@eve:evil.test")), &room),
        (
            "a local user's",
            {
                let mut event = template.clone();
                event.insert("sender".into(), json!(alice.user_id));
                event.insert("state_key".into(), json!(alice.user_id));
                (id.clone(), event)
            },
            &room,
        ),
        (
            "unsigned",
            {
                let (id, mut event) = signed(template.clone());
                event.insert("signatures".into(), json!({}));
                (id, event)
            },
            &room,
        ),
        (
            "signed by another",
            {
                let (id, mut event) = signed(template.clone());
                let own = event["signatures"][EVIL].clone();
                event.insert("signatures".into(), json!({ "one.test": own }));
                (id, event)
            },
            &room,
        ),
    ] {
        let answer = evil.send_join(at, &event_id, &event).await;
        assert!(matches!(answer.status.as_u16(), 400 | 403), "{what}: {} {}", answer.status, answer.json());
        assert_eq!(membership(&alice, &room, user).await, None, "{what}");
    }
    evil.send_join(&room, &id, &right).await.ok();
    is(&alice, &room, user, "join").await;
}

/// T11: a bad event fails alone; a transaction has its limits, and is answered the same again.
#[tokio::test]
async fn t11_a_bad_event_fails_alone() {
    let (network, one, alice, room) = victim().await;
    let evil = Evil::new(&network, &one.hearth);
    let user = "@mallory:evil.test";
    evil.join(&room, user).await;
    let (id, good) = evil.message(&room, user, "good").await;
    let (forged_id, mut forged) = evil.message(&room, user, "forged").await;
    forged["signatures"][EVIL]["ed25519:test"] = json!("AAAA");
    let depth = {
        let mut event = good.clone();
        event["depth"] = json!(u64::MAX);
        event
    };
    let pdus = [json!("nonsense"), json!({}), json!({ "room_id": room }), depth, forged, good.clone()];
    let answer = evil.send("t1", &pdus, &[]).await.ok();
    assert_eq!(answer["pdus"][&id], json!({}), "{answer}");
    assert_ne!(answer["pdus"][&forged_id], json!({}), "{answer}");
    let event = format!("/_matrix/client/v3/rooms/{}/event/", enc(&room));
    alice.get(&format!("{event}{}", enc(&id))).await.ok();
    alice.get(&format!("{event}{}", enc(&forged_id))).await.fails(404, "M_NOT_FOUND");
    assert_eq!(evil.send("t1", &[], &[]).await.ok(), answer, "the same transaction again");
    assert_eq!(evil.send("t2", &vec![good.clone(); 51], &[]).await.status, 413);
    assert_eq!(evil.send("t2", &[], &vec![json!({ "edu_type": "x", "content": {} }); 101]).await.status, 413);
}

/// T21: a server speaks for its own users.
#[tokio::test]
async fn t21_messages_about_users_of_others_are_left_out() {
    let network = Network::default();
    let one = running(&network, "one.test");
    let (alice, bob) = (one.hearth.register("alice").await, one.hearth.register("bob").await);
    let room = open_room(&alice).await;
    join(&bob, &room, "one.test").await;
    let last = say(&alice, &room, "a").await;
    let evil = Evil::new(&network, &one.hearth);
    let user = "@mallory:evil.test";
    evil.join(&room, user).await;
    let typing = |user: &str| json!({ "edu_type": "m.typing", "content": { "room_id": room, "user_id": user, "typing": true } });
    let read = |user: &str| json!({ "edu_type": "m.receipt", "content": { &room: { "m.read": { user: { "data": { "ts": 1 }, "event_ids": [last] } } } } });
    let direct = |sender: &str| {
        let messages = json!({ &alice.user_id: { "*": { "from": sender } } });
        json!({ "edu_type": "m.direct_to_device", "content": { "sender": sender, "type": "m.test", "message_id": sender, "messages": messages } })
    };
    let forged =
        [typing(&bob.user_id), read(&bob.user_id), direct(&bob.user_id), json!({ "edu_type": "m.typing", "content": 7 })];
    evil.send("t1", &[], &forged).await.ok();
    let own = [typing(user), read(user), direct(user), direct(user)];
    evil.send("t2", &[], &own).await.ok();
    evil.send("t3", &[], &[direct(user)]).await.ok();
    one.hearth.settle().await;
    let synced = alice.get("/_matrix/client/v3/sync").await.ok();
    let ephemeral = synced["rooms"]["join"][&room]["ephemeral"]["events"].to_string();
    assert!(ephemeral.contains(user) && !ephemeral.contains(&bob.user_id), "{ephemeral}");
    let messages = synced["to_device"]["events"].as_array().unwrap();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert_eq!(messages[0]["content"], json!({ "from": user }));
}

/// T22: who is denied by the room's access list sends nothing into it and learns nothing of it.
#[tokio::test]
async fn t22_an_access_list_holds_for_all_that_a_server_sends() {
    let (network, one, alice, room) = victim().await;
    let evil = Evil::new(&network, &one.hearth);
    let user = "@mallory:evil.test";
    evil.join(&room, user).await;
    let (id, message) = evil.message(&room, user, "late").await;
    let acl = format!("/_matrix/client/v3/rooms/{}/state/m.room.server_acl", enc(&room));
    alice.put(&acl, json!({ "allow": ["*"], "deny": ["EVIL.*"], "allow_ip_literals": true })).await.ok();
    let answer = evil.send("t1", &[message], &[]).await.ok();
    assert!(answer["pdus"][&id]["error"].is_string(), "{answer}");
    let typing = json!({ "edu_type": "m.typing", "content": { "room_id": room, "user_id": user, "typing": true } });
    evil.send("t2", &[], &[typing]).await.ok();
    let synced = alice.get("/_matrix/client/v3/sync").await.ok();
    assert!(!synced["rooms"]["join"][&room]["ephemeral"].to_string().contains(user), "{synced}");
    evil.get(&format!("/_matrix/federation/v1/make_join/{}/{}?ver=11", enc(&room), enc(user))).await.fails(403, "M_FORBIDDEN");
    evil.get(&format!("/_matrix/federation/v1/backfill/{}?v={}&limit=10", enc(&room), enc(&id))).await.fails(403, "M_FORBIDDEN");
}

/// T14: an event is told of only as part of a room that the asking server is in.
#[tokio::test]
async fn t14_events_of_other_rooms_are_as_if_they_were_not() {
    let network = Network::default();
    let one = running(&network, "one.test");
    let alice = one.hearth.register("alice").await;
    let (shared, secret) = (open_room(&alice).await, open_room(&alice).await);
    let hidden = say(&alice, &secret, "hidden").await;
    let evil = Evil::new(&network, &one.hearth);
    evil.join(&shared, "@mallory:evil.test").await;
    for path in [
        |event: &str, room: &str| format!("state/{}?event_id={}", enc(room), enc(event)),
        |event: &str, room: &str| format!("state_ids/{}?event_id={}", enc(room), enc(event)),
        |event: &str, room: &str| format!("event_auth/{}/{}", enc(room), enc(event)),
        |event: &str, _: &str| format!("event/{}", enc(event)),
    ] {
        let ask = async |event: &str| evil.get(&format!("/_matrix/federation/v1/{}", path(event, &shared))).await;
        let (of_secret, of_nothing) = (ask(&hidden).await, ask(NOTHING).await);
        assert_eq!((of_secret.status.as_u16(), &of_secret.body), (404, &of_nothing.body));
        let answer = evil.get(&format!("/_matrix/federation/v1/{}", path(&hidden, &secret))).await;
        assert!(matches!(answer.status.as_u16(), 403 | 404), "{}", answer.status);
    }
    let path = format!("/_matrix/federation/v1/backfill/{}?v={}&limit=10", enc(&shared), enc(&hidden));
    assert_eq!(evil.get(&path).await.ok()["pdus"], json!([]));
}

/// T1: a template for something else is not signed.
#[tokio::test]
async fn t1_a_template_for_something_else_is_not_signed() {
    let room = "!room:evil.test";
    let right = json!({
        "type": "m.room.member", "room_id": room, "sender": "@bob:two.test", "state_key": "@bob:two.test", "depth": 5,
        "content": { "membership": "join" }, "auth_events": [], "prev_events": [], "origin_server_ts": 1
    });
    for (key, value) in [
        ("type", json!("m.room.power_levels")),
        ("state_key", json!("@eve:two.test")),
        ("sender", json!("@eve:two.test")),
        ("room_id", json!("!other:evil.test")),
        ("content", json!({ "membership": "ban" })),
    ] {
        let network = Network::default();
        let two = Hearth::named_in(&network, "two.test");
        let bob = two.register("bob").await;
        let mut template = right.clone();
        template[key] = value;
        let made = json!({ "room_version": "11", "event": template }).to_string();
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let take = move || {
            count.fetch_add(1, Ordering::SeqCst);
            async { "{}" }
        };
        let router = Router::new()
            .route("/_matrix/federation/v1/make_join/{room}/{user}", get(move || async move { made }))
            .route("/_matrix/federation/v2/send_join/{room}/{event}", put(take));
        let router = Arc::new(router);
        network.connect(EVIL, &router);
        bob.post(&format!("/_matrix/client/v3/join/{}?via={EVIL}", enc(room)), json!({})).await.fails(502, "M_UNKNOWN");
        assert_eq!(sent.load(Ordering::SeqCst), 0, "{key}");
    }
}

/// A server that says of any event that the state before it was the one that `of` has of the room now.
fn tells_state(of: &Running, room: &str) -> Arc<Router> {
    let db = of.hearth.server.snapshot();
    let room = rooms::numbers::number(&db, room.try_into().unwrap()).unwrap().unwrap();
    let state = rooms::state::all(&db, room, rooms::head(&db, room).unwrap().state).unwrap();
    let ids: Vec<_> = state.into_iter().map(|no| rooms::events::event(&db, room, no).unwrap().header.id.clone()).collect();
    let told = json!({ "pdu_ids": ids, "auth_chain_ids": [] });
    Arc::new(Router::new().route("/_matrix/federation/v1/state_ids/{room}", get(move || async move { told.to_string() })))
}

#[tokio::test]
async fn an_event_whose_past_cannot_be_had_is_tried_again() {
    let (network, one, alice, room) = victim().await;
    let evil = Evil::new(&network, &one.hearth);
    evil.join(&room, "@mallory:evil.test").await;
    let (id, early) = evil.orphan(&room, "@mallory:evil.test", "early").await;
    let answer = evil.send("t1", &[early], &[]).await.ok();
    assert_eq!(answer["pdus"][&id], json!({}), "it is not sent again");
    let path = format!("/_matrix/client/v3/rooms/{}/event/{}", enc(&room), enc(&id));
    alice.get(&path).await.fails(404, "M_NOT_FOUND");

    let states = tells_state(&one, &room);
    network.connect(EVIL, &states);
    one.hearth.clock.advance(60_000);
    hears(&alice, &room, &id).await;
}

/// The events before a message are held back: whoever reads is told that there are some.
#[tokio::test]
async fn what_was_said_before_events_that_are_held_back_is_not_shown_as_what_came_before_them() {
    let (network, one, alice, room) = victim().await;
    let evil = Evil::new(&network, &one.hearth);
    evil.join(&room, "@mallory:evil.test").await;
    let since = alice.get("/_matrix/client/v3/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
    say(&alice, &room, "before").await;

    let (id, late) = evil.orphan(&room, "@mallory:evil.test", "late").await;
    let states = tells_state(&one, &room);
    network.connect(EVIL, &states);
    evil.send("t1", &[late], &[]).await.ok();

    let timeline =
        alice.get(&format!("/_matrix/client/v3/sync?since={since}")).await.ok()["rooms"]["join"][&room]["timeline"].clone();
    let events: Vec<&str> =
        timeline["events"].as_array().unwrap().iter().map(|event| event["event_id"].as_str().unwrap()).collect();
    assert_eq!((events, &timeline["limited"]), (vec![id.as_str()], &json!(true)));
}

/// What is encrypted is worth nothing without the keys that come with it.
#[tokio::test]
async fn messages_to_devices_do_not_wait_for_events_that_lack_others() {
    let (network, one, alice, room) = victim().await;
    let evil = Evil::new(&network, &one.hearth);
    let user = "@mallory:evil.test";
    evil.join(&room, user).await;
    let (_, event) = evil.orphan(&room, user, "encrypted").await;
    let messages = json!({ &alice.user_id: { "*": { "key": "a" } } });
    let content = json!({ "sender": user, "type": "m.room_key", "message_id": "1", "messages": messages });
    network.hold(MISSING);
    let arrives = eventually("the message", async || {
        let synced = alice.get("/_matrix/client/v3/sync").await.ok();
        synced["to_device"]["events"].get(0).map(|message| assert_eq!(message["content"], json!({ "key": "a" })))
    });
    let edu = json!({ "edu_type": "m.direct_to_device", "content": content });
    let (pdus, edus) = ([event], [edu]);
    tokio::select! {
        _ = evil.send("t1", &pdus, &edus) => panic!("the event waits for nothing"),
        () = arrives => {}
    }
}

/// T15: events of which only is known that others cite them are shown to nobody, neither to users nor, where they are no part of a state, to servers.
#[tokio::test]
async fn t15_outliers_are_never_served() {
    let (network, one, alice, room) = victim().await;
    let evil = Evil::new(&network, &one.hearth);
    let user = "@mallory:evil.test";
    evil.join(&room, user).await;
    let since = alice.get("/_matrix/client/v3/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();

    // A message and a name that hang nowhere, told as what another event cites.
    let (message, outlier) = evil.message(&room, user, "outlier").await;
    let rules = evil.victim_event_id(&room, "m.room.join_rules", "").await;
    let (member, renamed) = resigned(&outlier, |event| {
        event.insert("type".to_owned(), json!("m.room.member"));
        event.insert("state_key".to_owned(), json!(user));
        event.insert("content".to_owned(), json!({ "membership": "join", "displayname": "Outlier" }));
        event["auth_events"].as_array_mut().unwrap().push(json!(rules));
    });
    let told = json!({ "auth_chain": [outlier, renamed] }).to_string();
    let chains = Router::new().route("/_matrix/federation/v1/event_auth/{room}/{event}", get(move || async move { told }));
    let chains = Arc::new(chains);
    network.connect(EVIL, &chains);
    let (_, citing) = evil.message(&room, user, "citing").await;
    let (_, citing) = resigned(&citing, |event| event["auth_events"].as_array_mut().unwrap().push(json!(NOTHING)));
    evil.send("t1", &[citing], &[]).await.ok();
    let db = one.hearth.server.snapshot();
    for id in [&message, &member] {
        assert!(rooms::events::find(&db, id.as_str().try_into().unwrap()).unwrap().is_some(), "it was taken in");
    }

    let client = |rest: &str| format!("/_matrix/client/v3/rooms/{}/{rest}", enc(&room));
    for id in [&message, &member] {
        for path in ["event", "context"] {
            alice.get(&client(&format!("{path}/{}", enc(id)))).await.fails(404, "M_NOT_FOUND");
        }
        alice.post(&client(&format!("receipt/m.read/{}", enc(id))), json!({})).await.fails(404, "M_NOT_FOUND");
        alice.get(&format!("/_matrix/client/v1/rooms/{}/relations/{}", enc(&room), enc(id))).await.fails(404, "M_NOT_FOUND");
    }
    let everything = [
        client("messages?dir=b&limit=100"),
        client("state"),
        client("members"),
        format!("/_matrix/client/v3/sync?since={since}"),
        "/_matrix/client/v3/sync".to_owned(),
    ];
    for path in &everything {
        let answer = alice.get(path).await.ok().to_string();
        assert!(!answer.contains(&message) && !answer.contains(&member) && !answer.contains("Outlier"), "{path}: {answer}");
    }

    let server = |path: String| format!("/_matrix/federation/v1/{path}");
    evil.get(&server(format!("event/{}", enc(&message)))).await.fails(404, "M_NOT_FOUND");
    for id in [&message, &member] {
        evil.get(&server(format!("state/{}?event_id={}", enc(&room), enc(id)))).await.fails(404, "M_NOT_FOUND");
        evil.get(&server(format!("state_ids/{}?event_id={}", enc(&room), enc(id)))).await.fails(404, "M_NOT_FOUND");
        let path = server(format!("backfill/{}?v={}&limit=10", enc(&room), enc(id)));
        assert_eq!(evil.get(&path).await.ok()["pdus"], json!([]));
        let asked = json!({ "earliest_events": [], "latest_events": [id], "limit": 10, "min_depth": 0 });
        let missing = server(format!("get_missing_events/{}", enc(&room)));
        let between = evil.ask(Method::POST, &missing, Some(&asked)).await.ok().to_string();
        assert!(!between.to_lowercase().contains("outlier"), "{between}");
    }
}

/// T20: there is no room in which somebody could command the server, and what is said anywhere commands nothing.
#[tokio::test]
async fn t20_what_is_said_commands_nothing() {
    let network = Network::default();
    let one = running(&network, "one.test");
    let (root, eve) = (one.hearth.register_admin("root").await, one.hearth.register("eve").await);
    assert_eq!(root.get("/_matrix/client/v3/joined_rooms").await.ok()["joined_rooms"], json!([]));
    let room = open_room(&root).await;
    let evil = Evil::new(&network, &one.hearth);
    let mallory = "@mallory:evil.test";
    evil.join(&room, mallory).await;
    let commands =
        ["!admin users make-user-admin @mallory:evil.test", "\\!admin users deactivate @eve:one.test", "/admin shutdown"];
    for (number, command) in commands.into_iter().enumerate() {
        let (_, event) = evil.message(&room, mallory, command).await;
        evil.send(&format!("t{number}"), &[event], &[]).await.ok();
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{number}", enc(&room));
        root.put(&path, json!({ "msgtype": "m.text", "body": command })).await.ok();
    }
    one.hearth.settle().await;
    eve.get("/_matrix/client/v3/account/whoami").await.ok();
    let page = root.get(&format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=100", enc(&room))).await.ok();
    let said: Vec<&Value> = page["chunk"].as_array().unwrap().iter().filter(|event| event["type"] == "m.room.message").collect();
    assert_eq!(said.len(), 2 * commands.len(), "nobody answers: {said:?}");
}
