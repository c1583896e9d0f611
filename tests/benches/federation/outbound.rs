//! A message to many servers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, extract::State};
use bytes::Bytes;
use http_layer::testing::{Hearth, Network, Person, signing_key};
use protocol::{
    draft::{self, Draft},
    version::RoomVersion,
};
use rooms::{receive, state};
use serde_json::{Value, json};
use store::RoomNo;

use crate::world::{HERE, path, room, text, until};

/// Messages, one after the other.
const MESSAGES: usize = 20;

/// How long it takes until so many servers have a message.
pub async fn outbound(servers: usize) {
    let network = Network::default();
    let one = Hearth::named_in(&network, HERE);
    let alice = one.register("alice").await;
    let (id, no) = room(&alice).await;
    let received = Arc::new(AtomicUsize::new(0));
    // Servers that take everything, and say so.
    let other = Arc::new(Router::new().fallback(take).with_state(Arc::clone(&received)));
    for number in 0..servers {
        let name = format!("server{number}.test");
        network.connect(&name, &other);
        enters(&one, no, &name);
    }
    one.settle().await;
    let server = Arc::clone(&one.server);
    tokio::spawn(async move { server.federation.run(server.stopping()).await.unwrap() });
    let mut times: Vec<Duration> = Vec::new();
    for number in 0..MESSAGES {
        times.push(said(&alice, &id, number, &received, servers).await);
    }
    // With the first message the queues are made.
    let first = times.remove(0);
    times.sort_unstable();
    let median = times[times.len() / 2];
    let each = median.as_secs_f64() * 1e6 / servers as f64;
    eprintln!(
        "outbound: {servers} servers: all have a message after {median:.1?} ({each:.0} µs each), the first after {first:.1?}"
    );
}

/// Says something, and waits until all servers have it.
async fn said(by: &Person, room: &str, number: usize, received: &AtomicUsize, servers: usize) -> Duration {
    let expected = received.load(Ordering::SeqCst) + servers;
    let begun = Instant::now();
    by.put(&path(room, &format!("send/m.room.message/{number}")), text(&number.to_string())).await.ok();
    until(async || received.load(Ordering::SeqCst) >= expected).await;
    begun.elapsed()
}

async fn take(State(received): State<Arc<AtomicUsize>>, transaction: Bytes) -> String {
    let transaction: Value = serde_json::from_slice(&transaction).unwrap();
    received.fetch_add(transaction["pdus"].as_array().map_or(0, Vec::len), Ordering::SeqCst);
    json!({ "pdus": {} }).to_string()
}

/// A user of another server joins.
fn enters(hearth: &Hearth, room: RoomNo, server: &str) {
    let (version, db) = (RoomVersion::named("11").unwrap(), hearth.server.store.snapshot());
    let user = format!("@user:{server}");
    let store = &hearth.server.store;
    // Nothing waits for a commit to be published, so what the event follows is asked of a transaction.
    let (extremity, depth) = store
        .transact(&[], |tx| {
            let head = rooms::head(tx, room)?;
            let last = rooms::events::event(tx, room, head.extremities[0])?;
            rooms::Result::Ok((last.header.id.clone(), head.depth))
        })
        .unwrap()
        .soft();
    let root = rooms::head(&db, room).unwrap().state;
    let auth = ["m.room.create", "m.room.power_levels", "m.room.join_rules"];
    let auth = auth.map(|kind| state::event(&db, room, root, kind, "").unwrap().unwrap());
    let draft = Draft {
        room_id: Some(auth[0].event.room_id.clone()),
        sender: user.as_str().try_into().unwrap(),
        kind: "m.room.member".to_owned(),
        state_key: Some(user.clone()),
        content: json!({ "membership": "join" }).as_object().unwrap().clone(),
        redacts: None,
        origin_server_ts: hearth.server.now_ms(),
        depth: depth + 1,
        prev_events: vec![extremity.into()],
        auth_events: auth.iter().map(|stored| stored.header.id.clone().into()).collect(),
        opaque_id: None,
    };
    let event = draft::build(version, draft, &signing_key(server), server.try_into().unwrap()).unwrap();
    let outcome = receive::receive(store, room, event).unwrap().soft();
    assert!(matches!(outcome, receive::Outcome::Accepted(_)), "{outcome:?}");
}
