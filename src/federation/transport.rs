//! What carries requests to other servers: the network, or in tests a map of servers of the same process.

use std::{future::Future, net::IpAddr, pin::Pin};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::{Request, Response};
use ruma::ServerName;

use crate::{Error, Result};

/// Carries requests. It finds the server by its name and speaks with it securely; what is said is no concern of its.
pub trait Transport: Send + Sync {
    /// Carries one request, whose URI is a path and a query, to a server. The answer's body arrives while it is read. Whoever
    /// waits decides how long, and drops the future.
    fn carry<'a>(&'a self, destination: &'a ServerName, request: Request<Bytes>) -> Carrying<'a>;

    /// Gets what is at a URL that another server named: a file on its way to a client. It follows few redirects.
    fn fetch<'a>(&'a self, url: &'a str) -> Carrying<'a>;
}

/// An answer that is under way.
pub type Carrying<'a> = Pin<Box<dyn Future<Output = std::result::Result<Response<Body>, TransportError>> + Send + 'a>>;
/// The body of an answer, as it arrives.
pub type Body = Pin<Box<dyn Stream<Item = std::result::Result<Bytes, TransportError>> + Send>>;

/// Why there is no answer, or no more of it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// The name leads nowhere.
    #[error("its name has no address: {0}")]
    NoAddress(String),
    /// The name leads to an address that must not be called.
    #[error("its address {0} is private or reserved, and not among federation.allowed_networks")]
    ForbiddenAddress(IpAddr),
    /// There is no connection, or no secure one.
    #[error("no connection: {0}")]
    NoConnection(String),
    /// The connection broke off.
    #[error("the connection broke off: {0}")]
    BrokenOff(String),
}

/// Reaches nobody: the transport of a server that does not federate.
#[derive(Clone, Copy, Debug)]
pub struct NoNetwork;

impl Transport for NoNetwork {
    fn carry<'a>(&'a self, destination: &'a ServerName, _: Request<Bytes>) -> Carrying<'a> {
        Box::pin(async move { Err(TransportError::NoAddress(destination.to_string())) })
    }

    fn fetch<'a>(&'a self, url: &'a str) -> Carrying<'a> {
        Box::pin(async move { Err(TransportError::NoAddress(url.to_owned())) })
    }
}

/// The whole body, if it has at most `max` bytes.
///
/// # Errors
/// [`Error::BadAnswer`] where it has more, [`Error::Unreachable`] where it breaks off.
pub async fn collect(mut body: Body, max: usize) -> Result<Bytes> {
    let mut whole = BytesMut::new();
    while let Some(piece) = body.next().await {
        let piece = piece?;
        if whole.len() + piece.len() > max {
            return Err(Error::BadAnswer(format!("it has more than {max} bytes")));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}
