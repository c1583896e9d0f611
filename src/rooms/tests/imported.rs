//! A large room that a server joins: what it is told comes in bounded writes, and the join makes it a room.

use ruma::{EventId, OwnedEventId};

use super::{shared, *};
use crate::receive::{self, OUTLIERS_MAX, Outcome};

const MEMBERS: usize = 5_000;

#[test]
fn a_room_of_thousands_is_joined_in_bounded_writes() {
    let (here, there) = (World::new(), World::of("other.org", 9));
    let alice = here.user("alice");
    let (room, _) = here.room(&alice, "11", Preset::PublicChat);
    for member in 0..MEMBERS {
        let member = here.user(&format!("m{member}"));
        let join = Change { target: member.id.clone(), to: Action::Join, content: Object::new() };
        membership::change(&here.store, &here.identity, &member, room, join, 3000).unwrap().soft();
    }
    let bob = OwnedUserId::try_from("@bob:other.org").unwrap();
    let number = |world: &World| Sender { no: users::numbers::ensure(&world.store, &bob).unwrap(), id: bob.clone() };
    let join = Change { target: bob.clone(), to: Action::Join, content: Object::new() };
    membership::change(&here.store, &there.identity, &number(&here), room, join, 3000).unwrap().wait().unwrap();

    let db = here.store.snapshot();
    let version = RoomVersion::named("11").unwrap();
    let head = head(&db, room).unwrap();
    let join = events::event(&db, room, head.extremities[0]).unwrap();
    let mut before = state::all(&db, room, join.header.before).unwrap();
    before.sort_unstable();
    let id = |no: &EventNo| events::event(&db, room, *no).unwrap().header.id.clone();
    let sent = |id: &EventId| shared::verified(&here, id, version);
    let ids: Vec<OwnedEventId> = before.iter().map(id).collect();
    let copy = receive::import(&there.store, sent(&ids[0]), version).unwrap().wait().unwrap();
    for chunk in ids.chunks(OUTLIERS_MAX) {
        let chunk = chunk.iter().map(|id| sent(id)).collect();
        assert!(receive::receive_outliers(&there.store, copy, chunk).unwrap().wait().unwrap().is_empty());
    }
    let of_state = nodes(&there, copy);
    let outcome = receive::receive_with_state(&there.store, copy, sent(&join.header.id), &ids).unwrap().wait().unwrap();
    assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");

    let copied = there.store.snapshot();
    let end = crate::head(&copied, copy).unwrap();
    assert_eq!((end.joined as usize, head.joined as usize), (MEMBERS + 2, MEMBERS + 2));
    assert_eq!(state::all(&copied, copy, end.state).unwrap().len(), state::all(&db, room, head.state).unwrap().len());
    assert_eq!(check::events(&copied, copy, EventNo(0), 100_000).unwrap().faults, Vec::new());
    assert_eq!(check::end(&copied, copy).unwrap(), Vec::new());
    let made = nodes(&there, copy) - of_state;
    assert!(made < MEMBERS / 8, "{made} nodes, 16 entries each: what comes at once is written once");
    there.say(&number(&there), copy, "hello all").unwrap();
}

fn nodes(world: &World, room: RoomNo) -> usize {
    head(&world.store.snapshot(), room).unwrap().nodes as usize
}
