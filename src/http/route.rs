//! Endpoints: one line of a table says who may call, what it costs, and which function answers.
//!
//! Method and paths come from ruma's request type, with all the stable, unstable and deprecated paths that ruma knows.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::BufMut;
use http::{HeaderValue, Method, request::Parts};
use ruma::api::{
    IncomingRequest, Metadata, OutgoingBody, OutgoingResponse, OutgoingResponseExt, error::IntoHttpError,
    path_builder::PathBuilder,
};
use serde::Serialize;

use crate::{
    address::Client,
    auth::{Auth, Session},
    decode,
    error::{Error, Result},
    limits::{Limit, Payer},
    server::Server,
};

/// The size of a request's body where the route says nothing: an event of 64 KiB, and some slack for what encodes it.
pub const BODY_MAX: usize = 80 << 10;

/// What a handler is told beside the typed request. `S` is what the route's [`Auth`] gives: nothing, or a session.
pub struct Call<S> {
    /// The server.
    pub server: Arc<Server>,
    /// Who calls.
    pub session: S,
    /// From where.
    pub client: Client,
}

impl<S> Call<S> {
    /// All that is committed now.
    #[must_use]
    pub fn snapshot(&self) -> store::Snapshot {
        self.server.snapshot()
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.server.now_ms()
    }
}

/// An answer of a type of ours, where ruma has none or its own would cost a detour.
#[derive(Clone, Debug)]
pub struct Json<T>(pub T);

impl<T: Serialize> OutgoingResponse for Json<T> {
    type Body = Self;

    fn try_into_http_response_inner(self) -> std::result::Result<http::Response<Self>, IntoHttpError> {
        Ok(http::Response::new(self))
    }
}

impl<T: Serialize> OutgoingBody for Json<T> {
    type Error = serde_json::Error;

    fn content_type(&self) -> Option<HeaderValue> {
        Some(HeaderValue::from_static("application/json"))
    }

    fn try_into_buf<B: Default + BufMut + AsRef<[u8]>>(self) -> serde_json::Result<B> {
        let mut buffer = B::default().writer();
        serde_json::to_writer(&mut buffer, &self.0)?;
        Ok(buffer.into_inner())
    }
}

/// A request as it arrived: its body not yet read.
pub struct Arrival {
    /// The server.
    pub server: Arc<Server>,
    /// From where.
    pub client: Client,
    /// Method, URI, headers.
    pub parts: Parts,
    /// The path's arguments, percent-decoded.
    pub args: Vec<String>,
    /// The body, which fails beyond the route's size.
    pub body: Body,
}

impl Arrival {
    /// Path, query and headers as a request of ruma's, for an endpoint that streams its body or has none.
    ///
    /// # Errors
    /// As [`decode::request`].
    pub fn decode<R: IncomingRequest>(&self) -> Result<R> {
        decode::request(&self.parts, &self.args, b"")
    }
}

/// A method and the paths that it is served at.
#[derive(Clone, Debug)]
pub struct Place {
    pub(crate) method: Method,
    /// The paths to match, each with the template that logs and metrics call it.
    pub(crate) paths: Vec<(String, &'static str)>,
}

impl Place {
    /// Where ruma has no type: paths with their variables in braces.
    #[must_use]
    pub fn at(method: Method, paths: &[&'static str]) -> Self {
        let paths = paths.iter().map(|path| (path.to_string(), *path)).collect();
        Self { method, paths }
    }

    /// All paths that ruma knows of this request.
    #[must_use]
    pub fn of<R: Metadata>() -> Self {
        let mut paths = Vec::new();
        for path in R::PATH_BUILDER.all_paths() {
            paths.push((path.into(), path));
            // An empty state key may be left out, with its slash or without.
            if let Some(stem) = path.strip_suffix("/{state_key}") {
                paths.push((stem.into(), path));
                paths.push((format!("{stem}/"), path));
            }
        }
        Self { method: R::METHOD, paths }
    }
}

pub(crate) type Answering = Pin<Box<dyn Future<Output = Result<Response>> + Send>>;

/// An endpoint: a line of the table.
pub struct Route {
    pub(crate) place: Place,
    pub(crate) auth: &'static str,
    pub(crate) limit: Limit,
    pub(crate) body_max: usize,
    answer: Box<dyn Fn(Arrival) -> Answering + Send + Sync>,
}

impl Route {
    /// An endpoint whose answer does everything itself.
    pub(crate) fn new(
        place: Place,
        auth: &'static str,
        limit: Limit,
        answer: impl Fn(Arrival) -> Answering + Send + Sync + 'static,
    ) -> Self {
        Self { place, auth, limit, body_max: BODY_MAX, answer: Box::new(answer) }
    }

