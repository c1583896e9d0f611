//! Whatever happens: a client that keeps what it is told ends with what the server has.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use rooms::{Pos, Sender, create::Preset, members, membership::Action, timeline, visibility::Viewer};
use serde_json::json;
use store::RoomNo;
use users::devices::DeviceNo;

use super::world::{Client, Known, World};
use crate::{filter, sync::state::Target};

/// Something that a user does, by the numbers of users and rooms. What is not allowed is not done.
#[derive(Clone, Debug)]
enum Step {
    Say(usize, usize),
    Set(usize, usize, &'static str, u8),
    Change(usize, usize, usize, Action),
    Forget(usize, usize),
    Sync(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (user, room) = (0..3_usize, 0..2_usize);
    let kinds = prop::sample::select(vec!["m.room.name", "m.room.topic", "m.room.history_visibility"]);
    let actions = [Action::Join, Action::Leave, Action::Invite, Action::Kick, Action::Ban, Action::Unban, Action::Knock];
    prop_oneof![
        4 => (user.clone(), room.clone()).prop_map(|(user, room)| Step::Say(user, room)),
        3 => (user.clone(), room.clone(), kinds, 0..4_u8).prop_map(|(user, room, kind, to)| Step::Set(user, room, kind, to)),
        6 => (user.clone(), room.clone(), user.clone(), prop::sample::select(actions.to_vec()))
            .prop_map(|(user, room, target, to)| Step::Change(user, room, target, to)),
        1 => (user, room).prop_map(|(user, room)| Step::Forget(user, room)),
        3 => (0..CLIENTS).prop_map(Step::Sync),
    ]
}

const CLIENTS: usize = 7;

fn clients(user: &Sender) -> [Client; CLIENTS] {
    let few = |limit: usize| json!({ "room": { "timeline": { "limit": limit } } });
    let lazy = |limit: usize| json!({ "room": { "timeline": { "limit": limit }, "state": { "lazy_load_members": true } } });
    let picky = json!({ "room": { "timeline": { "limit": 3, "not_types": ["m.room.name", "m.room.mem*"] } } });
    let of_alice = json!({ "room": { "timeline": { "limit": 4, "senders": ["@alice:localhost"] } } });
    let mut clients = [
        Client::plain(user),
        Client::new(user, few(2), Target::Start),
        Client::new(user, few(1), Target::End),
        Client::new(user, picky, Target::Start),
        Client::new(user, of_alice, Target::Start),
        Client::new(user, lazy(2), Target::Start),
        Client::new(user, lazy(3), Target::End),
    ];
    for (client, device) in clients.iter_mut().zip(1..) {
        client.who.device = DeviceNo(device);
    }
    clients
}

fn run(world: &World, users: &[Sender], rooms: &[RoomNo], step: &Step, clients: &mut [Client]) {
    match *step {
        Step::Say(user, room) => drop(world.say(&users[user], rooms[room], "hello")),
        Step::Set(user, room, kind, to) => {
            let visibility = ["joined", "invited", "shared", "world_readable"][usize::from(to)];
            let content = match kind {
                "m.room.name" => json!({ "name": format!("{to}") }),
                "m.room.topic" => json!({ "topic": format!("{to}") }),
                _ => json!({ "history_visibility": visibility }),
            };
            drop(world.set(&users[user], rooms[room], kind, "", content));
        }
        Step::Change(user, room, target, to) => {
            let target = if matches!(to, Action::Join | Action::Leave | Action::Knock) { user } else { target };
            drop(world.change(&users[user], rooms[room], &users[target], to));
        }
        Step::Forget(user, room) => {
            if let Ok(pending) = rooms::membership::forget(&world.store, &users[user], rooms[room]) {
                pending.wait().unwrap();
            }
        }
        Step::Sync(client) => drop(clients[client].sync(world)),
    }
}

/// What the user may see of a room's timeline, oldest first.
fn visible(world: &World, user: &Sender, room: RoomNo) -> Vec<String> {
    let db = world.store.snapshot();
    let mut viewer = Viewer::new(&db, room, &user.id, user.no).unwrap();
    let all = timeline::read(&db, room, timeline::Direction::Forward, Pos(i64::MIN), None).unwrap();
    let seen = all.map(Result::unwrap).filter(|placed| viewer.sees(&db, &placed.stored).unwrap());
    seen.map(|placed| placed.stored.event.id.to_string()).collect()
}

/// What a client must know of a room now.
fn check(world: &World, user: &Sender, room: RoomNo, client: &Client) -> Result<(), TestCaseError> {
    let standing = members::user_room(&world.store.snapshot(), user.no, room).unwrap();
    let known = client.rooms.get(&world.id(room));
    let Some(standing) = standing else {
        prop_assert!(known.is_none(), "told of a room that is none of theirs");
        return Ok(());
    };
    let section = match standing.membership.as_str() {
        "ban" => "leave",
        membership => membership,
    };
    let Some(known) = known else {
        prop_assert_eq!(section, "leave", "a room is missing");
        return Ok(());
    };
    prop_assert_eq!(&known.section, section);
    let state = world.state(room);
    let is_lazy = filter::lazy_members(&client.filter.room.state).is_some();
    if section == "join" && is_lazy {
        check_lazy(known, &state)?;
    } else if section == "join" {
        prop_assert_eq!(&known.state, &state, "the state differs");
    }
    if section == "join" || section == "leave" {
        let own = ("m.room.member".to_owned(), user.id.to_string());
        prop_assert_eq!(known.state.get(&own), state.get(&own), "the own membership differs");
    }
    if section == "join" {
        let visible = visible(world, user, room);
        let shown = |id: &String| known.timeline.contains(id);
        let is_whole = client.filter.room.timeline.types.is_none()
            && client.filter.room.timeline.not_types.is_empty()
            && client.filter.room.timeline.senders.is_none();
        let mut expected = visible.iter().skip_while(|id| !shown(id));
        if is_whole {
            prop_assert!(known.timeline.iter().eq(expected.by_ref()), "a gap that no answer told of");
        }
        prop_assert!(known.timeline.iter().all(|id| visible.contains(id)), "an event that the user may not see");
    }
    Ok(())
}

/// What a client that loads members as it needs them must know: all but the members, none that is out of date, and those
/// whose events it has.
fn check_lazy(known: &Known, state: &BTreeMap<(String, String), String>) -> Result<(), TestCaseError> {
    for (pair, event) in state {
        match known.state.get(pair) {
            Some(told) => prop_assert_eq!(told, event, "out of date: {:?}", pair),
            None => prop_assert_eq!(&pair.0, "m.room.member"),
        }
    }
    for sender in &known.senders {
        prop_assert!(known.state.contains_key(&("m.room.member".to_owned(), sender.clone())), "who is {}?", sender);
    }
    Ok(())
}

/// Does all this, and compares what seven clients of bob know in the end with what the server has.
fn holds(steps: &[Step]) -> Result<(), TestCaseError> {
    let world = World::new();
    let users = ["alice", "bob", "carol"].map(|name| world.user(name));
    let rooms = [world.room(&users[0], Preset::PublicChat), world.room(&users[0], Preset::PrivateChat)];
    let knock = json!({ "join_rule": "knock" });
    world.set(&users[0], rooms[1], "m.room.join_rules", "", knock).unwrap();
    let mut clients = clients(&users[1]);
    for step in steps {
        run(&world, &users, &rooms, step, &mut clients);
    }
    for client in &mut clients {
        client.sync(&world);
        let again = client.sync(&world);
        prop_assert!(again["rooms"].is_null(), "news that are none: {}", again);
        let mut fresh = Client::new(&users[1], json!({}), client.target);
        fresh.sync(&world);
        for room in rooms {
            check(&world, &users[1], room, client)?;
            let (known, first) = (client.rooms.get(&world.id(room)), fresh.rooms.get(&world.id(room)));
            let is_lazy = filter::lazy_members(&client.filter.room.state).is_some();
            if !is_lazy && first.is_some_and(|first| first.section == "join") {
                prop_assert_eq!(&known.unwrap().state, &first.unwrap().state);
            }
        }
    }
    Ok(())
}

#[test]
fn who_comes_back_is_told_of_members_that_left_meanwhile() {
    let (alice, bob, carol, lazy) = (0, 1, 2, Step::Sync(5));
    let change = |user, to| Step::Change(user, 0, user, to);
    let once =
        [lazy.clone(), change(bob, Action::Join), Step::Say(alice, 0), change(bob, Action::Leave), change(alice, Action::Leave)];
    let back = [lazy.clone(), change(carol, Action::Join), change(bob, Action::Join)];
    holds(&[once.as_slice(), &back].concat()).unwrap();
    // A stay of which the device was never told does not change what it knows.
    let unseen =
        [lazy, change(bob, Action::Join), change(bob, Action::Leave), change(carol, Action::Join), change(bob, Action::Join)];
    holds(&[once.as_slice(), &unseen].concat()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn increments_lead_where_a_first_sync_does(steps in prop::collection::vec(step(), 1..60)) {
        holds(&steps)?;
    }
}
