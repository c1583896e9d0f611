//! Users of other servers who want into a room of this one, or out of it, and those who invite users of this one.

use federation::{
    invite::Invitation,
    resident::{Joined, Template},
};
use protocol::json::Object;
use rooms::members::Membership;
use ruma::api::federation::membership::{
    create_invite::{v1 as invite_v1, v2 as invite},
    create_join_event::v2 as send_join,
    create_knock_event::v1 as send_knock,
    create_leave_event::v2 as send_leave,
    prepare_join_event::v1 as make_join,
    prepare_knock_event::v1 as make_knock,
    prepare_leave_event::v1 as make_leave,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{Origin, federated};
use crate::{
    Call, Class, Error, Json, Result, Route,
    client::{Nothing, With},
};

/// An event, perhaps with the state that identifies its room.
const BODY_MAX: usize = 8 << 20;

pub(super) fn routes() -> Vec<Route> {
    let making = Class::Federation.cost(2);
    vec![
        federated(making, prepare_join),
        federated(making, prepare_knock),
        federated(making, prepare_leave),
        federated(Class::Federation.cost(10), join),
        federated(Class::Federation.cost(10), join_v1),
        federated(making, knock),
        federated(making, leave),
        federated(making, leave_v1),
        federated(making, invited).body_max(BODY_MAX),
        federated(making, invited_v1).body_max(BODY_MAX),
    ]
}

/// The places of old, which ruma no longer knows.
mod send_join_v1 {
    use ruma::{api::auth_scheme::NoAuthentication, metadata};

    pub(super) struct Request;
    metadata! {
        method: PUT, rate_limited: true, authentication: NoAuthentication,
        path: "/_matrix/federation/v1/send_join/{room_id}/{event_id}"
    }
}

mod send_leave_v1 {
    use ruma::{api::auth_scheme::NoAuthentication, metadata};

    pub(super) struct Request;
    metadata! {
        method: PUT, rate_limited: true, authentication: NoAuthentication,
        path: "/_matrix/federation/v1/send_leave/{room_id}/{event_id}"
    }
}

async fn template<R>(call: Call<Origin>, request: With<R, Nothing>, to: Membership) -> Result<Json<Template>> {
    #[derive(Deserialize)]
    struct Query {
        #[serde(default)]
        ver: Vec<String>,
    }
    let Query { mut ver } = request.query()?;
    if ver.is_empty() {
        ver.push("1".to_owned());
    }
    let versions = (to != Membership::Leave).then_some(ver.as_slice());
    let (room, user) = (request.room_arg(0)?, request.user_arg(1)?);
    Ok(Json(call.server.federation.template(&call.session.server_name, &room, &user, to, versions).await?))
}

async fn prepare_join(call: Call<Origin>, request: With<make_join::Request, Nothing>) -> Result<Json<Template>> {
    template(call, request, Membership::Join).await
}

async fn prepare_knock(call: Call<Origin>, request: With<make_knock::Request, Nothing>) -> Result<Json<Template>> {
    template(call, request, Membership::Knock).await
}

async fn prepare_leave(call: Call<Origin>, request: With<make_leave::Request, Nothing>) -> Result<Json<Template>> {
    template(call, request, Membership::Leave).await
}

async fn take_join<R>(call: Call<Origin>, request: With<R, Object>) -> Result<Joined> {
    #[derive(Deserialize)]
    struct Query {
        #[serde(default)]
        omit_members: bool,
    }
    let query: Query = request.query()?;
    let (room, event) = (request.room_arg(0)?, request.event_arg(1)?);
    let federation = &call.server.federation;
    Ok(federation.take_join(&call.session.server_name, &room, &event, request.body, query.omit_members).await?)
}

async fn join(call: Call<Origin>, request: With<send_join::Request, Object>) -> Result<Json<Joined>> {
    take_join(call, request).await.map(Json)
}

/// The same in the form of old, an array of the status and the answer.
async fn join_v1(call: Call<Origin>, request: With<send_join_v1::Request, Object>) -> Result<Json<(u16, Joined)>> {
    Ok(Json((200, take_join(call, request).await?)))
}

#[derive(Serialize)]
struct Knocked {
    knock_room_state: Vec<Box<RawValue>>,
}

async fn knock(call: Call<Origin>, request: With<send_knock::Request, Object>) -> Result<Json<Knocked>> {
    let (room, event) = (request.room_arg(0)?, request.event_arg(1)?);
    let federation = &call.server.federation;
    federation.take_member(&call.session.server_name, &room, &event, request.body, Membership::Knock).await?;
    Ok(Json(Knocked { knock_room_state: federation.told_of_knock(&room, &event)? }))
}

async fn take_leave<R>(call: Call<Origin>, request: With<R, Object>) -> Result<()> {
    let (room, event) = (request.room_arg(0)?, request.event_arg(1)?);
    let federation = &call.server.federation;
    Ok(federation.take_member(&call.session.server_name, &room, &event, request.body, Membership::Leave).await?)
}

async fn leave(call: Call<Origin>, request: With<send_leave::Request, Object>) -> Result<Json<Value>> {
    take_leave(call, request).await?;
    Ok(Json(json!({})))
}

async fn leave_v1(call: Call<Origin>, request: With<send_leave_v1::Request, Object>) -> Result<Json<Value>> {
    take_leave(call, request).await?;
    Ok(Json(json!([200, {}])))
}

#[derive(Serialize)]
struct Signed {
    event: Box<RawValue>,
}

async fn invited(call: Call<Origin>, request: With<invite::Request, Invitation>) -> Result<Json<Signed>> {
    let (room, event) = (request.room_arg(0)?, request.event_arg(1)?);
    let federation = &call.server.federation;
    let event = federation.sign_invitation(&call.session.server_name, &room, &event, request.body).await?;
    Ok(Json(Signed { event }))
}

/// The form of old: the event alone, of room version 1 or 2, and what identifies the room in its `unsigned`.
async fn invited_v1(call: Call<Origin>, request: With<invite_v1::Request, Object>) -> Result<Json<(u16, Signed)>> {
    let (room, id) = (request.room_arg(0)?, request.event_arg(1)?);
    let event = request.body;
    let told = event.get("unsigned").and_then(|unsigned| unsigned.get("invite_room_state")).cloned();
    let told = told.map(serde_json::from_value).transpose().map_err(|error| Error::bad_json(error.to_string()))?;
    let invitation = Invitation { room_version: "1".to_owned(), event, invite_room_state: told.unwrap_or_default() };
    let event = call.server.federation.sign_invitation(&call.session.server_name, &room, &id, invitation).await?;
    Ok(Json((200, Signed { event })))
}
