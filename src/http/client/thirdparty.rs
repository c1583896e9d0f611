//! Bridged networks ("Third-party Networks").

use std::collections::BTreeMap;

use ruma::api::client::thirdparty::get_protocols::v3 as protocols;

use crate::{
    Call, Class, Result, Route,
    auth::{Session, User},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Free, protocols)]
}

/// The networks of the bridges that are registered: none without a bridge.
async fn protocols(_: Call<Session>, _: protocols::Request) -> Result<protocols::Response> {
    Ok(protocols::Response::new(BTreeMap::new()))
}
