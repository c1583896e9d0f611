//! Rooms that fork: what it costs to resolve their states, to compare and to load them, and what a state event writes. Each is timed at a size
//! and at ten times that size, without a disk.

#![allow(missing_docs, clippy::unwrap_used)]

// As everybody else calls it.
extern crate hearth_rooms as rooms;

mod oracle;
mod world;

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use protocol::{
    draft::{self, Draft},
    event::Event,
    version::RoomVersion,
};
use rooms::{
    NewEvent, Pos, events,
    membership::{self, Action, Change},
    receive, resolve, state,
    state::Root,
    timeline::{self, Direction},
};
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::{Map, Value, json};
use store::{Lock, RoomNo, Snapshot};

use self::{
    oracle::Oracle,
    world::{NOW_MS, World},
};

/// The server's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The sizes of rooms. `HEARTH_BENCH_SIZES=1000,10000` asks for others.
fn sizes() -> Vec<u32> {
    let asked = std::env::var("HEARTH_BENCH_SIZES").unwrap_or_else(|_| "1000,10000,100000".to_owned());
    asked.split(',').map(|size| size.parse().unwrap()).collect()
}

/// A room of so many members from which bob was banned, who had power before. What he sends from before the ban forks the room as much as
/// one likes without moving its end, so that it costs nothing to make.
struct Forked {
    world: World,
    room: RoomNo,
    id: OwnedRoomId,
    /// What bob's events cite.
    auth: Vec<OwnedEventId>,
    /// What they follow.
    base: OwnedEventId,
    /// All events from before the ban.
    events: Vec<Arc<Event>>,
    /// The states after them.
    roots: Vec<Root>,
    made: u64,
}

impl Forked {
    fn new(members: u32) -> Self {
        let mut world = World::new();
        let (alice, bob) = (world.user("alice"), world.user("bob"));
        let room = world.room(&alice, members);
        let change = |to| Change { target: bob.id.clone(), to, content: Map::new() };
        membership::change(&world.store, &world.identity, &bob, room, change(Action::Join), NOW_MS).unwrap().soft();
        let levels = json!({ "users": { bob.id.as_str(): 90 } }).as_object().unwrap().clone();
        world.send(&alice, room, NewEvent::state("m.room.power_levels", "", levels));
        world.settle(&alice, room);
        let db = world.store.snapshot();
        let all = timeline::read(&db, room, Direction::Forward, Pos(i64::MIN), None).unwrap();
        let placed: Vec<_> = all.map(|placed| placed.unwrap().stored).collect();
        let events: Vec<Arc<Event>> = placed.iter().map(|stored| Arc::clone(&stored.event)).collect();
        let roots = placed.iter().map(|stored| stored.header.after).collect();
        let base = events.last().unwrap().id.clone();
        let root = rooms::head(&db, room).unwrap().state;
        let cited = [("m.room.power_levels", ""), ("m.room.member", bob.id.as_str())];
        let cited = cited.map(|(kind, key)| state::event(&db, room, root, kind, key).unwrap().unwrap().header.id.clone());
        let id = events[0].room_id.clone();
        membership::change(&world.store, &world.identity, &alice, room, change(Action::Ban), NOW_MS).unwrap().soft();
        Self { world, room, id, auth: cited.to_vec(), base, events, roots, made: 0 }
    }

    /// Bob sends a state event. Returns its id and the state after it.
    fn send(
        &mut self,
        prev: OwnedEventId,
        kind: &str,
        key: &str,
        content: &Value,
        auth: &[OwnedEventId],
    ) -> (OwnedEventId, Root) {
        self.made += 1;
        let draft = Draft {
            room_id: Some(self.id.clone()),
            sender: "@bob:localhost".try_into().unwrap(),
            kind: kind.to_owned(),
            state_key: Some(key.to_owned()),
            content: content.as_object().unwrap().clone(),
            redacts: None,
            origin_server_ts: NOW_MS + self.made,
            depth: 1_000_000 + self.made,
            prev_events: vec![prev.into()],
            auth_events: auth.iter().cloned().map(Into::into).collect(),
            opaque_id: None,
        };
        let World { store, identity, .. } = &self.world;
        let version = RoomVersion::named("12").unwrap();
        let event = draft::build(version, draft, &identity.key, &identity.server_name).unwrap();
        self.events.push(Arc::clone(event.event()));
        let id = event.event().id.clone();
        let outcome = receive::receive(store, self.room, event).unwrap().soft();
        assert!(matches!(outcome, receive::Outcome::SoftFailed(_)), "{outcome:?}");
        let after = |tx: &mut store::Tx<'_>| rooms::Result::Ok(events::by_id(tx, self.room, &id)?.unwrap().1.header.after);
        let root = store.transact(&[], after).unwrap().soft();
        (id, root)
    }

    /// A branch that sets so many entries anew. Returns the states after these numbers of them.
    fn branch<const N: usize>(&mut self, after: [u32; N]) -> [Root; N] {
        let mut roots = [Root::default(); N];
        let (mut tip, auth) = (self.base.clone(), self.auth.clone());
        for number in 1..=*after.last().unwrap() {
            let (id, root) = self.send(tip, "org.example", &number.to_string(), &json!({ "number": number }), &auth);
            tip = id;
            after.iter().zip(&mut roots).filter(|(at, _)| **at == number).for_each(|(_, of)| *of = root);
        }
        roots
    }

