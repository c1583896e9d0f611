//! The simulator: servers of one process that federate in virtual time while everything goes wrong, by a seed that makes it go the same way again.
//!
//! Users create, invite, join, leave, ban, speak and redact. The network loses, doubles, delays and reorders their servers' requests and falls
//! apart, servers crash and come back with what they had written, clocks are wrong. Then the faults end, and once all is quiet it must hold:
//! servers that are in a room hold the same state of it, clients hold what their servers hold, and every user was given every event of their
//! rooms exactly once.
//!
//! `docs/testing.md` tells how to run one seed, or as many as fit into an hour.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod aftermath;
mod checks;
mod network;
mod people;
mod script;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use parking_lot::Mutex;
use rand::RngExt as _;
use serde_json::json;
use store::Store;
use tokio::{task::JoinSet, time::sleep};

use self::{
    network::{disturb, heal},
    people::{Person, via},
    script::{Stage, part, play},
    world::{NAMES, World},
};
use super::federation::enc;
use crate::testing;

/// The seeds of every run of the tests.
const SEEDS: u64 = 1_000;
/// Users of each server.
const USERS: usize = 2;
/// How long it may take until all is told, in seconds.
const QUIET_MAX: usize = 20_000;
/// How often those try to join again who do not know what became of it.
const JOINS_MAX: usize = 20;
/// How many runs have the same databases.
const RUNS_OF_STORES: usize = 40;
/// Seeds whose failures are told at length.
const TOLD: usize = 10;

/// What happened in a run, and what of it must not be.
struct Run {
    journal: Vec<String>,
    violations: Vec<String>,
}

/// The databases of runs, one after the other.
#[derive(Default)]
struct Stores {
    stores: Vec<Store>,
    used: usize,
}

impl Stores {
    /// Databases with nothing in them.
    fn take(&mut self) -> Vec<Arc<Store>> {
        let tables = testing::tables();
        self.used += 1;
        if self.stores.len() < NAMES.len() || self.used.is_multiple_of(RUNS_OF_STORES) {
            self.stores = NAMES.iter().map(|name| Store::simulated(name, &tables).unwrap()).collect();
        }
        let again = |(store, name): (Store, &&str)| Arc::new(store.simulated_again(name, &tables).unwrap());
        self.stores.drain(..).zip(&NAMES).map(again).collect()
    }

    /// Those of a run that has ended.
    fn give_back(&mut self, stores: Vec<Arc<Store>>) {
        self.stores = stores.into_iter().filter_map(Arc::into_inner).collect();
    }
}

/// Runs one seed.
fn simulate(seed: u64, stores: &mut Stores) -> Run {
    let taken = stores.take();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (journal, violations) = runtime.block_on(live(seed, taken.clone()));
    drop(runtime);
    stores.give_back(taken);
    Run { journal, violations }
}

async fn live(seed: u64, stores: Vec<Arc<Store>>) -> (Vec<String>, Vec<String>) {
    let world = World::new(seed, stores);
    let mut people = Vec::new();
    for number in 0..NAMES.len() * USERS {
        let localpart = ["alice", "bob", "carol", "dan", "erin", "frank"][number];
        people.push(Person::new(&world, number % NAMES.len(), localpart).await);
    }
    let mut clients = JoinSet::new();
    for (number, person) in (100..).zip(&people) {
        clients.spawn(Arc::clone(person).sync_for_ever(part(seed, number)));
    }
    let stage = Arc::new(Stage { people, rooms: Mutex::default() });
    let mut troubles = JoinSet::new();
    troubles.spawn(disturb(Arc::clone(&world), part(seed, 1)));
    if tokio::spawn(play(Arc::clone(&stage), part(seed, 2))).await.is_err() {
        world.violated("the script panicked".to_owned());
    }
    troubles.shutdown().await;
    heal(&world);
    settle(&world, &stage).await;
    if clients.try_join_next().is_some() {
        world.violated("a client panicked".to_owned());
    }
    checks::check(&world, &stage);
    if world.is_wrong() {
        aftermath::note(&world, &stage);
    }
    clients.shutdown().await;
    world.end()
}

