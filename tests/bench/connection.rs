//! One keep-alive HTTP/1.1 connection, as each simulated client has one. It uses hyper's connection without a pool on top, because
//! the generator shares the machine with the server that it measures.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::failure::Failure;

/// The largest answer that is read: an initial sync of some thousand rooms fits.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// How much of an error response is kept: enough for the flows of user-interactive authentication.
const MAX_REPEATED_BYTES: usize = 2_000;

/// Where the server listens.
#[derive(Debug, Clone)]
pub struct Address {
    /// Host and port, as in the Host header.
    authority: Arc<str>,
    /// What precedes `/_matrix`, without a slash at the end.
    prefix: Arc<str>,
}

impl Address {
    /// Reads a base URL, `http://host:port[/prefix]`. TLS is left to a proxy that is not measured.
    pub fn parse(base: &str) -> Result<Self, Failure> {
        let wrong = || Failure::Usage(format!("--base must look like http://127.0.0.1:8008, not {base}"));
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
        let authority = match authority.port() {
            Some(_) => authority.to_string(),
            None => format!("{authority}:80"),
        };
        Ok(Self { authority: authority.into(), prefix: uri.path().trim_end_matches('/').into() })
    }
}

/// A client's connection with its access token. It connects when first used, and again if the server closed it.
#[derive(Debug)]
pub struct Connection {
    address: Address,
    authorization: Option<HeaderValue>,
    /// Taken while a request is under way: a request that is abandoned takes its connection with it.
    live: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// A connection without an access token.
    pub fn new(address: Address) -> Self {
        Self { address, authorization: None, live: None }
    }

    /// A second connection of the same client.
    pub fn another(&self) -> Self {
        Self { address: self.address.clone(), authorization: self.authorization.clone(), live: None }
    }

    /// The same server, with this access token from now on.
    pub fn authorize(&mut self, token: &str) -> Result<(), Failure> {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Failure::Usage("the server's access token does not fit in a header".to_owned()))?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(())
    }

    /// Sends one request and reads the whole answer, which must be a 200. An empty body is sent as none.
    pub async fn call(&mut self, method: Method, path: &str, body: Bytes, wait: Duration) -> Result<Bytes, Failure> {
        let name = || format!("{method} {path}");
        let request = self.request(&method, path, body)?;
        let (status, answer) = match tokio::time::timeout(wait, self.exchange(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(Trouble::Connect(failure))) => return Err(failure),
            Ok(Err(Trouble::Wire(cause))) => return Err(Failure::Broken { request: name(), cause }),
            Err(_) => return Err(Failure::Timeout { request: name(), after: wait }),
        };
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let shown = answer.get(..MAX_REPEATED_BYTES).unwrap_or(&answer);
        Err(Failure::Refused { request: name(), status: status.as_u16(), body: String::from_utf8_lossy(shown).into_owned() })
    }

    fn request(&self, method: &Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
        let uri = format!("{}{path}", self.address.prefix);
        let mut builder = Request::builder().method(method).uri(uri).header(HOST, &*self.address.authority);
        if let Some(authorization) = &self.authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        if !body.is_empty() {
            builder = builder.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        builder
            .body(Full::new(body))
            .map_err(|cause| Failure::Broken { request: format!("{method} {path}"), cause: cause.into() })
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Trouble> {
        let mut sender = match self.live.take().filter(|live| !live.is_closed()) {
            Some(live) => live,
            None => self.open().await?,
        };
        sender.ready().await?;
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(Trouble::Wire)?.to_bytes();
        self.live = Some(sender);
        Ok((parts.status, body))
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, Trouble> {
        let address = &self.address.authority;
        let refused = |cause| Trouble::Connect(Failure::Connect { address: address.to_string(), cause });
        let stream = TcpStream::connect(&**address).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends when `sender` is dropped or the server closes; whoever waits for an answer then hears of the error.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// A failure that does not yet know its request.
enum Trouble {
    Connect(Failure),
    Wire(Box<dyn std::error::Error + Send + Sync>),
}

impl From<hyper::Error> for Trouble {
    fn from(cause: hyper::Error) -> Self {
        Self::Wire(cause.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn base_urls() {
        let address = Address::parse("http://127.0.0.1:8008").unwrap();
        assert_eq!((&*address.authority, &*address.prefix), ("127.0.0.1:8008", ""));
        let address = Address::parse("http://host/matrix/").unwrap();
        assert_eq!((&*address.authority, &*address.prefix), ("host:80", "/matrix"));
        assert!(Address::parse("https://host").is_err());
        assert!(Address::parse("host:8008").is_err());
    }

    #[test]
    fn paths_follow_the_prefix_and_tokens_are_sent() {
        let mut connection = Connection::new(Address::parse("http://h:1/p").unwrap());
        connection.authorize("secret").unwrap();
        let request = connection.request(&Method::GET, "/_matrix/client/versions", Bytes::new()).unwrap();
        assert_eq!(request.uri(), "/p/_matrix/client/versions");
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer secret");
        assert_eq!(request.headers()[HOST], "h:1");
        assert!(!request.headers().contains_key(CONTENT_TYPE));
    }
}
