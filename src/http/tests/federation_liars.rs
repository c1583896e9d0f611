//! Servers that lie about rooms that they are in, that say too much of them, or that never answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse as _, Response},
    routing::post,
};
use federation::Transport as _;
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};

use super::{
    federation::{Running, enc, hears, join, neighbours, room, running, say},
    federation_hostile::{EVIL, Evil, open_room, resigned, signed, victim},
};
use crate::testing::{Hearth, Network};

/// An honest server, and before it one that changes what it answers.
pub(super) struct Liar {
    pub(super) honest: Running,
    /// The network that the honest one is on.
    pub(super) backstage: Network,
    _front: Arc<Router>,
}

/// Puts a server on the network whose answers to the victim are changed by `lie`, which is given their paths.
pub(super) fn liar(network: &Network, victim: &Hearth, lie: fn(&str, &mut Value)) -> Liar {
    let backstage = Network::default();
    let honest = running(&backstage, EVIL);
    backstage.connect(victim.server.name.as_str(), victim.federation());
    let stage = backstage.clone();
    let front = Arc::new(Router::new().fallback(move |request: Request| changed(stage.clone(), request, lie)));
    network.connect(EVIL, &front);
    Liar { honest, backstage, _front: front }
}

async fn changed(backstage: Network, request: Request, lie: fn(&str, &mut Value)) -> Response {
    let path = request.uri().path().to_owned();
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let answer = backstage.carry(EVIL.try_into().unwrap(), http::Request::from_parts(parts, body)).await.unwrap();
    let (head, body) = answer.into_parts();
    let body: Vec<bytes::Bytes> = body.try_collect().await.map_err(|_| "a body that breaks off").unwrap();
    let mut answer: Value = serde_json::from_slice(&body.concat()).unwrap();
    lie(&path, &mut answer);
    (head.status, answer.to_string()).into_response()
}

/// What a liar makes of the answer to a request of this path.
type Lie = fn(&str, &mut Value);

/// T4, T13: of the state that a join is answered with nothing is believed that does not verify, nor that the room is another than it says.
#[tokio::test]
async fn t4_t13_a_join_believes_nothing_that_is_not_proved() {
    let lies: [(&str, Lie); 4] = [
        ("another version", |path, answer| {
            if path.contains("make_join") {
                answer["room_version"] = json!("9");
            }
        }),
        ("no create event", |path, answer| {
            if path.contains("send_join") {
                answer["state"].as_array_mut().unwrap().retain(|event| event["type"] != "m.room.create");
            }
        }),
        ("a changed create event", |path, answer| {
            if path.contains("send_join") {
                let state = answer["state"].as_array_mut().unwrap();
                let create = state.iter_mut().find(|event| event["type"] == "m.room.create").unwrap();
                create["sender"] = json!("@eve:two.test");
            }
        }),
        ("no state", |path, answer| {
            if path.contains("send_join") {
                answer["state"] = json!([]);
            }
        }),
    ];
    for (what, lie) in lies {
        let network = Network::default();
        let two = Hearth::named_in(&network, "two.test");
        let liar = liar(&network, &two, lie);
        let (mallory, bob) = (liar.honest.hearth.register("mallory").await, two.register("bob").await);
        let room = open_room(&mallory).await;
        let answer = bob.post(&format!("/_matrix/client/v3/join/{}?via={EVIL}", enc(&room)), json!({})).await;
        assert_eq!(answer.status.as_u16(), 502, "{what}: {:?}", answer.body);
        let joined = bob.get("/_matrix/client/v3/joined_rooms").await.ok();
        assert_eq!(joined["joined_rooms"], json!([]), "{what}");
    }
}

/// T4: what is forged among true events is left out alone.
#[tokio::test]
async fn t4_a_forged_event_of_a_state_is_left_out() {
    let network = Network::default();
    let two = Hearth::named_in(&network, "two.test");
    let liar = liar(&network, &two, |path, answer| {
        if path.contains("send_join") {
            let state = answer["state"].as_array_mut().unwrap();
            let mut forged = state.iter().find(|event| event["type"] == "m.room.join_rules").unwrap().clone();
            forged["type"] = json!("m.room.name");
            forged["sender"] = json!("@king:one.test");
            forged["content"] = json!({ "name": "Owned" });
            state.push(forged);
        }
    });
    let (mallory, bob) = (liar.honest.hearth.register("mallory").await, two.register("bob").await);
    let room = open_room(&mallory).await;
    join(&bob, &room, EVIL).await;
    let state = |kind: &str| format!("/_matrix/client/v3/rooms/{}/state/{kind}", enc(&room));
    bob.get(&state("m.room.name")).await.fails(404, "M_NOT_FOUND");
    assert_eq!(bob.get(&state("m.room.join_rules")).await.ok()["join_rule"], "public");
}