/// Waits until all is told. Who does not know what became of their join tries again, and every user speaks once more, so that what was refused
/// for want of what it follows is fetched. Of a server's users, too, others may let in only some.
async fn settle(world: &Arc<World>, stage: &Stage) {
    quiet(world).await;
    for _ in 0..JOINS_MAX {
        let half_joined = checks::half_joined(world, stage);
        if half_joined.is_empty() {
            break;
        }
        for (person, room) in half_joined {
            let path = format!("/_matrix/client/v3/join/{}?{}", enc(&room), via(&mut part(world.seed, 3)));
            person.act(&format!("joins {room} again"), Method::POST, &path, Some(&json!({}))).await;
        }
        // A server that did not answer is not asked again at once.
        sleep(Duration::from_secs(30)).await;
        quiet(world).await;
    }
    let rooms = stage.rooms.lock().clone();
    for (round, room) in rooms.iter().flat_map(|room| [(0, room), (1, room)]) {
        for person in &stage.people {
            let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/last{round}", enc(room));
            let body = json!({ "msgtype": "m.text", "body": "last" });
            let said = person.act(&format!("says a last word in {room}"), Method::PUT, &path, Some(&body)).await;
            if said.is_some_and(|(status, _)| status == StatusCode::OK) {
                quiet(world).await;
            }
        }
    }
    // Syncs that wait end after half a minute.
    sleep(Duration::from_secs(100)).await;
}

/// Waits until no server has something to tell another.
async fn quiet(world: &World) {
    for _ in 0..QUIET_MAX {
        sleep(Duration::from_secs(1)).await;
        if checks::is_quiet(world) {
            return;
        }
    }
    world.violated("it does not become quiet".to_owned());
}

/// Which seeds to run: one, so many, or as many as fit into some minutes.
fn run_all(next: impl Fn() -> Option<u64> + Sync) -> Vec<(u64, Run)> {
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut stores = Stores::default();
                while let Some(seed) = next() {
                    let run = catch_unwind(AssertUnwindSafe(|| simulate(seed, &mut stores)));
                    let run = run.unwrap_or_else(|_| Run { journal: Vec::new(), violations: vec!["a panic".to_owned()] });
                    if !run.violations.is_empty() {
                        failed.lock().push((seed, run));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner();
    failed.sort_by_key(|(seed, _)| *seed);
    failed
}

/// Says what failed, and how to see it again.
fn tell(failed: &[(u64, Run)]) {
    for (seed, run) in failed.iter().take(TOLD) {
        let path = std::env::temp_dir().join(format!("hearth-simulator-{seed}.txt"));
        std::fs::write(&path, run.journal.join("\n")).unwrap();
        println!("seed {seed}, whose journal is in {}:", path.display());
        run.violations.iter().take(10).for_each(|violation| println!("  {violation}"));
        println!("  again: HEARTH_SIMULATOR_SEED={seed} .ci/cargo test --release -p hearth-http simulator -- --nocapture");
    }
    for (seed, run) in failed.iter().skip(TOLD) {
        println!("seed {seed}: {}", run.violations[0]);
    }
    assert!(failed.is_empty(), "{} seeds failed", failed.len());
}

fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn servers_that_fail_in_every_way_agree_in_the_end_and_no_event_is_lost() {
    let began = Instant::now();
    let (first, mut count) = match asked("HEARTH_SIMULATOR_SEED") {
        Some(seed) => (seed, 1),
        None => (0, asked("HEARTH_SIMULATOR_SEEDS").unwrap_or(SEEDS)),
    };
    let (mut first, minutes) = (first, asked("HEARTH_SIMULATOR_MINUTES"));
    if minutes.is_some() {
        (first, count) = (rand::rng().random_range(0..u64::from(u32::MAX)), u64::MAX);
    }
    let until = minutes.map(|minutes| began + Duration::from_secs(60 * minutes));
    let number = AtomicU64::new(0);
    let next = || {
        let number = number.fetch_add(1, Ordering::Relaxed);
        let more = number < count && until.is_none_or(|until| Instant::now() < until);
        more.then(|| first.wrapping_add(number))
    };
    let failed = run_all(next);
    println!("{} runs from seed {first} on took {:?}", number.load(Ordering::Relaxed), began.elapsed());
    tell(&failed);
}

#[test]
fn the_same_seed_goes_the_same_way() {
    let mut stores = Stores::default();
    for seed in 0..10 {
        let (one, other) = (simulate(seed, &mut stores), simulate(seed, &mut stores));
        let lines = one.journal.iter().zip(&other.journal);
        if let Some((at, (one, other))) = lines.enumerate().find(|(_, (one, other))| one != other) {
            panic!("seed {seed} goes two ways, from line {at} on:\n{one}\n{other}");
        }
        assert_eq!(one.journal.len(), other.journal.len());
        assert!(one.journal.len() > 100, "little happened");
    }
}
