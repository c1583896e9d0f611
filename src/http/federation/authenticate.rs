//! Which server calls: the `X-Matrix` header, checked against all that it covers ("Request Authentication").

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use federation::{
    keys::Wanted,
    x_matrix::{Signed, XMatrix},
};
use http::{HeaderMap, Method, header, request::Parts};
use protocol::verify::Validity;
use ruma::OwnedServerName;

use crate::{
    Call, Error, Result, decode,
    limits::{Class, Limit, Payer},
    route::Arrival,
    server::Server,
};

/// What a request costs its address until it is known which server it is from: the keys of strangers must be fetched.
const STRANGER: Limit = Class::Federation.cost(10);

/// Another server that proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Its name.
    pub(crate) server_name: OwnedServerName,
}

/// Reads the body and finds out who sent it.
///
/// # Errors
/// 403 where federation is off, 401 where the header or the signature is wrong, and those of a body.
pub(super) async fn verified(arrival: Arrival, limit: Limit) -> Result<(Call<Origin>, Parts, Vec<String>, Bytes)> {
    let Arrival { server, client, parts, args, body } = arrival;
    if !server.federation.config.enabled {
        return Err(Error::federation_disabled());
    }
    let claimed = claimed(&server, &parts.headers)?;
    let body = match parts.method {
        Method::GET | Method::HEAD => Bytes::new(),
        _ => decode::body(body, Duration::from_millis(server.config.body_timeout_ms)).await?,
    };
    let text = signed_text(&server, &claimed, &parts, &body)?;
    let mut wanted = Wanted::default();
    wanted.add(&claimed.origin, &claimed.key, server.now_ms());
    if !server.federation.knows(&wanted)? {
        server.limits.take(STRANGER, Payer::address(client.address), server.elapsed())?;
    }
    let keys = server.federation.fetch_keys(wanted).await?;
    let key = keys
        .key(&claimed.origin, &claimed.key)
        .ok_or_else(|| Error::unauthorized(format!("The key {} of {} cannot be had", claimed.key, claimed.origin)))?;
    // Keys that were retired sign events only.
    let now_ms = server.now_ms();
    if !matches!(key.validity, Validity::Until(until_ms) if now_ms <= until_ms) {
        return Err(Error::unauthorized("The key that signed the request is no longer valid"));
    }
    if !key.key.verifies(text.as_bytes(), &claimed.signature) {
        return Err(Error::unauthorized("The signature of the request is wrong"));
    }
    let origin = claimed.origin;
    server.limits.take(limit, server.limits.payer_of(&origin), server.elapsed())?;
    server.federation.note_life(&origin)?;
    let call = Call { server: Arc::clone(&server), session: Origin { server_name: origin }, client };
    Ok((call, parts, args, body))
}

/// What the header says. There is one, and it is for this server.
fn claimed(server: &Server, headers: &HeaderMap) -> Result<XMatrix> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Error::unauthorized("The request must have one Authorization header"));
    };
    let claimed = value.to_str().ok().and_then(XMatrix::parse);
    let claimed = claimed.ok_or_else(|| Error::unauthorized("The Authorization header is none of X-Matrix"))?;
    if claimed.destination.as_ref().is_some_and(|destination| *destination != server.name) {
        return Err(Error::unauthorized("The request is for another server"));
    }
    if claimed.origin == server.name {
        return Err(Error::unauthorized("The request says to be from this server itself"));
    }
    Ok(claimed)
}

/// What the signature must cover.
fn signed_text(server: &Server, claimed: &XMatrix, parts: &Parts, body: &[u8]) -> Result<String> {
    let content = if body.is_empty() { None } else { Some(decode::json(body)?) };
    let uri = parts.uri.path_and_query().map_or("/", |uri| uri.as_str());
    let (origin, destination) = (&claimed.origin, &server.name);
    let signed = Signed { method: parts.method.as_str(), uri, origin, destination, content: content.as_ref() };
    signed.canonical().map_err(|error| Error::bad_json(error.to_string()))
}
