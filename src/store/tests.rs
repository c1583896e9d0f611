//! The store's promises, as stories.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::*;

static NOTES: Table<(RoomNo, u64), String> =
    Table::new("notes", "Notes of a room.").owned_by(Owner::Room).wakes(Owner::Room).read_by(Preset::Scan);
static LAWS: Table<u32, String> = Table::new("laws", "Rows that are written once.").cached();
static NAMES: Table<String, u32> = Table::new("names", "Numbers by name.");
static COUNTERS: Table<String, u32> = Table::new("counters", "The last number drawn.");
const TABLES: &[&TableSpec] = &[NOTES.spec(), NAMES.spec(), LAWS.spec(), COUNTERS.spec()];

fn store() -> Store {
    Store::in_memory("localhost", TABLES).unwrap()
}

fn note(store: &Store, room: u32, at: u64, text: &str) -> Result<()> {
    store.transact(&[Lock::Room(RoomNo(room))], |tx| tx.put(&NOTES, &(RoomNo(room), at), &text.to_owned()))?.wait()
}

#[test]
fn what_is_acknowledged_is_visible_and_numbered_in_order() {
    let store = store();
    let before = store.snapshot();
    note(&store, 1, 5, "five").unwrap();
    assert_eq!(store.snapshot().get(&NOTES, &(RoomNo(1), 5)).unwrap().unwrap(), "five");
    assert_eq!(store.snapshot().seq().0, before.seq().0 + 1);
    assert!(before.get(&NOTES, &(RoomNo(1), 5)).unwrap().is_none(), "an old snapshot stays as it was");
}

#[test]
fn a_failed_transaction_changes_nothing() {
    let store = store();
    let before = store.snapshot().seq();
    let failed: Result<Pending<()>> = store.transact(&[Lock::Room(RoomNo(1))], |tx| {
        tx.put(&NOTES, &(RoomNo(1), 1), &"gone".into())?;
        let _ = tx.seq();
        Err(Error::Closed)
    });
    assert!(failed.is_err());
    note(&store, 1, 2, "kept").unwrap();
    assert!(store.snapshot().get(&NOTES, &(RoomNo(1), 1)).unwrap().is_none());
    assert_eq!(store.snapshot().seq().0, before.0 + 1);
}

#[test]
fn rows_of_a_room_need_its_lock() {
    let store = store();
    let refused = store.transact(&[Lock::Room(RoomNo(2))], |tx| tx.put(&NOTES, &(RoomNo(1), 1), &"no".into()));
    assert!(matches!(refused, Err(Error::Unlocked("notes"))));
}

#[test]
fn a_transaction_within_a_transaction_is_refused() {
    let store = store();
    let inner = store.transact(&[], |_| Ok::<_, Error>(store.transact(&[], |_| Ok::<_, Error>(())).err())).unwrap();
    assert!(matches!(inner.wait().unwrap(), Some(Error::Nested)));
}

#[test]
fn numbers_are_drawn_once_by_many_threads() {
    let store = store();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 0..50 {
                    let name = format!("name{n}");
                    let change = |tx: &mut Tx<'_>| -> Result<u32> {
                        if let Some(known) = tx.latest(&NAMES, &name.as_str())? {
                            return Ok(known);
                        }
                        let drawn = tx.draw(&COUNTERS, "names")?;
                        tx.put(&NAMES, &name.as_str(), &drawn)?;
                        Ok(drawn)
                    };
                    store.transact(&[], change).unwrap().wait().unwrap();
                }
            });
        }
    });
    let mut drawn: Vec<u32> = store.snapshot().range(&NAMES, &Range::of(&())).unwrap().map(|row| row.unwrap().1).collect();
    drawn.sort_unstable();
    assert_eq!(drawn, (1..=50).collect::<Vec<_>>());
}

#[test]
fn concurrent_writers_of_one_room_lose_nothing() {
    let store = store();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let store = &store;
            scope.spawn(move || (0..100).for_each(|n| note(store, 1, thread * 1000 + n, "x").unwrap()));
        }
    });
    assert_eq!(store.snapshot().range(&NOTES, &Range::of(&Lead((RoomNo(1),)))).unwrap().count(), 400);
}

