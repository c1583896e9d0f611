//! The caller's own account and session: who am I, logout, new password, deactivation ("Account registration and management").

use ruma::api::client::{
    account::{ThirdPartyIdRemovalStatus, change_password, deactivate, get_3pids, whoami},
    session::{logout, logout_all},
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::Topic;
use users::{accounts, accounts::Kind, devices::Keep, passwords, sessions};

use super::{
    register::hash,
    uiaa::{self, Auth},
    with::With,
};
use crate::{
    Call, Class, Json, Result, Route,
    auth::{EvenLocked, Session, User, UserOrGuest},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        endpoint(UserOrGuest, Class::Read, who_am_i),
        endpoint(EvenLocked, Class::Write, log_out),
        endpoint(EvenLocked, Class::Write, log_out_all),
        endpoint(User, Class::Write, set_password),
        endpoint(User, Class::Write, deactivate_account),
        endpoint(User, Class::Read, third_party_ids),
    ]
}

/// The rooms of the caller, where others must hear of devices that come or go.
pub(crate) fn touch(call: &Call<Session>) -> Result<Vec<Topic>> {
    let joined = rooms::members::joined_rooms(&call.snapshot(), call.session.user)?;
    Ok(joined.into_iter().map(Topic::Room).collect())
}

async fn who_am_i(call: Call<Session>, _: whoami::v3::Request) -> Result<whoami::v3::Response> {
    let Session { user_id, device_id, kind, .. } = call.session;
    let mut response = whoami::v3::Response::new(user_id, kind == Kind::Guest);
    // An application service may act without a device.
    response.device_id = Some(device_id).filter(|device_id| !device_id.as_str().is_empty());
    Ok(response)
}

async fn log_out(call: Call<Session>, _: logout::v3::Request) -> Result<logout::v3::Response> {
    sessions::logout(&call.server.store, &call.session, &touch(&call)?)?.durable().await?;
    Ok(logout::v3::Response::new())
}

async fn log_out_all(call: Call<Session>, _: logout_all::v3::Request) -> Result<logout_all::v3::Response> {
    sessions::logout_all(&call.server.store, call.session.user, &touch(&call)?)?.durable().await?;
    Ok(logout_all::v3::Response::new())
}

#[derive(Deserialize)]
struct NewPassword {
    new_password: String,
    #[serde(default = "yes")]
    logout_devices: bool,
    auth: Option<Auth>,
}

fn yes() -> bool {
    true
}

async fn set_password(
    call: Call<Session>,
    request: With<change_password::v3::Request, NewPassword>,
) -> Result<change_password::v3::Response> {
    let NewPassword { new_password, logout_devices, auth } = request.body;
    uiaa::password(&call, "POST", "/account/password", auth).await?;
    passwords::check(&new_password, call.server.users.registration.min_password_length)?;
    let hashed = hash(&call.server, new_password).await?;
    let end = logout_devices.then_some(Keep::This(call.session.device));
    accounts::set_password(&call.server.store, call.session.user, hashed, end, &touch(&call)?)?.durable().await?;
    Ok(change_password::v3::Response::new())
}

#[derive(Deserialize)]
struct Deactivation {
    auth: Option<Auth>,
    #[serde(default)]
    erase: bool,
}

async fn deactivate_account(
    call: Call<Session>,
    request: With<deactivate::v3::Request, Deactivation>,
) -> Result<deactivate::v3::Response> {
    let Deactivation { auth, erase } = request.body;
    uiaa::password(&call, "POST", "/account/deactivate", auth).await?;
    accounts::deactivate(&call.server.store, call.session.user, erase, &touch(&call)?)?.durable().await?;
    Ok(deactivate::v3::Response::new(ThirdPartyIdRemovalStatus::NoSupport))
}

