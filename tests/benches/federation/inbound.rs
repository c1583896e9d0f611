//! Events of another server: how many are taken in each second, beside how many signatures of the same events are verified.

use std::time::{Duration, Instant};

use http::Method;
use http_layer::testing::{Hearth, Network};
use protocol::{
    parse::RawPdu,
    verify::{Parsed, Validity, VerifyKey},
    version::RoomVersion,
};
use rooms::{NewEvent, Pos, Sender, send, timeline};
use serde_json::{json, value::RawValue};
use store::RoomNo;

use crate::world::{HERE, THERE, join, room, running, text, until};

/// Events in all.
const EVENTS: usize = 10_000;
/// Events of a transaction.
const AT_ONCE: usize = 50;

/// Messages of so many rooms, in transactions that have some of each.
pub async fn inbound(rooms: usize) {
    let network = Network::default();
    // This one only sends what it is told to.
    let (one, two) = (Hearth::named_in(&network, HERE), running(&network, THERE));
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let by = Sender { no: alice.user, id: alice.user_id.as_str().try_into().unwrap() };
    let mut told: Vec<Vec<Box<RawValue>>> = Vec::new();
    for _ in 0..rooms {
        let (id, no) = room(&alice).await;
        join(&bob, &id).await;
        let here = || crate::world::number(&two, &id).unwrap();
        until(async || !rooms::partial::is_partial(&two.server.store.snapshot(), here()).unwrap()).await;
        told.push(messages(&one, &by, no, EVENTS / rooms).await);
    }
    let mixed: Vec<Box<RawValue>> = (0..EVENTS).map(|at| told[at % rooms][at / rooms].clone()).collect();
    let (mut times, mut bare) = (Vec::new(), Duration::ZERO);
    for (number, pdus) in mixed.chunks(AT_ONCE).enumerate() {
        // In turns, so that what else the machine does slows both.
        bare += signatures(pdus);
        let transaction = json!({ "origin": HERE, "origin_server_ts": one.server.now_ms(), "pdus": pdus });
        // Sent before the clock starts: what the other server does for it is not measured.
        let ask = two.ask_by(HERE, Method::PUT, &format!("/_matrix/federation/v1/send/{number}"), Some(&transaction));
        let begun = Instant::now();
        let answer = ask.await;
        times.push(begun.elapsed());
        let answer = answer.ok();
        let processed = answer["pdus"].as_object().unwrap();
        assert!(processed.len() == AT_ONCE && processed.values().all(|of| of.get("error").is_none()), "{answer}");
    }
    let a_second = |times: &[Duration]| (times.len() * AT_ONCE) as f64 / times.iter().sum::<Duration>().as_secs_f64();
    let (bare, tenth) = (EVENTS as f64 / bare.as_secs_f64(), times.len() / 10);
    let (all, first, last) = (a_second(&times), a_second(&times[..tenth]), a_second(&times[times.len() - tenth..]));
    eprintln!(
        "inbound: {EVENTS} events of {rooms} rooms: {all:.0} a second (the first tenth {first:.0}, the last {last:.0}); \
         signatures alone {bare:.0} on one thread: {:.0} %",
        100.0 * all / bare
    );
}

/// Says so much, and gives it as other servers are told it.
async fn messages(hearth: &Hearth, by: &Sender, room: RoomNo, count: usize) -> Vec<Box<RawValue>> {
    let server = &hearth.server;
    let from = rooms::head(&server.store.snapshot(), room).unwrap().last;
    for number in 0..count {
        let content = text(&format!("message {number}")).as_object().unwrap().clone();
        let new = NewEvent { kind: "m.room.message".into(), content, ..NewEvent::default() };
        send::send(&server.store, &server.identity, by, room, new, None, server.now_ms()).unwrap().soft();
    }
    hearth.settle().await;
    let db = server.store.snapshot();
    let all = timeline::read(&db, room, timeline::Direction::Forward, Pos(from.0 + 1), None).unwrap();
    let events = all.map(|placed| RawValue::from_string(placed.unwrap().stored.event.json.to_string()).unwrap());
    let events: Vec<Box<RawValue>> = events.collect();
    assert_eq!(events.len(), count);
    events
}

/// How long it takes to verify the signatures of these events, on one thread and with nothing else done.
fn signatures(events: &[Box<RawValue>]) -> Duration {
    let version = RoomVersion::named("11").unwrap();
    let parsed = |event: &RawValue| RawPdu::from_bytes(event.get().as_bytes()).unwrap().parse(version).unwrap();
    let parsed: Vec<Parsed> = events.iter().map(|event| parsed(event)).collect();
    let key = VerifyKey { key: http_layer::testing::signing_key(HERE).public(), validity: Validity::Until(u64::MAX) };
    let begun = Instant::now();
    for event in parsed {
        event.verify(|_, _| Some(key)).unwrap();
    }
    begun.elapsed()
}
