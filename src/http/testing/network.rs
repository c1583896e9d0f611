//! A network of servers of one process: a request to another is a call of its router.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
};

use axum::{Router, body::Body};
use bytes::Bytes;
use federation::{Carrying, Transport, TransportError};
use futures_util::StreamExt as _;
use http::{Request, Response};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tower::ServiceExt as _;

/// Servers that reach each other. Those that are gone, and those that are cut off, are unreachable.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<Servers>>);

#[derive(Default)]
struct Servers {
    routers: HashMap<OwnedServerName, Weak<Router>>,
    cut_off: HashSet<OwnedServerName>,
}

impl Network {
    /// Puts a server's endpoints on the network, for as long as somebody holds them.
    pub fn connect(&self, name: &str, router: &Arc<Router>) {
        self.0.lock().routers.insert(name.try_into().expect("a server name"), Arc::downgrade(router));
    }

    /// Nothing reaches this server any more.
    pub fn cut_off(&self, name: &str) {
        self.0.lock().cut_off.insert(name.try_into().expect("a server name"));
    }

    /// This server is reached again.
    pub fn restore(&self, name: &str) {
        self.0.lock().cut_off.retain(|other| other != name);
    }

    async fn ask(&self, server: &ServerName, request: Request<Bytes>) -> Result<Response<federation::Body>, TransportError> {
        let router = self.router(server);
        let router = router.ok_or_else(|| TransportError::NoConnection(format!("{server} is not on the network")))?;
        let response = Router::clone(&router).oneshot(request.map(Body::from)).await;
        let response = response.map_err(|error| TransportError::NoConnection(error.to_string()))?;
        Ok(response.map(|body| {
            let pieces = body.into_data_stream().map(|piece| piece.map_err(|error| TransportError::BrokenOff(error.to_string())));
            Box::pin(pieces) as federation::Body
        }))
    }

    fn router(&self, name: &ServerName) -> Option<Arc<Router>> {
        let servers = self.0.lock();
        if servers.cut_off.contains(name) { None } else { servers.routers.get(name)?.upgrade() }
    }
}

impl Transport for Network {
    fn carry<'a>(&'a self, destination: &'a ServerName, request: Request<Bytes>) -> Carrying<'a> {
        Box::pin(self.ask(destination, request))
    }

    /// The host of the URL is a server of the network.
    fn fetch<'a>(&'a self, url: &'a str) -> Carrying<'a> {
        Box::pin(async move {
            let wrong = || TransportError::NoAddress(url.to_owned());
            let uri: http::Uri = url.parse().map_err(|_| wrong())?;
            let server: OwnedServerName = uri.authority().ok_or_else(wrong)?.as_str().try_into().map_err(|_| wrong())?;
            let request = Request::get(uri.path()).body(Bytes::new()).map_err(|_| wrong())?;
            self.ask(&server, request).await
        })
    }
}
