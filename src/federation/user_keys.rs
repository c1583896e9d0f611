//! End-to-end keys of users of other servers ("End-to-End Encryption", "Device Management"). What is handed on was checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ruma::{OwnedDeviceId, OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Value, json};
use store::UserNo;
use users::{
    device_lists::DeviceList,
    foreign_keys::{self, ToldKeys, ToldOneTimeKeys, UserKeys, with_name},
    keys::QueriedKeys,
    one_time_keys::{Claimed, Claims},
};

use crate::{Ask, Error, Federation, Result, device_lists::Standing, path};

/// The largest answer, in bytes: the keys of all members of a large room.
const ANSWER_MAX: usize = 32 << 20;
/// The largest list of the devices of one user, in bytes.
const DEVICES_MAX: usize = 4 << 20;
/// Lists that are asked for one by one for a client, because something of them was missed. The others are asked for all at once.
const REFRESHED_MAX: usize = 10;

/// The devices of a user of another server.
#[derive(Clone, Debug)]
pub struct Devices {
    /// How far the list goes: later changes come as `m.device_list_update` with this as a `prev_id`.
    pub stream_id: u64,
    /// The keys of devices that have any, and of cross-signing.
    pub keys: UserKeys,
}

impl Federation {
    /// The keys of users of one other server: those that are kept and current, else as the server tells them. Where it does not, what is kept all the same, and
    /// why.
    pub async fn query_keys(
        &self,
        server: &ServerName,
        asked: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
        timeout: Duration,
    ) -> (QueriedKeys, Option<Error>) {
        let mut found = QueriedKeys::default();
        let failure = self.find_keys(&mut found, server, asked, timeout).await.err();
        (found, failure)
    }

    async fn find_keys(
        &self,
        found: &mut QueriedKeys,
        server: &ServerName,
        asked: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
        timeout: Duration,
    ) -> Result<()> {
        let mut kept = self.kept_lists(asked.keys().cloned().collect()).await?;
        let stale = kept.iter().filter(|(_, kept)| kept.standing == Standing::Stale).take(REFRESHED_MAX);
        let (ids, stale): (Vec<OwnedUserId>, Vec<UserNo>) = stale.map(|(id, kept)| (id.clone(), kept.user)).unzip();
        let refreshed = self.refresh_lists(stale, timeout).await;
        kept.extend(self.kept_lists(ids).await?);
        let is_missing = |id: &OwnedUserId| kept.get(id).is_none_or(|kept| kept.standing != Standing::Current);
        let missing: BTreeMap<_, _> =
            asked.iter().filter(|(id, _)| is_missing(id)).map(|(id, of)| (id.clone(), of.clone())).collect();
        let told = match refreshed {
            _ if missing.is_empty() => Ok(BTreeMap::new()),
            Ok(()) => self.ask_keys(server, &missing, timeout).await,
            Err(error) => Err(error),
        };
        let (mut told, failure) = match told {
            Ok(told) => (told, Ok(())),
            Err(error) => (BTreeMap::new(), Err(error)),
        };
        for (id, named) in asked {
            if let Some(keys) = told.remove(&id).or_else(|| kept.remove(&id).map(|kept| kept.keys)) {
                found.add(id, keys, &named);
            }
        }
        failure
    }

    /// What a server tells of the keys of its users, which is kept where it is told of all devices of a user with whom a room is shared.
    async fn ask_keys(
        &self,
        server: &ServerName,
        wanted: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
        timeout: Duration,
    ) -> Result<BTreeMap<OwnedUserId, UserKeys>> {
        let asked = self.store.snapshot().seq();
        let place = path(&["_matrix", "federation", "v1", "user", "keys", "query"]);
        let ask = Ask::post(place, &json!({ "device_keys": wanted }))?.timeout(timeout).body_max(ANSWER_MAX);
        let told: ToldKeys = self.call(server, ask).await?;
        // Of whom nothing is said it is not known that they have no devices.
        let mut whole: BTreeSet<OwnedUserId> =
            wanted.iter().filter(|(_, named)| named.is_empty()).map(|(id, _)| id.clone()).collect();
        whole.retain(|id| told.device_keys.contains_key(id.as_str()));
        let told = foreign_keys::believed(told, wanted);
        let lists = told
            .iter()
            .filter(|(id, _)| whole.contains(*id))
            .map(|(id, keys)| (id.clone(), DeviceList { stream_id: None, asked, stale: false, keys: keys.clone() }));
        self.keep_lists(lists.collect()).await?;
        Ok(told)
    }

    /// One-time keys of devices of one other server's users.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn claim_keys(&self, server: &ServerName, asked: &Claims, timeout: Duration) -> Result<Claimed> {
        #[derive(Deserialize)]
        struct Told {
            #[serde(deserialize_with = "protocol::json::null_is_empty")]
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
            #[serde(deserialize_with = "protocol::json::null_is_empty")]
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
        let told: Told = self.call(user.server_name(), Ask::get(place).body_max(DEVICES_MAX)).await?;
        if told.user_id != user {
            return Err(Error::BadAnswer("it is about another user".to_owned()));
        }
        let named = |Device { device_id, keys, device_display_name }: Device| {
            (device_id, with_name(keys, device_display_name.as_deref()))
        };
        let of_user = |key: Option<Value>| key.map(|key| (user.to_string(), key)).into_iter().collect();
        let keys = ToldKeys {
            device_keys: [(user.to_string(), told.devices.into_iter().map(named).collect())].into(),
            master_keys: of_user(told.master_key),
            self_signing_keys: of_user(told.self_signing_key),
        };
        let keys = foreign_keys::believed(keys, &[(user.to_owned(), Vec::new())].into()).remove(user).unwrap_or_default();
        Ok(Devices { stream_id: told.stream_id, keys })
    }
}
