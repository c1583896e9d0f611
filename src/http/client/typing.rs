//! Typing notifications ("Typing Notifications").

use rooms::typing::{self, TIMEOUT_DEFAULT_MS};
use ruma::api::client::typing::create_typing_event::v3 as create_typing_event;
use serde::Deserialize;

use super::{
    presence,
    rooms::room,
    with::{With, own},
};
use crate::{
    Call, Class, Result, Route,
    auth::{Session, User},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Write, set)]
}

/// ruma's demands a timeout, which the specification does not.
#[derive(Deserialize)]
struct Body {
    typing: bool,
    timeout: Option<u64>,
}

async fn set(call: Call<Session>, request: With<create_typing_event::Request, Body>) -> Result<create_typing_event::Response> {
    let room_id = request.room_arg(0)?;
    own(&call.session, &request.user_arg(1)?)?;
    let Body { typing, timeout } = request.body;
    let timeout_ms = typing.then(|| timeout.unwrap_or(TIMEOUT_DEFAULT_MS));
    let room = room(&call.snapshot(), &room_id)?;
    typing::set(&call.server.store, call.session.user, room, timeout_ms, call.now_ms())?;
    call.server.federation.tell_typing(room, &call.session.user_id, typing)?;
    presence::acted(&call)?;
    Ok(create_typing_event::Response::new())
}
