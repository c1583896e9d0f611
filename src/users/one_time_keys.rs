//! One-time keys, each handed out exactly once, and the fallback keys behind them.
//!
//! Specification: client-server API, "One-time and fallback keys". Keys are claimed in the order of their upload. A claim
//! runs under the locks of the users whose keys it takes, and is answered only once it is on disk.

use std::collections::{BTreeMap, BTreeSet};

use protocol::base64;
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use store::{Json, Lead, Lock, Owner, Pending, Preset, Range, Read, Store, Table, Topic, Tx, UserNo};

use crate::{
    KeyError,
    devices::{self, DeviceNo},
    numbers, signed,
};

static KEYS: Table<(UserNo, DeviceNo, u64, String), Json<Value>> = Table::new(
    "one_time_keys",
    "Unclaimed one-time keys, by the number of the upload that brought them and their `algorithm:id`.",
)
.owned_by(Owner::User)
.read_by(Preset::Scan);
static KEY_IDS: Table<(UserNo, DeviceNo, String), u64> =
    Table::new("one_time_key_ids", "Where an unclaimed one-time key is in one_time_keys: the number of its upload.")
        .owned_by(Owner::User);
static FALLBACK: Table<(UserNo, DeviceNo, String), Json<FallbackKey>> =
    Table::new("fallback_keys", "The fallback key of a device, by algorithm.").owned_by(Owner::User);
static COUNTS: Table<(UserNo, DeviceNo), Counts> =
    Table::new("one_time_key_counts", "What syncs tell a device of its one-time and fallback keys, in one row.")
        .owned_by(Owner::User);
static CLAIMED: Table<(UserNo, DeviceNo), Vec<[u8; 8]>> = Table::new(
    "one_time_keys_claimed",
    "Hashes of the keys claimed last: a client that repeats an upload must not bring one back.",
)
.owned_by(Owner::User);

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 5] = [KEYS.spec(), KEY_IDS.spec(), FALLBACK.spec(), COUNTS.spec(), CLAIMED.spec()];

/// The most bytes of one key as JSON.
const KEY_BYTES_MAX: usize = 8 << 10;
/// The longest key id, `algorithm:id`.
const KEY_ID_BYTES_MAX: usize = 255;
/// The most unclaimed one-time keys of a device. Clients keep 50 to 100.
pub const ONE_TIME_KEYS_MAX: usize = 1_000;
/// The most algorithms that a device has one-time keys, or fallback keys, for. The specification has one.
pub const ALGORITHMS_MAX: usize = 8;
/// The claimed keys of a device that are remembered: more than clients upload at once.
const CLAIMED_REMEMBERED: usize = 128;
/// The most devices that one claim names. Clients claim for all devices of a room at once.
pub const CLAIMED_DEVICES_MAX: usize = 50_000;
/// What is counted even where a device never had such a key, so that clients upload some.
const ALWAYS_COUNTED: &str = "signed_curve25519";

#[derive(Clone, Debug, Serialize, Deserialize)]
struct FallbackKey {
    /// `algorithm:id`.
    id: String,
    key: Value,
    used: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    /// Uploads so far: the number of the next.
    uploads: u64,
    /// Unclaimed keys by algorithm; algorithms whose keys are all claimed stay with zero.
    unclaimed: BTreeMap<String, u64>,
    /// Algorithms whose fallback key was not handed out.
    unused_fallback: BTreeSet<String>,
}

/// What every sync tells a device of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// `device_one_time_keys_count`: unclaimed keys by algorithm, zero said explicitly.
    pub one_time_keys: BTreeMap<String, u64>,
    /// `device_unused_fallback_key_types`.
    pub unused_fallback_key_types: BTreeSet<String>,
}

/// How many keys of a device are left: one read.
///
/// # Errors
/// As the store.
pub fn counts(db: &impl Read, user: UserNo, device: DeviceNo) -> store::Result<KeyCounts> {
    let counts = db.get(&COUNTS, &(user, device))?.unwrap_or_default();
    let mut one_time_keys = counts.unclaimed;
    one_time_keys.entry(ALWAYS_COUNTED.to_owned()).or_default();
    Ok(KeyCounts { one_time_keys, unused_fallback_key_types: counts.unused_fallback })
}

/// The algorithm in `algorithm:id`.
fn algorithm(key_id: &str) -> Option<&str> {
    key_id.split_once(':').filter(|(algorithm, id)| !algorithm.is_empty() && !id.is_empty()).map(|(algorithm, _)| algorithm)
}

