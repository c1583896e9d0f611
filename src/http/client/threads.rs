//! The threads of a room ("Querying threads in a room").

use ruma::{
    api::client::threads::get_threads::v1::{IncludeThreads, Request, Response},
    serde::Raw,
};
use views::threads::{Ask, page};

use super::history::reader;
use crate::{
    Call, Class, Error, Result, Route,
    auth::{Session, User},
    endpoint,
};

/// Threads in a page, where the request does not say.
const LIMIT_DEFAULT: usize = 20;
/// The most threads in a page.
const LIMIT_MAX: usize = 100;

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Read, threads)]
}

async fn threads(call: Call<Session>, request: Request) -> Result<Response> {
    let limit = request.limit.map_or(LIMIT_DEFAULT, |limit| usize::try_from(u64::from(limit)).unwrap_or(LIMIT_MAX));
    if limit == 0 {
        return Err(Error::invalid_param("The limit is not greater than zero"));
    }
    let participated = match request.include {
        IncludeThreads::All => false,
        IncludeThreads::Participated => true,
        _ => return Err(Error::invalid_param("The threads to include are all or participated")),
    };
    let from = request.from.as_deref().map(str::parse).transpose()?;
    let db = call.snapshot();
    let mut reader = reader(&call, &db, &request.room_id)?;
    let page = page(&mut reader, Ask { participated, from, limit: limit.min(LIMIT_MAX) })?;
    let mut response = Response::new(page.chunk.into_iter().map(Raw::from_json).collect());
    response.next_batch = page.next.map(|next| next.to_string());
    Ok(response)
}

#[cfg(test)]
#[path = "threads_tests.rs"]
mod tests;
