//! What `hearth check` finds: nothing in a room that was only used, and each row that was made wrong by hand.

use super::*;
use crate::{check, events::StoredEvent};

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
