//! End-to-end keys of users of other servers ("End-to-End Encryption", "Device Management"). What is handed on was checked.

use std::{collections::BTreeMap, time::Duration};

use ruma::{OwnedDeviceId, OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Value, json};
use users::{
    foreign_keys::{self, ToldKeys, ToldOneTimeKeys},
    keys::QueriedKeys,
    one_time_keys::{Claimed, Claims},
};

use crate::{Ask, Error, Federation, Result, path};

/// The largest answer, in bytes: the keys of all members of a large room.
const ANSWER_MAX: usize = 32 << 20;

/// The devices of a user of another server.
#[derive(Clone, Debug)]
pub struct Devices {
    /// How far the list goes: later changes come as `m.device_list_update` with this as a `prev_id`.
    pub stream_id: u64,
    /// The keys of devices that have any, and of cross-signing.
    pub keys: QueriedKeys,
}

impl Federation {
    /// The keys of users of one other server.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn query_keys(
        &self,
        server: &ServerName,
        asked: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
        timeout: Duration,
    ) -> Result<QueriedKeys> {
        let place = path(&["_matrix", "federation", "v1", "user", "keys", "query"]);
        let ask = Ask::post(place, &json!({ "device_keys": asked }))?.timeout(timeout).body_max(ANSWER_MAX);
        let told: ToldKeys = self.call(server, ask).await?;
        Ok(foreign_keys::believed(told, asked))
    }

    /// One-time keys of devices of one other server's users.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn claim_keys(&self, server: &ServerName, asked: &Claims, timeout: Duration) -> Result<Claimed> {
        #[derive(Deserialize)]
        struct Told {
            one_time_keys: ToldOneTimeKeys,
        }
        let place = path(&["_matrix", "federation", "v1", "user", "keys", "claim"]);
        let ask = Ask::post(place, &json!({ "one_time_keys": asked }))?.timeout(timeout).body_max(ANSWER_MAX);
        let told: Told = self.call(server, ask).await?;
        Ok(foreign_keys::believed_one_time_keys(told.one_time_keys, asked))
    }

    /// All devices of a user of another server.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn devices(&self, user: &UserId) -> Result<Devices> {
        #[derive(Deserialize)]
        struct Told {
            user_id: OwnedUserId,
            stream_id: u64,
            devices: Vec<Device>,
            master_key: Option<Value>,
            self_signing_key: Option<Value>,
        }
        #[derive(Deserialize)]
        struct Device {
            device_id: String,
            keys: Value,
            device_display_name: Option<String>,
        }
        let place = path(&["_matrix", "federation", "v1", "user", "devices", user.as_str()]);
        let told: Told = self.call(user.server_name(), Ask::get(place).body_max(ANSWER_MAX)).await?;
        if told.user_id != user {
            return Err(Error::BadAnswer("it is about another user".to_owned()));
        }
        let named = |Device { device_id, mut keys, device_display_name }: Device| {
            if let (Some(keys), Some(name)) = (keys.as_object_mut(), device_display_name) {
                keys.insert("unsigned".to_owned(), json!({ "device_display_name": name }));
            }
            (device_id, keys)
        };
        let of_user = |key: Option<Value>| key.map(|key| (user.to_string(), key)).into_iter().collect();
        let keys = ToldKeys {
            device_keys: [(user.to_string(), told.devices.into_iter().map(named).collect())].into(),
            master_keys: of_user(told.master_key),
            self_signing_keys: of_user(told.self_signing_key),
        };
        let asked = [(user.to_owned(), Vec::new())].into();
        Ok(Devices { stream_id: told.stream_id, keys: foreign_keys::believed(keys, &asked) })
    }
}
