//! Hostile graphs cost what they add, not what was there before: the rows that each event asks for are counted.

use protocol::{
    auth,
    draft::{self, Draft, Reference},
    hash,
    verify::Verified,
    version::EventIdFormat,
};
use ruma::OwnedEventId;

use super::*;
use crate::{
    receive::{self, Outcome},
    state,
};

/// A room by invitation, whose one server signs for everybody. Bob has its power, and is about to be banned: what he sends from before that
/// hangs in the graph without ever moving the room's end.
struct Hostile {
    world: World,
    version: &'static RoomVersion,
    room: RoomNo,
    id: OwnedRoomId,
    /// What follows it is from before the ban.
    before_ban: OwnedEventId,
    made: u64,
}

/// An event to be: who, what, after which events.
struct Deed<'a> {
    by: &'a str,
    kind: &'a str,
    key: Option<&'a str>,
    content: serde_json::Value,
    prev: Vec<OwnedEventId>,
}

fn user(name: &str) -> String {
    format!("@{name}:localhost")
}

impl Hostile {
    fn new(version: &str) -> Self {
        let world = World::new();
        let (alice, bob) = (world.user("alice"), world.user("bob"));
        let (room, id) = world.room(&alice, version, Preset::PrivateChat);
        world.change(&alice, room, &bob, Action::Invite).unwrap();
        world.change(&bob, room, &bob, Action::Join).unwrap();
        let mut hostile = Self {
            world,
            version: RoomVersion::named(version).unwrap(),
            room,
            id,
            before_ban: OwnedEventId::try_from("$none:localhost").unwrap(),
            made: 0,
        };
        let end = hostile.end();
        let levels = hostile.levels(0);
        let (given, _) =
            hostile.send(Deed { by: "alice", kind: "m.room.power_levels", key: Some(""), content: levels, prev: end });
        hostile.before_ban = given;
        hostile.world.change(&alice, room, &bob, Action::Ban).unwrap();
        hostile
    }

    /// Power levels that are another for each number.
    fn levels(&self, number: u64) -> serde_json::Value {
        let mut users = json!({ user("alice"): 100, user("bob"): 90, user("dave"): number });
        if self.version.version_12 {
            users.as_object_mut().unwrap().remove(&user("alice"));
        }
        json!({ "users": users, "events": { "org.example": 0 }, "invite": 0 })
    }

    fn end(&self) -> Vec<OwnedEventId> {
        let db = self.world.store.snapshot();
        let ends = head(&db, self.room).unwrap().extremities;
        ends.iter().rev().take(10).map(|no| events::event(&db, self.room, *no).unwrap().header.id.clone()).collect()
    }

