//! Requests at the places of ruma's types, with bodies of ours: where ruma's own body is stricter than clients are, drops what
//! it does not know, or would panic (that of `/login` without a `type` does).

use std::marker::PhantomData;

use http::Method;
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::{IncomingRequest, Metadata, error::DeserializationError},
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{Error, Json, Result, auth::Session};

/// A request at the place of `R` with a body `B`.
pub(crate) struct With<R, B> {
    /// The path's arguments, decoded.
    pub(crate) args: Vec<String>,
    /// The query, encoded.
    pub(crate) query: String,
    /// The body; `{}` where there is none.
    pub(crate) body: B,
    place: PhantomData<fn() -> R>,
}

/// The body of a request that needs none.
#[derive(Deserialize)]
pub(crate) struct Nothing {}

impl<R: Metadata, B> Metadata for With<R, B> {
    const METHOD: Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = R::PATH_BUILDER;
}

impl<R: Metadata, B: DeserializeOwned> IncomingRequest for With<R, B> {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = Json<()>;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        args: &[&str],
    ) -> std::result::Result<Self, DeserializationError> {
        let body = if request.body().is_empty() { b"{}".as_slice() } else { *request.body() };
        Ok(Self {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(body)?,
            place: PhantomData,
        })
    }
}

impl<R, B> With<R, B> {
    /// An argument of the path.
    pub(crate) fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    /// The query.
    pub(crate) fn query<T: DeserializeOwned>(&self) -> Result<T> {
        serde_html_form::from_str(&self.query).map_err(|error| Error::invalid_param(error.to_string()))
    }

    /// An argument of the path that is a room id.
    pub(crate) fn room_arg(&self, index: usize) -> Result<OwnedRoomId> {
        RoomId::parse(self.arg(index)).map_err(|_| Error::invalid_param("The path names no room id"))
    }

    /// An argument of the path that is an event id.
    pub(crate) fn event_arg(&self, index: usize) -> Result<OwnedEventId> {
        EventId::parse(self.arg(index)).map_err(|_| Error::invalid_param("The path names no event id"))
    }

    /// An argument of the path that is a user id.
    pub(crate) fn user_arg(&self, index: usize) -> Result<OwnedUserId> {
        UserId::parse(self.arg(index)).map_err(|_| Error::invalid_param("The path names no user id"))
    }
}

/// A suspended user shows others nothing new ("Account suspension").
pub(crate) fn may_publish(session: &Session) -> Result<()> {
    if session.suspended { Err(Error::user_suspended()) } else { Ok(()) }
}

/// Refuses a path that names another user than the caller.
pub(crate) fn own(session: &Session, user: &UserId) -> Result<()> {
    if session.user_id == user { Ok(()) } else { Err(Error::forbidden("This belongs to another user")) }
}
