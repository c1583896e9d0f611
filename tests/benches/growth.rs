//! How the cost of the domain's operations grows: each is timed at a size and at ten times that size, without HTTP and without
//! a disk. `hearth-bench` measures the same laws on a whole server.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{hint::black_box, sync::Arc};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use protocol::{keys::SigningKey, version::RoomVersion};
use rooms::{
    Identity, NewEvent, Pos, Sender,
    create::{self, NewRoom, Preset},
    format::Format,
    membership::{self, Action, Change},
    send,
    timeline::Direction,
};
use ruma::{OwnedUserId, api::client::filter::FilterDefinition, server_name};
use serde_json::{Map, json};
use store::{RoomNo, Store};
use users::devices::DeviceNo;
use views::{
    Memory,
    history::{Ask, Reader},
    sync::{Who, state::Target, v3},
};

const NOW_MS: u64 = 1_700_000_000_000;

struct World {
    store: Store,
    identity: Identity,
    rooms: u32,
}

impl World {
    fn new() -> Self {
        let key = SigningKey::from_seed("1", &[7; 32]).unwrap();
        let identity = Identity { server_name: server_name!("localhost").to_owned(), key };
        Self { store: Store::in_memory("localhost", &hearth::tables()).unwrap(), identity, rooms: 0 }
    }

    fn user(&self, name: &str) -> Sender {
        let id = OwnedUserId::try_from(format!("@{name}:localhost")).unwrap();
        Sender { no: users::numbers::ensure(&self.store, &id).unwrap(), id }
    }

    /// A public room of this many members, its creator among them.
    fn room(&mut self, creator: &Sender, members: u32) -> RoomNo {
        self.rooms += 1;
        let new = NewRoom {
            version: RoomVersion::named("12").unwrap(),
            preset: Preset::PublicChat,
            creation_content: Map::new(),
            initial_state: Vec::new(),
            name: Some("The room".into()),
            topic: None,
            invite: Vec::new(),
            is_direct: false,
            power_levels: Map::new(),
            alias: None,
            public: false,
            profile: Map::new(),
            opaque_id: format!("room{}", self.rooms),
        };
        let id =
            create::create(&self.store, &self.identity, creator, new, NOW_MS + u64::from(self.rooms)).unwrap().wait().unwrap();
        let room = rooms::numbers::number(&self.store.snapshot(), &id).unwrap().unwrap();
        for member in 1..members {
            let member = self.user(&format!("member{member}"));
            let change = Change { target: member.id.clone(), to: Action::Join, content: Map::new() };
            membership::change(&self.store, &self.identity, &member, room, change, NOW_MS).unwrap().soft();
        }
        room
    }

    fn send(&self, sender: &Sender, room: RoomNo, new: NewEvent) {
        send::send(&self.store, &self.identity, sender, room, new, None, NOW_MS).unwrap().soft();
    }

    fn say(&self, sender: &Sender, room: RoomNo, number: u64) {
        self.send(sender, room, message(number));
    }

    /// Waits until all that was written is published.
    fn settle(&self, sender: &Sender, room: RoomNo) {
        send::send(&self.store, &self.identity, sender, room, message(0), None, NOW_MS).unwrap().wait().unwrap();
    }
}

fn message(number: u64) -> NewEvent {
    let content = json!({ "msgtype": "m.text", "body": format!("message {number}") }).as_object().unwrap().clone();
    NewEvent { kind: "m.room.message".into(), content, ..NewEvent::default() }
}

fn topic(number: u64) -> NewEvent {
    let content = json!({ "topic": format!("topic {number}") }).as_object().unwrap().clone();
    NewEvent { kind: "m.room.topic".into(), state_key: Some(String::new()), content, ..NewEvent::default() }
}

fn writes(c: &mut Criterion) {
    write(c, "a message, by members of the room", message, &[1_000, 10_000]);
    write(c, "a state event, by members of the room", topic, &[1_000, 10_000, 100_000]);
}

fn write(c: &mut Criterion, name: &str, event: fn(u64) -> NewEvent, sizes: &[u32]) {
    let mut group = c.benchmark_group(name);
    for members in sizes {
        let mut world = World::new();
        let alice = world.user("alice");
        let room = world.room(&alice, *members);
        let mut number = 0;
        group.bench_function(BenchmarkId::from_parameter(members), |b| {
            b.iter(|| {
                number += 1;
                world.send(&alice, room, event(number));
            });
        });
    }
    group.finish();
}

fn syncs(c: &mut Criterion) {
    let request = |alice: &Sender, since| v3::Request {
        who: Who { user: alice.no, user_id: alice.id.clone(), device: DeviceNo(1), device_id: "PHONE".into() },
        since,
        filter: FilterDefinition::default(),
        full_state: false,
        target: Target::Start,
    };
    for (name, since_now) in [("a sync with nothing new, by rooms", true), ("a first sync, by rooms", false)] {
        let mut group = c.benchmark_group(name);
        for rooms in [20, 200] {
            let mut world = World::new();
            let alice = world.user("alice");
            for _ in 0..rooms {
                let room = world.room(&alice, 10);
                (0..20).for_each(|number| world.say(&alice, room, number));
                world.settle(&alice, room);
            }
            let db = world.store.snapshot();
            let memory = Memory::new(world.store.spare_memory());
            let request = request(&alice, since_now.then(|| db.seq().into()));
            group.bench_function(BenchmarkId::from_parameter(rooms), |b| {
                b.iter(|| black_box(v3::sync(&db, &memory, None, &request, NOW_MS).unwrap()));
            });
        }
        group.finish();
    }
}

fn pages(c: &mut Criterion) {
    let mut group = c.benchmark_group("a page of 100 events, by the room's events");
    group.throughput(Throughput::Elements(100));
    for events in [1_000, 10_000] {
        let mut world = World::new();
        let alice = world.user("alice");
        let room = world.room(&alice, 10);
        (0..events).for_each(|number| world.say(&alice, room, number));
        world.settle(&alice, room);
        let db = world.store.snapshot();
        let format = || Format {
            user: alice.no,
            device: None,
            with_room_id: true,
            now_ms: NOW_MS,
            until: Pos(i64::MAX),
            ignored: Arc::default(),
        };
        let filter = FilterDefinition::default().room.timeline;
        group.bench_function(BenchmarkId::from_parameter(events), |b| {
            b.iter(|| {
                let mut reader = Reader::new(&db, room, &alice.id, format()).unwrap();
                let ask = Ask { direction: Direction::Backward, from: None, to: None, limit: 100, filter: &filter };
                black_box(reader.page(&ask).unwrap().chunk.len())
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = growth;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(500)).measurement_time(std::time::Duration::from_secs(2));
    targets = writes, syncs, pages
}
criterion_main!(growth);
