//! A room that is purged leaves nothing behind.

use super::{
    shared::{Shared, state_event},
    *,
};
use crate::{
    purge::{self, Step},
    receipts::{self, Kind, Mark, Thread},
    receive::{self, Outcome},
    typing, unread,
};

fn server(world: &World) -> &ruma::ServerName {
    &world.identity.server_name
}

fn purge(world: &World, room: &ruma::RoomId) -> Result<usize> {
    let no = purge::begin(&world.store, server(world), room)?;
    for steps in 0..1_000 {
        if purge::step(&world.store, server(world), no)? == Step::Done {
            return Ok(steps);
        }
    }
    panic!("a purge without end")
}

/// All rows but the counters of numbers that are not drawn again, and users, who stay.
fn dump(world: &World) -> String {
    let stay = ["room_counters", "user_numbers", "user_ids", "user_counter"];
    let tables = users::TABLES.iter().chain(TABLES).copied().filter(|table| !stay.contains(&table.name));
    world.store.dump(&tables.collect::<Vec<_>>()).unwrap()
}

/// A room with something in every table, that alice and carol, its local users, have left.
fn lived_in(world: &World, alice: &Sender, carol: &Sender, bob: &Sender) -> OwnedRoomId {
    let (room, id) = world.room(alice, "11", Preset::PublicChat);
    for user in [carol, bob] {
        world.change(user, room, user, Action::Join).unwrap();
    }
    let txn = events::Txn { device: "PHONE".into(), id: "1".into() };
    let new = NewEvent { kind: "m.room.message".into(), ..NewEvent::default() };
    let root = send::send(&world.store, &world.identity, alice, room, new, Some(txn), 1).unwrap().wait().unwrap();
    for rel_type in ["m.thread", "m.replace", "m.reference"] {
        let relation = json!({ "rel_type": rel_type, "event_id": root });
        let content = json!({ "m.relates_to": relation, "m.new_content": {} }).as_object().unwrap().clone();
        let new = NewEvent { kind: "m.room.message".into(), content, ..NewEvent::default() };
        send::send(&world.store, &world.identity, carol, room, new, None, 2).unwrap().wait().unwrap();
    }
    let marks = [Kind::Public, Kind::Private].map(|kind| Mark::Read { kind, thread: Thread::Unthreaded, event: root.clone() });
    receipts::mark(&world.store, carol, room, &marks, 3).unwrap().wait().unwrap();
    receipts::mark(&world.store, carol, room, &[Mark::FullyRead(root.clone())], 3).unwrap().wait().unwrap();
    users::account_data::set_tag(&world.store, carol.no, room, "m.favourite", Object::new()).unwrap().wait().unwrap();
    typing::set(&world.store, alice.no, room, Some(60_000), 4).unwrap();
    let alias = ruma::RoomAliasId::parse("#lived_in:localhost").unwrap();
    aliases::create(&world.store, &alias, room, alice.no).unwrap().wait().unwrap();
    directory::set(&world.store, room, true).unwrap().wait().unwrap();
    unread::save(&world.store, carol.no, &[(room, unread_tally(world, carol, room))]).unwrap().wait().unwrap();
    let guests = state_event("m.room.guest_access", "", json!({ "guest_access": "can_join" }));
    let withdrawn = state_event("m.room.guest_access", "", json!({ "guest_access": "forbidden" }));
    for new in [guests, withdrawn] {
        send::send(&world.store, &world.identity, alice, room, new, None, 5).unwrap().wait().unwrap();
    }
    for user in [alice, carol] {
        world.change(user, room, user, Action::Leave).unwrap();
    }
    id
}

fn unread_tally(world: &World, who: &Sender, room: RoomNo) -> unread::Tally {
    let mut tally = unread::Tally::default();
    let rules = ruma::push::Ruleset::server_default(&who.id);
    let reader = unread::Reader { user: who, rules: &rules, ignored: &Default::default(), ignored_as_of: store::Seq(0) };
    tally.count(&world.store.snapshot(), room, &reader, Pos(i64::MAX)).unwrap();
    tally
}

