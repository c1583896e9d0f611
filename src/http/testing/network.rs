//! A network of servers of one process: a request to another is a call of its router.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
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
    /// Beginnings of paths whose requests wait.
    held: HashSet<String>,
    /// What requests of paths that begin so are answered, in place of the server's own answer.
    forged: HashMap<(OwnedServerName, String), String>,
    /// The requests that were made: the server and the path.
    asked: Vec<(OwnedServerName, String)>,
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

    /// Requests of paths that begin so wait until they are let go.
    pub fn hold(&self, path: &str) {
        self.0.lock().held.insert(path.to_owned());
    }

    /// Requests that wait go on.
    pub fn let_go(&self, path: &str) {
        self.0.lock().held.remove(path);
    }

    /// Has requests to a server of paths that begin so answered by this, or by the server again.
    pub fn forge(&self, name: &str, path: &str, answer: Option<&serde_json::Value>) {
        let key = (name.try_into().expect("a server name"), path.to_owned());
        let forged = &mut self.0.lock().forged;
        match answer {
            Some(answer) => forged.insert(key, answer.to_string()),
            None => forged.remove(&key),
        };
    }

    /// How many requests of a path that begins so were made to a server, held ones and refused ones too.
    #[must_use]
    pub fn asked(&self, name: &str, path: &str) -> usize {
        self.0.lock().asked.iter().filter(|(server, asked)| server == name && asked.starts_with(path)).count()
    }

    async fn ask(&self, server: &ServerName, request: Request<Bytes>) -> Result<Response<federation::Body>, TransportError> {
        let path = request.uri().path().to_owned();
        self.0.lock().asked.push((server.to_owned(), path.clone()));
        while self.0.lock().held.iter().any(|held| path.starts_with(held)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let forged = self
            .0
            .lock()
            .forged
            .iter()
            .find(|((name, held), _)| name == server && path.starts_with(held))
            .map(|(_, answer)| answer.clone());
        if let Some(answer) = forged {
            let body: federation::Body = Box::pin(futures_util::stream::iter([Ok(Bytes::from(answer))]));
            return Ok(Response::new(body));
        }
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
