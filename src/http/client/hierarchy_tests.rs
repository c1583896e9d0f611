//! Walks through spaces: order, pages, limits, other servers, and liars among them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, extract::Path, routing::get};
use serde_json::{Value, json};

use crate::testing::{Hearth, Network, Person, signing_key};

async fn make(of: &Person, name: &str, preset: &str, space: bool) -> String {
    let content = if space { json!({ "type": "m.space" }) } else { json!({}) };
    let body = json!({ "preset": preset, "name": name, "creation_content": content });
    of.post("/_matrix/client/v3/createRoom", body).await.ok()["room_id"].as_str().unwrap().to_owned()
}

async fn child(of: &Person, space: &str, child: &str, content: Value) {
    of.hearth.clock.advance(1);
    let path = federation::path(&["_matrix", "client", "v3", "rooms", space, "state", "m.space.child", child]);
    of.put(&path, content).await.ok();
}

fn place(space: &str, query: &str) -> String {
    format!("{}?{query}", federation::path(&["_matrix", "client", "v1", "rooms", space, "hierarchy"]))
}

async fn walk(by: &Person, space: &str, query: &str) -> (Vec<String>, Option<String>) {
    let answer = by.get(&place(space, query)).await.ok();
    let names = answer["rooms"].as_array().unwrap().iter().map(|room| room["name"].as_str().unwrap_or("?").to_owned());
    (names.collect(), answer["next_batch"].as_str().map(str::to_owned))
}

/// A space of one server: Space { Last, Inner { Open, Space }, Closed }, in another order than they were made.
async fn world(alice: &Person) -> (String, String) {
    let space = make(alice, "Space", "public_chat", true).await;
    let inner = make(alice, "Inner", "public_chat", true).await;
    let (open, closed) = (make(alice, "Open", "public_chat", false).await, make(alice, "Closed", "private_chat", false).await);
    let last = make(alice, "Last", "public_chat", false).await;
    let via = json!(["hearth.test"]);
    child(alice, &space, &last, json!({ "via": via, "order": "é" })).await;
    child(alice, &space, &closed, json!({ "via": via, "order": "b" })).await;
    child(alice, &space, &inner, json!({ "via": via, "order": "a", "suggested": true })).await;
    child(alice, &inner, &open, json!({ "via": via })).await;
    child(alice, &inner, &space, json!({ "via": via })).await;
    child(alice, &space, "!gone:hearth.test", json!({ "via": via })).await;
    child(alice, &space, "nonsense", json!({ "via": via })).await;
    child(alice, &space, "!without:hearth.test", json!({})).await;
    (space, closed)
}