#[test]
fn a_purged_room_leaves_nothing_behind() {
    let world = World::new();
    let (alice, carol) = (world.user("alice"), world.user("carol"));
    let bob = OwnedUserId::try_from("@bob:other.org").unwrap();
    let bob = Sender { no: users::numbers::ensure(&world.store, &bob).unwrap(), id: bob };
    let (other, _) = world.room(&alice, "12", Preset::PublicChat);
    world.say(&alice, other, "another room").unwrap();
    let before = dump(&world);
    let id = lived_in(&world, &alice, &carol, &bob);
    assert_ne!(dump(&world), before);
    let old = world.store.snapshot();
    let no = numbers::number(&old, &id).unwrap().unwrap();
    let watch = world.store.watch(vec![store::Topic::User(carol.no)]);

    purge(&world, &id).unwrap();
    assert_eq!(dump(&world), before);
    assert!(matches!(purge(&world, &id), Err(Error::UnknownRoom)));
    assert!(matches!(world.say(&alice, no, "hello?"), Err(Error::UnknownRoom)));
    assert_eq!(world.seen(&carol, other), Vec::<String>::new());
    assert_eq!(members::user_rooms(&world.store.snapshot(), carol.no).unwrap(), Vec::new());
    drop(watch);
    // Who reads from before goes on reading.
    assert!(timeline::read(&old, no, Direction::Forward, Pos(i64::MIN), None).unwrap().all(|placed| placed.is_ok()));
    world.say(&alice, other, "all is well").unwrap();
    assert!(purge::begun(&world.store.snapshot()).unwrap().is_empty());
}

#[test]
fn a_room_with_a_local_member_is_not_purged() {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let (room, id) = world.room(&alice, "12", Preset::PublicChat);
    assert!(matches!(purge(&world, &id), Err(Error::Forbidden(_))));
    world.change(&alice, room, &bob, Action::Invite).unwrap();
    world.change(&alice, room, &alice, Action::Leave).unwrap();
    assert!(matches!(purge(&world, &id), Err(Error::Forbidden(_))), "one is invited");
    world.change(&bob, room, &bob, Action::Leave).unwrap();

    // One comes after it was begun: it is given up, and nothing of the room is lost.
    let no = purge::begin(&world.store, server(&world), &id).unwrap();
    world.change(&bob, room, &bob, Action::Join).unwrap();
    while let Ok(step) = purge::step(&world.store, server(&world), no) {
        assert_ne!(step, Step::Done);
    }
    assert!(purge::begun(&world.store.snapshot()).unwrap().is_empty());
    world.say(&bob, room, "I am back").unwrap();
    assert_eq!(check::events(&world.store.snapshot(), room, EventNo(0), 1000).unwrap().faults, Vec::new());

    // One comes and goes meanwhile: the purge begins anew.
    world.change(&bob, room, &bob, Action::Leave).unwrap();
    let no = purge::begin(&world.store, server(&world), &id).unwrap();
    assert_eq!(purge::step(&world.store, server(&world), no).unwrap(), Step::More(2));
    world.change(&bob, room, &bob, Action::Join).unwrap();
    world.change(&bob, room, &bob, Action::Leave).unwrap();
    purge(&world, &id).unwrap();
    assert_eq!(members::user_rooms(&world.store.snapshot(), bob.no).unwrap(), Vec::new());
}

#[test]
fn a_room_comes_back_after_its_purge() {
    let shared = Shared::new("11");
    let (there, copy) = (&shared.there, shared.copy);
    let id = numbers::room(&there.store.snapshot(), copy).unwrap().id.clone();
    there.change(&shared.bob, copy, &shared.bob, Action::Leave).unwrap();
    purge(there, &id).unwrap();
    let ids = shared.ids();
    let version = RoomVersion::named("11").unwrap();
    let again = receive::import(&there.store, shared.sent(&shared.here, &ids[0]), version).unwrap().wait().unwrap();
    assert_ne!(again, copy, "numbers are not used twice");
    for id in &ids {
        let outcome = receive::receive(&there.store, again, shared.sent(&shared.here, id)).unwrap().wait().unwrap();
        assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    }
    assert_eq!(check::end(&there.store.snapshot(), again).unwrap(), Vec::new());
}
