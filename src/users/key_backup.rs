//! Server-side key backup: encrypted copies of a user's room keys.
//!
//! Specification: client-server API, "Server-side key backups". Versions are numbered from 1 for each user; the greatest
//! that was not deleted is the current one, and only it takes keys. A deleted version leaves a mark behind, so that deleting
//! it again succeeds and its number is never used again.

use std::collections::BTreeMap;

use protocol::{ids, json::Object, version::RoomVersion};
use ruma::{OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use store::{Json, Lead, Lock, Owner, Pending, Preset, Range, Read, Store, Table, Tx, UserNo};

use crate::KeyError;

static VERSIONS: Table<(UserNo, u32), Json<Version>> =
    Table::new("key_backups", "The versions of a user's key backup, with the number of keys and of changes.")
        .owned_by(Owner::User);
static SESSIONS: Table<(UserNo, u32, [u8; 32], String), Json<StoredSession>> = Table::new(
    "key_backup_sessions",
    "The encrypted room keys of a backup version, by the SHA-256 of the room's id and by the session's id.",
)
.owned_by(Owner::User)
.read_by(Preset::Scan);

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 2] = [VERSIONS.spec(), SESSIONS.spec()];

/// The most bytes of a backup's `auth_data`, and of one key's `session_data`, as JSON.
pub const BACKUP_DATA_BYTES_MAX: usize = 32 << 10;
/// The longest algorithm's name and session id.
const NAME_BYTES_MAX: usize = 255;
/// The most keys in one request. Clients send a few hundred at a time.
pub const BACKUP_REQUEST_KEYS_MAX: usize = 10_000;
/// The most keys in one version of a backup.
pub const BACKUP_KEYS_MAX: u64 = 1_000_000;
/// The most versions of one user that are not deleted.
pub const BACKUPS_MAX: usize = 100;
/// Keys deleted by one commit: a large backup goes in steps, so that the user's lock is free in between.
const DELETED_AT_ONCE: usize = 1_000;

const UNKNOWN: KeyError = KeyError::NotFound("there is no such backup version");

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Version {
    algorithm: String,
    auth_data: Object,
    /// Keys stored.
    count: u64,
    /// Changes made: the etag.
    changes: u64,
    deleted: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredSession {
    room_id: OwnedRoomId,
    #[serde(flatten)]
    key: BackedUpKey,
}

/// A version of a backup ("GET /room_keys/version").
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// How the keys are encrypted.
    pub algorithm: String,
    /// What the algorithm needs, such as the public key.
    pub auth_data: Object,
    /// The number of keys.
    pub count: u64,
    /// Changes with the keys.
    pub etag: String,
    /// The version.
    pub version: String,
}

/// What a change of keys answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupState {
    /// The number of keys.
    pub count: u64,
    /// Changes with the keys.
    pub etag: String,
}

/// A new backup, or a change of one.
#[derive(Clone, Debug, Deserialize)]
pub struct BackupData {
    /// How the keys are encrypted.
    pub algorithm: String,
    /// What the algorithm needs, such as the public key.
    pub auth_data: Object,
    /// In a change: the version, which must be that of the path.
    #[serde(default)]
    pub version: Option<String>,
}

/// An encrypted key of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUpKey {
    /// The first message that the key decrypts.
    pub first_message_index: u64,
    /// How often the key was forwarded between devices.
    pub forwarded_count: u64,
    /// Whether the device that backed it up had verified the device that the key is from.
    pub is_verified: bool,
    /// The encrypted key.
    pub session_data: Object,
}

impl BackedUpKey {
    /// Whether this is a better copy of a key than the stored one.
    fn is_better_than(&self, stored: &Self) -> bool {
        let rank = |key: &Self| (!key.is_verified, key.first_message_index, key.forwarded_count);
        rank(self) < rank(stored)
    }
}

/// The keys of a room, by session id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUpRoom {
    /// The keys.
    pub sessions: BTreeMap<String, BackedUpKey>,
}

