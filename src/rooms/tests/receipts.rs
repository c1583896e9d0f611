//! How far users say that they have read.

use ruma::{EventId, OwnedEventId};
use serde_json::{Value, json};
use store::{Seq, Topic};
use users::account_data::{self, FULLY_READ};

use super::*;
use crate::receipts::{self, Kind, Mark, Thread};

fn read(kind: Kind, thread: Thread, event: &EventId) -> Mark {
    Mark::Read { kind, thread, event: event.to_owned() }
}

fn public(event: &EventId) -> Mark {
    read(Kind::Public, Thread::Unthreaded, event)
}

impl World {
    fn mark(&self, who: &Sender, room: RoomNo, mark: Mark, now_ms: u64) -> Result<()> {
        Ok(receipts::mark(&self.store, who, room, &[mark], now_ms)?.wait()?)
    }

    fn receipts(&self, who: &Sender, room: RoomNo, since: Option<Seq>) -> Vec<Value> {
        let db = self.store.snapshot();
        let contents = receipts::contents(&db, room, who.no, since, db.seq()).unwrap();
        contents.iter().map(|content| serde_json::from_str(content.get()).unwrap()).collect()
    }

    fn relate(&self, who: &Sender, room: RoomNo, rel_type: &str, to: &EventId) -> OwnedEventId {
        let content = json!({ "body": "related", "m.relates_to": { "rel_type": rel_type, "event_id": to } });
        let content = content.as_object().unwrap().clone();
        let new = NewEvent { kind: "m.room.message".into(), content, ..NewEvent::default() };
        send::send(&self.store, &self.identity, who, room, new, None, 2000).unwrap().wait().unwrap()
    }

    fn pair(&self) -> (Sender, Sender, RoomNo) {
        let (alice, bob) = (self.user("alice"), self.user("bob"));
        let (room, _) = self.room(&alice, "12", Preset::PublicChat);
        self.change(&bob, room, &bob, Action::Join).unwrap();
        (alice, bob, room)
    }
}

#[test]
fn receipts_move_forward_only_and_are_told_once() {
    let world = World::new();
    let (alice, bob, room) = world.pair();
    let (first, second) = (world.say(&alice, room, "1").unwrap(), world.say(&alice, room, "2").unwrap());
    assert!(world.receipts(&alice, room, None).is_empty());
    world.mark(&bob, room, public(&second), 10).unwrap();
    let then = world.store.snapshot().seq();
    let told = json!({ second.as_str(): { "m.read": { "@bob:localhost": { "ts": 10 } } } });
    assert_eq!(world.receipts(&alice, room, None), std::slice::from_ref(&told));

    world.mark(&bob, room, public(&first), 20).unwrap();
    world.mark(&bob, room, public(&second), 30).unwrap();
    assert_eq!(world.receipts(&alice, room, None), [told], "neither an older one nor the same again changes it");
    let db = world.store.snapshot();
    assert!(!receipts::changed_between(&db, room, then, db.seq()).unwrap());
    assert!(db.changed_since(then, [Topic::Room(room)]).is_empty(), "nobody is woken");

    let third = world.say(&alice, room, "3").unwrap();
    world.mark(&bob, room, public(&third), 40).unwrap();
    let told = json!({ third.as_str(): { "m.read": { "@bob:localhost": { "ts": 40 } } } });
    assert_eq!(world.receipts(&alice, room, Some(then)), [told]);
    assert!(world.receipts(&alice, room, Some(world.store.snapshot().seq())).is_empty());
    assert_eq!(world.store.dump(&[receipts::CHANGES.spec()]).unwrap().lines().count(), 2, "the index forgets where it was");
}

#[test]
fn private_receipts_are_told_to_their_owner_alone() {
    let world = World::new();
    let (alice, bob, room) = world.pair();
    let (first, second) = (world.say(&alice, room, "1").unwrap(), world.say(&alice, room, "2").unwrap());
    let before = world.store.snapshot().seq();
    world.mark(&bob, room, public(&first), 10).unwrap();
    world.mark(&bob, room, read(Kind::Private, Thread::Unthreaded, &second), 20).unwrap();
    for since in [None, Some(before)] {
        let own = &world.receipts(&bob, room, since)[0];
        assert_eq!(own[second.as_str()]["m.read.private"]["@bob:localhost"]["ts"], 20);
        assert_eq!(own[first.as_str()]["m.read"]["@bob:localhost"]["ts"], 10);
        let seen = json!({ first.as_str(): { "m.read": { "@bob:localhost": { "ts": 10 } } } });
        assert_eq!(world.receipts(&alice, room, since), [seen]);
    }
    let db = world.store.snapshot();
    let (_, stored) = events::by_id(&db, room, &second).unwrap().unwrap();
    assert_eq!(receipts::read_position(&db, room, bob.no).unwrap(), stored.header.pos, "the later of the two counts");
    assert_eq!(receipts::read_position(&db, room, alice.no).unwrap(), None);
}