    /// The same endpoint with bodies of up to this many bytes.
    #[must_use]
    pub fn body_max(mut self, bytes: usize) -> Self {
        self.body_max = bytes;
        self
    }

    /// The same endpoint at another path too: an unstable prefix that ruma no longer knows.
    #[must_use]
    pub fn also(mut self, path: &'static str) -> Self {
        self.place.paths.push((path.into(), path));
        self
    }

    pub(crate) fn answer(&self, arrival: Arrival) -> Answering {
        (self.answer)(arrival)
    }
}

/// An endpoint that takes a request of ruma's (or of ours, by ruma's macros) and gives a response of ruma's or [`Json`].
pub fn endpoint<A, R, F, Answer, O>(auth: A, limit: impl Into<Limit>, handler: F) -> Route
where
    A: Auth,
    R: IncomingRequest + Send + 'static,
    F: Fn(Call<A::Session>, R) -> Answer + Copy + Send + Sync + 'static,
    Answer: Future<Output = Result<O>> + Send,
    O: OutgoingResponse,
{
    let limit = limit.into();
    let answer = move |arrival: Arrival| -> Answering {
        Box::pin(async move {
            let Arrival { server, client, parts, args, body } = arrival;
            let session = admit(auth, limit, &server, &client, &parts).await?;
            let body = match parts.method {
                Method::GET | Method::HEAD => bytes::Bytes::new(),
                _ => decode::body(body, Duration::from_millis(server.config.body_timeout_ms)).await?,
            };
            let request = decode::request::<R>(&parts, &args, &body)?;
            let response = handler(Call { server, session, client }, request).await?;
            let response = response.try_into_http_response::<Vec<u8>>().map_err(Error::internal)?;
            Ok(response.map(Body::from))
        })
    };
    Route::new(Place::of::<R>(), A::NAME, limit, answer)
}

/// An endpoint that reads its body or writes its answer as a stream, or answers something other than JSON.
pub fn streaming<A, F, Answer>(place: Place, auth: A, limit: impl Into<Limit>, handler: F) -> Route
where
    A: Auth,
    F: Fn(Call<A::Session>, Arrival) -> Answer + Copy + Send + Sync + 'static,
    Answer: Future<Output = Result<Response>> + Send,
{
    let limit = limit.into();
    let answer = move |arrival: Arrival| -> Answering {
        Box::pin(async move {
            let session = admit(auth, limit, &arrival.server, &arrival.client, &arrival.parts).await?;
            let (server, client) = (Arc::clone(&arrival.server), arrival.client.clone());
            handler(Call { server, session, client }, arrival).await
        })
    };
    Route::new(place, A::NAME, limit, answer)
}

/// Who calls, and whether their bucket allows it.
async fn admit<A: Auth>(auth: A, limit: Limit, server: &Server, client: &Client, parts: &Parts) -> Result<A::Session> {
    let session = auth.authenticate(server, parts).await?;
    let known: Option<&Session> = A::session(&session);
    if let Some(known) = known {
        tracing::Span::current().record("user", known.user_id.as_str());
    }
    let administrates = known.is_some_and(|known| known.admin) && client.is_loopback();
    if !administrates && !A::is_unlimited(&session) {
        let payer = known.map_or_else(|| Payer::address(client.address), |known| Payer::User(known.user));
        server.limits.take(limit, payer, server.elapsed())?;
    }
    if let (Some(known), Some(address)) = (known.filter(|known| known.appservice.is_none()), client.address) {
        users::devices::seen(&server.store, known.user, known.device, &address.to_string(), server.now_ms())?;
    }
    Ok(session)
}

/// Answers a request that the router found this route for.
pub(crate) async fn serve(route: &Route, arrival: Arrival, request_id: &str) -> Response {
    if declared_length(&arrival.parts).is_some_and(|length| length > route.body_max as u64) {
        let max = route.body_max;
        return Error::too_large(format!("The body of this request may have at most {max} bytes")).into_response(request_id);
    }
    let pause = Duration::from_millis(arrival.server.config.body_timeout_ms);
    let body = decode::bounded(arrival.body, route.body_max, pause);
    match route.answer(Arrival { body, ..arrival }).await {
        Ok(response) => response,
        Err(error) => error.into_response(request_id),
    }
}

fn declared_length(parts: &Parts) -> Option<u64> {
    parts.headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
