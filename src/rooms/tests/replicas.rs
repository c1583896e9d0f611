//! Several servers with copies of one room, which get each other's events in any order: all must hold the same states, those that
//! resolving whole states gives.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    parse::RawPdu,
    resolve::{StateMap, resolve_states},
    verify::{Validity, Verified, VerifyKey},
};
use ruma::{EventId, OwnedEventId, ServerName};

use super::*;
use crate::{
    receive::{self, Missing, Outcome},
    state,
};

const SERVERS: [&str; 3] = ["a.org", "b.org", "c.org"];

/// A server with its copy of the room.
struct Replica {
    world: World,
    user: Sender,
    room: RoomNo,
}

/// The servers and all events of the room.
struct Net {
    replicas: Vec<Replica>,
    version: &'static RoomVersion,
    sent: Vec<Verified>,
}

impl Net {
    /// A room of a user of each server, all with the power of its creator but in versions that have none such.
    fn new(version_id: &str) -> Self {
        let worlds: Vec<World> = (0..).zip(SERVERS).map(|(seed, name)| World::of(name, seed)).collect();
        let users: Vec<OwnedUserId> =
            SERVERS.iter().map(|name| OwnedUserId::try_from(format!("@user:{name}")).unwrap()).collect();
        let here =
            |world: &World, id: &OwnedUserId| Sender { no: users::numbers::ensure(&world.store, id).unwrap(), id: id.clone() };
        let (room, _) = worlds[0].room(&here(&worlds[0], &users[0]), version_id, Preset::PublicChat);
        for (world, user) in worlds.iter().zip(&users).skip(1) {
            let change = Change { target: user.clone(), to: Action::Join, content: Object::new() };
            let user = here(&worlds[0], user);
            membership::change(&worlds[0].store, &world.identity, &user, room, change, 3000).unwrap().wait().unwrap();
        }
        let version = RoomVersion::named(version_id).unwrap();
        let levels = json!({ "users": users.iter().map(|user| (user.to_string(), 100)).collect::<BTreeMap<_, _>>(), "ban": 50 });
        let mut levels = levels.as_object().unwrap().clone();
        if version.version_12 {
            levels["users"].as_object_mut().unwrap().remove(users[0].as_str());
        }
        let new = NewEvent::state("m.room.power_levels", "", levels);
        send::send(&worlds[0].store, &worlds[0].identity, &here(&worlds[0], &users[0]), room, new, None, 4000)
            .unwrap()
            .wait()
            .unwrap();

        let mut net = Self { replicas: Vec::new(), version, sent: Vec::new() };
        let db = worlds[0].store.snapshot();
        let all = timeline::read(&db, room, Direction::Forward, Pos(i64::MIN), None).unwrap();
        net.sent = all.map(|placed| net.verified(&placed.unwrap().stored.event.json)).collect();
        for (world, id) in worlds.into_iter().zip(&users) {
            let user = here(&world, id);
            let room = match net.replicas.is_empty() {
                true => room,
                false => net.copy(&world),
            };
            net.replicas.push(Replica { world, user, room });
        }
        net
    }

    fn copy(&self, world: &World) -> RoomNo {
        let room = receive::import(&world.store, self.sent[0].clone(), self.version).unwrap().wait().unwrap();
        for event in &self.sent {
            let outcome = receive::receive(&world.store, room, event.clone()).unwrap().wait().unwrap();
            assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
        }
        room
    }

    /// An event as another server gets it.
    fn verified(&self, json: &str) -> Verified {
        let key = |server: &ServerName, _: &str| {
            let seed = SERVERS.iter().position(|name| *name == server).unwrap();
            let key = SigningKey::from_seed("1", &[seed as u8; 32]).unwrap().public();
            Some(VerifyKey { key, validity: Validity::Until(u64::MAX) })
        };
        RawPdu::from_bytes(json.as_bytes()).unwrap().parse(self.version).unwrap().verify(key).unwrap()
    }

    /// What the user of a server sends, if the room allows it there.
    fn send(&mut self, at: usize, new: NewEvent) -> Option<OwnedEventId> {
        let Replica { world, user, room } = &self.replicas[at];
        let now_ms = 10_000 + self.sent.len() as u64;
        let id = send::send(&world.store, &world.identity, user, *room, new, None, now_ms).ok()?.wait().unwrap();
        let (_, stored) = events::by_id(&world.store.snapshot(), *room, &id).unwrap().unwrap();
        if !self.sent.iter().any(|event| event.event().id == id) {
            self.sent.push(self.verified(&stored.event.json));
        }
        Some(id)
    }