#[test]
fn a_thread_has_receipts_of_its_own() {
    let world = World::new();
    let (alice, bob, room) = world.pair();
    let root = world.say(&alice, room, "root").unwrap();
    let in_thread = world.relate(&alice, room, "m.thread", &root);
    let reaction = world.relate(&alice, room, "m.annotation", &in_thread);
    let in_main = world.say(&alice, room, "main").unwrap();
    let thread = || Thread::Root(root.clone());
    let wrong = [
        (Thread::Main, &in_thread),
        (Thread::Main, &reaction),
        (thread(), &in_main),
        (Thread::Root(in_main.clone()), &in_thread),
    ];
    for (thread, event) in wrong {
        let refused = world.mark(&bob, room, read(Kind::Public, thread.clone(), event), 1);
        assert!(matches!(refused, Err(Error::Invalid(_))), "{thread:?} {event}");
    }
    world.mark(&bob, room, read(Kind::Public, thread(), &reaction), 10).unwrap();
    world.mark(&bob, room, read(Kind::Public, Thread::Main, &root), 20).unwrap();
    world.mark(&bob, room, public(&root), 30).unwrap();
    let told = world.receipts(&alice, room, None);
    let of_bob = |content: &Value, event: &EventId| content[event.as_str()]["m.read"]["@bob:localhost"].clone();
    assert_eq!(of_bob(&told[0], &reaction), json!({ "ts": 10, "thread_id": root }));
    assert_eq!(of_bob(&told[0], &root), json!({ "ts": 30 }));
    assert_eq!(of_bob(&told[1], &root), json!({ "ts": 20, "thread_id": "main" }), "two of one event need two contents");
    assert_eq!(told.len(), 2);
}

#[test]
fn receipts_are_of_members_and_of_events_that_they_see() {
    let world = World::new();
    let (alice, bob, room) = world.pair();
    let (eve, (other, _)) = (world.user("eve"), world.room(&alice, "11", Preset::PublicChat));
    let said = world.say(&alice, room, "1").unwrap();
    let elsewhere = world.say(&alice, other, "1").unwrap();
    assert!(matches!(world.mark(&eve, room, public(&said), 1), Err(Error::Forbidden(_))));
    for event in [elsewhere.as_str(), "$none"] {
        let refused = world.mark(&bob, room, public(<&EventId>::try_from(event).unwrap()), 1);
        assert!(matches!(refused, Err(Error::NotFound(_))), "{event}");
    }
    let joined = json!({ "history_visibility": "joined" }).as_object().unwrap().clone();
    let new = NewEvent::state("m.room.history_visibility", "", joined);
    send::send(&world.store, &world.identity, &alice, room, new, None, 1).unwrap().wait().unwrap();
    let hidden = world.say(&alice, room, "hidden").unwrap();
    world.change(&eve, room, &eve, Action::Join).unwrap();
    assert!(matches!(world.mark(&eve, room, public(&hidden), 1), Err(Error::NotFound(_))));
    assert!(world.receipts(&alice, room, None).is_empty());
}

#[test]
fn the_read_marker_is_account_data_and_moves_forward_only() {
    let world = World::new();
    let (alice, bob, room) = world.pair();
    let (first, second) = (world.say(&alice, room, "1").unwrap(), world.say(&alice, room, "2").unwrap());
    let marker = || {
        let content = account_data::content(&world.store.snapshot(), bob.no, Some(room), FULLY_READ).unwrap();
        content.map(|content| serde_json::from_str::<Value>(&content).unwrap()["event_id"].as_str().unwrap().to_owned())
    };
    for event in [&first, &second, &first] {
        world.mark(&bob, room, Mark::FullyRead(event.clone()), 1).unwrap();
    }
    assert_eq!(marker().as_deref(), Some(second.as_str()));
    assert!(world.receipts(&bob, room, None).is_empty(), "it is no receipt");
}