/// Nobody has any. The list is written although it is empty, which ruma's answer would leave out: clients count on it.
async fn third_party_ids(_: Call<Session>, _: get_3pids::v3::Request) -> Result<Json<Value>> {
    Ok(Json(json!({ "threepids": [] })))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};
    use users::accounts::Kind;

    use super::super::login::tests::{auth, with_password};
    use crate::testing::{Hearth, Person};

    const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
    const PASSWORD: &str = "/_matrix/client/v3/account/password";
    const DEACTIVATE: &str = "/_matrix/client/v3/account/deactivate";

    async fn log_in(hearth: &Hearth, localpart: &str, password: &str) -> crate::testing::Answer {
        let request = json!({ "type": "m.login.password", "user": localpart, "password": password });
        hearth.post("/_matrix/client/v3/login", request).await
    }

    fn on(person: &Person, session: &Value) -> Person {
        let text = |key: &str| session[key].as_str().unwrap().to_owned();
        Person { token: text("access_token"), device_id: text("device_id"), ..person.clone() }
    }

    #[tokio::test]
    async fn logout_ends_one_session_or_all() {
        let hearth = Hearth::start();
        let one = with_password(&hearth, "alice").await;
        let two = on(&one, &log_in(&hearth, "alice", "correct horse").await.ok());
        let three = on(&one, &log_in(&hearth, "alice", "correct horse").await.ok());
        let guest = hearth.register_as("guest", Kind::Guest, false).await;
        one.post("/_matrix/client/v3/logout", json!({})).await.ok();
        assert_eq!(one.get(WHOAMI).await.fails(401, "M_UNKNOWN_TOKEN")["soft_logout"], false);
        two.get(WHOAMI).await.ok();
        two.post("/_matrix/client/v3/logout/all", json!({})).await.ok();
        three.get(WHOAMI).await.fails(401, "M_UNKNOWN_TOKEN");
        guest.post("/_matrix/client/v3/logout", json!({})).await.ok();
        hearth.get(WHOAMI).token("").await.fails(401, "M_MISSING_TOKEN");
    }

    #[tokio::test]
    async fn a_locked_user_can_only_log_out() {
        let hearth = Hearth::start();
        let alice = hearth.register("alice").await;
        users::accounts::set_locked(&hearth.server.store, alice.user, true).unwrap().durable().await.unwrap();
        assert_eq!(alice.get(WHOAMI).await.fails(401, "M_USER_LOCKED")["soft_logout"], true);
        alice.post("/_matrix/client/v3/logout", json!({})).await.ok();
    }

    #[tokio::test]
    async fn a_new_password_needs_the_old_one_and_ends_other_sessions() {
        let hearth = Hearth::start();
        let alice = with_password(&hearth, "alice").await;
        let other = on(&alice, &log_in(&hearth, "alice", "correct horse").await.ok());
        let new = |auth: Value| json!({ "new_password": "battery staple", "auth": auth });
        let asked = alice.post(PASSWORD, new(Value::Null)).await;
        assert_eq!((asked.status.as_u16(), &asked.json()["flows"]), (401, &json!([{ "stages": ["m.login.password"] }])));
        let session = asked.json()["session"].clone();
        let wrong = json!({ "type": "m.login.password", "user": "alice", "password": "wrong horse", "session": session });
        let told = alice.post(PASSWORD, new(wrong)).await;
        assert_eq!((told.status.as_u16(), &told.json()["errcode"]), (401, &json!("M_FORBIDDEN")));
        assert_eq!(told.json()["session"], session, "it may be tried again");
        let bob = with_password(&hearth, "bob").await;
        alice.post(PASSWORD, new(auth(&bob))).await.fails(403, "M_FORBIDDEN");
        alice.post(PASSWORD, json!({ "new_password": "short", "auth": auth(&alice) })).await.fails(400, "M_WEAK_PASSWORD");
        let mut right = auth(&alice);
        right["session"] = session;
        alice.post(PASSWORD, new(right)).await.ok();
        alice.get(WHOAMI).await.ok();
        other.get(WHOAMI).await.fails(401, "M_UNKNOWN_TOKEN");
        log_in(&hearth, "alice", "correct horse").await.fails(403, "M_FORBIDDEN");
        log_in(&hearth, "alice", "battery staple").await.ok();
    }

    #[tokio::test]
    async fn a_deactivated_account_is_gone_for_good() {
        let hearth = Hearth::start();
        let alice = with_password(&hearth, "alice").await;
        assert_eq!(alice.post(DEACTIVATE, json!({})).await.status, 401);
        let answer = alice.post(DEACTIVATE, json!({ "auth": auth(&alice), "erase": true })).await.ok();
        assert_eq!(answer, json!({ "id_server_unbind_result": "no-support" }));
        alice.get(WHOAMI).await.fails(401, "M_UNKNOWN_TOKEN");
        log_in(&hearth, "alice", "correct horse").await.fails(403, "M_FORBIDDEN");
        let again = json!({ "username": "alice", "password": "correct horse", "auth": { "type": "m.login.dummy" } });
        hearth.post("/_matrix/client/v3/register", again).await.fails(400, "M_USER_IN_USE");
        hearth.get(&format!("/_matrix/client/v3/profile/{}", alice.user_id)).await.fails(404, "M_NOT_FOUND");
    }

    #[tokio::test]
    async fn nobody_has_third_party_ids() {
        let hearth = Hearth::start();
        let alice = hearth.register("alice").await;
        assert_eq!(alice.get("/_matrix/client/v3/account/3pid").await.ok(), json!({ "threepids": [] }));
    }
}
