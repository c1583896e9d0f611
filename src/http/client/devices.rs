//! The devices of the caller ("Client device management").

use http::StatusCode;
use ruma::{
    OwnedDeviceId,
    api::{
        OutgoingResponse,
        client::device::{delete_device, delete_devices, get_device, get_devices, update_device},
        error::IntoHttpError,
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use users::devices::{self, Device};

use super::{
    account::touch,
    uiaa::{self, Auth},
    with::With,
};
use crate::{
    Call, Class, Error, Json, Result, Route,
    auth::{Session, User, UserOrGuest},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        endpoint(UserOrGuest, Class::Read, list),
        endpoint(UserOrGuest, Class::Read, read),
        endpoint(UserOrGuest, Class::Write, rename),
        endpoint(User, Class::Write, delete),
        endpoint(User, Class::Write, delete_many),
    ]
}

fn told(device: Device) -> Value {
    let Device { id, display_name, seen, .. } = device;
    let mut told = json!({ "device_id": id });
    if let Some(name) = display_name {
        told["display_name"] = name.into();
    }
    if let Some(seen) = seen {
        told["last_seen_ts"] = seen.at_ms.into();
        told["last_seen_ip"] = seen.ip.into();
    }
    told
}

async fn list(call: Call<Session>, _: get_devices::v3::Request) -> Result<Json<Value>> {
    let devices = devices::devices(&call.snapshot(), call.session.user)?;
    Ok(Json(json!({ "devices": devices.into_iter().map(told).collect::<Vec<_>>() })))
}

async fn read(call: Call<Session>, request: get_device::v3::Request) -> Result<Json<Value>> {
    let device = devices::device(&call.snapshot(), call.session.user, &request.device_id)?;
    device.map(|device| Json(told(device))).ok_or_else(|| Error::not_found("There is no such device"))
}

/// What `PUT /devices/{deviceId}` did: a status, and nothing to say.
struct Put(StatusCode);

impl OutgoingResponse for Put {
    type Body = Json<Map<String, Value>>;

    fn try_into_http_response_inner(self) -> std::result::Result<http::Response<Self::Body>, IntoHttpError> {
        let mut response = http::Response::new(Json(Map::new()));
        *response.status_mut() = self.0;
        Ok(response)
    }
}

async fn rename(call: Call<Session>, request: update_device::v3::Request) -> Result<Put> {
    let update_device::v3::Request { device_id, display_name, .. } = request;
    if call.session.appservice.is_some() {
        // Its users need no login to have devices ("Device management" of application services).
        let (store, user, name) = (&call.server.store, call.session.user, display_name.as_deref());
        if devices::make(store, user, &device_id, name, call.now_ms())?.durable().await? {
            return Ok(Put(StatusCode::CREATED));
        }
    }
    match display_name {
        Some(name) => {
            let pending = devices::rename(&call.server.store, call.session.user, &device_id, &name, &touch(&call)?)?;
            pending.durable().await?;
        }
        None if devices::number(&call.snapshot(), call.session.user, &device_id)?.is_none() => {
            return Err(Error::not_found("There is no such device"));
        }
        None => {}
    }
    Ok(Put(StatusCode::OK))
}

#[derive(Deserialize)]
struct Deletion {
    auth: Option<Auth>,
    #[serde(default)]
    devices: Vec<OwnedDeviceId>,
}

async fn delete(call: Call<Session>, request: With<delete_device::v3::Request, Deletion>) -> Result<delete_device::v3::Response> {
    let device: OwnedDeviceId = request.arg(0).into();
    if call.session.appservice.is_none() {
        uiaa::password(&call, "DELETE", &format!("/devices/{device}"), request.body.auth).await?;
    }
    devices::delete(&call.server.store, call.session.user, &[device], &touch(&call)?)?.durable().await?;
    Ok(delete_device::v3::Response::new())
}

async fn delete_many(
    call: Call<Session>,
    request: With<delete_devices::v3::Request, Deletion>,
) -> Result<delete_devices::v3::Response> {
    let Deletion { auth, devices } = request.body;
    if call.session.appservice.is_none() {
        uiaa::password(&call, "POST", "/delete_devices", auth).await?;
    }
    devices::delete(&call.server.store, call.session.user, &devices, &touch(&call)?)?.durable().await?;
    Ok(delete_devices::v3::Response::new())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::login::tests::{auth, with_password};
    use crate::testing::Hearth;

    fn alice_on(device: &str) -> Value {
        json!({ "type": "m.login.password", "user": "alice", "password": "correct horse", "device_id": device })
    }

    #[tokio::test]
    async fn devices_are_named_and_deleted_after_the_password() {
        let hearth = Hearth::start();
        let alice = with_password(&hearth, "alice").await;
        let mut tokens = Vec::new();
        for device in ["ONE", "TWO", "THREE"] {
            let session = hearth.post("/_matrix/client/v3/login", alice_on(device)).await.ok();
            tokens.push(session["access_token"].as_str().unwrap_or_default().to_owned());
        }
        alice.put("/_matrix/client/v3/devices/ONE", json!({ "display_name": "first" })).await.ok();
        assert_eq!(alice.get("/_matrix/client/v3/devices/ONE").await.ok()["display_name"], "first");
        alice.put("/_matrix/client/v3/devices/NONE", json!({ "display_name": "x" })).await.fails(404, "M_NOT_FOUND");
        alice.get("/_matrix/client/v3/devices/NONE").await.fails(404, "M_NOT_FOUND");
        assert_eq!(alice.get("/_matrix/client/v3/devices").await.ok()["devices"].as_array().map(Vec::len), Some(4));

        let asked = alice.delete("/_matrix/client/v3/devices/ONE").json(&json!({})).await;
        assert_eq!(asked.status, 401);
        let mut stolen = auth(&alice);
        stolen["session"] = asked.json()["session"].clone();
        let for_another = alice.delete("/_matrix/client/v3/devices/TWO").json(&json!({ "auth": stolen.clone() })).await;
        assert_eq!(for_another.status, 401, "a session is for one device");
        let bob = with_password(&hearth, "bob").await;
        alice.delete("/_matrix/client/v3/devices/ONE").json(&json!({ "auth": auth(&bob) })).await.fails(403, "M_FORBIDDEN");
        alice.delete("/_matrix/client/v3/devices/ONE").json(&json!({ "auth": stolen })).await.ok();
        let many = json!({ "devices": ["TWO", "THREE", "NONE"], "auth": auth(&alice) });
        alice.post("/_matrix/client/v3/delete_devices", many).await.ok();
        for token in tokens {
            hearth.get("/_matrix/client/v3/devices").token(&token).await.fails(401, "M_UNKNOWN_TOKEN");
        }
        let left: Value = alice.get("/_matrix/client/v3/devices").await.ok();
        assert_eq!(left["devices"][0]["device_id"], alice.device_id.as_str());
    }

    #[tokio::test]
    async fn a_device_that_has_just_logged_in_was_used_for_that() {
        let hearth = Hearth::start();
        let alice = with_password(&hearth, "alice").await;
        hearth.post("/_matrix/client/v3/login", alice_on("NEW")).from("192.0.2.7").await.ok();
        let told = alice.get("/_matrix/client/v3/devices/NEW").await.ok();
        assert_eq!((&told["last_seen_ip"], &told["last_seen_ts"]), (&json!("192.0.2.7"), &json!(hearth.server.now_ms())));
    }

    #[tokio::test]
    async fn a_device_tells_when_and_from_where_it_was_used_last() {
        let hearth = Hearth::start();
        let (admin, bob) = (hearth.register_admin("alice").await, hearth.register("bob").await);
        for (person, address) in [(admin, "127.0.0.1"), (bob, "192.0.2.1")] {
            let device = format!("/_matrix/client/v3/devices/{}", person.device_id);
            // What was written without waiting is seen once a later write is on disk.
            person.put(&device, json!({ "display_name": "laptop" })).from(address).await.ok();
            let told = person.get("/_matrix/client/v3/devices").await.ok();
            let seen = (&told["devices"][0]["last_seen_ip"], &told["devices"][0]["last_seen_ts"]);
            assert_eq!(seen, (&json!(address), &json!(hearth.server.now_ms())));
        }
    }
}
