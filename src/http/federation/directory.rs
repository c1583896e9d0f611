//! The room that an alias of this server names.

use federation::directory::Named;
use ruma::{OwnedRoomAliasId, api::federation::query::get_room_information::v1 as query_alias};
use serde::Deserialize;

use super::{Origin, federated};
use crate::{
    Call, Class, Json, Result, Route,
    client::{Nothing, With},
};

pub(super) fn routes() -> Vec<Route> {
    vec![federated(Class::Federation, alias)]
}

async fn alias(call: Call<Origin>, request: With<query_alias::Request, Nothing>) -> Result<Json<Named>> {
    #[derive(Deserialize)]
    struct Query {
        room_alias: OwnedRoomAliasId,
    }
    let query: Query = request.query()?;
    Ok(Json(call.server.federation.own_alias(&query.room_alias)?))
}
