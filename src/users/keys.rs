//! Device keys: upload and query.
//!
//! Specification: client-server API, "Key Distribution". What is stored has the right shape and names its owner, so that
//! nothing served to others can break them. Whether a device signed its keys is for those to check who are to trust them, as
//! the specification has it: they cannot rely on a server. Keys of users of other servers are not here:
//! [`split_remote`] tells the caller whom to ask elsewhere.

use std::collections::BTreeMap;

use protocol::{base64, json::Object, keys::ED25519};
use ruma::{DeviceId, OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use store::{Json, Lead, Lock, Owner, Pending, Range, Read, Store, Table, Topic, Tx, UserNo};

use crate::{
    KeyError, cross_signing,
    devices::{self, DeviceNo},
    foreign_keys::UserKeys,
    key_changes, numbers,
    one_time_keys::{self, KeyCounts},
    signed,
};

static DEVICE_KEYS: Table<(UserNo, String), Json<Object>> = Table::new(
    "device_keys",
    "The identity keys of a device, by its id, as uploaded, with the signatures of the device and of the user's \
     self-signing key.",
)
.owned_by(Owner::User);

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 1] = [DEVICE_KEYS.spec()];

/// The most algorithms, and the most identity keys, of one device.
const DEVICE_KEYS_MAX: usize = 32;
/// The most users that one query names. Clients ask for all members of a room at once.
pub const QUERIED_USERS_MAX: usize = 50_000;
/// The most devices that one query names for one user.
pub const QUERIED_DEVICES_MAX: usize = 1_000;

/// A device that acts, with both of its names and both of its user's.
#[derive(Clone, Copy, Debug)]
pub struct ActingDevice<'a> {
    /// The user's number.
    pub user: UserNo,
    /// The user's id.
    pub user_id: &'a UserId,
    /// The device's number.
    pub device: DeviceNo,
    /// The device's id.
    pub device_id: &'a DeviceId,
}

/// The body of `/keys/upload`. What is given as `null` is refused, as the specification's types have it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct KeysUpload {
    /// The identity keys of the device.
    #[serde(default, deserialize_with = "present")]
    pub device_keys: Option<Object>,
    /// One-time keys by `algorithm:id`.
    #[serde(default)]
    pub one_time_keys: BTreeMap<String, Value>,
    /// Fallback keys by `algorithm:id`, one an algorithm.
    #[serde(default)]
    pub fallback_keys: BTreeMap<String, Value>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Object>, D::Error> {
    Object::deserialize(deserializer).map(Some)
}

/// Stores the keys of a device: `/keys/upload`. Where its identity keys changed, so do the one-time keys that belong to
/// them, and `touch`, the rooms of the user, is woken. Returns how many one-time keys there are now.
///
/// # Errors
/// [`KeyError`]: nothing is stored then.
pub fn upload(
    store: &Store,
    acting: &ActingDevice<'_>,
    upload: &KeysUpload,
    touch: &[Topic],
) -> Result<Pending<KeyCounts>, KeyError> {
    if let Some(keys) = &upload.device_keys {
        check_device_keys(keys, acting.user_id, acting.device_id)?;
    }
    one_time_keys::check(&upload.one_time_keys)?;
    one_time_keys::check_fallback(&upload.fallback_keys)?;
    store.transact(&[Lock::User(acting.user)], |tx| {
        // The device may have been logged out while the request was on its way.
        if devices::number(tx, acting.user, acting.device_id)? != Some(acting.device) {
            return Err(KeyError::NotFound("the device is gone"));
        }
        let changed = match &upload.device_keys {
            Some(keys) => store_device_keys(tx, acting, keys)?,
            None => false,
        };
        one_time_keys::store_new(tx, acting.user, acting.device, &upload.one_time_keys)?;
        one_time_keys::store_fallback(tx, acting.user, acting.device, &upload.fallback_keys)?;
        if changed {
            key_changes::record(tx, acting.user, Some(acting.device_id), touch)?;
        }
        Ok(one_time_keys::counts(tx, acting.user, acting.device)?)
    })
}

