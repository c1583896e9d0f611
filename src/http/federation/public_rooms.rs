//! The rooms that this server publishes, for other servers ("Published Room Directory").

use ruma::{
    UInt,
    api::federation::directory::{get_public_rooms::v1 as list, get_public_rooms_filtered::v1 as search},
    directory::Filter,
};

use super::{Origin, federated};
use crate::{Call, Class, Result, Route, client::page_of_rooms};

pub(super) fn routes() -> Vec<Route> {
    vec![federated(Class::Federation.cost(10), list), federated(Class::Federation.cost(10), search)]
}

async fn list(call: Call<Origin>, request: list::Request) -> Result<list::Response> {
    let found = page_of_rooms(&call.snapshot(), &Filter::new(), request.limit, request.since.as_deref())?;
    let mut response = list::Response::new();
    response.total_room_count_estimate = UInt::new(found.total as u64);
    response.chunk = found.rooms;
    response.next_batch = found.next;
    response.prev_batch = found.previous;
    Ok(response)
}

async fn search(call: Call<Origin>, request: search::Request) -> Result<search::Response> {
    let found = page_of_rooms(&call.snapshot(), &request.filter, request.limit, request.since.as_deref())?;
    let mut response = search::Response::new();
    response.total_room_count_estimate = UInt::new(found.total as u64);
    response.chunk = found.rooms;
    response.next_batch = found.next;
    response.prev_batch = found.previous;
    Ok(response)
}
