//! Keys of users of other servers, as those servers tell them. What is handed on belongs to whom it was asked of, and has the shape of the
//! keys of this server's users. That a device signed its keys, the clients check.

use std::collections::BTreeMap;

use protocol::json::Object;
use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    cross_signing::{self, Usage},
    keys::{self, QUERIED_DEVICES_MAX},
    one_time_keys::{self, Claimed, Claims},
    signed,
};

/// What is kept of a device's name, in characters.
const NAME_MAX: usize = 100;

/// What another server answers who asks for keys. Nothing of it is checked.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ToldKeys {
    /// Device keys by user and device.
    #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
    pub device_keys: BTreeMap<String, BTreeMap<String, Value>>,
    /// Master keys by user.
    #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
    pub master_keys: BTreeMap<String, Value>,
    /// Self-signing keys by user.
    #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
    pub self_signing_keys: BTreeMap<String, Value>,
}

/// One-time keys that another server hands out: by user, device and key id. Nothing of it is checked.
pub type ToldOneTimeKeys = BTreeMap<String, BTreeMap<String, BTreeMap<String, Value>>>;

/// The keys of a user of another server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserKeys {
    /// The keys of the devices that have any, by device id.
    pub devices: BTreeMap<String, Object>,
    /// The master key.
    pub master: Option<Object>,
    /// The self-signing key.
    pub self_signing: Option<Object>,
}

/// What is to be believed of an answer: of the users that were asked for, and of the named devices where any are named.
#[must_use]
pub fn believed(mut told: ToldKeys, asked: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>) -> BTreeMap<OwnedUserId, UserKeys> {
    let mut answer = BTreeMap::new();
    for (user, named) in asked {
        let master = told.master_keys.remove(user.as_str());
        let mut keys = UserKeys::signing(user, master, told.self_signing_keys.remove(user.as_str()));
        let devices = told.device_keys.remove(user.as_str()).unwrap_or_default().into_iter();
        let wanted = devices.filter(|(id, _)| named.is_empty() || named.iter().any(|named| named.as_str() == id));
        keys.devices = keys.believed_devices(user, wanted.take(QUERIED_DEVICES_MAX));
        answer.insert(user.clone(), keys);
    }
    answer
}

impl UserKeys {
    /// The cross-signing keys that are to be believed, without devices: a self-signing key only where the master key signed it.
    pub(crate) fn signing(user: &UserId, master: Option<Value>, self_signing: Option<Value>) -> Self {
        let master = cross_signing_key(master, user, Usage::Master);
        let of_master = master.as_ref().and_then(cross_signing::public);
        let self_signing = cross_signing_key(self_signing, user, Usage::SelfSigning)
            .filter(|key| of_master.as_ref().is_some_and(|(key_id, public)| signed::is_signed(key, user, key_id, public)));
        Self { devices: BTreeMap::new(), master, self_signing }
    }

    /// Those of the devices that are to be believed, beside the cross-signing keys here.
    pub(crate) fn believed_devices(
        &self,
        user: &UserId,
        told: impl Iterator<Item = (String, Value)>,
    ) -> BTreeMap<String, Object> {
        let of_self_signing = self.self_signing.as_ref().and_then(cross_signing::public);
        told.filter_map(|(id, keys)| device_keys(keys, user, &id, of_self_signing.as_ref()).map(|keys| (id, keys))).collect()
    }
}

/// Device keys with the name of the device, as `/keys/query` tells it.
#[must_use]
pub fn with_name(mut keys: Value, name: Option<&str>) -> Value {
    if let (Some(keys), Some(name)) = (keys.as_object_mut(), name) {
        keys.insert("unsigned".to_owned(), json!({ "device_display_name": name }));
    }
    keys
}

/// A cross-signing key of the right shape, with its owner's signatures alone.
fn cross_signing_key(key: Option<Value>, user: &UserId, usage: Usage) -> Option<Object> {
    let Some(Value::Object(mut key)) = key else { return None };
    cross_signing::check(user, usage, &key).ok()?;
    signed::retain_signatures(&mut key, user, |_| true);
    Some(key)
}

/// The keys of a device, with its own signature, that of the self-signing key, and its name.
fn device_keys(
    keys: Value,
    user: &UserId,
    device: &str,
    self_signing: Option<&(String, protocol::keys::PublicKey)>,
) -> Option<Object> {
    let Value::Object(mut keys) = keys else { return None };
    keys::check_device_keys(&keys, user, device.into()).ok()?;
    let name = keys.get("unsigned").and_then(|unsigned| unsigned.get("device_display_name")).and_then(Value::as_str);
    let name: Option<String> = name.map(|name| name.chars().take(NAME_MAX).collect());
    let vouched = self_signing.filter(|(key_id, public)| signed::is_signed(&keys, user, key_id, public));
    let own = keys::own_key_id(device.into());
    signed::retain_device_signatures(&mut keys, user, |id| id == own || vouched.is_some_and(|(key_id, _)| key_id == id));
    if let Some(name) = name {
        keys.insert("unsigned".to_owned(), json!({ "device_display_name": name }));
    }
    Some(keys)
}

/// What is to be believed of claimed keys: one for each device, of the algorithm that was asked for. Their signatures are for
/// those who claim them, as with the keys of this server's users.
#[must_use]
pub fn believed_one_time_keys(mut told: ToldOneTimeKeys, asked: &Claims) -> Claimed {
    let mut claimed = Claimed::new();
    for (user, devices) in asked {
        let Some(mut told) = told.remove(user.as_str()) else { continue };
        for (device, algorithm) in devices {
            let keys = told.remove(device.as_str()).unwrap_or_default();
            let wanted = |(id, _): &(String, Value)| id.split_once(':').is_some_and(|(of, _)| of == algorithm);
            let Some(key) = keys.into_iter().find(wanted) else { continue };
            let key = BTreeMap::from([key]);
            if one_time_keys::check(&key).is_ok() {
                claimed.entry(user.clone()).or_default().insert(device.clone(), key);
            }
        }
    }
    claimed
}