/// Checks the shape of uploaded one-time keys. Their signatures are for those who claim them: a device that signs badly
/// harms only itself, and may upload its identity keys later.
pub(crate) fn check(keys: &BTreeMap<String, Value>) -> Result<(), KeyError> {
    KeyError::limit("one-time keys", keys.len(), ONE_TIME_KEYS_MAX)?;
    for (key_id, key) in keys {
        KeyError::limit("bytes of a key id", key_id.len(), KEY_ID_BYTES_MAX)?;
        let algorithm = algorithm(key_id).ok_or(KeyError::Invalid("a key id is written <algorithm>:<key_id>"))?;
        KeyError::limit("bytes of a key", serde_json::to_string(key).map_or(usize::MAX, |text| text.len()), KEY_BYTES_MAX)?;
        let public = match key {
            Value::String(public) if algorithm != "signed_curve25519" => public,
            Value::Object(object) => {
                signed::check_signatures(object)?;
                object.get("key").and_then(Value::as_str).ok_or(KeyError::Malformed("key must be a string"))?
            }
            _ => return Err(KeyError::Malformed("a one-time key must be a signed object or, unsigned, a string")),
        };
        let is_curve25519 = matches!(algorithm, "curve25519" | "signed_curve25519");
        if is_curve25519 && base64::decode(public).is_none_or(|bytes| bytes.len() != 32) {
            return Err(KeyError::Invalid("a one-time key is not the unpadded base64 of 32 bytes"));
        }
    }
    Ok(())
}

/// [`check`], and that there is one an algorithm.
pub(crate) fn check_fallback(keys: &BTreeMap<String, Value>) -> Result<(), KeyError> {
    check(keys)?;
    let algorithms: BTreeSet<_> = keys.keys().filter_map(|key_id| algorithm(key_id)).collect();
    if algorithms.len() < keys.len() {
        return Err(KeyError::Invalid("there can be one fallback key an algorithm"));
    }
    Ok(())
}

/// Whether two keys are one: a key that was signed again is the same key.
fn same_key(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => signed::same_body(a, b),
        _ => a == b,
    }
}

/// What is remembered of a claimed key.
fn hash(key_id: &str, key: &Value) -> [u8; 8] {
    let public = key.get("key").unwrap_or(key).as_str().unwrap_or_default();
    let digest = Sha256::digest(format!("{key_id}\0{public}"));
    digest.first_chunk().copied().unwrap_or_default()
}

/// Stores checked one-time keys. The same key again changes nothing; another key under a known id is refused.
pub(crate) fn store_new(tx: &mut Tx<'_>, user: UserNo, device: DeviceNo, keys: &BTreeMap<String, Value>) -> Result<(), KeyError> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut counts = tx.get(&COUNTS, &(user, device))?.unwrap_or_default();
    let claimed = tx.get(&CLAIMED, &(user, device))?.unwrap_or_default();
    for (key_id, key) in keys {
        if let Some(upload) = tx.get(&KEY_IDS, &(user, device, key_id.as_str()))? {
            let stored = tx.get(&KEYS, &(user, device, upload, key_id.as_str()))?;
            if stored.is_none_or(|stored| !same_key(&stored.0, key)) {
                return Err(KeyError::OneTimeKeyExists(key_id.clone()));
            }
            continue;
        }
        if claimed.contains(&hash(key_id, key)) {
            continue;
        }
        tx.put(&KEYS, &(user, device, counts.uploads, key_id.as_str()), &Json(key.clone()))?;
        tx.put(&KEY_IDS, &(user, device, key_id.as_str()), &counts.uploads)?;
        *counts.unclaimed.entry(algorithm(key_id).unwrap_or_default().to_owned()).or_default() += 1;
    }
    counts.uploads += 1;
    KeyError::limit("algorithms of one-time keys", counts.unclaimed.len(), ALGORITHMS_MAX)?;
    KeyError::limit("one-time keys", counts.unclaimed.values().sum::<u64>() as usize, ONE_TIME_KEYS_MAX)?;
    Ok(tx.put(&COUNTS, &(user, device), &counts)?)
}

/// Stores checked fallback keys in place of those of their algorithms. The same key again does not become unused.
pub(crate) fn store_fallback(
    tx: &mut Tx<'_>,
    user: UserNo,
    device: DeviceNo,
    keys: &BTreeMap<String, Value>,
) -> Result<(), KeyError> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut counts = tx.get(&COUNTS, &(user, device))?.unwrap_or_default();
    for (id, key) in keys {
        let algorithm = algorithm(id).unwrap_or_default();
        let stored = tx.get(&FALLBACK, &(user, device, algorithm))?;
        if stored.is_some_and(|stored| stored.0.id == *id && same_key(&stored.0.key, key)) {
            continue;
        }
        let new = FallbackKey { id: id.clone(), key: key.clone(), used: false };
        tx.put(&FALLBACK, &(user, device, algorithm), &Json(new))?;
        counts.unused_fallback.insert(algorithm.to_owned());
    }
    let algorithms = tx.range(&FALLBACK, &Range::of(&Lead((user, device))))?.count();
    KeyError::limit("algorithms of fallback keys", algorithms, ALGORITHMS_MAX)?;
    Ok(tx.put(&COUNTS, &(user, device), &counts)?)
}

/// Keys asked for: by user and device, the algorithm.
pub type Claims = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, String>>;
/// Keys handed out: by user and device, the key by its `algorithm:id`.
pub type Claimed = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, BTreeMap<String, Value>>>;