/// Keys by room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUpRooms {
    /// The rooms.
    pub rooms: BTreeMap<OwnedRoomId, BackedUpRoom>,
}

/// Which keys of a backup are meant.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// All.
    All,
    /// Those of a room.
    Room(&'a RoomId),
    /// One session of a room.
    Session(&'a RoomId, &'a str),
}

fn room_hash(room: &RoomId) -> [u8; 32] {
    Sha256::digest(room.as_bytes()).into()
}

/// The number in a version, as this server writes it.
fn number(version: &str) -> Option<u32> {
    version.parse().ok().filter(|number: &u32| number.to_string() == version)
}

/// The version of this name, unless it does not exist or was deleted.
fn live(db: &impl Read, user: UserNo, version: &str) -> Result<(u32, Version), KeyError> {
    let number = number(version).ok_or(UNKNOWN)?;
    let row = db.get(&VERSIONS, &(user, number))?.map(|row| row.0);
    row.filter(|row| !row.deleted).map(|row| (number, row)).ok_or(UNKNOWN)
}

/// The current version.
fn current_row(db: &impl Read, user: UserNo) -> Result<Option<(u32, Version)>, KeyError> {
    for row in db.range(&VERSIONS, &Range::of(&Lead((user,))).reversed())? {
        let ((_, number), Json(version)) = row?;
        if !version.deleted {
            return Ok(Some((number, version)));
        }
    }
    Ok(None)
}

fn backup((number, version): (u32, Version)) -> Backup {
    Backup {
        algorithm: version.algorithm,
        auth_data: version.auth_data,
        count: version.count,
        etag: version.changes.to_string(),
        version: number.to_string(),
    }
}

fn check(data: &BackupData) -> Result<(), KeyError> {
    KeyError::limit("bytes of an algorithm", data.algorithm.len(), NAME_BYTES_MAX)?;
    check_size(&data.auth_data)
}

fn check_size(data: &Object) -> Result<(), KeyError> {
    let length = serde_json::to_string(data).map_or(usize::MAX, |text| text.len());
    KeyError::limit("bytes of backup data", length, BACKUP_DATA_BYTES_MAX)
}

/// The current version of a user's backup, if there is one.
///
/// # Errors
/// As the store.
pub fn current(db: &impl Read, user: UserNo) -> Result<Option<Backup>, KeyError> {
    Ok(current_row(db, user)?.map(backup))
}

/// A version of a user's backup.
///
/// # Errors
/// [`KeyError::NotFound`].
pub fn version(db: &impl Read, user: UserNo, version: &str) -> Result<Backup, KeyError> {
    Ok(backup(live(db, user, version)?))
}

/// Begins a new version, which becomes the current one, and returns its name.
///
/// # Errors
/// [`KeyError::TooLarge`].
pub fn create(store: &Store, user: UserNo, data: &BackupData) -> Result<Pending<String>, KeyError> {
    check(data)?;
    store.transact(&[Lock::User(user)], |tx| {
        let (mut last, mut live) = (0, 0);
        for row in tx.range(&VERSIONS, &Range::of(&Lead((user,))))? {
            let ((_, number), Json(version)) = row?;
            last = number;
            live += usize::from(!version.deleted);
        }
        KeyError::limit("key backups", live + 1, BACKUPS_MAX)?;
        let number = last + 1;
        let (algorithm, auth_data) = (data.algorithm.clone(), data.auth_data.clone());
        let version = Version { algorithm, auth_data, count: 0, changes: 0, deleted: false };
        tx.put(&VERSIONS, &(user, number), &Json(version))?;
        Ok(number.to_string())
    })
}

