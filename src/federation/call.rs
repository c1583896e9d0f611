//! Asking another server: paths, signatures, limits, and what its answer means.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use protocol::json::Object;
use ruma::ServerName;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Body, Error, Federation, Refusal, Result, collect, x_matrix};

/// How long a server may take to answer, where the caller does not say.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer, in bytes, where the caller does not say.
const BODY_MAX: usize = 1 << 20;
/// The largest error, in bytes.
const ERROR_MAX: usize = 64 << 10;
/// What is kept of an error's message, in characters.
const MESSAGE_MAX: usize = 500;
/// A server that did not answer within less than this may be well: a client chose to be impatient.
const PATIENT: Duration = Duration::from_secs(10);
/// What names this software to others.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("Hearth/", env!("CARGO_PKG_VERSION")));

/// A request of ours.
#[derive(Clone, Debug)]
pub struct Ask {
    method: Method,
    path: String,
    body: Option<Bytes>,
    timeout: Duration,
    body_max: usize,
}

impl Ask {
    /// A `GET` of a path made by [`path`], perhaps with a [`query`].
    #[must_use]
    pub fn get(path: String) -> Self {
        Self { method: Method::GET, path, body: None, timeout: TIMEOUT, body_max: BODY_MAX }
    }

    /// A `PUT` of a JSON body.
    ///
    /// # Errors
    /// Where the body cannot be JSON.
    pub fn put(path: String, body: &impl Serialize) -> Result<Self> {
        Self { method: Method::PUT, ..Self::get(path) }.json(body)
    }

    /// A `POST` of a JSON body.
    ///
    /// # Errors
    /// Where the body cannot be JSON.
    pub fn post(path: String, body: &impl Serialize) -> Result<Self> {
        Self { method: Method::POST, ..Self::get(path) }.json(body)
    }

    fn json(mut self, body: &impl Serialize) -> Result<Self> {
        self.body = Some(serde_json::to_vec(body).map_err(|error| Error::Internal(error.to_string()))?.into());
        Ok(self)
    }

    /// The same request that waits this long for the whole answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same request with answers of up to this many bytes.
    #[must_use]
    pub fn body_max(mut self, bytes: usize) -> Self {
        self.body_max = bytes;
        self
    }
}

/// A path of these segments, each percent-encoded.
#[must_use]
pub fn path(segments: &[&str]) -> String {
    let mut path = String::with_capacity(128);
    for segment in segments {
        path.push('/');
        encode(&mut path, segment);
    }
    path
}