    /// The auth events that the state after the first of these gives.
    fn auth(&self, deed: &Deed<'_>) -> Vec<OwnedEventId> {
        let sender = user(deed.by);
        let content = serde_json::value::to_raw_value(&deed.content).unwrap();
        let types = auth::auth_types(self.version, deed.kind, deed.key, &sender, &content);
        let room = self.room;
        let found = |tx: &mut store::Tx<'_>| -> Result<Vec<OwnedEventId>> {
            let (_, parent) = events::by_id(tx, room, &deed.prev[0])?.unwrap();
            let cited = types.iter().filter_map(|(kind, key)| state::entry(tx, room, parent.header.after, kind, key).unwrap());
            cited.map(|no| Ok(events::event(tx, room, no)?.header.id.clone())).collect()
        };
        self.world.store.transact(&[], found).unwrap().soft()
    }

    fn build(&mut self, deed: Deed<'_>, auth: Vec<OwnedEventId>) -> Verified {
        self.made += 1;
        let chosen = self.version.event_ids == EventIdFormat::Chosen;
        let reference = |id: OwnedEventId| Reference { id, hash: chosen.then(|| hash::sha256(b"")) };
        let draft = Draft {
            room_id: Some(self.id.clone()),
            sender: user(deed.by).try_into().unwrap(),
            kind: deed.kind.to_owned(),
            state_key: deed.key.map(str::to_owned),
            content: deed.content.as_object().unwrap().clone(),
            redacts: None,
            origin_server_ts: 10_000 + self.made,
            depth: 100 + self.made,
            prev_events: deed.prev.into_iter().map(reference).collect(),
            auth_events: auth.into_iter().map(reference).collect(),
            opaque_id: chosen.then(|| format!("hostile{}", self.made)),
        };
        draft::build(self.version, draft, &self.world.identity.key, &self.world.identity.server_name).unwrap()
    }

    /// Receives an event that cites what it should. Returns its id, and how many rows that asked for.
    fn send(&mut self, deed: Deed<'_>) -> (OwnedEventId, u64) {
        let auth = self.auth(&deed);
        let event = self.build(deed, auth);
        let id = event.event().id.clone();
        let (outcome, reads) = self.receive(event);
        assert!(matches!(outcome, Outcome::Accepted(_) | Outcome::SoftFailed(_)), "{outcome:?}");
        (id, reads)
    }

    fn receive(&self, event: Verified) -> (Outcome, u64) {
        let before = self.world.store.work().reads;
        let outcome = receive::receive(&self.world.store, self.room, event).unwrap().soft();
        (outcome, self.world.store.work().reads - before)
    }

    fn message(&mut self, by: &str, prev: Vec<OwnedEventId>) -> (OwnedEventId, u64) {
        self.send(Deed { by, kind: "m.room.message", key: None, content: json!({ "body": "x" }), prev })
    }

    fn example(&mut self, by: &str, key: &str, prev: Vec<OwnedEventId>) -> (OwnedEventId, u64) {
        let content = json!({ "made": self.made });
        self.send(Deed { by, kind: "org.example", key: Some(key), content, prev })
    }

    /// Bob changes the power levels this often in a row. Returns the last of the events.
    fn power_levels(&mut self, from: &OwnedEventId, times: u64) -> OwnedEventId {
        (0..times).fold(from.clone(), |prev, number| {
            let content = self.levels(number % 80);
            self.send(Deed { by: "bob", kind: "m.room.power_levels", key: Some(""), content, prev: vec![prev] }).0
        })
    }

    /// What it costs to bring these together.
    fn merge(&mut self, by: &str, tips: Vec<OwnedEventId>) -> u64 {
        self.message(by, tips).1
    }
}

/// Versions 2 and 2.1 of state resolution.
const VERSIONS: [&str; 2] = ["11", "12"];

/// What is as it was with ten times of what should not matter, but for the depth of trees.
#[track_caller]
fn check_flat(what: &str, small: u64, large: u64) {
    assert!(large <= small + small / 2, "{what}: {small} rows, and with ten times as much {large}");
}

/// What grows as what is in conflict.
#[track_caller]
fn check_linear(what: &str, per_event: u64, small: (u64, u64), large: (u64, u64)) {
    for (events, reads) in [small, large] {
        assert!(reads <= per_event * events, "{what}: {reads} rows for {events} events");
    }
    assert!(large.1 <= 13 * small.1, "{what}: {} rows, and with ten times as much {}", small.1, large.1);
}

#[test]
fn t24_the_ten_thousandth_extremity_costs_what_the_hundredth_did() {
    let mut hostile = Hostile::new("12");
    let from = hostile.end();
    let costs: Vec<u64> = (0..10_000).map(|_| hostile.message("alice", from.clone()).1).collect();
    check_flat("extremities", *costs[100..200].iter().max().unwrap(), *costs[9_000..].iter().max().unwrap());
    assert!(*costs.iter().max().unwrap() < 1_500, "{:?}", costs.iter().max());
    let kept = head(&hostile.world.store.snapshot(), hostile.room).unwrap().extremities.len();
    assert_eq!(kept, crate::append::EXTREMITIES_MAX);
    // Who speaks here heals it.
    let alice = hostile.world.user("alice");
    (0..3).for_each(|_| drop(hostile.world.say(&alice, hostile.room, "hello").unwrap()));
    assert_eq!(head(&hostile.world.store.snapshot(), hostile.room).unwrap().extremities.len(), 1);
}

