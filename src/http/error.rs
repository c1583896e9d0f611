//! The only place that knows statuses and errcodes.
//!
//! A handler returns what a layer returned, with `?`; the conversions here choose the status and the errcode in exhaustive
//! matches, so that a new variant of a layer's error does not compile until someone chooses its code. Where the handler
//! itself finds the fault, it uses one of the named constructors.

mod federation;
mod media;
mod rooms;
mod store;
mod users;
mod views;

use std::{borrow::Cow, error::Error as Cause, time::Duration};

use axum::{body::Body, response::Response};
use http::{HeaderValue, StatusCode, header};
use ruma::api::client::uiaa::UiaaInfo;
use serde_json::{Map, Value, json};

/// Why a request has no answer: a status, an errcode and a sentence, or a failure of ours.
#[derive(Debug)]
pub struct Error(Box<Kind>);

/// What clients are told while the disk refuses writes.
const UNWRITABLE: &str = "The server cannot store anything now: its disk is full or broken. Its administrator must act";

/// What a handler returns.
pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug)]
enum Kind {
    /// A standard error response ("Standard error response" of the client-server API).
    Refused { status: StatusCode, errcode: &'static str, message: Cow<'static, str>, extra: Map<String, Value> },
    /// User-interactive authentication is not complete.
    Interactive(UiaaInfo),
    /// A failure of Hearth. Its cause is for the log, not for the client.
    Internal(Box<dyn Cause + Send + Sync>),
    /// The disk refuses writes. Its cause is for the log, not for the client.
    Unwritable(Box<dyn Cause + Send + Sync>),
}

impl Error {
    /// A standard error. Only this module and its children name statuses and errcodes: give a new refusal a constructor here.
    fn new(status: StatusCode, errcode: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Kind::Refused { status, errcode, message: message.into(), extra: Map::new() }))
    }

    /// The same error with another key in its body.
    #[must_use]
    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        if let Kind::Refused { extra, .. } = &mut *self.0 {
            extra.insert(key.into(), value.into());
        }
        self
    }

    /// 400 `M_NOT_JSON`: the body is not JSON.
    pub fn not_json(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", message)
    }

    /// 400 `M_BAD_JSON`: the body is JSON of the wrong shape.
    pub fn bad_json(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", message)
    }

    /// 400 `M_MISSING_PARAM`: a key of the body or query is missing.
    pub fn missing_param(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", message)
    }

    /// 400 `M_INVALID_PARAM`: a parameter has a value that it cannot have.
    pub fn invalid_param(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", message)
    }

    /// 400 `M_UNKNOWN`: wrong in a way that has no errcode of its own.
    pub fn unknown(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", message)
    }

    /// 404 `M_NOT_FOUND`.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", message)
    }

    /// 403 `M_FORBIDDEN`.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", message)
    }

    /// 403 `M_GUEST_ACCESS_FORBIDDEN`: guests may not use this endpoint ("Guest Access").
    #[must_use]
    pub fn guests_forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN", "Guests may not do this")
    }

    /// 400 `M_INVALID_ROOM_STATE`: a room cannot begin with what is asked for.
    #[must_use]
    pub fn invalid_room_state(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_INVALID_ROOM_STATE", message)
    }

    /// 409 `M_UNKNOWN`: `PUT /directory/room/{roomAlias}` of an alias that exists.
    #[must_use]
    pub fn alias_exists() -> Self {
        Self::new(StatusCode::CONFLICT, "M_UNKNOWN", "The alias exists already")
    }

    /// 413 `M_TOO_LARGE`.
    pub fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", message)
    }

    /// 408 `M_UNKNOWN`: the client took too long to send its body.
    #[must_use]
    pub fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", "The request's body took too long to arrive")
    }

    /// 400 `M_UNKNOWN`: the connection broke off within the body.
    #[must_use]
    pub fn broken_off() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "The request's body broke off")
    }

    /// 401 `M_MISSING_TOKEN`.
    #[must_use]
    pub fn missing_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", "This endpoint needs an access token")
    }

    /// 401 `M_UNKNOWN_TOKEN`. `soft_logout`: the client keeps its device and keys and asks for a new token ("Soft logout").
    #[must_use]
    pub fn unknown_token(soft_logout: bool) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", "The access token is unknown or has expired")
            .with("soft_logout", soft_logout)
    }

    /// 401 `M_USER_LOCKED` ("Account locking").
    #[must_use]
    pub fn user_locked() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_USER_LOCKED", "This account is locked").with("soft_logout", true)
    }

    /// 403 `M_USER_SUSPENDED` ("Account suspension").
    #[must_use]
    pub fn user_suspended() -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_USER_SUSPENDED", "This account is suspended and may not do this")
    }

    /// 429 `M_LIMIT_EXCEEDED`, with what remains to wait ("Rate limiting").
    #[must_use]
    pub fn limit_exceeded(retry_after: Duration) -> Self {
        let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", "Too many requests: wait a while")
            .with("retry_after_ms", retry_after_ms)
    }

    /// 401 `M_UNAUTHORIZED`: another server did not prove who it is ("Request Authentication").
    pub fn unauthorized(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", message)
    }

    /// 403 `M_FORBIDDEN`: the operator wants nothing to do with other servers.
    #[must_use]
    pub fn federation_disabled() -> Self {
        Self::forbidden("Federation is switched off on this server")
    }

    /// 502 `M_UNKNOWN`: another server is the reason.
    pub fn bad_gateway(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", message)
    }

    /// 404 `M_UNRECOGNIZED`: no such endpoint.
    #[must_use]
    pub fn unrecognized() -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "There is no such endpoint")
    }

    /// 405 `M_UNRECOGNIZED`: the endpoint has no such method.
    #[must_use]
    pub fn method_unrecognized() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "The endpoint has no such method")
    }

    /// 401 with the flows and stages that remain ("User-Interactive Authentication API").
    #[must_use]
    pub fn interactive(info: UiaaInfo) -> Self {
        Self(Box::new(Kind::Interactive(info)))
    }

    /// 503 `M_UNKNOWN`: not now, as during shutdown.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", message)
    }

    /// 500 `M_UNKNOWN` with the request's id. The cause is logged once and not told.
    pub fn internal(cause: impl Into<Box<dyn Cause + Send + Sync>>) -> Self {
        Self(Box::new(Kind::Internal(cause.into())))
    }

    /// 503 `M_UNKNOWN`: the disk is full, read-only or broken, so that nothing can be stored. Not `M_RESOURCE_LIMIT_EXCEEDED`,
    /// after which clients do not try again. The cause is logged once and not told.
    pub fn unwritable(cause: impl Into<Box<dyn Cause + Send + Sync>>) -> Self {
        Self(Box::new(Kind::Unwritable(cause.into())))
    }

    /// Whether the caller may not have what they ask for.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(&*self.0, Kind::Refused { errcode: "M_FORBIDDEN", .. })
    }

    /// Whether a server that knows more of the room could let the user in.
    pub(crate) fn is_for_another_server(&self) -> bool {
        let ours = ["M_UNABLE_TO_AUTHORISE_JOIN", "M_UNABLE_TO_GRANT_JOIN"];
        matches!(&*self.0, Kind::Refused { errcode, .. } if ours.contains(errcode))
    }

    /// The body alone, for an error that is a part of a larger answer.
    pub(crate) fn into_body(self) -> Value {
        match *self.0 {
            Kind::Refused { errcode, message, mut extra, .. } => {
                extra.insert("errcode".into(), errcode.into());
                extra.insert("error".into(), message.into());
                Value::Object(extra)
            }
            Kind::Unwritable(_) => json!({ "errcode": "M_UNKNOWN", "error": UNWRITABLE }),
            Kind::Interactive(_) | Kind::Internal(_) => json!({ "errcode": "M_UNKNOWN", "error": "Hearth failed" }),
        }
    }

    /// The response. A failure of ours is logged here, once, with its causes.
    pub(crate) fn into_response(self, request_id: &str) -> Response {
        match *self.0 {
            Kind::Refused { status, errcode, message, mut extra } => {
                let retry_after_ms = extra.get("retry_after_ms").and_then(Value::as_u64);
                extra.insert("errcode".into(), errcode.into());
                extra.insert("error".into(), message.into());
                let mut response = json_response(status, &Value::Object(extra));
                if let Some(ms) = retry_after_ms {
                    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
                }
                response
            }
            Kind::Interactive(info) => match serde_json::to_value(&info) {
                Ok(body) => json_response(StatusCode::UNAUTHORIZED, &body),
                Err(error) => Self::internal(error).into_response(request_id),
            },
            Kind::Unwritable(cause) => {
                tracing::error!(error = %chain(&*cause), "the request could not be stored");
                json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({ "errcode": "M_UNKNOWN", "error": UNWRITABLE }))
            }
            Kind::Internal(cause) => {
                tracing::error!(error = %chain(&*cause), "the request failed");
                let message = format!("Hearth failed. Tell its administrator the request's id: {request_id}");
                json_response(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "errcode": "M_UNKNOWN", "error": message }))
            }
        }
    }
}