    /// Bob changes the power levels so often.
    fn power_levels(&mut self, times: u64) {
        for number in 0..times {
            let content = json!({ "users": { "@bob:localhost": 90, "@carol:localhost": number % 80 } });
            let auth = self.auth.clone();
            let (id, _) = self.send(self.base.clone(), "m.room.power_levels", "", &content, &auth);
            self.auth[0] = id.clone();
            self.base = id;
        }
    }

    fn resolve(&self, states: &[Root]) -> Root {
        let resolved = self.world.store.transact(&[Lock::Room(self.room)], |tx| resolve::states(tx, self.room, states));
        resolved.unwrap().soft()
    }

    /// Waits until all is published.
    fn snapshot(&self) -> Snapshot {
        self.world.settle(&self.world.user("alice"), self.room);
        self.world.store.snapshot()
    }

    fn ids_of(&self, db: &Snapshot, root: Root) -> Vec<OwnedEventId> {
        let all = state::all(db, self.room, root).unwrap();
        all.into_iter().map(|no| events::event(db, self.room, no).unwrap().header.id.clone()).collect()
    }
}

/// A state event that replaces another, and one that adds to the state.
fn writes(c: &mut Criterion) {
    for members in sizes() {
        let mut world = World::new();
        let alice = world.user("alice");
        let room = world.room(&alice, members);
        let mut number = 0_u64;
        for name in ["a topic", "a new entry"] {
            let event = |number: u64| {
                let content = json!({ "topic": format!("topic {number}") }).as_object().unwrap().clone();
                let key = number.to_string();
                let (kind, key) = if name == "a topic" { ("m.room.topic", "") } else { ("org.example", key.as_str()) };
                NewEvent::state(kind, key, content)
            };
            let mut group = c.benchmark_group(format!("{name}, by members"));
            group.bench_function(BenchmarkId::from_parameter(members), |b| {
                b.iter(|| {
                    number += 1;
                    world.send(&alice, room, event(number));
                });
            });
            group.finish();
            let before = world.store.work().written_bytes;
            (0..1_000).for_each(|more| world.send(&alice, room, event(number + 1 + more)));
            number += 1_000;
            eprintln!("{name} in a room of {members}: {} bytes written", (world.store.work().written_bytes - before) / 1_000);
        }
    }
}

/// Comparing states of the same room, and loading one.
fn states(c: &mut Criterion) {
    for members in sizes() {
        let forked = Forked::new(members);
        let db = forked.snapshot();
        let last = *forked.roots.last().unwrap();
        let mut group = c.benchmark_group("the difference of states so many events apart, by members");
        for apart in [10, 10_000].into_iter().filter(|apart| apart < &forked.roots.len()) {
            let earlier = forked.roots[forked.roots.len() - 1 - apart];
            group.bench_function(format!("{apart}/{members}"), |b| {
                b.iter(|| black_box(state::difference(&db, forked.room, earlier, last).unwrap().len()));
            });
        }
        group.finish();
        let mut group = c.benchmark_group("loading the whole state, by members");
        group.bench_function(BenchmarkId::from_parameter(members), |b| {
            b.iter(|| black_box(forked.ids_of(&db, last).len()));
        });
        group.finish();
    }
}

/// Resolving a fork, here and by ruma on whole states.
fn resolutions(c: &mut Criterion) {
    for members in sizes() {
        let mut forked = Forked::new(members);
        let branches: Vec<[Root; 2]> = (0..20).map(|_| forked.branch([10, 1_000])).collect();
        let db = forked.snapshot();
        let mut oracle = Oracle::default();
        forked.events.iter().for_each(|event| oracle.add(event));
        for (at, entries) in [10, 1_000].into_iter().enumerate() {
            for ways in [2, 20] {
                let roots: Vec<Root> = branches[..ways].iter().map(|branch| branch[at]).collect();
                let states: Vec<Vec<OwnedEventId>> = roots.iter().map(|root| forked.ids_of(&db, *root)).collect();
                // Twenty whole states of the largest room are more than ruma resolves in a minute.
                let input = (u64::from(members) * ways as u64 <= 200_000).then(|| oracle.input(&states));
                let resolved = forked.resolve(&roots);
                if let Some(input) = &input {
                    assert_eq!(forked.ids_of(&forked.snapshot(), resolved).len(), oracle.resolve(input.clone()));
                }
                let mut group = c.benchmark_group(format!("a fork of {ways} with {entries} conflicts, by members"));
                group.bench_function(BenchmarkId::new("here", members), |b| b.iter(|| black_box(forked.resolve(&roots))));
                if let Some(input) = input {
                    group.bench_function(BenchmarkId::new("ruma on whole states", members), |b| {
                        b.iter_batched(|| input.clone(), |input| black_box(oracle.resolve(input)), BatchSize::PerIteration);
                    });
                }
                group.finish();
            }
        }
    }
}

/// Resolving a fork of two with ten conflicts where all have a long auth chain, and where one branch lacks all of it.
fn chains(c: &mut Criterion) {
    for length in sizes() {
        let mut forked = Forked::new(100);
        let before = forked.branch([10])[0];
        forked.power_levels(length.into());
        let (one, other) = (forked.branch([10])[0], forked.branch([10])[0]);
        let mut group = c.benchmark_group("a fork of two on a long auth chain, by its length");
        group.bench_function(BenchmarkId::new("that both have", length), |b| b.iter(|| black_box(forked.resolve(&[one, other]))));
        group.bench_function(BenchmarkId::new("that one lacks", length), |b| {
            b.iter(|| black_box(forked.resolve(&[one, before])));
        });
        group.finish();
    }
}

criterion_group! {
    name = forks;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = resolutions, chains, states, writes
}
criterion_main!(forks);