/// Hands out a key of each named device of users of this server: the one-time key uploaded first, which nobody else will
/// get, or the fallback key. Devices without either are missing from the answer.
///
/// # Errors
/// [`KeyError::TooLarge`].
pub fn claim(store: &Store, claims: &Claims) -> Result<Pending<Claimed>, KeyError> {
    KeyError::limit("claimed devices", claims.values().map(BTreeMap::len).sum(), CLAIMED_DEVICES_MAX)?;
    let snapshot = store.snapshot();
    let mut users = Vec::new();
    for (user_id, devices) in claims {
        if let Some(user) = numbers::number(&snapshot, user_id)? {
            users.push((user, user_id, devices));
        }
    }
    let locks: Vec<Lock> = users.iter().map(|(user, ..)| Lock::User(*user)).collect();
    store.transact(&locks, |tx| {
        let mut claimed = Claimed::new();
        for (user, user_id, devices) in users {
            for (device_id, algorithm) in devices {
                let Some(device) = devices::number(tx, user, device_id)? else { continue };
                if let Some((key_id, key)) = claim_one(tx, user, device, algorithm)? {
                    let of_user = claimed.entry(user_id.clone()).or_default();
                    of_user.entry(device_id.clone()).or_default().insert(key_id, key);
                }
            }
        }
        Ok(claimed)
    })
}

/// Takes a key of a device. Wakes the device's syncs where it should upload more: with the last one-time key, and with the
/// first use of a fallback key.
fn claim_one(tx: &mut Tx<'_>, user: UserNo, device: DeviceNo, algorithm: &str) -> store::Result<Option<(String, Value)>> {
    let prefix = format!("{algorithm}:");
    let oldest = {
        let mut rows = tx.range(&KEYS, &Range::of(&Lead((user, device))))?;
        rows.find(|row| row.as_ref().map_or(true, |((.., key_id), _)| key_id.starts_with(&prefix))).transpose()?
    };
    let Some(((.., upload, key_id), key)) = oldest else { return claim_fallback(tx, user, device, algorithm) };
    tx.delete(&KEYS, &(user, device, upload, key_id.as_str()))?;
    tx.delete(&KEY_IDS, &(user, device, key_id.as_str()))?;
    let mut claimed = tx.get(&CLAIMED, &(user, device))?.unwrap_or_default();
    claimed.drain(..(claimed.len() + 1).saturating_sub(CLAIMED_REMEMBERED));
    claimed.push(hash(&key_id, &key.0));
    tx.put(&CLAIMED, &(user, device), &claimed)?;
    let mut counts = tx.get(&COUNTS, &(user, device))?.unwrap_or_default();
    let left = counts.unclaimed.entry(algorithm.to_owned()).or_default();
    *left = left.saturating_sub(1);
    if *left == 0 {
        tx.touch(Topic::User(user));
    }
    tx.put(&COUNTS, &(user, device), &counts)?;
    Ok(Some((key_id, key.0)))
}

fn claim_fallback(tx: &mut Tx<'_>, user: UserNo, device: DeviceNo, algorithm: &str) -> store::Result<Option<(String, Value)>> {
    let Some(Json(mut fallback)) = tx.get(&FALLBACK, &(user, device, algorithm))? else { return Ok(None) };
    let handed_out = (fallback.id.clone(), fallback.key.clone());
    if !fallback.used {
        fallback.used = true;
        tx.put(&FALLBACK, &(user, device, algorithm), &Json(fallback))?;
        let mut counts = tx.get(&COUNTS, &(user, device))?.unwrap_or_default();
        counts.unused_fallback.remove(algorithm);
        tx.put(&COUNTS, &(user, device), &counts)?;
        tx.touch(Topic::User(user));
    }
    Ok(Some(handed_out))
}

/// Forgets all one-time and fallback keys of a device.
pub(crate) fn forget(tx: &mut Tx<'_>, user: UserNo, device: DeviceNo) -> store::Result<()> {
    let of_device = Lead((user, device));
    let keys = tx.range(&KEYS, &Range::of(&of_device))?.map(|row| row.map(|(key, _)| key));
    let keys = keys.collect::<store::Result<Vec<_>>>()?;
    for (.., upload, key_id) in keys {
        tx.delete(&KEYS, &(user, device, upload, key_id.as_str()))?;
        tx.delete(&KEY_IDS, &(user, device, key_id.as_str()))?;
    }
    let fallback = tx.range(&FALLBACK, &Range::of(&of_device))?.map(|row| row.map(|((.., algorithm), _)| algorithm));
    let fallback = fallback.collect::<store::Result<Vec<_>>>()?;
    for algorithm in fallback {
        tx.delete(&FALLBACK, &(user, device, algorithm.as_str()))?;
    }
    tx.delete(&COUNTS, &(user, device))?;
    tx.delete(&CLAIMED, &(user, device))
}
