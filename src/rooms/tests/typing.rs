//! Who types, and for how long.

use store::{Seq, Topic};

use super::*;
use crate::typing::{self, TIMEOUT_MAX_MS};

impl World {
    /// After what came before is on disk: typing itself waits for none.
    fn now(&self) -> store::Snapshot {
        let touch = |tx: &mut store::Tx<'_>| {
            tx.touch(Topic::User(store::UserNo(0)));
            Ok::<_, store::Error>(())
        };
        self.store.transact(&[], touch).unwrap().wait().unwrap();
        self.store.snapshot()
    }

    fn typing(&self, room: RoomNo, now_ms: u64) -> Vec<String> {
        typing::users(&self.now(), room, now_ms).unwrap().iter().map(ToString::to_string).collect()
    }

    fn typing_changed(&self, room: RoomNo, since: Seq) -> bool {
        let db = self.now();
        let changed = typing::changed(&db, room, since, db.seq()).unwrap();
        assert_eq!(changed, !db.changed_since(since, [Topic::Room(room)]).is_empty(), "who waits is woken by changes alone");
        changed
    }
}

#[test]
fn typing_ends_by_word_or_by_time() {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let (room, _) = world.room(&alice, "12", Preset::PublicChat);
    world.change(&bob, room, &bob, Action::Join).unwrap();
    let set = |who: &Sender, timeout_ms, now_ms| typing::set(&world.store, who.no, room, timeout_ms, now_ms).unwrap();
    let mut then = world.now().seq();
    let mut changed = || {
        let changed = world.typing_changed(room, then);
        then = world.now().seq();
        changed
    };

    set(&alice, Some(1_000), 0);
    set(&bob, Some(u64::MAX), 0);
    assert!(changed());
    assert_eq!(world.typing(room, 999), ["@alice:localhost", "@bob:localhost"]);
    assert_eq!(world.typing(room, 1_000), ["@bob:localhost"]);
    assert!(world.typing(room, TIMEOUT_MAX_MS).is_empty(), "no statement holds longer");

    set(&alice, Some(1_000), 500);
    assert!(!changed(), "going on is no news");
    assert_eq!(typing::expire(&world.store, 1_400).unwrap(), 0);
    assert!(!changed());
    assert_eq!(typing::expire(&world.store, 1_500).unwrap(), 1);
    assert!(changed(), "that she stopped is news");
    assert_eq!(world.typing(room, 1_500), ["@bob:localhost"]);

    set(&bob, None, 1_600);
    assert!(changed());
    set(&bob, None, 1_700);
    assert!(!changed());
    assert!(world.typing(room, 1_700).is_empty());
    let rows = world.store.dump(&[typing::TYPING.spec(), typing::DUE.spec()]).unwrap();
    assert_eq!(rows, "typing\ntyping_due\n", "nothing is left behind");
}

#[test]
fn only_members_type() {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let (room, _) = world.room(&alice, "12", Preset::PublicChat);
    assert!(matches!(typing::set(&world.store, bob.no, room, Some(1), 0), Err(Error::Forbidden(_))));
    world.change(&bob, room, &bob, Action::Join).unwrap();
    typing::set(&world.store, bob.no, room, Some(1_000), 0).unwrap();
    world.change(&bob, room, &bob, Action::Leave).unwrap();
    assert!(world.typing(room, 1).is_empty(), "who left types no more");
}
