//! The device lists of users of other servers, as far as they are kept: so that clients are told of keys at once, and while the other server is away.
//!
//! Specification: server-server API, "Device Management". A list is what the user's server answered who was asked for all of the user's devices; what it
//! tells of them since then is applied, where it follows what is kept. Where something was missed the list is stale, until it was asked for again. That updates
//! come at all is for the layers above to know: they come while a room is shared.

use ruma::{OwnedDeviceId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Json, Owner, Preset, Read, Result, Seq, Table, Topic, Tx, UserNo};

use crate::{
    cross_signing,
    foreign_keys::{UserKeys, with_name},
    key_changes,
    keys::QUERIED_DEVICES_MAX,
};

static LISTS: Table<UserNo, Json<DeviceList>> = Table::new(
    "device_lists",
    "The devices and cross-signing keys of a user of another server, as that server told them last. To be trusted only while a room is shared.",
)
.owned_by(Owner::User)
.read_by(Preset::Blob);

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 1] = [LISTS.spec()];

/// The most bytes of keys that are kept of one user. Larger lists are asked for each time.
const LIST_BYTES_MAX: usize = 1 << 20;

/// The devices of a user of another server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceList {
    /// The update that it goes up to; `None` where the answer did not say, so that the next update follows nothing.
    pub stream_id: Option<u64>,
    /// The commit after which it was asked for.
    pub asked: Seq,
    /// Whether something was missed since.
    pub stale: bool,
    /// The keys.
    pub keys: UserKeys,
}

/// `m.device_list_update`, of a user who is known.
#[derive(Clone, Debug, Deserialize)]
pub struct DeviceUpdate {
    device_id: OwnedDeviceId,
    device_display_name: Option<String>,
    stream_id: u64,
    #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
    prev_id: Vec<u64>,
    #[serde(default)]
    deleted: bool,
    keys: Option<Value>,
}

/// `m.signing_key_update`, of a user who is known. What it does not name stays as it is.
#[derive(Clone, Debug, Deserialize)]
pub struct SigningKeysUpdate {
    master_key: Option<Value>,
    self_signing_key: Option<Value>,
}

/// What a server tells of the keys of one of its users.
#[derive(Clone, Debug)]
pub enum Update {
    /// A device changed.
    Device(DeviceUpdate),
    /// Cross-signing keys changed.
    SigningKeys(SigningKeysUpdate),
    /// Something changed, but what cannot be read.
    Unclear,
}

impl Update {
    /// The content of a message of one of these types.
    #[must_use]
    pub fn parse(edu_type: &str, content: &str) -> Self {
        let parsed = match edu_type {
            "m.device_list_update" => serde_json::from_str(content).map(Self::Device),
            "m.signing_key_update" => serde_json::from_str(content).map(Self::SigningKeys),
            _ => Ok(Self::Unclear),
        };
        parsed.unwrap_or(Self::Unclear)
    }
}

/// What is kept of a user, if anything.
///
/// # Errors
/// As the store.
pub fn list(db: &impl Read, user: UserNo) -> Result<Option<DeviceList>> {
    Ok(db.get(&LISTS, &user)?.map(|row| row.0))
}

/// Takes in what the user's server tells. Those in `touch`, the rooms of the user, hear of it where something changed, or may have. Returns whether the
/// list that is kept must be asked for again.
///
/// # Errors
/// [`store::Error::Unlocked`] without the user's lock.
pub fn receive(tx: &mut Tx<'_>, (user, id): (UserNo, &UserId), update: &Update, touch: &[Topic]) -> Result<bool> {
    let Some(kept) = list(tx, user)? else {
        key_changes::record(tx, user, None, touch)?;
        return Ok(false);
    };
    let next = if kept.stale { None } else { kept.updated(id, update) };
    let next = next.unwrap_or_else(|| DeviceList { stale: true, ..kept.clone() });
    if next != kept {
        put(tx, user, &next)?;
    }
    if next.stale || next.keys != kept.keys {
        key_changes::record(tx, user, None, touch)?;
    }
    Ok(next.stale)
}

