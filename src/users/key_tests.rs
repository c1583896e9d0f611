//! Stories of end-to-end keys: what devices do, told with real signatures.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use protocol::{
    json::{self, Numbers, Object},
    keys::SigningKey,
    sign,
};
use ruma::{OwnedDeviceId, OwnedUserId, UserId, user_id};
use serde_json::{Value, json};
use store::{Lock, RoomNo, Seq, Store, Topic, UserNo};

use crate::{
    KeyError,
    devices::{self, DeviceNo, NewDevice},
    keys::{self, ActingDevice, KeysUpload, QueriedKeys},
    numbers,
};

mod backup;
mod cross_signing;
mod device_keys;
mod device_lists;
mod one_time;
mod to_device;

/// The room that all users of these stories are in.
const ROOM: Topic = Topic::Room(RoomNo(1));

fn alice() -> &'static UserId {
    user_id!("@alice:localhost")
}

fn bob() -> &'static UserId {
    user_id!("@bob:localhost")
}

fn store() -> Store {
    Store::in_memory("localhost", crate::TABLES).unwrap()
}

/// A logged-in device with a signing key of its own.
struct Device {
    user: UserNo,
    user_id: OwnedUserId,
    device: DeviceNo,
    id: OwnedDeviceId,
    key: SigningKey,
}

/// A key that depends on a name only.
fn key(name: &str) -> SigningKey {
    use sha2::Digest as _;
    SigningKey::from_seed("x", &sha2::Sha256::digest(name).into()).unwrap()
}

fn sign_as(object: &mut Object, user: &UserId, key_id: &str, key: &SigningKey) {
    let signed = json::canonical_without(object, &["signatures", "unsigned"], Numbers::Normalised).unwrap();
    sign::add_signature(object, user.as_str(), key_id, key.sign(signed.as_bytes()));
}

fn object(value: Value) -> Object {
    let Value::Object(object) = value else { panic!("not an object: {value}") };
    object
}

impl Device {
    fn log_in(store: &Store, user_id: &UserId, id: &str) -> Self {
        let user = numbers::ensure(store, user_id).unwrap();
        let id: OwnedDeviceId = id.into();
        let new = NewDevice { display_name: Some("a phone"), dehydrated: false };
        let open = store.transact(&[Lock::User(user)], |tx| devices::open(tx, user, &id, new, 0)).unwrap();
        let device = open.wait().unwrap();
        Self { user, user_id: user_id.to_owned(), device, key: key(&format!("{user_id} {id}")), id }
    }

    fn acting(&self) -> ActingDevice<'_> {
        ActingDevice { user: self.user, user_id: &self.user_id, device: self.device, device_id: &self.id }
    }

    fn key_id(&self) -> String {
        format!("ed25519:{}", self.id)
    }

    /// Device keys without a signature.
    fn unsigned_keys(&self) -> Object {
        object(json!({
            "user_id": self.user_id,
            "device_id": self.id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                format!("curve25519:{}", self.id): key("curve").public().to_base64(),
                self.key_id(): self.key.public().to_base64(),
            },
        }))
    }

    fn device_keys(&self) -> Object {
        let mut keys = self.unsigned_keys();
        sign_as(&mut keys, &self.user_id, &self.key_id(), &self.key);
        keys
    }

    fn one_time_key(&self, name: &str) -> Value {
        let mut key = object(json!({ "key": key(name).public().to_base64() }));
        sign_as(&mut key, &self.user_id, &self.key_id(), &self.key);
        Value::Object(key)
    }

    fn one_time_keys(&self, names: &[&str]) -> BTreeMap<String, Value> {
        names.iter().map(|name| (format!("signed_curve25519:{name}"), self.one_time_key(name))).collect()
    }

    fn upload(&self, store: &Store, upload: &KeysUpload) -> Result<BTreeMap<String, u64>, KeyError> {
        Ok(keys::upload(store, &self.acting(), upload, &[ROOM])?.wait()?.one_time_keys)
    }

    fn upload_device_keys(&self, store: &Store) {
        let upload = KeysUpload { device_keys: Some(self.device_keys()), ..KeysUpload::default() };
        self.upload(store, &upload).unwrap();
    }

    fn upload_one_time_keys(&self, store: &Store, names: &[&str]) -> Result<BTreeMap<String, u64>, KeyError> {
        self.upload(store, &KeysUpload { one_time_keys: self.one_time_keys(names), ..KeysUpload::default() })
    }

    /// What `/keys/query` answers to this device about all devices of a user.
    fn query(&self, store: &Store, of: &UserId) -> QueriedKeys {
        keys::query(&store.snapshot(), Some(&self.user_id), &BTreeMap::from([(of.to_owned(), Vec::new())])).unwrap()
    }
}

/// Whether a room or user was woken after a position.
fn woken(store: &Store, since: Seq, topic: Topic) -> bool {
    !store.snapshot().changed_since(since, [topic]).is_empty()
}
