//! What other servers tell a user of a room, beside what the room's events tell.

use ruma::ServerName;

use super::*;

#[test]
fn an_invitation_that_was_told_before_its_event_came_counts_once_and_not_again_when_it_is_over() {
    let world = World::new();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| world.user(name));
    let (room, id) = world.room(&alice, "11", Preset::PrivateChat);
    world.change(&alice, room, &carol, Action::Invite).unwrap();
    let content = json!({ "membership": "invite" }).as_object().unwrap().clone();
    let new = NewEvent::state("m.room.member", bob.id.as_str(), content);
    let told = template::unsent(&world.store, &world.identity, room, &alice, new, 3000).unwrap().wait().unwrap();
    let (version, via) = (RoomVersion::named("11").unwrap(), <&ServerName>::try_from("other.org").unwrap());
    let tell = |event| remote::put(&world.store, (&id, version), event, &[], via).unwrap().wait().unwrap();
    assert!(tell(&told));
    world.change(&alice, room, &bob, Action::Invite).unwrap();
    let db = world.store.snapshot();
    assert_eq!(head(&db, room).unwrap().invited, 2);
    assert_eq!(check::end(&db, room).unwrap(), Vec::new());

    let standing = |db: &store::Snapshot| members::user_room(db, bob.no, room).unwrap().unwrap();
    let invitation = events::event(&db, room, standing(&db).event).unwrap();
    world.change(&alice, room, &bob, Action::Kick).unwrap();
    assert!(!tell(&invitation.event), "the request came again");
    assert_eq!(standing(&world.store.snapshot()).membership, Membership::Leave);
}