#[tokio::test]
async fn a_space_is_walked_in_order_and_by_pages() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let (space, closed) = world(&alice).await;
    assert_eq!(walk(&alice, &space, "").await, (["Space", "Inner", "Open", "Closed", "Last"].map(str::to_owned).to_vec(), None));
    assert_eq!(walk(&bob, &space, "").await.0, ["Space", "Inner", "Open", "Last"], "what is not for him is left out");
    assert_eq!(walk(&bob, &space, "max_depth=0").await.0, ["Space"]);
    assert_eq!(walk(&bob, &space, "max_depth=1").await.0, ["Space", "Inner", "Last"]);
    assert_eq!(walk(&bob, &space, "suggested_only=true").await.0, ["Space", "Inner"]);
    let rooms = bob.get(&place(&space, "")).await.ok();
    let children = rooms["rooms"][0]["children_state"].as_array().unwrap();
    assert_eq!(children.len(), 4, "{children:?}");
    assert_eq!((&children[1]["state_key"], &children[1]["type"]), (&json!(closed), &json!("m.space.child")));
    assert!(children[1]["origin_server_ts"].is_u64() && children[1]["content"]["order"] == "b");
    assert_eq!(rooms["rooms"][2]["children_state"], json!([]));

    let (first, token) = walk(&bob, &space, "limit=2").await;
    let token = token.unwrap();
    let next = format!("limit=2&from={token}");
    let (second, end) = walk(&bob, &space, &next).await;
    assert_eq!((first, second), (vec!["Space".to_owned(), "Inner".into()], vec!["Open".to_owned(), "Last".into()]));
    assert_eq!(walk(&bob, &space, &next).await.0, ["Open", "Last"], "a page may be asked for again");
    if let Some(end) = end {
        assert_eq!(walk(&bob, &space, &format!("from={end}")).await, (Vec::new(), None));
    }
    alice.get(&place(&space, &next)).await.fails(400, "M_INVALID_PARAM");
    bob.get(&place(&space, &format!("{next}&max_depth=1"))).await.fails(400, "M_INVALID_PARAM");
    bob.get(&place(&space, &format!("{next}&suggested_only=true"))).await.fails(400, "M_INVALID_PARAM");
    bob.get(&place(&space, "from=nonsense")).await.fails(400, "M_INVALID_PARAM");
    bob.get(&place(&space, "limit=0")).await.fails(400, "M_INVALID_PARAM");
    bob.get(&place(&space, "max_depth=-1")).await.fails(400, "M_INVALID_PARAM");
    bob.get(&place(&closed, "")).await.fails(403, "M_FORBIDDEN");
    assert_eq!(
        bob.get(&place("!none:hearth.test", "")).await.fails(403, "M_FORBIDDEN"),
        bob.get(&place(&closed, "")).await.fails(403, "M_FORBIDDEN"),
        "one may not tell a hidden room from none"
    );
}

#[tokio::test]
async fn rooms_of_other_servers_are_asked_for_there() {
    let network = Network::default();
    let (one, two) = (Hearth::named_in(&network, "one.test"), Hearth::named_in(&network, "two.test"));
    let server = Arc::clone(&two.server);
    // Who is in a room that is joined is asked for beside.
    tokio::spawn(async move { server.federation.run(server.stopping()).await.unwrap() });
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let carol = one.register("carol").await;
    let space = make(&alice, "Space", "public_chat", true).await;
    let there = make(&bob, "There", "public_chat", true).await;
    let (open, closed) = (make(&bob, "Open", "public_chat", false).await, make(&bob, "Closed", "private_chat", false).await);
    bob.post(&federation::path(&["_matrix", "client", "v3", "join", &space]), json!({})).await.fails(404, "M_NOT_FOUND");
    bob.post(&format!("{}?via=one.test", federation::path(&["_matrix", "client", "v3", "join", &space])), json!({})).await.ok();
    let rules = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": space }] });
    let members = make(&bob, "Members", "private_chat", false).await;
    let path = federation::path(&["_matrix", "client", "v3", "rooms", &members, "state", "m.room.join_rules"]);
    bob.put(&path, rules).await.ok();
    let via = json!({ "via": ["gone.test", "two.test"] });
    child(&alice, &space, &there, via.clone()).await;
    for room in [&open, &closed, &members, &space] {
        child(&bob, &there, room, via.clone()).await;
    }
    assert_eq!(walk(&alice, &space, "").await.0, ["Space", "There", "Open", "Members"]);
    assert_eq!(walk(&carol, &space, "").await.0, ["Space", "There", "Open"], "she is not in the space");
    network.cut_off("two.test");
    assert_eq!(walk(&alice, &space, "").await.0, ["Space", "There", "Open", "Members"], "it was told before");
    one.clock.advance(10 * 60 * 1000);
    assert_eq!(walk(&alice, &space, "").await.0, ["Space"]);
}

/// A server with these endpoints that can be asked.
fn evil(network: &Network, now_ms: u64, router: Router) -> Arc<Router> {
    let key = signing_key("evil.test");
    let mut document = json!({ "server_name": "evil.test", "valid_until_ts": now_ms + 1_000_000,
        "verify_keys": { key.id(): { "key": key.public().to_base64() } }, "old_verify_keys": {} });
    protocol::sign::sign_json(document.as_object_mut().unwrap(), "evil.test", &key).unwrap();
    let router = Arc::new(router.route("/_matrix/key/v2/server", get(async move || document.to_string())));
    network.connect("evil.test", &router);
    router
}

