//! Messages to devices ("Send-to-Device messaging").

use ruma::api::client::to_device::send_event_to_device::v3 as send_to_device;
use serde::Deserialize;
use users::to_device::{self, Messages};

use super::{keys::acting, with::With};
use crate::{
    Call, Class, Result, Route,
    auth::{Session, UserOrGuest},
    endpoint,
};

/// The body: some clients send a room's keys to all devices of its members at once.
const BODY_MAX: usize = 8 << 20;
/// Bodies up to this many users are stored at once; larger ones beside the threads that serve requests.
const INLINE_USERS_MAX: usize = 50;

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(UserOrGuest, Class::Keys, send).body_max(BODY_MAX)]
}

#[derive(Deserialize)]
struct Body {
    messages: Messages,
}

async fn send(call: Call<Session>, request: With<send_to_device::Request, Body>) -> Result<send_to_device::Response> {
    let (event_type, txn_id) = (request.arg(0).to_owned(), request.arg(1).to_owned());
    let (server, session, messages) = (call.server.clone(), call.session, request.body.messages);
    let (sender, kind) = (session.user_id.clone(), event_type.clone());
    let large = messages.len() > INLINE_USERS_MAX;
    let work = move || to_device::send(&server.store, &server.name, &acting(&session), &event_type, &txn_id, messages);
    let pending = if large { call.server.blocking(work).await? } else { work()? };
    let sent = pending.durable().await?;
    if !sent.repeated && !sent.remote.is_empty() {
        let id = super::create_room::opaque_id(&mut call.server.rng());
        call.server.federation.send_to_devices(&sender, &kind, &id, sent.remote).await?;
    }
    Ok(send_to_device::Response::new())
}
