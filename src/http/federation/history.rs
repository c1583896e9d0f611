//! What other servers ask of a room: events, states, what led to them.

use std::collections::BTreeSet;

use federation::history::{Closest, State};
use rooms::timeline::Direction;
use ruma::{
    OwnedEventId, OwnedServerName,
    api::federation::{
        authorization::get_event_authorization::v1 as event_auth,
        backfill::get_backfill::v1 as backfill,
        event::{
            get_event::v1 as get_event, get_event_by_timestamp::v1 as by_timestamp, get_missing_events::v1 as missing_events,
            get_room_state::v1 as room_state, get_room_state_ids::v1 as room_state_ids,
        },
    },
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Origin, federated};
use crate::{
    Call, Class, Error, Json, Result, Route,
    client::{Nothing, With},
};

pub(super) fn routes() -> Vec<Route> {
    vec![
        federated(Class::Federation, event),
        federated(Class::Federation.cost(10), state),
        federated(Class::Federation.cost(5), state_ids),
        federated(Class::Federation.cost(2), auth_chain),
        federated(Class::Federation.cost(2), older),
        federated(Class::Federation.cost(2), missing),
        federated(Class::Federation, closest),
    ]
}

/// Events as this server sends them.
#[derive(Serialize)]
struct Pdus {
    origin: OwnedServerName,
    origin_server_ts: u64,
    pdus: Vec<Box<RawValue>>,
}

fn pdus(call: &Call<Origin>, pdus: Vec<Box<RawValue>>) -> Json<Pdus> {
    Json(Pdus { origin: call.server.name.clone(), origin_server_ts: call.now_ms(), pdus })
}

async fn event(call: Call<Origin>, request: With<get_event::Request, Nothing>) -> Result<Json<Pdus>> {
    let event = call.server.federation.event_for(&call.session.server_name, &request.event_arg(0)?)?;
    Ok(pdus(&call, vec![event]))
}

#[derive(Deserialize)]
struct At {
    event_id: OwnedEventId,
}

async fn state(call: Call<Origin>, request: With<room_state::Request, Nothing>) -> Result<Json<State<Box<RawValue>>>> {
    let (room, At { event_id }) = (request.room_arg(0)?, request.query()?);
    let (server, origin) = (call.server.clone(), call.session.server_name);
    server.federation.state_is_whole(&origin, &room, &event_id).await?;
    let state = call.server.blocking(move || server.federation.state_for(&origin, &room, &event_id));
    Ok(Json(state.await?))
}

#[derive(Serialize)]
struct StateIds {
    pdu_ids: Vec<OwnedEventId>,
    auth_chain_ids: Vec<OwnedEventId>,
}

async fn state_ids(call: Call<Origin>, request: With<room_state_ids::Request, Nothing>) -> Result<Json<StateIds>> {
    let (room, At { event_id }) = (request.room_arg(0)?, request.query()?);
    let (server, origin) = (call.server.clone(), call.session.server_name);
    server.federation.state_is_whole(&origin, &room, &event_id).await?;
    let ids = call.server.blocking(move || server.federation.state_ids_for(&origin, &room, &event_id)).await?;
    Ok(Json(StateIds { pdu_ids: ids.state, auth_chain_ids: ids.auth_chain }))
}

#[derive(Serialize)]
struct AuthChain {
    auth_chain: Vec<Box<RawValue>>,
}

async fn auth_chain(call: Call<Origin>, request: With<event_auth::Request, Nothing>) -> Result<Json<AuthChain>> {
    let (room, event) = (request.room_arg(0)?, request.event_arg(1)?);
    let auth_chain = call.server.federation.auth_chain_for(&call.session.server_name, &room, &event)?;
    Ok(Json(AuthChain { auth_chain }))
}

async fn older(call: Call<Origin>, request: With<backfill::Request, Nothing>) -> Result<Json<Pdus>> {
    #[derive(Deserialize)]
    struct Query {
        #[serde(default)]
        v: Vec<OwnedEventId>,
        limit: usize,
    }
    let (room, Query { v, limit }) = (request.room_arg(0)?, request.query()?);
    let found = call.server.federation.history_for(&call.session.server_name, &room, &v, limit)?;
    Ok(pdus(&call, found))
}

#[derive(Deserialize)]
struct Between {
    earliest_events: BTreeSet<OwnedEventId>,
    latest_events: Vec<OwnedEventId>,
    #[serde(default)]
    min_depth: u64,
    #[serde(default = "ten")]
    limit: usize,
}

fn ten() -> usize {
    10
}

#[derive(Serialize)]
struct Events {
    events: Vec<Box<RawValue>>,
}

async fn missing(call: Call<Origin>, request: With<missing_events::Request, Between>) -> Result<Json<Events>> {
    let room = request.room_arg(0)?;
    let Between { earliest_events, latest_events, min_depth, limit } = request.body;
    let (federation, origin) = (&call.server.federation, &call.session.server_name);
    let events = federation.between_for(origin, &room, &earliest_events, &latest_events, (min_depth, limit))?;
    Ok(Json(Events { events }))
}

async fn closest(call: Call<Origin>, request: With<by_timestamp::Request, Nothing>) -> Result<Json<Closest>> {
    #[derive(Deserialize)]
    struct Query {
        ts: u64,
        dir: String,
    }
    let (room, Query { ts, dir }) = (request.room_arg(0)?, request.query()?);
    let direction = match dir.as_str() {
        "f" => Direction::Forward,
        "b" => Direction::Backward,
        _ => return Err(Error::invalid_param("dir is f or b")),
    };
    Ok(Json(call.server.federation.closest_for(&call.session.server_name, &room, ts, direction)?))
}