fn told(room: &str, name: &str) -> Value {
    json!({ "room_id": room, "name": name, "room_type": "m.space", "join_rule": "public", "num_joined_members": 1,
        "world_readable": true, "guest_can_join": true })
}

fn names(child: &str) -> Value {
    json!({ "type": "m.space.child", "state_key": child, "sender": "@eve:evil.test", "origin_server_ts": 1,
        "content": { "via": ["evil.test"] } })
}

#[tokio::test]
async fn a_space_without_end_is_walked_to_its_limits() {
    let network = Network::default();
    let one = Hearth::named_in(&network, "one.test");
    let alice = one.register("alice").await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let deeper = async move |Path(room): Path<String>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let depth: usize = room.trim_start_matches('!').trim_end_matches(":evil.test").parse().unwrap();
        let mut here = told(&room, "Deep");
        here["children_state"] = json!([names(&format!("!{}:evil.test", depth + 1)), names(&room)]);
        json!({ "room": here, "children": [], "inaccessible_children": [] }).to_string()
    };
    let _evil = evil(&network, one.server.now_ms(), Router::new().route("/_matrix/federation/v1/hierarchy/{room}", get(deeper)));
    let space = make(&alice, "Space", "public_chat", true).await;
    child(&alice, &space, "!0:evil.test", json!({ "via": ["evil.test"] })).await;
    let (mut rooms, mut query) = (0, String::new());
    for page in 0.. {
        let (names, next) = walk(&alice, &space, &query).await;
        rooms += names.len();
        assert!(asked.load(Ordering::SeqCst) <= 20 * (page + 1), "a page asks for so much and no more");
        let Some(next) = next else { break };
        query = format!("from={next}");
    }
    assert_eq!(rooms, 51, "the depth has an end");
}

#[tokio::test]
async fn a_liar_is_believed_of_no_room_but_its_own() {
    let network = Network::default();
    let (one, two) = (Hearth::named_in(&network, "one.test"), Hearth::named_in(&network, "two.test"));
    let (alice, bob, carol) = (one.register("alice").await, two.register("bob").await, one.register("carol").await);
    let secret = make(&alice, "Secret", "private_chat", false).await;
    let theirs = make(&bob, "Theirs", "public_chat", true).await;
    let answer = {
        let mut here = told("!space:evil.test", "Evil");
        let mut wrong = names("!wrong:evil.test");
        wrong["origin_server_ts"] = json!("soon");
        here["children_state"] = json!([names(&secret), names(&theirs), names("!other:evil.test"), wrong, 5, names("no room")]);
        let children =
            [told(&secret, "Hacked"), told(&theirs, "Hacked"), told("!unnamed:evil.test", "Unnamed"), json!({ "room_id": 5 })];
        json!({ "room": here, "children": children, "inaccessible_children": [theirs, "!more:evil.test"] }).to_string()
    };
    // Whatever room is asked for, it tells of the same.
    let _evil = evil(
        &network,
        one.server.now_ms(),
        Router::new().route("/_matrix/federation/v1/hierarchy/{room}", get(async move || answer)),
    );
    let space = make(&alice, "Space", "public_chat", true).await;
    child(&alice, &space, "!space:evil.test", json!({ "via": ["evil.test"] })).await;
    child(&alice, &space, &theirs, json!({ "via": ["two.test"] })).await;
    assert_eq!(walk(&carol, &space, "").await.0, ["Space", "Evil", "Theirs"]);
    assert_eq!(walk(&alice, &space, "").await.0, ["Space", "Evil", "Secret", "Theirs"], "as this server knows it");
    let children = carol.get(&place(&space, "")).await.ok()["rooms"][1]["children_state"].as_array().unwrap().len();
    assert_eq!(children, 3);
}