#[tokio::test]
async fn a_watch_wakes_for_its_room_only_and_after_the_row_is_visible() {
    let store = store();
    let mine = store.watch(vec![Topic::Room(RoomNo(1))]);
    let other = store.watch(vec![Topic::Room(RoomNo(2))]);
    let since = store.snapshot().seq();
    let locks = [Lock::Room(RoomNo(1))];
    let pending = store.transact(&locks, |tx| tx.put(&NOTES, &(RoomNo(1), 1), &"hello".into())).unwrap();
    let awake = async {
        mine.changed().await;
        store.snapshot().get(&NOTES, &(RoomNo(1), 1)).unwrap()
    };
    let (seen, durable) = tokio::join!(awake, pending.durable());
    durable.unwrap();
    assert_eq!(seen.unwrap(), "hello");
    let waited = tokio::time::timeout(std::time::Duration::from_millis(1), other.changed()).await;
    assert!(waited.is_err(), "the other room did not change");
    let topics = [Topic::Room(RoomNo(1)), Topic::Room(RoomNo(2))];
    assert_eq!(store.snapshot().changed_since(since, topics), [Topic::Room(RoomNo(1))]);
    let news = |tx: &mut Tx<'_>| {
        tx.touch(Topic::Presence);
        tx.wake(Topic::Room(RoomNo(2)));
        Ok::<_, Error>(())
    };
    store.transact(&[], news).unwrap().wait().unwrap();
    other.changed().await;
    assert_eq!(store.snapshot().changed_since(since, topics), [Topic::Room(RoomNo(1))], "woken, but not changed");
}

#[tokio::test]
async fn what_nobody_waits_for_is_published_all_the_same() {
    let store = store();
    let watch = store.watch(vec![Topic::Room(RoomNo(1))]);
    let write = |at: u64| store.transact(&[Lock::Room(RoomNo(1))], |tx| tx.put(&NOTES, &(RoomNo(1), at), &"soft".into()));
    write(1).unwrap().soft();
    watch.changed().await;
    assert!(store.snapshot().get(&NOTES, &(RoomNo(1), 1)).unwrap().is_some());
    // A request that was given up before it waited.
    drop(write(2).unwrap().durable());
    watch.changed().await;
    assert!(store.snapshot().get(&NOTES, &(RoomNo(1), 2)).unwrap().is_some());
}

#[test]
fn a_folder_opens_again_with_all_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { path: folder.path().join("db"), server_name: "localhost".into(), memory_bytes: 16 << 20 };
    let seq = {
        let store = Store::open(&config, TABLES, &[]).unwrap();
        note(&store, 1, 1, "kept").unwrap();
        assert!(matches!(Store::open(&config, TABLES, &[]), Err(Error::Locked(_))), "a second process is refused");
        store.snapshot().seq()
    };
    let store = Store::open(&config, TABLES, &[]).unwrap();
    assert_eq!(store.snapshot().get(&NOTES, &(RoomNo(1), 1)).unwrap().unwrap(), "kept");
    assert_eq!(store.snapshot().seq(), seq);
    drop(store);
    let other = Config { server_name: "example.org".into(), ..config };
    assert!(matches!(Store::open(&other, TABLES, &[]), Err(Error::OtherServer { .. })));
}

#[test]
fn a_folder_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.tex"), "precious").unwrap();
    let config = Config { path: folder.path().into(), server_name: "localhost".into(), memory_bytes: 16 << 20 };
    assert!(matches!(Store::open(&config, TABLES, &[]), Err(Error::Foreign(_))));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was added to it");
}

#[test]
fn migrations_run_once_and_a_newer_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { path: folder.path().join("db"), server_name: "localhost".into(), memory_bytes: 16 << 20 };
    drop(Store::open(&config, TABLES, &[]).unwrap());
    let migrations = || [Migration { about: "adds a note", run: |store| note(store, 9, store.snapshot().seq().0, "migrated") }];
    for _ in 0..2 {
        let store = Store::open(&config, TABLES, &migrations()).unwrap();
        assert_eq!(store.snapshot().range(&NOTES, &Range::of(&Lead((RoomNo(9),)))).unwrap().count(), 1);
    }
    assert!(matches!(Store::open(&config, TABLES, &[]), Err(Error::Newer { stored: 2, known: 1 })));
}

#[test]
fn a_corrupt_row_names_its_table_and_key() {
    static WRONG: Table<(RoomNo, u64), u8> = Table::new("notes", "The same rows with a type that they are not.");
    let store = store();
    store.transact(&[], |tx| tx.put(&WRONG, &(RoomNo(1), 1), &255)).unwrap().wait().unwrap();
    let error = store.snapshot().get(&NOTES, &(RoomNo(1), 1)).unwrap_err();
    assert!(matches!(error, Error::Corrupt { table: "notes", .. }), "{error}");
}

