//! `kill -9` under load, again and again: what was acknowledged is there afterwards, and every client goes on where it was.
//!
//! `HEARTH_CRASH_ROUNDS` says how often (4 by default; 50 is the full proof) and `HEARTH_CRASH_SEED` repeats what a failed run
//! printed. The seed fixes what is asked for and when the server is killed, not how the threads interleave.

mod follower;
mod worker;

use std::{
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use follower::Follower;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use worker::{Member, Worker};

use crate::process::{Place, exchange};

/// Users who ask for something all the time, each with a second device that syncs.
const USERS: usize = 5;
/// Rooms that all users are in.
const ROOMS: usize = 3;
/// How long a round's load lasts at least and at most, in milliseconds.
const LOAD_MS: (u64, u64) = (200, 1_500);

/// The server, as clients see it.
#[derive(Clone)]
pub struct Wire {
    address: String,
    token: String,
}

impl Wire {
    /// A request's answer, where the server lived long enough to give one. An error of the server is a failure of the test.
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        let (status, answer) = exchange(&self.address, method, path, &self.token, body).ok()?;
        assert!(status < 500, "{method} {path}: {status} {}", String::from_utf8_lossy(&answer));
        Some((status, answer))
    }

    /// The answer of a request that must succeed.
    fn ok(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = self.ask(method, path, body.as_bytes()).expect("the server answers");
        assert_eq!(status, 200, "{method} {path}: {}", String::from_utf8_lossy(&answer));
        serde_json::from_slice(&answer).unwrap()
    }

    /// All events of a room that are newer than `known`, oldest first.
    fn timeline(&self, room: &str, known: Option<&str>) -> Vec<Value> {
        let mut events = Vec::new();
        let mut from = String::new();
        loop {
            let page = self.ok("GET", &format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=500{from}"), &Value::Null);
            for event in page["chunk"].as_array().unwrap() {
                if known.is_some_and(|known| event["event_id"] == known) {
                    events.reverse();
                    return events;
                }
                events.push(event.clone());
            }
            let Some(end) = page["end"].as_str() else { break };
            from = format!("&from={end}");
        }
        assert!(known.is_none(), "{room}: an event that was there is gone");
        events.reverse();
        events
    }
}

/// A whole number from the environment.
fn setting<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn nothing_acknowledged_is_lost_by_kills_under_load() {
    let rounds = setting("HEARTH_CRASH_ROUNDS").unwrap_or(4);
    let seed = setting("HEARTH_CRASH_SEED").unwrap_or_else(|| rand::rng().random());
    eprintln!("HEARTH_CRASH_ROUNDS={rounds} HEARTH_CRASH_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let place = Place::new();
    let serve = || place.serve(&["--registration", "open", "--rate-limits", "off"]);
    let mut server = serve();
    let (mut workers, mut followers) = people(&server.address, &mut rng);
    for round in 1..=rounds {
        let load = Duration::from_millis(rng.random_range(LOAD_MS.0..=LOAD_MS.1));
        let done = load_for(load, &server.address, &mut workers, &mut followers, || server.signal("KILL"));
        assert!(!server.wait().success());
        server = serve();
        eprintln!("round {round}: {done} requests in {load:?}");
        check(&server.address, &mut workers, &mut followers);
    }
    for follower in &mut followers {
        follower.check_all();
    }
    let checked = place.ok(&["check"]);
    assert!(checked.starts_with("All is well"), "{checked}");
    server.stop();
    assert_eq!(place.ok(&["check", "--json"]), "", "a stopped one too");
}

/// The users, in their rooms, with two devices each.
fn people(address: &str, rng: &mut StdRng) -> (Vec<Worker>, Vec<Follower>) {
    let names: Vec<_> = (0..USERS).map(|number| format!("user{number}")).collect();
    let registered: Vec<_> = names.iter().map(|name| worker::register(&Wire::to(address), name).unwrap()).collect();
    let devices: Vec<_> = names.iter().map(|name| worker::login(&Wire::to(address), name)).collect();
    let wire = |token: &Value| Wire { token: token.as_str().unwrap().to_owned(), ..Wire::to(address) };
    let rooms: Vec<String> = (0..ROOMS)
        .map(|number| {
            let levels = json!({ "events": { "test.state": 0 } });
            let room =
                json!({ "preset": "public_chat", "name": format!("Room {number}"), "power_level_content_override": levels });
            let room = wire(&registered[0]["access_token"]).ok("POST", "/_matrix/client/v3/createRoom", &room);
            room["room_id"].as_str().unwrap().to_owned()
        })
        .collect();
    for (person, room) in registered.iter().skip(1).flat_map(|person| rooms.iter().map(move |room| (person, room))) {
        wire(&person["access_token"]).ok("POST", &format!("/_matrix/client/v3/join/{room}"), &json!({}));
    }
    let member = |(name, device): (&String, &Value)| Member {
        user_id: format!("@{name}:localhost"),
        device_id: device["device_id"].as_str().unwrap().to_owned(),
    };
    let members: Vec<_> = names.iter().zip(&devices).map(member).collect();
    let workers = registered.iter().enumerate().map(|(number, person)| {
        let seed = StdRng::seed_from_u64(rng.random());
        Worker::new(number, wire(&person["access_token"]), person, rooms.clone(), members.clone(), seed)
    });
    let workers = workers.collect();
    let followers = devices.iter().zip(&members).map(|(device, member)| Follower::new(wire(&device["access_token"]), member));
    (workers, followers.collect())
}

/// Lets everybody work until the server is killed, and gives the number of acknowledged requests.
fn load_for(load: Duration, address: &str, workers: &mut [Worker], followers: &mut [Follower], kill: impl FnOnce()) -> usize {
    let killed = AtomicBool::new(false);
    thread::scope(|scope| {
        let working: Vec<_> = workers.iter_mut().map(|worker| scope.spawn(|| worker.work(address, &killed))).collect();
        for follower in followers {
            scope.spawn(|| follower.follow(address, &killed));
        }
        thread::sleep(load);
        // Between two requests nobody takes the end for a refusal: what fails from now on is in doubt.
        killed.store(true, Ordering::SeqCst);
        kill();
        working.into_iter().map(|worker| worker.join().unwrap()).sum()
    })
}

/// What must hold after a restart.
fn check(address: &str, workers: &mut [Worker], followers: &mut [Follower]) {
    thread::scope(|scope| {
        for worker in &mut *workers {
            scope.spawn(|| worker.check(address));
        }
    });
    let sent: Vec<_> = workers.iter_mut().flat_map(|worker| std::mem::take(&mut worker.acknowledged.messages)).collect();
    let to_devices: Vec<_> = workers.iter_mut().flat_map(|worker| std::mem::take(&mut worker.acknowledged.to_device)).collect();
    thread::scope(|scope| {
        for follower in followers {
            let (sent, to_devices, workers) = (&sent, &to_devices, &*workers);
            scope.spawn(move || follower.check(address, workers, sent, to_devices));
        }
    });
}
