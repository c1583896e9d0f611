//! What is left to read.

use std::collections::BTreeSet;

use ruma::{OwnedUserId, push::Ruleset};
use serde_json::json;

use super::*;
use crate::{
    receipts::{self, Kind, Mark, Thread},
    unread::{self, Counts, Reader, Unread},
};

impl World {
    fn unread_but(&self, who: &Sender, room: RoomNo, ignored: &BTreeSet<OwnedUserId>) -> Unread {
        let db = self.store.snapshot();
        let reader = Reader { user: who, rules: &Ruleset::server_default(&who.id), ignored };
        unread::unread(&db, room, &reader, Pos::last_of(db.seq())).unwrap()
    }

    fn unread(&self, who: &Sender, room: RoomNo) -> Unread {
        self.unread_but(who, room, &BTreeSet::new())
    }

    fn send_as(&self, who: &Sender, room: RoomNo, content: serde_json::Value) -> ruma::OwnedEventId {
        let content = content.as_object().unwrap().clone();
        let new = NewEvent { kind: "m.room.message".into(), content, ..NewEvent::default() };
        send::send(&self.store, &self.identity, who, room, new, None, 2000).unwrap().wait().unwrap()
    }

    fn read(&self, who: &Sender, room: RoomNo, thread: Thread, event: &ruma::EventId) {
        let mark = Mark::Read { kind: Kind::Private, thread, event: event.to_owned() };
        receipts::mark(&self.store, who, room, &[mark], 1).unwrap().wait().unwrap();
    }

    fn three(&self) -> (Sender, Sender, RoomNo) {
        let (alice, bob, carol) = (self.user("alice"), self.user("bob"), self.user("carol"));
        let (room, _) = self.room(&alice, "12", Preset::PublicChat);
        self.say(&alice, room, "before he came").unwrap();
        self.change(&carol, room, &carol, Action::Join).unwrap();
        self.change(&bob, room, &bob, Action::Join).unwrap();
        (alice, bob, room)
    }
}

fn counts(notifications: u32, highlights: u32) -> Counts {
    Counts { notifications, highlights }
}

#[test]
fn what_came_after_the_receipt_is_unread() {
    let world = World::new();
    let (alice, bob, room) = world.three();
    assert_eq!(world.unread(&bob, room), Unread::default(), "history from before one joined is no news");
    let first = world.say(&alice, room, "1").unwrap();
    let mention = json!({ "body": "Bob!", "msgtype": "m.text", "m.mentions": { "user_ids": [bob.id] } });
    world.send_as(&alice, room, mention);
    let last = world.send_as(&alice, room, json!({ "body": "for the record", "msgtype": "m.notice" }));
    assert_eq!(world.unread(&bob, room).total(), counts(2, 1));
    assert_eq!(world.unread(&alice, room).total(), counts(0, 0), "one's own events are no news");
    let ignored = BTreeSet::from([alice.id.clone()]);
    assert_eq!(world.unread_but(&bob, room, &ignored), Unread::default());
    world.read(&bob, room, Thread::Unthreaded, &first);
    assert_eq!(world.unread(&bob, room).total(), counts(1, 1));
    world.read(&bob, room, Thread::Unthreaded, &last);
    assert_eq!(world.unread(&bob, room), Unread::default());
    world.say(&alice, room, "2").unwrap();
    world.say(&bob, room, "I know").unwrap();
    assert_eq!(world.unread(&bob, room), Unread::default(), "who answers has read");
    world.change(&alice, room, &bob, Action::Kick).unwrap();
    assert_eq!(world.unread(&bob, room), Unread::default());
}

#[test]
fn a_thread_is_read_on_its_own() {
    let world = World::new();
    let (alice, bob, room) = world.three();
    let root = world.say(&alice, room, "root").unwrap();
    let thread = |body: &str| {
        let relates_to = json!({ "rel_type": "m.thread", "event_id": root });
        json!({ "body": body, "msgtype": "m.text", "m.relates_to": relates_to })
    };
    let first = world.send_as(&alice, room, thread("1"));
    world.send_as(&alice, room, thread("2"));
    let unread = world.unread(&bob, room);
    assert_eq!((unread.main, unread.threads[&root], unread.total()), (counts(1, 0), counts(2, 0), counts(3, 0)));
    world.read(&bob, room, Thread::Main, &root);
    world.read(&bob, room, Thread::Root(root.clone()), &first);
    let unread = world.unread(&bob, room);
    assert_eq!((unread.main, unread.threads[&root]), (counts(0, 0), counts(1, 0)));
    world.say(&bob, room, "in the main timeline").unwrap();
    assert_eq!(world.unread(&bob, room).total(), counts(1, 0), "an answer elsewhere does not read the thread");
    world.send_as(&bob, room, thread("3"));
    assert_eq!(world.unread(&bob, room), Unread::default());
}

#[test]
fn what_was_redacted_is_not_left_to_read() {
    let world = World::new();
    let (alice, bob, room) = world.three();
    let said = world.say(&alice, room, "1").unwrap();
    let new = NewEvent { kind: "m.room.redaction".into(), redacts: Some(said), ..NewEvent::default() };
    send::send(&world.store, &world.identity, &alice, room, new, None, 1).unwrap().wait().unwrap();
    assert_eq!(world.unread(&bob, room), Unread::default());
}
