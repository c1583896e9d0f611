//! The keys of this server, and as a notary those of others ("Retrieving server keys").

use std::collections::BTreeMap;

use protocol::json::Object;
use ruma::{
    OwnedServerName, ServerName,
    api::federation::discovery::{
        get_remote_server_keys::v2 as query_one, get_remote_server_keys_batch::v2 as query_many, get_server_keys::v2 as own,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    Call, Class, Error, Json, Result, Route,
    auth::Public,
    client::{Nothing, With},
    endpoint,
};

/// Servers that one request asks about, at most.
const SERVERS_MAX: usize = 256;

pub(super) fn routes() -> Vec<Route> {
    vec![
        endpoint(Public, Class::Read, publish),
        endpoint(Public, Class::Federation.cost(10), one),
        endpoint(Public, Class::Federation.cost(50), many),
    ]
}

async fn publish(call: Call<()>, _: With<own::Request, Nothing>) -> Result<Json<Object>> {
    check_enabled(&call)?;
    Ok(Json(call.server.federation.own_document()?))
}

#[derive(Serialize)]
struct Documents {
    server_keys: Vec<Object>,
}

async fn one(call: Call<()>, request: With<query_one::Request, Nothing>) -> Result<Json<Documents>> {
    #[derive(Deserialize)]
    struct Query {
        minimum_valid_until_ts: Option<u64>,
    }
    check_enabled(&call)?;
    let server = ServerName::parse(request.arg(0)).map_err(|_| Error::invalid_param("The path names no server"))?;
    let query: Query = request.query()?;
    let until_ms = query.minimum_valid_until_ts.unwrap_or_else(|| call.now_ms());
    let wanted = [(server, (BTreeMap::new(), until_ms))].into();
    Ok(Json(Documents { server_keys: call.server.federation.notarized(wanted).await? }))
}

#[derive(Deserialize)]
struct Asked {
    server_keys: BTreeMap<OwnedServerName, BTreeMap<String, Criteria>>,
}

#[derive(Deserialize)]
struct Criteria {
    minimum_valid_until_ts: Option<u64>,
}

async fn many(call: Call<()>, request: With<query_many::Request, Asked>) -> Result<Json<Documents>> {
    check_enabled(&call)?;
    let asked = request.body.server_keys;
    if asked.len() > SERVERS_MAX {
        return Err(Error::invalid_param(format!("A request may ask for the keys of at most {SERVERS_MAX} servers")));
    }
    let now_ms = call.now_ms();
    let criteria = |keys: BTreeMap<String, Criteria>| {
        let until = |key: &Criteria| key.minimum_valid_until_ts.unwrap_or(now_ms);
        let keys: BTreeMap<_, _> = keys.iter().map(|(id, key)| (id.clone(), until(key))).collect();
        let until_ms = if keys.is_empty() { now_ms } else { 0 };
        (keys, until_ms)
    };
    let wanted = asked.into_iter().map(|(server, keys)| (server, criteria(keys))).collect();
    Ok(Json(Documents { server_keys: call.server.federation.notarized(wanted).await? }))
}

fn check_enabled(call: &Call<()>) -> Result<()> {
    if call.server.federation.config.enabled { Ok(()) } else { Err(Error::federation_disabled()) }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
