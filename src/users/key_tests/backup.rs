//! Key backup: versions, the better of two keys, and etags that change with the keys.

use ruma::{RoomId, room_id};

use crate::key_backup::{self, BACKUP_DATA_BYTES_MAX, BACKUPS_MAX, BackedUpKey, BackedUpRooms, BackupData, BackupState, Scope};

use super::*;

fn data(public_key: &str) -> BackupData {
    let auth_data = object(json!({ "public_key": public_key }));
    BackupData { algorithm: "m.megolm_backup.v1.curve25519-aes-sha2".into(), auth_data, version: None }
}

fn backed_up(verified: bool, first: u64, forwarded: u64) -> BackedUpKey {
    let session_data = object(json!({ "copy": format!("{verified} {first} {forwarded}") }));
    BackedUpKey { first_message_index: first, forwarded_count: forwarded, is_verified: verified, session_data }
}

fn rooms(keys: &[(&RoomId, &str, BackedUpKey)]) -> BackedUpRooms {
    let mut rooms = BackedUpRooms::default();
    for (room, session, key) in keys {
        rooms.rooms.entry((*room).to_owned()).or_default().sessions.insert((*session).to_owned(), key.clone());
    }
    rooms
}

struct Story {
    store: Store,
    user: UserNo,
}

impl Story {
    fn new() -> Self {
        let store = store();
        let user = numbers::ensure(&store, alice()).unwrap();
        Self { store, user }
    }

    fn create(&self) -> String {
        key_backup::create(&self.store, self.user, &data("a")).unwrap().wait().unwrap()
    }

    fn add(&self, version: &str, keys: &BackedUpRooms) -> Result<BackupState, KeyError> {
        Ok(key_backup::add_keys(&self.store, self.user, version, keys)?.wait()?)
    }

    fn stored(&self, version: &str, scope: Scope<'_>) -> Result<BackedUpRooms, KeyError> {
        key_backup::stored_keys(&self.store.snapshot(), self.user, version, scope)
    }

    fn delete_keys(&self, version: &str, scope: Scope<'_>) -> Result<BackupState, KeyError> {
        Ok(key_backup::delete_keys(&self.store, self.user, version, scope)?.wait()?)
    }
}

fn one() -> &'static RoomId {
    room_id!("!one:localhost")
}

fn two() -> &'static RoomId {
    room_id!("!two:localhost")
}

#[test]
fn versions_come_and_go() {
    let story = Story::new();
    let (store, user) = (&story.store, story.user);
    assert_eq!(key_backup::current(&store.snapshot(), user).unwrap(), None);
    let first = story.create();
    let second = story.create();
    assert_ne!(first, second);
    assert_eq!(key_backup::current(&store.snapshot(), user).unwrap().unwrap().version, second);
    key_backup::update(store, user, &second, &data("b")).unwrap().wait().unwrap();
    let stored = key_backup::version(&store.snapshot(), user, &second).unwrap();
    assert_eq!((stored.auth_data, stored.count, stored.etag.as_str()), (data("b").auth_data, 0, "0"));
    let other = BackupData { algorithm: "m.other".into(), ..data("b") };
    assert!(matches!(key_backup::update(store, user, &second, &other), Err(KeyError::Invalid(_))));
    let other = BackupData { version: Some(first.clone()), ..data("b") };
    assert!(matches!(key_backup::update(store, user, &second, &other), Err(KeyError::Invalid(_))));

    key_backup::delete(store, user, &second).unwrap().wait().unwrap();
    key_backup::delete(store, user, &second).unwrap().wait().unwrap();
    assert!(matches!(key_backup::version(&store.snapshot(), user, &second), Err(KeyError::NotFound(_))));
    assert_eq!(key_backup::current(&store.snapshot(), user).unwrap().unwrap().version, first);
    for unknown in ["9", "01", "-1", "", "x", "99999999999"] {
        assert!(matches!(key_backup::delete(store, user, unknown), Err(KeyError::NotFound(_))), "{unknown}");
        assert!(matches!(key_backup::version(&store.snapshot(), user, unknown), Err(KeyError::NotFound(_))), "{unknown}");
    }
    assert_ne!(story.create(), second, "a deleted version's number is not used again");
}

