//! End-to-end keys of this server's users, for other servers ("End-to-End Encryption", "Device Management").

use std::collections::BTreeMap;

use protocol::json::Object;
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::federation::{
        device::get_devices::v1 as devices,
        keys::{claim_keys::v1 as claim, get_keys::v1 as query},
    },
};
use serde::{Deserialize, Serialize};
use users::{
    accounts, key_changes,
    keys::{self, QueriedKeys},
    one_time_keys::{self, Claimed, Claims},
};

use super::{Origin, federated};
use crate::{
    Call, Class, Error, Json, Result, Route,
    client::{Nothing, With},
};

/// The body of a query or claim: the devices of all this server's members of a large room.
const MANY_DEVICES_BODY_MAX: usize = 4 << 20;

pub(super) fn routes() -> Vec<Route> {
    vec![
        federated(Class::Federation.cost(5), query).body_max(MANY_DEVICES_BODY_MAX),
        federated(Class::Federation.cost(5), claim).body_max(MANY_DEVICES_BODY_MAX),
        federated(Class::Federation, devices),
    ]
}

#[derive(Deserialize)]
struct Asked {
    device_keys: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
}

/// What is told to other servers. User-signing keys are nobody's but their users'.
#[derive(Serialize)]
struct Told {
    device_keys: BTreeMap<OwnedUserId, BTreeMap<String, Object>>,
    master_keys: BTreeMap<OwnedUserId, Object>,
    self_signing_keys: BTreeMap<OwnedUserId, Object>,
}

async fn query(call: Call<Origin>, request: With<query::Request, Asked>) -> Result<Json<Told>> {
    let (local, _) = keys::split_remote(request.body.device_keys, &call.server.name);
    let db = call.snapshot();
    let found = call.server.blocking(move || keys::query(&db, None, &local)).await?;
    let QueriedKeys { device_keys, master_keys, self_signing_keys, .. } = found;
    Ok(Json(Told { device_keys, master_keys, self_signing_keys }))
}

#[derive(Deserialize)]
struct Claiming {
    one_time_keys: Claims,
}

#[derive(Serialize)]
struct ClaimedKeys {
    one_time_keys: Claimed,
}

async fn claim(call: Call<Origin>, request: With<claim::Request, Claiming>) -> Result<Json<ClaimedKeys>> {
    let (local, _) = keys::split_remote(request.body.one_time_keys, &call.server.name);
    let store = call.server.store.clone();
    let claimed = call.server.blocking(move || one_time_keys::claim(&store, &local)).await?;
    Ok(Json(ClaimedKeys { one_time_keys: claimed.durable().await? }))
}

#[derive(Serialize)]
struct Devices {
    user_id: OwnedUserId,
    /// As in the `stream_id` of `m.device_list_update`: the commit of the last change.
    stream_id: u64,
    devices: Vec<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    master_key: Option<Object>,
    #[serde(skip_serializing_if = "Option::is_none")]
    self_signing_key: Option<Object>,
}

#[derive(Serialize)]
struct Device {
    device_id: String,
    keys: Object,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_display_name: Option<String>,
}

async fn devices(call: Call<Origin>, request: With<devices::Request, Nothing>) -> Result<Json<Devices>> {
    let user_id = request.user_arg(0)?;
    let db = call.snapshot();
    let (user, _) = accounts::find(&db, &user_id)?.ok_or_else(|| Error::not_found("There is no such user"))?;
    let stream_id = key_changes::last_change(&db, user)?.map_or(0, |seq| seq.0);
    let mut found = keys::query(&db, None, &[(user_id.clone(), Vec::new())].into())?;
    let device = |(device_id, mut keys): (String, Object)| {
        let unsigned = keys.remove("unsigned");
        let name = unsigned.and_then(|unsigned| Some(unsigned.get("device_display_name")?.as_str()?.to_owned()));
        Device { device_id, keys, device_display_name: name }
    };
    let devices = found.device_keys.remove(&user_id).unwrap_or_default().into_iter().map(device).collect();
    let master_key = found.master_keys.remove(&user_id);
    let self_signing_key = found.self_signing_keys.remove(&user_id);
    Ok(Json(Devices { user_id, stream_id, devices, master_key, self_signing_key }))
}