#[test]
fn a_cached_row_is_shared_until_it_is_replaced() {
    let store = store();
    store.transact(&[], |tx| tx.put(&LAWS, &1, &"first".into())).unwrap().wait().unwrap();
    let old = store.snapshot();
    let one = old.shared(&LAWS, &1).unwrap().unwrap();
    assert!(std::sync::Arc::ptr_eq(&one, &old.shared(&LAWS, &1).unwrap().unwrap()), "decoded once");
    let change = |tx: &mut Tx<'_>| -> Result<String> {
        tx.replace(&LAWS, &1, &"second".into())?;
        Ok(tx.shared(&LAWS, &1)?.unwrap().to_string())
    };
    assert_eq!(store.transact(&[], change).unwrap().wait().unwrap(), "second", "a transaction sees its own");
    assert_eq!(*old.shared(&LAWS, &1).unwrap().unwrap(), "first", "read from the old snapshot, and not put into the cache");
    assert_eq!(*store.snapshot().shared(&LAWS, &1).unwrap().unwrap(), "second");
    store.transact(&[], |tx| tx.delete(&LAWS, &1)).unwrap().wait().unwrap();
    assert!(store.snapshot().shared(&LAWS, &1).unwrap().is_none());
}

#[test]
fn an_erased_room_is_gone_and_others_are_not() {
    static PAGES: Table<(RoomNo, u64), String> = Table::new("pages", "Cached rows of a room.").owned_by(Owner::Room).cached();
    let store = Store::in_memory("localhost", &[NOTES.spec(), PAGES.spec(), LAWS.spec()]).unwrap();
    let rooms = [RoomNo(1), RoomNo(2), RoomNo(3)];
    let fill = |tx: &mut Tx<'_>| -> Result<()> {
        for room in rooms {
            tx.put(&NOTES, &(room, 1), &"note".into())?;
            tx.put(&PAGES, &(room, 1), &"page".into())?;
        }
        Ok(())
    };
    store.transact(&rooms.map(Lock::Room), fill).unwrap().wait().unwrap();
    let old = store.snapshot();
    assert!(rooms.iter().all(|room| old.shared(&PAGES, &(*room, 1)).unwrap().is_some()));
    let watch = store.watch(vec![Topic::Room(RoomNo(2))]);
    let erase = |tx: &mut Tx<'_>| -> Result<()> {
        tx.put(&PAGES, &(RoomNo(2), 5), &"drafted".into())?;
        tx.erase(NOTES.spec(), RoomNo(2))?;
        tx.erase(PAGES.spec(), RoomNo(2))?;
        assert!(tx.shared(&PAGES, &(RoomNo(2), 1))?.is_none() && tx.get(&PAGES, &(RoomNo(2), 5))?.is_none());
        tx.put(&NOTES, &(RoomNo(2), 9), &"anew".into())
    };
    store.transact(&[Lock::Room(RoomNo(2))], erase).unwrap().wait().unwrap();
    let db = store.snapshot();
    let notes: Vec<_> = db.range(&NOTES, &Range::of(&())).unwrap().map(|row| row.unwrap().0).collect();
    assert_eq!(notes, [(RoomNo(1), 1), (RoomNo(2), 9), (RoomNo(3), 1)]);
    assert_eq!(rooms.map(|room| db.shared(&PAGES, &(room, 1)).unwrap().is_some()), [true, false, true]);
    assert!(old.shared(&PAGES, &(RoomNo(2), 1)).unwrap().is_some(), "an old snapshot stays as it was");
    pollster::block_on(watch.changed());
    let unlocked = store.transact(&[Lock::Room(RoomNo(2))], |tx| tx.erase(NOTES.spec(), RoomNo(1)));
    assert!(matches!(unlocked, Err(Error::Unlocked("notes"))));
    let unowned = store.transact(&[Lock::Room(RoomNo(2))], |tx| tx.erase(LAWS.spec(), RoomNo(2)));
    assert!(matches!(unowned, Err(Error::Unlocked("laws"))));
    store.compact(RoomNo(2), &[NOTES.spec(), PAGES.spec(), LAWS.spec()]).unwrap();
    assert_eq!(store.snapshot().range(&NOTES, &Range::of(&())).unwrap().count(), 3);
}