#[test]
fn the_better_of_two_keys_is_kept() {
    let story = Story::new();
    let version = story.create();
    let stored =
        |session: &str| story.stored(&version, Scope::Session(one(), session)).unwrap().rooms[one()].sessions[session].clone();
    let cases = [
        ((false, 10, 5), [(false, 11, 5), (false, 10, 6), (false, 11, 6)].as_slice()),
        ((true, 10, 5), &[(false, 9, 4), (true, 11, 5), (true, 10, 6), (true, 10, 5)]),
    ];
    for (n, ((verified, first, forwarded), worse)) in cases.iter().enumerate() {
        let session = format!("session{n}");
        let add = |key: BackedUpKey| story.add(&version, &rooms(&[(one(), &session, key)])).unwrap();
        let state = add(backed_up(*verified, *first, *forwarded));
        for &(worse, index, count) in *worse {
            assert_eq!(add(backed_up(worse, index, count)), state, "nothing changed, so the etag stays");
            assert_eq!(stored(&session), backed_up(*verified, *first, *forwarded));
        }
        let better = add(backed_up(true, 3, 0));
        assert_eq!((better.count, better.etag == state.etag), (state.count, false));
        assert_eq!(stored(&session), backed_up(true, 3, 0));
    }
}

#[test]
fn keys_are_read_and_deleted_by_session_room_or_all() {
    let story = Story::new();
    let version = story.create();
    let key = backed_up(true, 0, 0);
    let all = rooms(&[(one(), "s", key.clone()), (one(), "s2", key.clone()), (two(), "s", key.clone())]);
    assert_eq!(story.add(&version, &all).unwrap(), BackupState { count: 3, etag: "1".into() });
    assert_eq!(story.stored(&version, Scope::All).unwrap(), all);
    assert_eq!(story.stored(&version, Scope::Room(two())).unwrap(), rooms(&[(two(), "s", key.clone())]));
    assert_eq!(story.stored(&version, Scope::Session(one(), "s")).unwrap(), rooms(&[(one(), "s", key.clone())]));
    assert_eq!(story.stored(&version, Scope::Session(one(), "t")).unwrap(), BackedUpRooms::default());

    assert_eq!(story.delete_keys(&version, Scope::Session(one(), "s")).unwrap().count, 2);
    let state = story.delete_keys(&version, Scope::Room(two())).unwrap();
    assert_eq!(state, BackupState { count: 1, etag: "3".into() });
    assert_eq!(story.delete_keys(&version, Scope::Room(two())).unwrap(), state, "nothing was left there");
    assert_eq!(story.delete_keys(&version, Scope::All).unwrap().count, 0);
    assert_eq!(story.stored(&version, Scope::All).unwrap(), BackedUpRooms::default());
}

#[test]
fn only_the_current_version_takes_keys() {
    let story = Story::new();
    let first = story.create();
    let keys = rooms(&[(one(), "s", backed_up(true, 0, 0))]);
    story.add(&first, &keys).unwrap();
    let second = story.create();
    assert!(matches!(story.add(&first, &keys), Err(KeyError::WrongBackupVersion { current }) if current == second));
    assert!(matches!(story.add("9", &keys), Err(KeyError::NotFound(_))));
    assert_eq!(story.stored(&first, Scope::All).unwrap(), keys, "but the older one is still read");
    key_backup::delete(&story.store, story.user, &first).unwrap().wait().unwrap();
    assert!(matches!(story.stored(&first, Scope::All), Err(KeyError::NotFound(_))));
    assert!(matches!(story.delete_keys(&first, Scope::All), Err(KeyError::NotFound(_))));
    assert_eq!(story.store.dump(&[key_backup::TABLES[1]]).unwrap(), "key_backup_sessions\n", "its keys are gone");
}

#[test]
fn a_large_backup_is_deleted_in_steps() {
    let story = Story::new();
    let version = story.create();
    let names: Vec<String> = (0..2_500).map(|n| format!("session{n}")).collect();
    let keys: Vec<_> = names.iter().map(|name| (one(), name.as_str(), backed_up(true, 0, 0))).collect();
    assert_eq!(story.add(&version, &rooms(&keys)).unwrap().count, 2_500);
    assert_eq!(story.delete_keys(&version, Scope::All).unwrap().count, 0);
    story.add(&version, &rooms(&keys)).unwrap();
    key_backup::delete(&story.store, story.user, &version).unwrap().wait().unwrap();
    assert_eq!(story.store.dump(&[key_backup::TABLES[1]]).unwrap(), "key_backup_sessions\n");
}

#[test]
fn limits_hold() {
    let story = Story::new();
    let version = story.create();
    let mut large = backed_up(true, 0, 0);
    large.session_data.insert("padding".into(), json!("x".repeat(BACKUP_DATA_BYTES_MAX)));
    assert!(matches!(story.add(&version, &rooms(&[(one(), "s", large)])), Err(KeyError::TooLarge { .. })));
    let large = data(&"x".repeat(BACKUP_DATA_BYTES_MAX));
    assert!(matches!(key_backup::create(&story.store, story.user, &large), Err(KeyError::TooLarge { .. })));
    for _ in 1..BACKUPS_MAX {
        story.create();
    }
    assert!(matches!(key_backup::create(&story.store, story.user, &data("a")), Err(KeyError::TooLarge { .. })));
    key_backup::delete(&story.store, story.user, &version).unwrap().wait().unwrap();
    story.create();
}
