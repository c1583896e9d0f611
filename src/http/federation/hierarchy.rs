//! One level of a space, for another server ("Spaces").

use ruma::{RoomId, api::federation::space::get_hierarchy::v1 as hierarchy};
use serde::Deserialize;
use views::hierarchy::{Level, level};

use super::{Origin, federated};
use crate::{
    Call, Class, Error, Json, Result, Route,
    client::{Nothing, With},
};

pub(super) fn routes() -> Vec<Route> {
    vec![federated(Class::Federation.cost(10), answer)]
}

async fn answer(call: Call<Origin>, request: With<hierarchy::Request, Nothing>) -> Result<Json<Level>> {
    #[derive(Deserialize)]
    struct Query {
        #[serde(default)]
        suggested_only: bool,
    }
    let id = RoomId::parse(request.arg(0)).map_err(|_| Error::invalid_param("The path names no room"))?;
    let query: Query = request.query()?;
    let (db, server) = (call.snapshot(), call.session.server_name.clone());
    let found = call.server.blocking(move || -> Result<Level> {
        let room = rooms::numbers::number(&db, &id)?.ok_or(rooms::Error::UnknownRoom)?;
        // Whether there is a room that it may not know of is not told.
        level(&db, room, &server, query.suggested_only)?.ok_or_else(|| rooms::Error::UnknownRoom.into())
    });
    Ok(Json(found.await?))
}
