//! What must hold once the faults have ended and all is quiet.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rooms::{
    check,
    events::{self, Standing},
    graph::{self, Node, Told},
    members, numbers, partial, servers, state,
};
use ruma::{OwnedEventId, RoomId, UserId};
use store::{RoomNo, Snapshot};

use super::{
    people::Person,
    script::Stage,
    world::{NAMES, World},
};
use crate::testing;

type State = BTreeMap<(String, String), String>;

/// One server's copy of a room that it is in.
struct Replica {
    at: usize,
    db: Snapshot,
    room: RoomNo,
    state: State,
    events: BTreeMap<OwnedEventId, Node>,
}

/// Whether nothing is to be told to another server any more, nor asked of one.
pub(super) fn is_quiet(world: &World) -> bool {
    let queues = ["outgoing_events", "outbound_queues", "staged_events"];
    let queues: Vec<_> = testing::tables().into_iter().filter(|table| queues.contains(&table.name)).collect();
    world.machines.iter().all(|machine| {
        let db = machine.store.snapshot();
        let mut partial = partial::rooms(&db).unwrap().into_iter();
        machine.store.dump(&queues).unwrap().lines().count() == queues.len()
            && !partial.any(|room| servers::is_in(&db, room, &machine.name).unwrap())
    })
}

/// The servers that are in a room, as each says of itself.
fn replicas(world: &World, room: &RoomId) -> Vec<Replica> {
    (0..NAMES.len()).filter_map(|at| replica(world, room, at)).collect()
}

fn replica(world: &World, id: &RoomId, at: usize) -> Option<Replica> {
    let machine = &world.machines[at];
    let db = machine.store.snapshot();
    let room = numbers::number(&db, id).unwrap()?;
    if !servers::is_in(&db, room, &machine.name).unwrap() {
        return None;
    }
    let root = rooms::head(&db, room).unwrap().state;
    let entry = |no| {
        let stored = events::event(&db, room, no).unwrap();
        let (kind, key) = stored.event.state_pair().unwrap();
        ((kind.to_owned(), key.to_owned()), stored.header.id.to_string())
    };
    let state = state::all(&db, room, root).unwrap().into_iter().map(entry).collect();
    let nodes = graph::graph(&db, room, graph::EVENTS_MAX).unwrap().nodes;
    let events = nodes.into_iter().map(|node| (node.event.clone(), node)).collect();
    Some(Replica { at, db, room, state, events })
}

/// Users who are in a room for other servers, and not for their own: the answer to their join was lost. They try again.
pub(super) fn half_joined(world: &World, stage: &Stage) -> Vec<(Arc<Person>, String)> {
    let mut found = Vec::new();
    for room in stage.rooms.lock().iter() {
        let id = <&RoomId>::try_from(room.as_str()).unwrap();
        for replica in replicas(world, id) {
            for person in &stage.people {
                let here = membership(&replica, person).is_some_and(|membership| membership == "join");
                let there = self::replica(world, id, person.at).and_then(|own| membership(&own, person));
                if here && there.is_none_or(|membership| membership != "join") {
                    found.push((Arc::clone(person), room.clone()));
                }
            }
        }
    }
    found.dedup_by(|one, other| one.0.user_id == other.0.user_id && one.1 == other.1);
    found
}

fn membership(replica: &Replica, person: &Person) -> Option<String> {
    let root = rooms::head(&replica.db, replica.room).unwrap().state;
    let stored = state::event(&replica.db, replica.room, root, "m.room.member", &person.user_id).unwrap()?;
    Some(members::Membership::of(&stored.event).as_str().to_owned())
}

/// Notes all that does not hold.
pub(super) fn check(world: &World, stage: &Stage) {
    for room in stage.rooms.lock().iter() {
        let mut replicas = replicas(world, <&RoomId>::try_from(room.as_str()).unwrap());
        let members: Vec<&str> = replicas.iter().map(|replica| NAMES[replica.at]).collect();
        cast_out(world, room, &mut replicas);
        check_states(world, room, &replicas);
        for replica in &replicas {
            check_replica(world, room, &members, replica);
        }
        for person in &stage.people {
            check_person(world, room, &replicas, person);
        }
    }
}

/// The event by which a user went whose membership this one says: who was banned, and then unbanned while their server was out, went by the ban.
fn gone_by(replica: &Replica, event: &str) -> OwnedEventId {
    let (_, mut last) = events::by_id(&replica.db, replica.room, event.try_into().unwrap()).unwrap().unwrap();
    while let Some(before) = last.header.replaces {
        let before = events::event(&replica.db, replica.room, before).unwrap();
        if members::Membership::of(&before.event) == members::Membership::Join {
            break;
        }
        last = before;
    }
    last.header.id.clone()
}

/// Takes those out of a room's servers that others do not hold for members: where joins and a change of the rules that allowed them happened at the same time,
/// resolution may forget the joins, and the room falls apart. What a server could know of that, it must.
fn cast_out(world: &World, room: &str, replicas: &mut Vec<Replica>) {
    replicas.iter().for_each(|replica| check_told(world, room, replicas, replica));
    // Those go first of whom most say so.
    while let Some((at, 1..)) =
        (0..replicas.len()).map(|at| (at, strangers(replicas, &replicas[at]).count())).max_by_key(|(_, strangers)| *strangers)
    {
        replicas.remove(at);
    }
}