#[test]
fn a_shared_row_is_found_as_it_was_written_until_it_is_replaced() {
    let store = store();
    let put = |key: u32, text: &str| {
        let law = std::sync::Arc::new(text.to_owned());
        (store.transact(&[], |tx| tx.put_shared(&LAWS, &key, &law)).unwrap(), law)
    };
    let found = |key: u32| store.snapshot().shared(&LAWS, &key).unwrap().unwrap();
    let (pending, law) = put(1, "first");
    pending.wait().unwrap();
    assert!(std::sync::Arc::ptr_eq(&law, &found(1)), "not decoded at all");
    // Replaced before it was published, by another transaction and by its own.
    let (pending, _) = put(2, "first");
    store.transact(&[], |tx| tx.replace(&LAWS, &2, &"second".into())).unwrap().wait().unwrap();
    pending.wait().unwrap();
    assert_eq!(*found(2), "second");
    let twice = |tx: &mut Tx<'_>| -> Result<()> {
        tx.put_shared(&LAWS, &3, &law)?;
        assert!(tx.shared(&LAWS, &3)?.is_some_and(|own| std::sync::Arc::ptr_eq(&law, &own)));
        tx.replace(&LAWS, &3, &"second".into())?;
        assert_eq!(*tx.shared(&LAWS, &3)?.unwrap(), "second");
        Ok(())
    };
    store.transact(&[], twice).unwrap().wait().unwrap();
    assert_eq!(*found(3), "second");
}

#[test]
fn who_reads_from_before_finds_a_shared_row_as_it_was() {
    let store = store();
    store.transact(&[], |tx| tx.put(&LAWS, &1, &"first".into())).unwrap().wait().unwrap();
    let before = store.snapshot();
    store.transact(&[], |tx| tx.replace(&LAWS, &1, &"second".into())).unwrap().wait().unwrap();
    let found = |db: &Snapshot| db.shared(&LAWS, &1).unwrap().unwrap();
    assert_eq!(*found(&store.snapshot()), "second");
    assert_eq!(*found(&before), "first", "though the second is cached by now");
    assert_eq!(*found(&store.snapshot()), "second");
}

#[derive(Clone, Debug)]
enum Step {
    Put(u64, String),
    Delete(u64),
    Erase,
}

/// Rows of a range, and one row.
type Found = (Vec<(u64, String)>, Option<String>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..20_u64, "[a-z]{0,3}").prop_map(|(k, v)| Step::Put(k, v)),
        8 => (0..20_u64).prop_map(Step::Delete),
        1 => Just(Step::Erase),
    ];
    proptest::collection::vec(step, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_transaction_reads_as_a_map(stored in steps(), own in steps(), low in 0..20_u64, high in 0..20_u64, reversed: bool) {
        let store = store();
        let room = RoomNo(7);
        let mut model = BTreeMap::new();
        let apply = |tx: &mut Tx<'_>, model: &mut BTreeMap<u64, String>, steps: &[Step]| -> Result<()> {
            for step in steps {
                match step {
                    Step::Put(key, value) => {
                        tx.put(&NOTES, &(room, *key), value)?;
                        model.insert(*key, value.clone());
                    }
                    Step::Delete(key) => {
                        tx.delete(&NOTES, &(room, *key))?;
                        model.remove(key);
                    }
                    Step::Erase => {
                        tx.erase(NOTES.spec(), room)?;
                        model.clear();
                    }
                }
            }
            Ok(())
        };
        store.transact(&[Lock::Room(room)], |tx| apply(tx, &mut model, &stored)).unwrap().wait().unwrap();
        let check = |tx: &mut Tx<'_>| -> Result<Found> {
            apply(tx, &mut model, &own)?;
            let range = Range::of(&Lead((room,))).from(&(room, low)).before(&(room, high));
            let range = if reversed { range.reversed() } else { range };
            let rows = tx.range(&NOTES, &range)?.map(|row| row.map(|((_, key), value)| (key, value)));
            Ok((rows.collect::<Result<_>>()?, tx.get(&NOTES, &(room, low))?))
        };
        let (rows, one) = store.transact(&[Lock::Room(room)], check).unwrap().wait().unwrap();
        let mut expected: Vec<_> = model.iter().filter(|(k, _)| (low..high.max(low)).contains(*k)).map(|(k, v)| (*k, v.clone())).collect();
        if reversed {
            expected.reverse();
        }
        prop_assert_eq!(rows, expected);
        prop_assert_eq!(one.as_ref(), model.get(&low));
        let committed: Vec<u64> = store.snapshot().range(&NOTES, &Range::of(&())).unwrap().map(|row| row.unwrap().0.1).collect();
        prop_assert_eq!(committed, model.keys().copied().collect::<Vec<_>>());
    }
}