    fn deliver(&self, to: usize, event: usize) -> Outcome {
        let Replica { world, room, .. } = &self.replicas[to];
        receive::receive(&world.store, *room, self.sent[event].clone()).unwrap().wait().unwrap()
    }

    /// Gives everyone everything, until nobody misses anything.
    fn heal(&self) {
        for to in 0..self.replicas.len() {
            let mut waiting: Vec<usize> = (0..self.sent.len()).rev().collect();
            while !waiting.is_empty() {
                let before = waiting.len();
                waiting.retain(|event| matches!(self.deliver(to, *event), Outcome::Missing(_)));
                assert!(waiting.len() < before, "events wait for ever");
            }
        }
    }

    /// Every event with whether it was rejected and the state after it, of a server's copy.
    fn copy_of(&self, at: usize) -> BTreeMap<OwnedEventId, (bool, StateMap)> {
        let Replica { world, room, .. } = &self.replicas[at];
        let db = world.store.snapshot();
        let row = |event: &Verified| {
            let (_, stored) = events::by_id(&db, *room, &event.event().id).unwrap().unwrap();
            (stored.header.id.clone(), (stored.rejection().is_some(), whole(&db, *room, stored.header.after)))
        };
        self.sent.iter().map(row).collect()
    }

    /// The same by resolving whole states, event by event, without any index.
    fn naive(&self) -> BTreeMap<OwnedEventId, (bool, StateMap)> {
        let by_id: BTreeMap<&EventId, &Verified> = self.sent.iter().map(|event| (&*event.event().id, event)).collect();
        let cited = self.sent.iter().map(|event| (event.event().id.clone(), event.event().prev_events.iter().cloned().collect()));
        let cited: BTreeMap<OwnedEventId, BTreeSet<OwnedEventId>> = cited.collect();
        let mut done: BTreeMap<OwnedEventId, (bool, StateMap)> = BTreeMap::new();
        for id in protocol::dag::topological_order(&cited, |_| ()) {
            let event = by_id[&*id].event();
            let parents: Vec<StateMap> = event.prev_events.iter().map(|id| done[id].1.clone()).collect();
            let known = |id: &EventId| {
                by_id.get(id).filter(|_| done.get(id).is_none_or(|(rejected, _)| !rejected)).map(|event| event.event().clone())
            };
            let mut state = resolve_states(self.version, &parents, &known).unwrap();
            let allowed = protocol::auth::authorize(self.version, event, |kind, key| {
                state.get(&(kind.to_owned(), key.to_owned())).map(|id| by_id[&**id].event().clone())
            });
            if let (Ok(()), Some((kind, key))) = (&allowed, event.state_pair()) {
                state.insert((kind.to_owned(), key.to_owned()), id.clone());
            }
            done.insert(id, (allowed.is_err(), state));
        }
        done
    }