/// The servers of a room that do not hold another for a member.
fn strangers<'a>(replicas: &'a [Replica], replica: &Replica) -> impl Iterator<Item = &'a Replica> + use<'a> {
    let name = NAMES[replica.at];
    replicas.iter().filter(move |other| !servers::is_in(&other.db, other.room, name.try_into().unwrap()).unwrap())
}

/// A server was told by what its users are gone elsewhere.
fn check_told(world: &World, room: &str, replicas: &[Replica], replica: &Replica) {
    let name = NAMES[replica.at];
    for other in strangers(replicas, replica) {
        let users = other.state.iter().filter(|((kind, user), _)| kind == "m.room.member" && user.ends_with(name));
        for ((_, user), event) in users {
            let gone_by = gone_by(other, event);
            if events::find(&replica.db, &gone_by).unwrap().is_none() {
                world.violated(format!("{room}: {name} was never told {event}, by which {user} is gone at {}", NAMES[other.at]));
            }
        }
    }
}

fn check_states(world: &World, room: &str, replicas: &[Replica]) {
    for pair in replicas.windows(2) {
        let [one, other] = pair else { continue };
        let keys: BTreeSet<_> = one.state.keys().chain(other.state.keys()).collect();
        for key in keys.into_iter().filter(|key| one.state.get(*key) != other.state.get(*key)) {
            let (here, there) = (one.state.get(key), other.state.get(key));
            let (one, other) = (NAMES[one.at], NAMES[other.at]);
            world.violated(format!("{room}: {key:?} is {here:?} at {one} and {there:?} at {other}"));
        }
    }
}

fn check_replica(world: &World, room: &str, members: &[&str], replica: &Replica) {
    let (name, db) = (NAMES[replica.at], &replica.db);
    for other in servers::servers(db, replica.room).unwrap() {
        let other = other.unwrap();
        if !members.contains(&other.as_str()) {
            world.violated(format!("{room}: {name} holds {other} for a member, which is none"));
        }
    }
    for node in replica.events.values().filter(|node| node.standing == Told::Rejected) {
        world.violated(format!("{room}: {name} has rejected {}: {:?}", node.event, node.reason));
    }
    let checked = check::events(db, replica.room, rooms::EventNo::default(), 100_000).unwrap();
    for fault in checked.faults.into_iter().chain(check::end(db, replica.room).unwrap()) {
        world.violated(format!("{room}: {name}: {fault:?}"));
    }
}

/// What a user's client holds is what their server holds, and they were given all events that follow their join.
fn check_person(world: &World, room: &str, replicas: &[Replica], person: &Person) {
    let own = replicas.iter().find(|replica| replica.at == person.at);
    if own.is_none() && replica(world, <&RoomId>::try_from(room).unwrap(), person.at).is_some() {
        return;
    }
    let joined = own.and_then(|own| membership(own, person)).is_some_and(|membership| membership == "join");
    let view = person.view.lock();
    let seen = view.rooms.get(room);
    let who = &person.user_id;
    if seen.is_some_and(|seen| seen.membership == "join") != joined {
        world.violated(format!("{room}: {who} is joined: {joined}, and sees {:?}", seen.map(|seen| &seen.membership)));
    }
    let (Some(own), Some(seen), true) = (own, seen, joined) else { return };
    // Of what a state no longer has at all, because a fork was resolved so, no sync can tell.
    for (key, here) in own.state.iter().filter(|(key, here)| seen.state.get(*key) != Some(*here)) {
        world.violated(format!("{room}: {key:?} is {here}, and {who} holds {:?}", seen.state.get(key)));
    }
    let join = &own.state[&("m.room.member".to_owned(), who.clone())];
    for event in following(replicas, join) {
        if !seen.knows(event.as_str()) && is_for(world, own, &event, who) {
            world.violated(format!("{room}: {who} was never given {event}, though they had joined with {join}"));
        }
    }
}

/// The events that follow another and that the servers of their senders accepted.
fn following(replicas: &[Replica], first: &str) -> BTreeSet<OwnedEventId> {
    let mut all: BTreeMap<&OwnedEventId, (&Node, bool)> = BTreeMap::new();
    for replica in replicas {
        for (id, node) in &replica.events {
            let sent = node.sender.server_name() == NAMES[replica.at] && node.standing == Told::Accepted;
            all.entry(id).or_insert((node, false)).1 |= sent;
        }
    }
    let mut found: BTreeSet<OwnedEventId> = all.keys().filter(|id| **id == first).map(|id| (*id).clone()).collect();
    loop {
        let before = found.len();
        for (id, (node, _)) in &all {
            if node.prev_events.iter().any(|parent| found.contains(parent)) {
                found.insert((*id).clone());
            }
        }
        if found.len() == before {
            break;
        }
    }
    found.retain(|id| all[id].1);
    found
}

/// Whether a user should have been given an event: it is here, it was not refused, and they may see it.
fn is_for(world: &World, own: &Replica, id: &OwnedEventId, who: &str) -> bool {
    let Some((_, stored)) = events::by_id(&own.db, own.room, id).unwrap() else {
        world.violated(format!("{} lacks {id}", NAMES[own.at]));
        return true;
    };
    let user = users::numbers::number(&own.db, <&UserId>::try_from(who).unwrap()).unwrap().unwrap();
    let who = <&UserId>::try_from(who).unwrap();
    let mut viewer = rooms::visibility::Viewer::new(&own.db, own.room, who, user).unwrap();
    matches!(stored.header.standing, Standing::Accepted | Standing::Outlier) && viewer.sees(&own.db, &stored).unwrap()
}
