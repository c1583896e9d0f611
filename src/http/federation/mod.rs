//! The server-server API: one file a noun, each with its own `routes`. What answers is a [`federated`] endpoint, whose caller is
//! another server that proved who it is.

mod authenticate;
mod directory;
mod hierarchy;
mod history;
mod keys;
mod media;
mod membership;
mod profiles;
mod public_rooms;
#[cfg(test)]
mod query_tests;
mod third_party;
mod transactions;
mod user_keys;
mod version;

pub(crate) use authenticate::Origin;
use authenticate::verified;
use axum::{body::Body, response::Response};
use ruma::api::{IncomingRequest, OutgoingResponse, OutgoingResponseExt as _};

use crate::{
    Call, Error, Place, Result, Route, decode,
    limits::Limit,
    route::{Answering, Arrival},
};

/// All endpoints of the server-server API.
pub(crate) fn routes() -> Vec<Route> {
    let nouns = [
        directory::routes(),
        hierarchy::routes(),
        history::routes(),
        keys::routes(),
        media::routes(),
        membership::routes(),
        profiles::routes(),
        public_rooms::routes(),
        third_party::routes(),
        transactions::routes(),
        user_keys::routes(),
        version::routes(),
    ];
    nouns.into_iter().flatten().collect()
}

/// What the list of endpoints calls this kind of authentication.
pub(crate) const SERVER: &str = "server";

/// An endpoint for other servers: it reads the body, verifies who sent it, takes from that server's bucket, and decodes.
pub(crate) fn federated<R, F, Answer, O>(limit: impl Into<Limit>, handler: F) -> Route
where
    R: IncomingRequest + Send + 'static,
    F: Fn(Call<Origin>, R) -> Answer + Copy + Send + Sync + 'static,
    Answer: Future<Output = Result<O>> + Send,
    O: OutgoingResponse,
{
    answering(limit, move |call, request: R| async move {
        let response = handler(call, request).await?;
        let response = response.try_into_http_response::<Vec<u8>>().map_err(Error::internal)?;
        Ok(response.map(Body::from))
    })
}

/// [`federated`] where the answer is something other than JSON.
pub(crate) fn answering<R, F, Answer>(limit: impl Into<Limit>, handler: F) -> Route
where
    R: IncomingRequest + Send + 'static,
    F: Fn(Call<Origin>, R) -> Answer + Copy + Send + Sync + 'static,
    Answer: Future<Output = Result<Response>> + Send,
{
    let limit = limit.into();
    let answer = move |arrival: Arrival| -> Answering {
        Box::pin(async move {
            let (call, parts, args, body) = verified(arrival, limit).await?;
            handler(call, decode::request_of_object::<R>(&parts, &args, &body)?).await
        })
    };
    Route::new(Place::of::<R>(), SERVER, limit, answer)
}