    fn check(&self) {
        let naive = self.naive();
        for (at, server) in SERVERS.iter().enumerate() {
            let copy = self.copy_of(at);
            for (id, (rejected, state)) in &naive {
                assert_eq!((&copy[id].0, &copy[id].1), (rejected, state), "{server} has another state after {id}");
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
        let known = |id: &EventId| {
            let stored = events::by_id(&db, *room, id).unwrap().map(|(_, stored)| stored);
            stored.filter(|stored| stored.rejection().is_none()).map(|stored| stored.event.clone())
        };
        let expected = resolve_states(self.version, &ends, &known).unwrap();
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
        assert_eq!((checked.events, checked.faults), (self.sent.len(), Vec::new()));
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

/// One of the things that users of the room do to it.
fn deed(version: &str, kind: u8, by: usize, value: u8) -> NewEvent {
    let user = |of: usize| format!("@user:{}", SERVERS[of % SERVERS.len()]);
    let other = user(by + 1 + usize::from(value % 2));
    let state =
        |kind: &str, key: &str, content: serde_json::Value| NewEvent::state(kind, key, content.as_object().unwrap().clone());
    match kind {
        0 => state("m.room.topic", "", json!({ "topic": format!("{by}{value}") })),
        1 => state("m.room.member", &other, json!({ "membership": "ban" })),
        2 => state("m.room.member", &other, json!({ "membership": "leave" })),
        3 => state("m.room.member", &user(by), json!({ "membership": "leave" })),
        4 => state("m.room.member", &user(by), json!({ "membership": "join", "displayname": format!("{value}") })),
        5 => state("m.room.member", &other, json!({ "membership": "invite" })),
        6 => state("m.room.join_rules", "", json!({ "join_rule": if value.is_multiple_of(2) { "invite" } else { "public" } })),
        7 => {
            let mut levels: serde_json::Map<String, serde_json::Value> = Object::new();
            // A creator has all power without being named.
            for of in usize::from(version == "12")..SERVERS.len() {
                levels.insert(user(of), if of == by { 100 } else { i64::from(value) % 3 * 50 }.into());
            }
            state("m.room.power_levels", "", json!({ "users": levels, "ban": 50, "kick": 50, "state_default": 50 }))
        }
        _ => state("org.example", &format!("{}", value % 4), json!({ "by": by })),
    }
}

fn versions() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["1", "2", "6", "10", "11", "12"])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_replica_comes_to_the_states_that_whole_states_resolve_to(
        version in versions(),
        deeds in prop::collection::vec((0..10_u8, 0..3_usize, 0..8_u8, prop::collection::vec((0..3_usize, 0..64_usize), 0..4)), 1..16),
    ) {
        let mut net = Net::new(version);
        for (kind, by, value, deliveries) in deeds {
            net.send(by, deed(version, kind, by, value));
            for (to, event) in deliveries {
                net.deliver(to, net.sent.len() - 1 - event % net.sent.len());
            }
        }
        net.heal();
        net.check();
    }
}

#[test]
fn forks_join_again() {
    for version in ["1", "6", "12"] {
        let mut net = Net::new(version);
        net.send(0, deed(version, 0, 0, 1)).unwrap();
        net.send(1, deed(version, 0, 1, 2)).unwrap();
        net.send(1, deed(version, 9, 1, 2)).unwrap();
        net.heal();
        net.check();
        let ends = |net: &Net| {
            net.replicas
                .iter()
                .map(|replica| head(&replica.world.store.snapshot(), replica.room).unwrap().extremities.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(ends(&net), [2, 2, 2], "version {version}");
        net.send(2, deed(version, 0, 2, 3)).unwrap();
        net.heal();
        net.check();
        assert_eq!(ends(&net), [1, 1, 1]);
    }
}

#[test]
fn what_is_missing_is_named_and_nothing_changes() {
    let mut net = Net::new("11");
    let first = net.send(0, deed("11", 9, 0, 1)).unwrap();
    net.send(0, deed("11", 0, 0, 1)).unwrap();
    let (world, room) = (&net.replicas[1].world, net.replicas[1].room);
    let before = world.store.dump(TABLES).unwrap();
    let outcome = net.deliver(1, net.sent.len() - 1);
    assert_eq!(outcome, Outcome::Missing(Missing { prev_events: vec![first], auth_events: Vec::new() }));
    assert_eq!(world.store.dump(TABLES).unwrap(), before);
    assert!(matches!(net.deliver(1, net.sent.len() - 2), Outcome::Accepted(_)));
    assert!(matches!(net.deliver(1, net.sent.len() - 1), Outcome::Accepted(_)));
    assert_eq!(net.deliver(1, net.sent.len() - 1), Outcome::Duplicate);
    let _ = room;
}

#[test]
fn a_ban_that_was_not_known_yet_soft_fails_what_the_banned_say_meanwhile() {
    let mut net = Net::new("12");
    net.send(0, deed("12", 7, 0, 0)).unwrap();
    net.heal();
    net.send(0, NewEvent::state("m.room.member", "@user:b.org", json!({ "membership": "ban" }).as_object().unwrap().clone()))
        .unwrap();
    let message = NewEvent { kind: "m.room.message".into(), ..NewEvent::default() };
    net.send(1, message).unwrap();
    let outcome = net.deliver(0, net.sent.len() - 1);
    assert!(matches!(&outcome, Outcome::SoftFailed(reason) if reason.contains("not joined")), "{outcome:?}");
    let replica = &net.replicas[0];
    let seen = replica.world.seen(&replica.user, replica.room);
    assert!(!seen.contains(&"m.room.message".to_owned()), "{seen:?}");
    net.heal();
    net.check();
}