/// Changes the `auth_data` of a version.
///
/// # Errors
/// [`KeyError::NotFound`]; [`KeyError::Invalid`] where the algorithm or the version in the body differs.
pub fn update(store: &Store, user: UserNo, version: &str, data: &BackupData) -> Result<Pending<()>, KeyError> {
    check(data)?;
    store.transact(&[Lock::User(user)], |tx| {
        let (number, mut stored) = live(tx, user, version)?;
        if data.algorithm != stored.algorithm {
            return Err(KeyError::Invalid("the algorithm is not that of the backup"));
        }
        if data.version.as_ref().is_some_and(|named| named != version) {
            return Err(KeyError::Invalid("the version in the body is not that of the path"));
        }
        stored.auth_data = data.auth_data.clone();
        Ok(tx.put(&VERSIONS, &(user, number), &Json(stored))?)
    })
}

/// Deletes a version and its keys. Deleting it again succeeds, and removes keys that a crash may have left.
///
/// # Errors
/// [`KeyError::NotFound`] where there never was such a version.
pub fn delete(store: &Store, user: UserNo, version: &str) -> Result<Pending<()>, KeyError> {
    let number = number(version).ok_or(UNKNOWN)?;
    let marked = store.transact(&[Lock::User(user)], |tx| {
        let Json(stored) = tx.get(&VERSIONS, &(user, number))?.ok_or(UNKNOWN)?;
        Ok::<_, KeyError>(mark_deleted(tx, user, number, stored)?)
    })?;
    // Nobody can read the keys from here on; this commit is durable when the last one is.
    marked.soft();
    erase(store, user, number)
}

fn mark_deleted(tx: &mut Tx<'_>, user: UserNo, number: u32, stored: Version) -> store::Result<()> {
    let marked = Version { deleted: true, auth_data: Object::new(), count: 0, ..stored };
    tx.put(&VERSIONS, &(user, number), &Json(marked))
}

/// Deletes all versions of a user whose account goes. Their keys cannot be read any more; [`sweep`] removes them.
pub(crate) fn forget(tx: &mut Tx<'_>, user: UserNo) -> store::Result<()> {
    let rows = tx.range(&VERSIONS, &Range::of(&Lead((user,))))?.collect::<store::Result<Vec<_>>>()?;
    for ((_, number), Json(version)) in rows {
        mark_deleted(tx, user, number, version)?;
    }
    Ok(())
}

/// Removes the keys of deleted versions of a user, in steps: for a job behind the deactivation of an account.
///
/// # Errors
/// As the store.
pub fn sweep(store: &Store, user: UserNo) -> Result<(), KeyError> {
    let snapshot = store.snapshot();
    for row in snapshot.range(&VERSIONS, &Range::of(&Lead((user,))))? {
        let ((_, number), Json(version)) = row?;
        if version.deleted {
            erase(store, user, number)?.soft();
        }
    }
    Ok(())
}

/// Removes the keys of a version in steps.
fn erase(store: &Store, user: UserNo, number: u32) -> Result<Pending<()>, KeyError> {
    let keys = Range::of(&Lead((user, number)));
    loop {
        let mut deleted = 0;
        let pending = store.transact(&[Lock::User(user)], |tx| {
            deleted = delete_some(tx, &keys)?;
            Ok::<_, KeyError>(())
        })?;
        if deleted < DELETED_AT_ONCE {
            return Ok(pending);
        }
    }
}

type SessionKey = (UserNo, u32, [u8; 32], String);

/// Deletes the first keys of a range. Returns how many.
fn delete_some(tx: &mut Tx<'_>, range: &Range<SessionKey>) -> store::Result<usize> {
    let rows = tx.range(&SESSIONS, range)?.take(DELETED_AT_ONCE).map(|row| row.map(|(key, _)| key));
    let keys = rows.collect::<store::Result<Vec<_>>>()?;
    for key in &keys {
        tx.delete(&SESSIONS, key)?;
    }
    Ok(keys.len())
}

