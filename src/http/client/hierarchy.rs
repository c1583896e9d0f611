//! The rooms of a space ("Spaces").

use federation::hierarchy::{Asked, Page};
use ruma::api::client::space::get_hierarchy::v1 as get_hierarchy;
use serde::Serialize;
use views::hierarchy::Node;

use crate::{
    Call, Class, Json, Result, Route,
    auth::{Session, User},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Read.cost(10), hierarchy)]
}

#[derive(Serialize)]
struct Rooms {
    rooms: Vec<Node>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

async fn hierarchy(call: Call<Session>, request: get_hierarchy::Request) -> Result<Json<Rooms>> {
    let get_hierarchy::Request { room_id: room, from, limit, max_depth, suggested_only, .. } = request;
    let (max_depth, limit) = (max_depth.map(u64::from), limit.map(u64::from));
    let asked = Asked { user: call.session.user, room, suggested_only, max_depth, limit, from };
    let Page { rooms, next_batch } = call.server.federation.hierarchy(&asked).await?;
    Ok(Json(Rooms { rooms, next_batch }))
}

#[cfg(test)]
#[path = "hierarchy_tests.rs"]
mod tests;