#[test]
fn extremities_with_states_of_their_own_are_bounded_too() {
    let mut hostile = Hostile::new("12");
    let from = hostile.end();
    let costs: Vec<u64> = (0..600).map(|number| hostile.example("alice", &number.to_string(), from.clone()).1).collect();
    check_flat("states", *costs[50..100].iter().max().unwrap(), *costs[500..].iter().max().unwrap());
    assert!(*costs.iter().max().unwrap() < 60_000, "{:?}", costs.iter().max());
    // What changes nothing is not resolved again.
    let end = hostile.end();
    assert!(hostile.message("alice", vec![end[0].clone()]).1 < 1_500);
}

#[test]
fn t24_a_thousand_conflicting_power_levels_cost_what_they_are() {
    for version in VERSIONS {
        let cost = |events: u64| {
            let mut hostile = Hostile::new(version);
            let from = hostile.before_ban.clone();
            let (one, other) = (hostile.power_levels(&from, events / 2), hostile.power_levels(&from, events / 2));
            (events, hostile.merge("bob", vec![one, other]))
        };
        check_linear("power levels", 120, cost(100), cost(1_000));
    }
}

#[test]
fn t24_a_long_auth_chain_costs_nothing_where_all_have_it() {
    for version in VERSIONS {
        let cost = |length: u64| {
            let mut hostile = Hostile::new(version);
            let from = hostile.before_ban.clone();
            let tip = hostile.power_levels(&from, length);
            let (one, _) = hostile.example("bob", "", vec![tip.clone()]);
            let (other, _) = hostile.example("bob", "", vec![tip]);
            hostile.merge("bob", vec![one, other])
        };
        check_flat("chain", cost(300), cost(3_000));
    }
}

#[test]
fn an_auth_chain_of_many_users_costs_nothing_where_all_have_it() {
    for version in VERSIONS {
        let cost = |users: u64| {
            let mut hostile = Hostile::new(version);
            let mut tip = hostile.before_ban.clone();
            let mut by = "bob".to_owned();
            for number in 0..users {
                let next = format!("u{number}");
                for (sender, membership) in [(&by, "invite"), (&next, "join")] {
                    let (key, content) = (user(&next), json!({ "membership": membership }));
                    tip = hostile.send(Deed { by: sender, kind: "m.room.member", key: Some(&key), content, prev: vec![tip] }).0;
                }
                by = next;
            }
            // The last two of them disagree.
            let before = format!("u{}", users - 2);
            let (one, _) = hostile.example(&by, "", vec![tip.clone()]);
            let (other, _) = hostile.example(&before, "", vec![tip.clone()]);
            let of_example = hostile.merge("bob", vec![one, other]);
            // And change their own membership, which others may cite.
            let rename = |hostile: &mut Hostile, name: &str| {
                let (key, content) = (user(name), json!({ "membership": "join", "displayname": hostile.made }));
                hostile.send(Deed { by: name, kind: "m.room.member", key: Some(&key), content, prev: vec![tip.clone()] }).0
            };
            let (one, other) = (rename(&mut hostile, &by), rename(&mut hostile, &before));
            of_example + hostile.merge("bob", vec![one, other])
        };
        check_flat("users", cost(200), cost(2_000));
    }
}

#[test]
fn an_old_join_rule_that_thousands_cite_costs_nothing() {
    for version in VERSIONS {
        let cost = |users: u64| {
            let mut hostile = Hostile::new(version);
            let from = vec![hostile.before_ban.clone()];
            let rule = |rule: &str| json!({ "join_rule": rule });
            let (mut tip, _) =
                hostile.send(Deed { by: "bob", kind: "m.room.join_rules", key: Some(""), content: rule("public"), prev: from });
            for number in 0..users {
                let (name, content) = (format!("u{number}"), json!({ "membership": "join" }));
                tip =
                    hostile.send(Deed { by: &name, kind: "m.room.member", key: Some(&user(&name)), content, prev: vec![tip] }).0;
            }
            let (closed, _) = hostile.send(Deed {
                by: "bob",
                kind: "m.room.join_rules",
                key: Some(""),
                content: rule("invite"),
                prev: vec![tip],
            });
            // One fork has a join by the old rule that the other has not.
            let leave = json!({ "membership": "leave" });
            let (one, _) = hostile.send(Deed {
                by: "u0",
                kind: "m.room.member",
                key: Some(&user("u0")),
                content: leave.clone(),
                prev: vec![closed.clone()],
            });
            let (other, _) = hostile.send(Deed {
                by: "u1",
                kind: "m.room.member",
                key: Some(&user("u1")),
                content: leave,
                prev: vec![closed],
            });
            hostile.merge("bob", vec![one, other])
        };
        check_flat("join rule", cost(300), cost(3_000));
    }
}