/// Adds keys to the current version; of two keys of one session the better is kept.
///
/// # Errors
/// [`KeyError::NotFound`], [`KeyError::WrongBackupVersion`] for a version that is not the current one, and
/// [`KeyError::TooLarge`]; [`KeyError::Invalid`] where a room's id is one in no room version.
pub fn add_keys(store: &Store, user: UserNo, version: &str, added: &BackedUpRooms) -> Result<Pending<BackupState>, KeyError> {
    let sessions = || added.rooms.iter().flat_map(|(room, keys)| keys.sessions.iter().map(move |(id, key)| (room, id, key)));
    KeyError::limit("keys", sessions().count(), BACKUP_REQUEST_KEYS_MAX)?;
    let names_a_room = |id: &OwnedRoomId| RoomVersion::all().iter().any(|version| ids::room_id(id.as_str(), version).is_ok());
    if !added.rooms.keys().all(names_a_room) {
        return Err(KeyError::Invalid("these are keys of what is no room"));
    }
    for (_, id, key) in sessions() {
        KeyError::limit("bytes of a session id", id.len(), NAME_BYTES_MAX)?;
        check_size(&key.session_data)?;
    }
    store.transact(&[Lock::User(user)], |tx| {
        let (number, mut stored) = live(tx, user, version)?;
        if let Some((current, _)) = current_row(tx, user)?.filter(|(current, _)| *current != number) {
            return Err(KeyError::WrongBackupVersion { current: current.to_string() });
        }
        let mut changed = false;
        for (room_id, id, key) in sessions() {
            let at = (user, number, room_hash(room_id), id.as_str());
            let known = tx.get(&SESSIONS, &at)?;
            if known.as_ref().is_some_and(|Json(known)| !key.is_better_than(&known.key)) {
                continue;
            }
            stored.count += u64::from(known.is_none());
            changed = true;
            tx.put(&SESSIONS, &at, &Json(StoredSession { room_id: room_id.clone(), key: key.clone() }))?;
        }
        KeyError::limit("keys of a backup", stored.count as usize, BACKUP_KEYS_MAX as usize)?;
        if changed {
            stored.changes += 1;
            tx.put(&VERSIONS, &(user, number), &Json(stored.clone()))?;
        }
        Ok(BackupState { count: stored.count, etag: stored.changes.to_string() })
    })
}

/// The part of the table that a scope means.
fn range(user: UserNo, number: u32, scope: Scope<'_>) -> Range<SessionKey> {
    match scope {
        Scope::All => Range::of(&Lead((user, number))),
        Scope::Room(room) => Range::of(&Lead((user, number, room_hash(room)))),
        Scope::Session(room, session) => {
            let key = (user, number, room_hash(room), session);
            // The session's id is the last part and of any length: this key and no longer one.
            Range::of(&key).before(&(user, number, room_hash(room), format!("{session}\0")))
        }
    }
}

/// The keys of any version of a backup that was not deleted.
///
/// # Errors
/// [`KeyError::NotFound`] without such a version.
pub fn stored_keys(db: &impl Read, user: UserNo, version: &str, scope: Scope<'_>) -> Result<BackedUpRooms, KeyError> {
    let (number, _) = live(db, user, version)?;
    let mut keys = BackedUpRooms::default();
    for row in db.range(&SESSIONS, &range(user, number, scope))? {
        let ((.., session_id), Json(session)) = row?;
        keys.rooms.entry(session.room_id).or_default().sessions.insert(session_id, session.key);
    }
    Ok(keys)
}

/// Deletes keys of any version of a backup that was not deleted.
///
/// # Errors
/// [`KeyError::NotFound`] without such a version.
pub fn delete_keys(store: &Store, user: UserNo, version: &str, scope: Scope<'_>) -> Result<Pending<BackupState>, KeyError> {
    loop {
        let mut deleted = 0;
        let pending = store.transact(&[Lock::User(user)], |tx| {
            let (number, mut stored) = live(tx, user, version)?;
            deleted = delete_some(tx, &range(user, number, scope))?;
            if deleted > 0 {
                stored.count = stored.count.saturating_sub(deleted as u64);
                stored.changes += 1;
                tx.put(&VERSIONS, &(user, number), &Json(stored.clone()))?;
            }
            Ok::<_, KeyError>(BackupState { count: stored.count, etag: stored.changes.to_string() })
        })?;
        if deleted < DELETED_AT_ONCE {
            return Ok(pending);
        }
    }
}
