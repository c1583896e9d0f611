//! Several servers with copies of one room, which get each other's events, and those that a hostile one forges, in any order and more
//! than once: all must hold the same states, those that resolving whole states gives.

mod cases;
mod deeds;
mod forged;
mod model;
mod partial;

use std::{cell::RefCell, collections::BTreeMap};

use protocol::{
    parse::RawPdu,
    resolve::{StateMap, resolve_states},
    sign,
    verify::{Validity, Verified, VerifyKey},
};
use ruma::{EventId, OwnedEventId, ServerName};

use self::{deeds::deed, forged::Forgery, model::Model};
use super::*;
use crate::{
    receive::{self, Missing, Outcome},
    state,
};

const SERVERS: [&str; 3] = ["a.org", "b.org", "c.org"];

/// Those who are in the room from the start, and those who are not: of each server in turn one.
const USERS: [&str; 6] = ["@user:a.org", "@user:b.org", "@user:c.org", "@guest:a.org", "@guest:b.org", "@guest:c.org"];

/// A server that comes later.
const JOINER: &str = "d.org";

/// A server with its copy of the room.
struct Replica {
    world: World,
    /// Its two users.
    users: [Sender; 2],
    room: RoomNo,
}

/// The servers, and all events of the room.
struct Net {
    replicas: Vec<Replica>,
    version: &'static RoomVersion,
    room: OwnedRoomId,
    /// Everything that was ever sent, also what cites events that nobody has.
    sent: Vec<Verified>,
    model: Model,
}

/// Servers that were used before, and how often: opening their databases costs more than a test.
struct Pool {
    worlds: Vec<World>,
    used: usize,
    /// Events of another room, by version, which all servers have.
    elsewhere: BTreeMap<&'static str, Vec<Verified>>,
}

/// How many rooms share servers.
const ROOMS_OF_POOL: usize = 40;

thread_local! {
    static POOL: RefCell<Option<Pool>> = const { RefCell::new(None) };
}

impl Pool {
    fn take() -> Self {
        // Those of a test that failed did not come back.
        let pooled = POOL.take().filter(|pool| pool.used < ROOMS_OF_POOL && !pool.worlds.is_empty());
        let mut pool = pooled.unwrap_or_else(|| Self {
            worlds: (0..).zip(SERVERS).map(|(seed, name)| World::of(name, seed)).collect(),
            used: 0,
            elsewhere: BTreeMap::new(),
        });
        pool.used += 1;
        pool
    }

    /// The events of another room of this version, which all servers have.
    fn elsewhere(&mut self, version: &'static RoomVersion) -> &[Verified] {
        let worlds = &self.worlds;
        self.elsewhere.entry(version.id).or_insert_with(|| {
            let (room, _) = worlds[0].room(&worlds[0].here(USERS[0]), version.id, Preset::PublicChat);
            let events = events_of(&worlds[0], room, version);
            for world in &worlds[1..] {
                copy(world, &events, version);
            }
            events
        })
    }
}

impl World {
    /// A user of any server.
    fn here(&self, user: &str) -> Sender {
        let id = OwnedUserId::try_from(user).unwrap();
        Sender { no: users::numbers::ensure(&self.store, &id).unwrap(), id }
    }
}

/// The events of a room's timeline.
fn events_of(world: &World, room: RoomNo, version: &'static RoomVersion) -> Vec<Verified> {
    let db = world.store.snapshot();
    let all = timeline::read(&db, room, Direction::Forward, Pos(i64::MIN), None).unwrap();
    all.map(|placed| verified(&placed.unwrap().stored.event.json, version)).collect()
}

/// A copy of the room of these events.
fn copy(world: &World, events: &[Verified], version: &'static RoomVersion) -> RoomNo {
    let room = receive::import(&world.store, events[0].clone(), version).unwrap().wait().unwrap();
    for event in events {
        let outcome = receive::receive(&world.store, room, event.clone()).unwrap().wait().unwrap();
        assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    }
    room
}

fn key_of(server: &str) -> SigningKey {
    let seed = SERVERS.iter().chain([&JOINER]).position(|name| *name == server).unwrap();
    SigningKey::from_seed("1", &[seed as u8; 32]).unwrap()
}

/// An event as another server gets it.
fn verified(json: &str, version: &'static RoomVersion) -> Verified {
    let key = |server: &ServerName, _: &str| {
        Some(VerifyKey { key: key_of(server.as_str()).public(), validity: Validity::Until(u64::MAX) })
    };
    RawPdu::from_bytes(json.as_bytes()).unwrap().parse(version).unwrap().verify(key).unwrap()
}

