//! What `hearth check` finds: nothing in a room that was only used, and each row that was made wrong by hand.

use protocol::verify::VerifyKey;
use ruma::ServerName;

use super::{
    shared::{Shared, key, state_event},
    *,
};
use crate::{check, events::StoredEvent, receive::Outcome};

/// A room of alice and bob with a topic and two messages.
fn lived_in() -> (World, RoomNo) {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let (room, _) = world.room(&alice, "12", Preset::PublicChat);
    world.change(&bob, room, &bob, Action::Join).unwrap();
    world.say(&bob, room, "hello").unwrap();
    world.say(&alice, room, "hello bob").unwrap();
    (world, room)
}

fn faults(world: &World, room: RoomNo) -> String {
    let db = world.store.snapshot();
    let of_events = check::events(&db, room, EventNo(0), 1000).unwrap().faults;
    let all = of_events.into_iter().chain(check::end(&db, room).unwrap());
    all.map(|fault| format!("{}\n", fault.what)).collect()
}

/// The faults once a room's rows were changed so.
fn after(change: impl FnOnce(&mut store::Tx<'_>, RoomNo, EventNo) -> Result<()>) -> String {
    let (world, room) = lived_in();
    assert_eq!(faults(&world, room), "");
    let last = EventNo(head(&world.store.snapshot(), room).unwrap().events);
    world.store.transact(&[Lock::Room(room)], |tx| change(tx, room, last)).unwrap().wait().unwrap();
    faults(&world, room)
}

fn changed(tx: &mut store::Tx<'_>, room: RoomNo, no: EventNo, change: impl FnOnce(&mut StoredEvent)) -> Result<()> {
    let mut stored = (*events::event(tx, room, no)?).clone();
    change(&mut stored);
    events::replace(tx, room, no, &stored)
}

#[test]
fn every_wrong_row_is_found() {
    let counted = after(|tx, room, _| {
        let mut head = head(tx, room)?;
        head.joined += 1;
        Ok(tx.put(&crate::head::HEADS, &room, &head)?)
    });
    assert_eq!(counted, "the numbers of members are not those of its members\n");

    let forged = after(|tx, room, last| {
        changed(tx, room, last, |stored| {
            let mut event = (*stored.event).clone();
            event.json = event.json.replace("hello bob", "goodbye!!").into();
            stored.event = Arc::new(event);
        })
    });
    assert_eq!(forged, "its content hash does not hold\n");

    let of_another = after(|tx, room, last| {
        let (first, last) = (events::event(tx, room, EventNo(1))?, last);
        changed(tx, room, last, |stored| stored.event = Arc::clone(&first.event))
    });
    assert!(of_another.contains("its id is not that of its content"), "{of_another}");

    let unplaced = after(|tx, room, last| {
        let pos = events::event(tx, room, last)?.header.pos.unwrap();
        Ok(tx.delete(&timeline::TIMELINE, &(room, pos))?)
    });
    assert!(unplaced.contains("it is not in its place in the timeline"), "{unplaced}");

    let stateless = after(|tx, room, last| changed(tx, room, last, |stored| stored.header.after = Root::default()));
    assert!(stateless.contains("the state after it is not the one that it makes"), "{stateless}");

    let gone = after(|tx, room, _| Ok(tx.delete(&events::EVENTS, &(room, EventNo(3)))?));
    assert!(gone.contains("event number 3: the event was not found"), "{gone}");
}

#[test]
fn the_state_before_a_merge_is_resolved_again() {
    let shared = Shared::new("11");
    let topic = |by: &str| state_event("m.room.topic", "", json!({ "topic": by }));
    let users = json!({ "@alice:localhost": 100, "@bob:other.org": 100 });
    let levels = shared.alice_sends(state_event("m.room.power_levels", "", json!({ "users": users })));
    assert!(matches!(shared.give(&levels), Outcome::Accepted(_)));
    let (hers, his) = (shared.alice_sends(topic("alice")), shared.bob_sends(topic("bob")));
    assert!(matches!(shared.take(&his), Outcome::Accepted(_)));
    let merge = shared.here.say(&shared.alice, shared.room, "both").unwrap();
    assert_eq!(faults(&shared.here, shared.room), "");
    let db = shared.here.store.snapshot();
    let number = |id| events::by_id(&db, shared.room, id).unwrap().unwrap();
    let ((merge, stored), (_, hers), (_, his)) = (number(&merge), number(&hers), number(&his));
    assert_eq!(stored.event.prev_events.len(), 2);
    let other = [hers, his].into_iter().find(|topic| {
        let of = |root| state::entry(&db, shared.room, root, "m.room.topic", "").unwrap();
        of(topic.header.after) != of(stored.header.before)
    });
    let other = other.unwrap().header.after;
    let wrong = |tx: &mut store::Tx<'_>| {
        changed(tx, shared.room, merge, |stored| (stored.header.before, stored.header.after) = (other, other))
    };
    shared.here.store.transact(&[Lock::Room(shared.room)], wrong).unwrap().wait().unwrap();
    let found = faults(&shared.here, shared.room);
    assert_eq!(found, "the state before it is not what those after its parents resolve to\n");
}

#[test]
fn signatures_are_checked_with_the_keys_that_are_known() {
    let signatures = |world: &World, room, keys: &dyn Fn(&ServerName, &str) -> Option<VerifyKey>| {
        let checked = check::signatures(&world.store.snapshot(), room, EventNo(0), 1000, keys).unwrap();
        (checked.unknown, checked.faults.into_iter().map(|fault| fault.what).collect::<Vec<_>>())
    };
    for version in ["1", "3", "6", "11", "12"] {
        let shared = Shared::new(version);
        let said = shared.here.say(&shared.alice, shared.room, "redacted").unwrap();
        let redaction = NewEvent { kind: "m.room.redaction".into(), redacts: Some(said), ..NewEvent::default() };
        shared.alice_sends(redaction);
        assert_eq!(signatures(&shared.here, shared.room, &key), (0, Vec::new()), "version {version}");
        let only_ours = |server: &ServerName, id: &str| key(server, id).filter(|_| server.as_str() == "localhost");
        assert_eq!(signatures(&shared.here, shared.room, &only_ours), (1, Vec::new()), "bob's join");
        let wrong = |_: &ServerName, id: &str| key("other.org".try_into().unwrap(), id);
        let (unknown, faults) = signatures(&shared.here, shared.room, &wrong);
        assert_eq!((unknown, faults.len()), (0, shared.ids().len() - 1));
        assert!(faults.iter().all(|fault| fault == "the event's signature by localhost is wrong"), "{faults:?}");
    }
}