#[test]
fn ten_thousand_levels_of_ten_parents_cost_the_same_at_every_level() {
    let mut hostile = Hostile::new("12");
    let first = hostile.end();
    // Ten beside each other, of which each next event names all.
    let mut last: Vec<OwnedEventId> = (0..10).map(|_| hostile.message("alice", first.clone()).0).collect();
    let mut costs = Vec::new();
    for _ in 0..10_000 {
        let (id, reads) = hostile.message("alice", last.clone());
        costs.push(reads);
        last.remove(0);
        last.push(id);
    }
    check_flat("line", *costs[900..1_000].iter().max().unwrap(), *costs[9_900..].iter().max().unwrap());
    assert!(*costs.iter().max().unwrap() < 1_000, "{:?}", costs.iter().max());
}

#[test]
fn a_lattice_of_ten_by_ten_parents_costs_the_same_at_every_level() {
    let mut hostile = Hostile::new("12");
    let mut level = hostile.end();
    let mut costs = Vec::new();
    for _ in 0..600 {
        let mut next = Vec::new();
        let mut cost = 0;
        for _ in 0..10 {
            let (id, reads) = hostile.message("alice", level.clone());
            next.push(id);
            cost = reads.max(cost);
        }
        costs.push(cost);
        level = next;
    }
    check_flat("lattice", *costs[50..60].iter().max().unwrap(), *costs[500..].iter().max().unwrap());
    assert!(*costs.iter().max().unwrap() < 2_000, "{:?}", costs.iter().max());
}

#[test]
fn claimed_cycles_are_never_stored() {
    // Only in versions 1 and 2 can an id be known before the event is made.
    for version in ["1", "2"] {
        let mut hostile = Hostile::new(version);
        let id = |number: usize| OwnedEventId::try_from(format!("$hostile{number}:localhost")).unwrap();
        let first = hostile.made as usize + 1;
        let length = 900;
        let rule = json!({ "join_rule": "public" });
        let honest = hostile.auth(&Deed {
            by: "alice",
            kind: "m.room.join_rules",
            key: Some(""),
            content: rule.clone(),
            prev: hostile.end(),
        });
        let mut cycle = Vec::new();
        for number in 0..length {
            let mut auth = honest.clone();
            // In place of the power levels the next of the cycle; the last cites itself as well as the first.
            auth.push(id(first + (number + 1) % length));
            let prev = hostile.end();
            cycle.push(
                hostile.build(Deed { by: "alice", kind: "m.room.join_rules", key: Some(""), content: rule.clone(), prev }, auth),
            );
        }
        let before = hostile.world.store.dump(TABLES).unwrap();
        let work = hostile.world.store.work().reads;
        let missing = receive::receive_outliers(&hostile.world.store, hostile.room, cycle.clone()).unwrap().wait().unwrap();
        assert!(missing.is_empty());
        assert!(hostile.world.store.work().reads - work < 20 * length as u64);
        assert_eq!(hostile.world.store.dump(TABLES).unwrap(), before);
        // Each of them waits for another.
        let (outcome, reads) = hostile.receive(cycle[0].clone());
        assert!(matches!(outcome, Outcome::Missing(missing) if missing.auth_events == [id(first + 1)]));
        assert!(reads < 100);
        assert_eq!(hostile.world.store.dump(TABLES).unwrap(), before);
    }
}