/// The path with a query of these names and values.
#[must_use]
pub fn query(mut path: String, pairs: &[(&str, &str)]) -> String {
    for (index, (name, value)) in pairs.iter().enumerate() {
        path.push(if index == 0 { '?' } else { '&' });
        encode(&mut path, name);
        path.push('=');
        encode(&mut path, value);
    }
    path
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

impl Federation {
    /// Asks a server, and reads its answer.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn call<T: DeserializeOwned>(&self, destination: &ServerName, ask: Ask) -> Result<T> {
        let (timeout, body_max) = (ask.timeout, ask.body_max);
        let calling = async {
            let response = self.open(destination, ask).await?;
            collect(response.into_body(), body_max).await
        };
        let body = match tokio::time::timeout(timeout, calling).await {
            Ok(body) => body?,
            Err(_) => {
                if timeout >= PATIENT {
                    self.note_failure(destination).await?;
                }
                return Err(Error::TimedOut);
            }
        };
        serde_json::from_slice(&body).map_err(|error| Error::BadAnswer(error.to_string()))
    }

    /// [`Federation::call`] of a `GET`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get<T: DeserializeOwned>(&self, destination: &ServerName, path: String) -> Result<T> {
        self.call(destination, Ask::get(path)).await
    }

    /// [`Federation::call`] of a `PUT`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put<T: DeserializeOwned>(&self, destination: &ServerName, path: String, body: &impl Serialize) -> Result<T> {
        self.call(destination, Ask::put(path, body)?).await
    }

    /// [`Federation::call`] of a `POST`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn post<T: DeserializeOwned>(&self, destination: &ServerName, path: String, body: &impl Serialize) -> Result<T> {
        self.call(destination, Ask::post(path, body)?).await
    }

    /// Asks a server whose answer is read as a stream. Neither the time nor the size of that answer is bounded here.
    ///
    /// # Errors
    /// [`Error`]: any answer that is no success is one.
    pub async fn open(&self, destination: &ServerName, ask: Ask) -> Result<Response<Body>> {
        if !self.config.enabled {
            return Err(Error::Disabled);
        }
        if destination == self.name() {
            return Err(Error::Itself);
        }
        self.check_backoff(destination)?;
        let request = self.signed(destination, ask)?;
        let response = match self.transport.carry(destination, request).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%destination, %error, "a server was not reached");
                self.note_failure(destination).await?;
                return Err(error.into());
            }
        };
        let status = response.status();
        if status.is_success() {
            self.note_life(destination)?;
            return Ok(response);
        }
        let refusal = refusal(response).await;
        let is_down = match &refusal {
            // Whoever stands in front of the server says so, and not the server; what is not found is often said without a standard error.
            Err(_) => !status.is_client_error(),
            Ok(told) => matches!(status.as_u16(), 502..=504) && told.errcode != "M_NOT_YET_UPLOADED",
        };
        if is_down {
            self.note_failure(destination).await?
        } else {
            self.note_life(destination)?
        }
        Err(refusal?.into())
    }

    /// The request with all its headers.
    fn signed(&self, destination: &ServerName, ask: Ask) -> Result<Request<Bytes>> {
        let wrong = |error: &dyn std::fmt::Display| Error::Internal(error.to_string());
        let content: Option<Object> =
            ask.body.as_ref().map(|body| serde_json::from_slice(body)).transpose().map_err(|error| wrong(&error))?;
        let identity = &self.identity;
        let signed = x_matrix::Signed {
            method: ask.method.as_str(),
            uri: &ask.path,
            origin: self.name(),
            destination,
            content: content.as_ref(),
        };
        let signature = identity.key.sign(signed.canonical().map_err(|error| wrong(&error))?.as_bytes());
        let authorization = x_matrix::header(self.name(), destination, identity.key.id(), &signature);
        let mut request = Request::builder().method(ask.method).uri(ask.path).header(header::AUTHORIZATION, authorization);
        request = request.header(header::USER_AGENT, USER_AGENT);
        if ask.body.is_some() {
            request = request.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request.body(ask.body.unwrap_or_default()).map_err(|error| wrong(&error))
    }
}

/// A request for what everybody may see, which is not signed.
pub(crate) fn unsigned(path: String, body: Option<Bytes>) -> Result<Request<Bytes>> {
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let request = Request::builder().method(method).uri(path).header(header::USER_AGENT, USER_AGENT);
    let request = request.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.body(body.unwrap_or_default()).map_err(|error| Error::Internal(error.to_string()))
}

/// What a server says that gave no success.
async fn refusal(response: Response<Body>) -> Result<Refusal> {
    #[derive(Deserialize)]
    struct Standard {
        errcode: Option<String>,
        error: Option<String>,
        retry_after_ms: Option<u64>,
    }
    let status = response.status();
    let body = collect(response.into_body(), ERROR_MAX).await?;
    let Ok(told) = serde_json::from_slice::<Standard>(&body) else {
        return Err(Error::BadAnswer(format!("status {status}, and no standard error")));
    };
    let cut = |text: Option<String>| text.unwrap_or_default().chars().take(MESSAGE_MAX).collect::<String>();
    let errcode = cut(told.errcode);
    let errcode = if errcode.is_empty() { "M_UNKNOWN".to_owned() } else { errcode };
    let retry_after_ms = told.retry_after_ms.filter(|_| status == StatusCode::TOO_MANY_REQUESTS);
    Ok(Refusal { status, errcode, message: cut(told.error), retry_after_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_keep_their_segments_whatever_is_in_them() {
        let id = "!a/b?c#d%é:x";
        assert_eq!(path(&["_matrix", "federation", "v1", id]), "/_matrix/federation/v1/%21a%2Fb%3Fc%23d%25%C3%A9%3Ax");
        assert_eq!(query(path(&["p"]), &[("a", "b&c"), ("d", "1 2")]), "/p?a=b%26c&d=1%202");
    }
}
