//! From bytes to a typed request: bodies of bounded size, time and depth, and the errcode of each way to be wrong.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use ruma::api::{
    IncomingRequest,
    error::{DeserializationError, HeaderDeserializationError},
};
use serde::de::{DeserializeOwned, IgnoredAny};
use tower_http::timeout::{TimeoutBody, TimeoutError};

use crate::error::{Error, Result};

/// How deep JSON may nest. Parsers recurse, and so does what later walks the values.
const DEPTH_MAX: usize = 100;

/// The whole body, within this time. Its size is bounded by the route.
pub(crate) async fn body(body: Body, timeout: Duration) -> Result<Bytes> {
    let whole = tokio::time::timeout(timeout, body.collect()).await.map_err(|_| Error::too_slow())?;
    Ok(whole?.to_bytes())
}

/// What a body may cost: no more bytes than these, and no longer a pause than this.
pub(crate) fn bounded(body: Body, max: usize, pause: Duration) -> Body {
    Body::new(Limited::new(TimeoutBody::new(pause, body), max))
}

/// A body that broke one of its bounds, or broke off.
impl From<axum::Error> for Error {
    fn from(error: axum::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            if error.is::<LengthLimitError>() {
                return Self::too_large("The request's body is larger than this endpoint allows");
            }
            if error.is::<TimeoutError>() {
                return Self::too_slow();
            }
            cause = error.source();
        }
        Self::broken_off()
    }
}

/// A request of ruma's from its parts. An empty body stands for `{}`.
///
/// # Errors
/// 400 with `M_NOT_JSON`, `M_BAD_JSON`, `M_MISSING_PARAM` or `M_INVALID_PARAM`.
pub fn request<R: IncomingRequest>(parts: &Parts, args: &[String], body: &[u8]) -> Result<R> {
    // Clients leave out a body that would say nothing.
    let body = if body.is_empty() { b"{}" } else { body };
    object(body)?;
    request_of_object(parts, args, body)
}

/// [`request`] whose body was found to be an object before.
pub(crate) fn request_of_object<R: IncomingRequest>(parts: &Parts, args: &[String], body: &[u8]) -> Result<R> {
    let mut request = http::Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    R::try_from_http_request_inner(request, &args).map_err(wrong)
}

/// A type of ours from a JSON body.
///
/// # Errors
/// As [`request`].
pub fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    object(body)?;
    serde_json::from_slice(body).map_err(|error| wrong(error.into()))
}

/// Refuses a `%` that does not begin an encoded byte, and encoded bytes that are not UTF-8.
pub(crate) fn well_encoded(text: &str) -> Result<()> {
    if !text.contains('%') {
        return Ok(());
    }
    let wrong = || Error::invalid_param("The path or query is not percent-encoded UTF-8");
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = digit().zip(digit()).ok_or_else(wrong)?;
        decoded.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    std::str::from_utf8(&decoded).map(drop).map_err(|_| wrong())
}

/// Refuses what is not a JSON object of bearable depth. All bodies of the Matrix APIs are objects, but serde would take
/// `[]` for a struct, raw values are not looked into until much later, and bodies of which nothing is wanted never.
fn object(body: &[u8]) -> Result<()> {
    let (mut depth, mut within, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if within => escaped = true,
            b'"' => within = !within,
            b'{' | b'[' if !within => depth += 1,
            b'}' | b']' if !within => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(Error::bad_json(format!("The body nests deeper than {DEPTH_MAX} levels")));
        }
    }
    let text = std::str::from_utf8(body).map_err(|error| wrong(error.into()))?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| wrong(error.into()))?;
    if text.trim_ascii_start().starts_with('{') { Ok(()) } else { Err(Error::bad_json("The body must be a JSON object")) }
}

/// The errcode of what could not be read.
fn wrong(error: DeserializationError) -> Error {
    let text = error.to_string();
    let missing = text.starts_with("missing field");
    match error {
        DeserializationError::Json(error) => match error.classify() {
            serde_json::error::Category::Data if missing => Error::missing_param(text),
            serde_json::error::Category::Data => Error::bad_json(text),
            _ => Error::not_json(text),
        },
        DeserializationError::Query(_) if missing => Error::missing_param(text),
        DeserializationError::Header(HeaderDeserializationError::MissingHeader(_)) => Error::missing_param(text),
        DeserializationError::Utf8(_) => Error::not_json(text),
        _ => Error::invalid_param(text),
    }
}