impl Net {
    /// A room of a user of each server, all with the power of its creator but in versions that have none such.
    fn new(version_id: &str) -> Self {
        let version = RoomVersion::named(version_id).unwrap();
        let mut pool = Pool::take();
        let elsewhere = pool.elsewhere(version).to_vec();
        let first = &pool.worlds[0];
        let (room_no, room) = first.room(&first.here(USERS[0]), version_id, Preset::PublicChat);
        for (world, user) in pool.worlds.iter().zip(USERS).skip(1) {
            let user = first.here(user);
            let change = Change { target: user.id.clone(), to: Action::Join, content: Object::new() };
            membership::change(&first.store, &world.identity, &user, room_no, change, 3000).unwrap().wait().unwrap();
        }
        let levels = deeds::levels(version_id, [100; 3], 0);
        send::send(&first.store, &first.identity, &first.here(USERS[0]), room_no, levels, None, 4000).unwrap().wait().unwrap();
        let sent = events_of(first, room_no, version);
        let mut net = Self { replicas: Vec::new(), version, room, sent: Vec::new(), model: Model::new(version, &elsewhere) };
        for (at, world) in std::mem::take(&mut pool.worlds).into_iter().enumerate() {
            let room = if at == 0 { room_no } else { copy(&world, &sent, version) };
            let users = [world.here(USERS[at]), world.here(USERS[at + SERVERS.len()])];
            net.replicas.push(Replica { world, users, room });
        }
        sent.into_iter().for_each(|event| net.share(event));
        POOL.set(Some(pool));
        net
    }

    /// Gives the servers back to the pool, of which no test failed.
    fn done(self) {
        let worlds = self.replicas.into_iter().map(|replica| replica.world).collect();
        POOL.with_borrow_mut(|pool| pool.as_mut().unwrap().worlds = worlds);
    }

    fn share(&mut self, event: Verified) {
        self.model.add(event.event());
        self.sent.push(event);
    }

    /// What a user sends from their server, if the room allows it there.
    fn send(&mut self, by: usize, new: NewEvent) -> Option<OwnedEventId> {
        let Replica { world, users, room } = &self.replicas[by % SERVERS.len()];
        let user = &users[by / SERVERS.len()];
        let now_ms = 10_000 + self.sent.len() as u64;
        let id = send::send(&world.store, &world.identity, user, *room, new, None, now_ms).ok()?.wait().unwrap();
        let (_, stored) = events::by_id(&world.store.snapshot(), *room, &id).unwrap().unwrap();
        if !self.model.holds(&id) {
            self.share(verified(&stored.event.json, self.version));
        }
        Some(id)
    }

    fn deliver(&self, to: usize, event: usize) -> Outcome {
        let Replica { world, room, .. } = &self.replicas[to];
        receive::receive(&world.store, *room, self.sent[event].clone()).unwrap().wait().unwrap()
    }

    /// Returns how many of them were received.
    fn deliver_together(&self, to: usize, events: &[usize]) -> usize {
        let Replica { world, room, .. } = &self.replicas[to];
        let events: Vec<Verified> = events.iter().map(|event| self.sent[*event].clone()).collect();
        receive::receive_together(&world.store, *room, &events).unwrap().wait().unwrap().len()
    }

    fn happen(&mut self, happening: Happening) {
        let Happening { deed: kind, by, value, forged, deliveries } = happening;
        let new = deed(self.version.id, kind, by, value);
        match forged {
            Some((how, parents)) => self.forge(by, new, how, &parents, usize::from(value)),
            None => drop(self.do_or_cosign(by, new)),
        }
        for (to, event) in deliveries {
            self.deliver(to, self.sent.len() - 1 - event % self.sent.len());
        }
    }

    /// Gives everyone everything, each in another order, until nobody misses anything but what nobody has.
    fn heal(&self) {
        for to in 0..self.replicas.len() {
            let (mut waiting, hopeless): (Vec<usize>, Vec<usize>) =
                (0..self.sent.len()).partition(|event| self.model.holds(&self.sent[*event].event().id));
            waiting.sort_by_key(|event| (event * 7919 + to * 31) % 101);
            while !waiting.is_empty() {
                let before = waiting.len();
                if to == 1 {
                    // This one takes in what it can together.
                    waiting.drain(..self.deliver_together(to, &waiting));
                }
                waiting.retain(|event| matches!(self.deliver(to, *event), Outcome::Missing(_)));
                assert!(waiting.len() < before, "events wait for ever");
            }
            for event in hopeless {
                assert!(matches!(self.deliver(to, event), Outcome::Missing(_)));
                let db = self.replicas[to].world.store.snapshot();
                assert_eq!(events::find(&db, &self.sent[event].event().id).unwrap(), None);
            }
        }
    }