/// Keeps what the user's server answered, unless it told of changes since it was asked, or a later answer is kept. Returns whether that is
/// something else than what was kept, so that others must hear of it: [`key_changes::record`].
///
/// # Errors
/// [`store::Error::Unlocked`] without the user's lock.
pub fn keep(tx: &mut Tx<'_>, user: UserNo, told: &DeviceList) -> Result<bool> {
    if key_changes::last_change(tx, user)?.is_some_and(|changed| changed > told.asked) {
        return Ok(false);
    }
    let kept = list(tx, user)?;
    if kept.as_ref().is_some_and(|kept| !kept.stale && kept.asked > told.asked) {
        return Ok(false);
    }
    put(tx, user, told)?;
    Ok(kept.is_some_and(|kept| kept.keys != told.keys))
}

/// Forgets the list of a user with whom no room is shared.
///
/// # Errors
/// [`store::Error::Unlocked`] without the user's lock.
pub fn forget(tx: &mut Tx<'_>, user: UserNo) -> Result<()> {
    if tx.contains(&LISTS, &user)? {
        tx.delete(&LISTS, &user)?;
    }
    Ok(())
}

fn put(tx: &mut Tx<'_>, user: UserNo, list: &DeviceList) -> Result<()> {
    let length = serde_json::to_string(&list.keys).map_or(usize::MAX, |text| text.len());
    if length > LIST_BYTES_MAX {
        return forget(tx, user);
    }
    tx.put(&LISTS, &user, &Json(list.clone()))
}

impl DeviceList {
    /// The list after an update; `None` where the update does not follow it, or cannot be believed.
    fn updated(&self, user: &UserId, update: &Update) -> Option<Self> {
        match update {
            Update::Device(update) => self.with_device(user, update),
            Update::SigningKeys(update) => self.with_signing_keys(user, update),
            Update::Unclear => None,
        }
    }

    fn with_device(&self, user: &UserId, update: &DeviceUpdate) -> Option<Self> {
        if self.stream_id == Some(update.stream_id) {
            // The list was told with it.
            return Some(self.clone());
        }
        let follows = !update.prev_id.is_empty() && update.prev_id.iter().all(|id| self.stream_id == Some(*id));
        if !follows {
            return None;
        }
        let mut next = Self { stream_id: Some(update.stream_id), ..self.clone() };
        let id = update.device_id.to_string();
        match &update.keys {
            Some(keys) if !update.deleted => {
                let told = with_name(keys.clone(), update.device_display_name.as_deref());
                let device = self.keys.believed_devices(user, [(id, told)].into_iter()).pop_first()?;
                next.keys.devices.extend([device]);
            }
            // A device without keys is none that anybody encrypts for.
            _ => drop(next.keys.devices.remove(&id)),
        }
        (next.keys.devices.len() <= QUERIED_DEVICES_MAX).then_some(next)
    }

    fn with_signing_keys(&self, user: &UserId, update: &SigningKeysUpdate) -> Option<Self> {
        let or_kept = |told: &Option<Value>, kept: &Option<_>| told.clone().or_else(|| kept.clone().map(Value::Object));
        let master = or_kept(&update.master_key, &self.keys.master);
        let self_signing = or_kept(&update.self_signing_key, &self.keys.self_signing);
        let mut keys = UserKeys::signing(user, master, self_signing);
        if (update.master_key.is_some() && keys.master.is_none())
            || (update.self_signing_key.is_some() && keys.self_signing.is_none())
        {
            return None;
        }
        let devices = self.keys.devices.iter();
        keys.devices = keys.believed_devices(user, devices.map(|(id, keys)| (id.clone(), Value::Object(keys.clone()))));
        let signs = |keys: &UserKeys| keys.self_signing.as_ref().and_then(cross_signing::public).map(|(id, _)| id);
        // What a new key signed was not believed before.
        let stale = !keys.devices.is_empty() && signs(&keys) != signs(&self.keys);
        Some(Self { keys, stale, ..self.clone() })
    }
}
