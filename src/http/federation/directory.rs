//! The room that an alias of this server names.

use federation::directory::Named;
use ruma::{OwnedRoomAliasId, api::federation::query::get_room_information::v1 as query_alias};
use serde::Deserialize;

use super::{Origin, federated};
use crate::{Call, Class, Error, Json, Result, Route, client::With};

pub(super) fn routes() -> Vec<Route> {
    vec![federated(Class::Federation, alias)]
}

#[derive(Deserialize)]
struct Nothing {}

async fn alias(call: Call<Origin>, request: With<query_alias::Request, Nothing>) -> Result<Json<Named>> {
    #[derive(Deserialize)]
    struct Query {
        room_alias: OwnedRoomAliasId,
    }
    let query: Query = serde_html_form::from_str(&request.query).map_err(|error| Error::invalid_param(error.to_string()))?;
    Ok(Json(call.server.federation.own_alias(&query.room_alias)?))
}