/// A response of JSON.
pub(crate) fn json_response(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error and its causes in one line.
fn chain(error: &(dyn Cause + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn body(error: Error) -> (u16, Value) {
        let response = error.into_response("r1");
        let status = response.status().as_u16();
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn a_limit_says_when_to_come_back() {
        let response = Error::limit_exceeded(Duration::from_millis(1500)).into_response("r1");
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        let (status, body) = body(Error::limit_exceeded(Duration::from_millis(1500))).await;
        assert_eq!((status, &body["retry_after_ms"], &body["errcode"]), (429, &json!(1500), &json!("M_LIMIT_EXCEEDED")));
    }

    #[tokio::test]
    async fn a_failure_keeps_its_cause_to_itself() {
        let (status, told) = body(::store::Error::Database("/secret/place".into()).into()).await;
        assert_eq!((status, &told["errcode"]), (500, &json!("M_UNKNOWN")));
        let message = told["error"].as_str().unwrap();
        assert!(message.contains("r1") && !message.contains("secret"), "{message}");
    }

    #[tokio::test]
    async fn a_disk_that_refuses_writes_is_told_as_such() {
        for error in
            [::store::Error::Unwritable("/secret: full".into()).into(), ::media::Error::Unwritable("/secret".into()).into()]
        {
            let (status, told) = body(error).await;
            assert_eq!((status, &told["errcode"]), (503, &json!("M_UNKNOWN")));
            let message = told["error"].as_str().unwrap();
            assert!(message.contains("disk is full") && !message.contains("secret"), "{message}");
        }
    }

    #[tokio::test]
    async fn interactive_authentication_has_flows_and_no_errcode_of_ours() {
        let (status, body) = body(Error::interactive(UiaaInfo::new(Vec::new()))).await;
        assert_eq!((status, body), (401, json!({ "flows": [] })));
    }
}
