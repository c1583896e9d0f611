//! Presence ("Presence").

use std::sync::Arc;

use rooms::members;
use ruma::api::client::presence::{get_presence::v3 as get_presence, set_presence::v3 as set_presence};
use serde::Deserialize;
use store::UserNo;
use users::{
    accounts::Kind,
    devices::DeviceNo,
    numbers,
    presence::{self, By, Online, Shown, State},
};

use super::with::{With, may_publish, own};
use crate::{
    Call, Class, Error, Json, Result, Route, Server,
    auth::{Session, User},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Read, read), endpoint(User, Class::Write, set)]
}

/// Who is connected, where anybody is to know.
pub(crate) fn online(server: &Server) -> Option<&Online> {
    server.users.presence.then_some(&server.online)
}

/// A sync under way: until it ends its device counts as connected.
pub(crate) struct Connected {
    server: Arc<Server>,
    user: UserNo,
    device: DeviceNo,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.server.online.left(self.user, self.device, self.server.now_ms());
    }
}

/// Whether others see how the caller is. The users of application services are never online: their services are, all the time.
fn is_shown(call: &Call<Session>) -> bool {
    call.server.users.presence && call.session.kind != Kind::Appservice
}

/// Notes that a device syncs, which makes its user online unless it says otherwise.
pub(crate) fn arrive(call: &Call<Session>, set_presence: Option<&str>) -> Result<Option<Connected>> {
    if !is_shown(call) {
        return Ok(None);
    }
    let says = match set_presence {
        Some("offline") => Some(State::Offline),
        Some("unavailable") => Some(State::Unavailable),
        Some("online") => Some(State::Online),
        _ => None,
    };
    let Session { user, device, .. } = call.session;
    let (server, now_ms) = (Arc::clone(&call.server), call.now_ms());
    let changes = server.online.says(user, device, says, By::Sync, now_ms);
    let connected = Connected { server, user, device };
    if changes {
        publish(call)?;
    }
    Ok(Some(connected))
}

/// Notes that the caller did something: who was idle no longer is.
pub(crate) fn acted(call: &Call<Session>) -> Result<()> {
    let changes = is_shown(call) && call.server.online.acts(call.session.user, call.session.device, call.now_ms());
    if changes { publish(call) } else { Ok(()) }
}

/// Not waited for: after a crash everybody is gone.
fn publish(call: &Call<Session>) -> Result<()> {
    let server = &call.server;
    // A disk that refuses writes is no reason not to read.
    if server.store.failure().is_some() {
        return Ok(());
    }
    rooms::presence::publish(&server.store, &server.online, call.session.user, None, call.now_ms())?.soft();
    Ok(())
}

#[derive(Deserialize)]
struct Body {
    presence: State,
    status_msg: Option<String>,
}

async fn set(call: Call<Session>, request: With<set_presence::Request, Body>) -> Result<set_presence::Response> {
    own(&call.session, &request.user_arg(0)?)?;
    may_publish(&call.session)?;
    let Body { presence, status_msg } = request.body;
    status_msg.as_deref().map(presence::check_status).transpose()?;
    if is_shown(&call) {
        let Session { user, device, .. } = call.session;
        let (server, now_ms) = (&call.server, call.now_ms());
        server.online.says(user, device, Some(presence), By::Word, now_ms);
        rooms::presence::publish(&server.store, &server.online, user, Some(status_msg), now_ms)?.durable().await?;
    }
    Ok(set_presence::Response::new())
}

async fn read(call: Call<Session>, request: get_presence::Request) -> Result<Json<Shown>> {
    let hidden = || Error::forbidden("You share no room with this user");
    let db = call.snapshot();
    let user = numbers::number(&db, &request.user_id)?.ok_or_else(hidden)?;
    if user != call.session.user && !members::share_a_room(&db, call.session.user, user)? {
        return Err(hidden());
    }
    let known = if call.server.users.presence { presence::presence(&db, user)? } else { presence::Presence::default() };
    Ok(Json(call.server.online.shown(user, known, call.now_ms())))
}

#[cfg(test)]
#[path = "presence_tests.rs"]
mod tests;