    /// Every event with whether it was rejected and the state after it, of a server's copy.
    fn copy_of(&self, at: usize) -> BTreeMap<OwnedEventId, (bool, StateMap)> {
        let Replica { world, room, .. } = &self.replicas[at];
        let db = world.store.snapshot();
        let row = |id: &OwnedEventId| {
            let (_, stored) = events::by_id(&db, *room, id).unwrap().unwrap();
            (id.clone(), (stored.rejection().is_some(), whole(&db, *room, stored.header.after)))
        };
        self.model.after.keys().map(row).collect()
    }

    fn check(&self) {
        for (at, server) in SERVERS.iter().enumerate() {
            let copy = self.copy_of(at);
            for (id, expected) in &self.model.after {
                assert_eq!(&copy[id], expected, "{server} has another state after {id}, version {}", self.version.id);
            }
            self.check_end(at, &copy);
        }
    }

    /// The current state is what the extremities resolve to, and the members are those of the state.
    fn check_end(&self, at: usize, copy: &BTreeMap<OwnedEventId, (bool, StateMap)>) {
        let Replica { world, room, .. } = &self.replicas[at];
        let db = world.store.snapshot();
        let head = head(&db, *room).unwrap();
        let id = |no: &EventNo| events::event(&db, *room, *no).unwrap().header.id.clone();
        let ends: Vec<StateMap> = head.extremities.iter().map(|no| copy[&id(no)].1.clone()).collect();
        let expected = resolve_states(self.version, &ends, &self.model).unwrap();
        assert_eq!(whole(&db, *room, head.state), expected, "the current state at {}", SERVERS[at]);
        let mut checked = check::Checked::default();
        while checked.events < 10_000 {
            let part = check::events(&db, *room, checked.more_after.unwrap_or_default(), 3).unwrap();
            checked.events += part.events;
            checked.faults.extend(part.faults);
            checked.more_after = part.more_after;
            if checked.more_after.is_none() {
                break;
            }
        }
        assert_eq!((checked.events, checked.faults), (self.model.after.len(), Vec::new()));
        assert_eq!(check::end(&db, *room).unwrap(), Vec::new());
    }
}

fn whole(db: &impl store::Read, room: RoomNo, root: Root) -> StateMap {
    let entry = |no| {
        let stored = events::event(db, room, no).unwrap();
        let (kind, key) = stored.event.state_pair().unwrap();
        ((kind.to_owned(), key.to_owned()), stored.header.id.clone())
    };
    state::all(db, room, root).unwrap().into_iter().map(entry).collect()
}

/// Something that happens: what is done, by whom, with what value; how it is forged, if it is; who gets which event after it.
#[derive(Clone, Debug)]
struct Happening {
    deed: u8,
    by: usize,
    value: u8,
    forged: Option<(Forgery, Vec<usize>)>,
    deliveries: Vec<(usize, usize)>,
}

fn happening() -> impl Strategy<Value = Happening> {
    let forged = prop::option::weighted(0.3, (Forgery::any(), prop::collection::vec(0..12_usize, 1..4)));
    let deliveries = prop::collection::vec((0..SERVERS.len(), 0..64_usize), 0..4);
    (0..deeds::COUNT, 0..USERS.len(), 0..30_u8, forged, deliveries).prop_map(|(deed, by, value, forged, deliveries)| Happening {
        deed,
        by,
        value,
        forged,
        deliveries,
    })
}

fn versions() -> impl Strategy<Value = &'static RoomVersion> {
    prop::sample::select(RoomVersion::all().iter().collect::<Vec<_>>())
}

/// How many rooms: few where nobody asks for more, so that the tests take seconds. 24,000 are 2,000 of each version.
fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(96);
    ProptestConfig { cases, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn t5_every_replica_comes_to_the_states_that_whole_states_resolve_to(
        version in versions(),
        happenings in prop::collection::vec(happening(), 1..20),
    ) {
        let mut net = Net::new(version.id);
        for happening in happenings {
            net.happen(happening);
        }
        net.heal();
        net.check();
        net.done();
    }
}