/// Checks the shape of device keys, and whose they are.
pub(crate) fn check_device_keys(object: &Object, user: &UserId, device: &DeviceId) -> Result<(), KeyError> {
    signed::check_owner(object, user)?;
    match object.get("device_id") {
        Some(Value::String(id)) if id == device.as_str() => {}
        Some(Value::String(_)) => return Err(KeyError::Invalid("device_id is not the device of this session")),
        _ => return Err(KeyError::Malformed("device_id must be a string")),
    }
    let algorithms = signed::strings(object, "algorithms", "algorithms must be an array of strings")?;
    KeyError::limit("algorithms", algorithms.len(), DEVICE_KEYS_MAX)?;
    let keys = signed::string_map(object.get("keys"), "keys must map key ids to strings")?;
    KeyError::limit("device keys", keys.len(), DEVICE_KEYS_MAX)?;
    for (key_id, key) in keys {
        let Some((algorithm, owner)) = key_id.split_once(':') else {
            return Err(KeyError::Invalid("a key id is written <algorithm>:<device_id>"));
        };
        if owner != device.as_str() {
            return Err(KeyError::Invalid("a key id names another device"));
        }
        if matches!(algorithm, "ed25519" | "curve25519") && base64::decode(key).is_none_or(|bytes| bytes.len() != 32) {
            return Err(KeyError::Invalid("a key is not the unpadded base64 of 32 bytes"));
        }
    }
    signed::check_signatures(object)
}

/// The id of a device's signing key.
pub(crate) fn own_key_id(device: &DeviceId) -> String {
    format!("{ED25519}{device}")
}

/// Stores checked device keys. Returns whether anything that others see changed.
fn store_device_keys(tx: &mut Tx<'_>, acting: &ActingDevice<'_>, uploaded: &Object) -> Result<bool, KeyError> {
    let own = own_key_id(acting.device_id);
    let self_signing = cross_signing::self_signing_key(tx, acting.user)?;
    if let Some((key_id, key)) = &self_signing {
        let claimed = signed::signatures_of(uploaded, acting.user_id).any(|(id, _)| id == key_id);
        if claimed && !signed::is_signed(uploaded, acting.user_id, key_id, key) {
            return Err(KeyError::Signature("the signature of the self-signing key is wrong"));
        }
    }
    // Signatures of keys that nobody knows prove nothing to anybody.
    let mut kept = uploaded.clone();
    let known = |id: &str| id == own || self_signing.as_ref().is_some_and(|(key_id, _)| id == key_id);
    signed::retain_device_signatures(&mut kept, acting.user_id, known);
    let key = (acting.user, acting.device_id.as_str());
    let stored = tx.get(&DEVICE_KEYS, &key)?.map(|row| row.0);
    let Some(mut stored) = stored else {
        tx.put(&DEVICE_KEYS, &key, &Json(kept))?;
        return Ok(true);
    };
    if signed::same_body(&stored, &kept) {
        // A client may upload its keys again without the signatures that others gave them since.
        let merged = signed::merge_signatures(&mut stored, &kept, acting.user_id);
        if merged {
            tx.put(&DEVICE_KEYS, &key, &Json(stored))?;
        }
        return Ok(merged);
    }
    if stored.get("keys") != kept.get("keys") {
        // A client that lost its keys: the private halves of its one-time keys are gone with them.
        one_time_keys::forget(tx, acting.user, acting.device)?;
    }
    tx.put(&DEVICE_KEYS, &key, &Json(kept))?;
    Ok(true)
}

/// The keys of one device of a user of this server, if it has any.
///
/// # Errors
/// As the store.
pub fn device_keys(db: &impl Read, user: UserNo, device_id: &str) -> store::Result<Option<Object>> {
    Ok(db.get(&DEVICE_KEYS, &(user, device_id))?.map(|row| row.0))
}

/// Whether this device has keys, so that others track it.
///
/// # Errors
/// As the store.
pub fn has_keys(db: &impl Read, user: UserNo, device_id: &DeviceId) -> store::Result<bool> {
    db.contains(&DEVICE_KEYS, &(user, device_id.as_str()))
}

/// The keys of all devices of a user, by device id.
pub(crate) fn all_device_keys(db: &impl Read, user: UserNo) -> store::Result<Vec<(String, Object)>> {
    db.range(&DEVICE_KEYS, &Range::of(&Lead((user,))))?.map(|row| row.map(|((_, id), keys)| (id, keys.0))).collect()
}

/// Replaces the stored keys of a device, to add or take away signatures.
pub(crate) fn put_device_keys(tx: &mut Tx<'_>, user: UserNo, device_id: &str, keys: Object) -> store::Result<()> {
    tx.put(&DEVICE_KEYS, &(user, device_id), &Json(keys))
}

