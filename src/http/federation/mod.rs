//! The server-server API: one file a noun, each with its own `routes`. What answers is a [`federated`] endpoint, whose caller is
//! another server that proved who it is.

mod authenticate;
mod keys;
mod version;

pub(crate) use authenticate::Origin;
use authenticate::verified;
use axum::body::Body;
use ruma::api::{IncomingRequest, OutgoingResponse, OutgoingResponseExt as _};

use crate::{
    Call, Error, Place, Result, Route, decode,
    limits::Limit,
    route::{Answering, Arrival},
};

/// All endpoints of the server-server API.
pub(crate) fn routes() -> Vec<Route> {
    let nouns = [keys::routes(), version::routes()];
    nouns.into_iter().flatten().collect()
}

/// What the list of endpoints calls this kind of authentication.
const AUTH: &str = "server";

/// An endpoint for other servers: it reads the body, verifies who sent it, takes from that server's bucket, and decodes.
#[cfg_attr(not(test), expect(dead_code, reason = "the endpoints that follow are made with it"))]
pub(crate) fn federated<R, F, Answer, O>(limit: impl Into<Limit>, handler: F) -> Route
where
    R: IncomingRequest + Send + 'static,
    F: Fn(Call<Origin>, R) -> Answer + Copy + Send + Sync + 'static,
    Answer: Future<Output = Result<O>> + Send,
    O: OutgoingResponse,
{
    let limit = limit.into();
    let answer = move |arrival: Arrival| -> Answering {
        Box::pin(async move {
            let (call, parts, args, body) = verified(arrival, limit).await?;
            let request = decode::request::<R>(&parts, &args, &body)?;
            let response = handler(call, request).await?;
            let response = response.try_into_http_response::<Vec<u8>>().map_err(Error::internal)?;
            Ok(response.map(Body::from))
        })
    };
    Route::new(Place::of::<R>(), AUTH, limit, answer)
}