/// T25: what an invitation tells of its room is bounded, and what is no event of it breaks no sync.
#[tokio::test]
async fn t25_what_an_invitation_tells_is_bounded_and_breaks_nothing() {
    let network = Network::default();
    let one = Hearth::named_in(&network, "one.test");
    let alice = one.register("alice").await;
    let evil = Evil::new(&network, &one);
    let invitation = json!({
        "type": "m.room.member", "room_id": "!room:evil.test", "sender": "@mallory:evil.test", "state_key": alice.user_id,
        "content": { "membership": "invite" }, "depth": 5, "origin_server_ts": 1, "auth_events": [], "prev_events": []
    });
    let (id, event) = signed(invitation.as_object().unwrap().clone());
    let path = format!("/_matrix/federation/v2/invite/{}/{}", enc("!room:evil.test"), enc(&id));
    let name = json!({ "type": "m.room.name", "state_key": "", "sender": "@mallory:evil.test", "content": { "name": "Den" } });
    let body = |told: Value| json!({ "room_version": "11", "event": event, "invite_room_state": told });
    evil.put(&path, &body(vec![name.clone(); 101].into())).await.fails(400, "M_INVALID_PARAM");
    evil.put(&path, &body(json!({ "not": "a list" }))).await.fails(400, "M_BAD_JSON");
    let odd = json!([name, 1, "text", [], {}, { "type": 5 }, { "type": "m.room.topic", "state_key": "", "sender": "nobody", "content": {} }]);
    evil.put(&path, &body(Value::Null)).await.ok();
    evil.put(&path, &body(odd)).await.ok();
    let synced = alice.get("/_matrix/client/v3/sync").await.ok();
    let told = synced["rooms"]["invite"]["!room:evil.test"]["invite_state"]["events"].as_array().unwrap();
    assert_eq!(told.iter().filter(|event| event["type"] == "m.room.name").count(), 1);
    assert!(told.iter().all(|event| event["content"].is_object() && event["sender"].is_string()), "{told:?}");
}

/// T27: events that were refused do not end the history before them.
#[tokio::test]
async fn t27_refused_events_hide_no_history() {
    let (network, one, alice, room) = victim().await;
    let evil = Evil::new(&network, &one.hearth);
    evil.join(&room, "@mallory:evil.test").await;
    let first = say(&alice, &room, "first").await;
    for number in 0..30 {
        let (_, event) = evil.message(&room, "@mallory:evil.test", "x").await;
        let (_, event) = resigned(&event, |event| {
            event.insert("type".to_owned(), json!("m.room.topic"));
            event.insert("state_key".to_owned(), json!(""));
        });
        evil.send(&format!("t{number}"), &[event], &[]).await.ok();
    }
    let topic = format!("/_matrix/client/v3/rooms/{}/state/m.room.topic", enc(&room));
    alice.get(&topic).await.fails(404, "M_NOT_FOUND");
    let last = say(&alice, &room, "last").await;
    let page = alice.get(&format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=2", enc(&room))).await.ok();
    let ids: Vec<&Value> = page["chunk"].as_array().unwrap().iter().map(|event| &event["event_id"]).collect();
    assert_eq!(ids, [&json!(last), &json!(first)]);
    assert!(page["end"].is_string());
}

/// T34: a room that waits for a server that does not answer holds up no other room, and not its own users.
#[tokio::test]
async fn t34_a_room_that_waits_for_a_server_holds_up_nobody_else() {
    let (network, one, _two, alice, bob) = neighbours().await;
    let (stuck, well) = (open_room(&alice).await, room(&alice, json!({ "preset": "public_chat" })).await);
    join(&bob, &well, "one.test").await;
    join(&bob, &stuck, "one.test").await;
    let evil = Evil::new(&network, &one.hearth);
    evil.join(&stuck, "@mallory:evil.test").await;
    let (_, late) = evil.orphan(&stuck, "@mallory:evil.test", "late").await;
    let asked = Arc::new(tokio::sync::Notify::new());
    let asks = Arc::clone(&asked);
    let silent = Arc::new(Router::new().route(
        "/_matrix/federation/v1/get_missing_events/{room}",
        post(move || {
            asks.notify_one();
            std::future::pending::<String>()
        }),
    ));
    network.connect(EVIL, &silent);
    let pdus = [late];
    let waiting = evil.send("t1", &pdus, &[]);
    let others = async {
        asked.notified().await;
        say(&alice, &stuck, "onward").await;
        hears(&alice, &well, &say(&bob, &well, "another").await).await;
    };
    tokio::select! {
        _ = waiting => panic!("the other server never answers"),
        () = others => {}
    }
}