/// Forgets the keys of a device. Returns whether it had any, so that others must be told.
pub(crate) fn forget(tx: &mut Tx<'_>, user: UserNo, device_id: &str) -> store::Result<bool> {
    let had = tx.contains(&DEVICE_KEYS, &(user, device_id))?;
    if had {
        tx.delete(&DEVICE_KEYS, &(user, device_id))?;
    }
    Ok(had)
}

/// Parts what is asked of users into those of this server and, by server, the others.
pub fn split_remote<T>(
    asked: BTreeMap<OwnedUserId, T>,
    this: &ServerName,
) -> (BTreeMap<OwnedUserId, T>, BTreeMap<OwnedServerName, BTreeMap<OwnedUserId, T>>) {
    let (mut local, mut remote) = (BTreeMap::new(), BTreeMap::<OwnedServerName, BTreeMap<_, _>>::new());
    for (user, what) in asked {
        if user.server_name() == this {
            local.insert(user, what);
        } else {
            remote.entry(user.server_name().to_owned()).or_default().insert(user, what);
        }
    }
    (local, remote)
}

/// What `/keys/query` answers, by user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueriedKeys {
    /// Device keys by device id. Users without any have an empty map: clients ask again for users that are missing.
    pub device_keys: BTreeMap<OwnedUserId, BTreeMap<String, Object>>,
    /// Master keys.
    pub master_keys: BTreeMap<OwnedUserId, Object>,
    /// Self-signing keys.
    pub self_signing_keys: BTreeMap<OwnedUserId, Object>,
    /// User-signing keys: that of the requester only.
    pub user_signing_keys: BTreeMap<OwnedUserId, Object>,
}

impl QueriedKeys {
    /// Adds the keys of a user of another server: of the named devices, or of all where none is named.
    pub fn add(&mut self, user: OwnedUserId, keys: UserKeys, named: &[OwnedDeviceId]) {
        let UserKeys { mut devices, master, self_signing } = keys;
        if !named.is_empty() {
            devices.retain(|id, _| named.iter().any(|named| named.as_str() == id));
        }
        master.map(|key| self.master_keys.insert(user.clone(), key));
        self_signing.map(|key| self.self_signing_keys.insert(user.clone(), key));
        self.device_keys.insert(user, devices);
    }
}

/// The keys of users of this server: of the named devices, or of all where none is named. `requester` is the user who
/// asks, who alone sees its user-signing key and what it signed; another server is nobody.
///
/// # Errors
/// [`KeyError::TooLarge`].
pub fn query(
    db: &impl Read,
    requester: Option<&UserId>,
    asked: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
) -> Result<QueriedKeys, KeyError> {
    KeyError::limit("queried users", asked.len(), QUERIED_USERS_MAX)?;
    let requester = match requester {
        Some(id) => numbers::number(db, id)?.map(|number| (number, id)),
        None => None,
    };
    let mut answer = QueriedKeys::default();
    for (user_id, named) in asked {
        KeyError::limit("queried devices of a user", named.len(), QUERIED_DEVICES_MAX)?;
        let Some(user) = numbers::number(db, user_id)? else { continue };
        answer.device_keys.insert(user_id.clone(), queried_devices(db, user, named)?);
        let keys = cross_signing::visible_keys(db, requester, user)?;
        keys.master.map(|key| answer.master_keys.insert(user_id.clone(), key));
        keys.self_signing.map(|key| answer.self_signing_keys.insert(user_id.clone(), key));
        keys.user_signing.map(|key| answer.user_signing_keys.insert(user_id.clone(), key));
    }
    Ok(answer)
}

fn queried_devices(db: &impl Read, user: UserNo, named: &[OwnedDeviceId]) -> Result<BTreeMap<String, Object>, KeyError> {
    let mut found = BTreeMap::new();
    if named.is_empty() {
        found.extend(all_device_keys(db, user)?);
    }
    for id in named {
        device_keys(db, user, id.as_str())?.map(|keys| found.insert(id.to_string(), keys));
    }
    for (id, keys) in &mut found {
        if let Some(name) = devices::display_name(db, user, id.as_str().into())? {
            keys.insert("unsigned".into(), serde_json::json!({ "device_display_name": name }));
        }
    }
    Ok(found)
}
