//! The network: names of servers to connections, as "Resolving server names" has it, and requests over them.
//!
//! In every step of the specification the host that the certificate is for is the one of the `Host` header. So the URL of a
//! request has just that host, and where it is to be found is the business of the client's resolver: [`names::ByHost`] where the
//! port is known, and [`names::ByService`] where DNS says it. Addresses are checked there, after resolution.

mod addresses;
mod names;
mod pages;
#[cfg(test)]
mod tests;
mod tls;
mod well_known;

use std::{
    collections::HashMap,
    error::Error as Cause,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Weak},
    time::Duration,
};

use addresses::may_call;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use hickory_resolver::{
    ResolverBuilder, TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use http::{HeaderValue, Request, Response, header};
use names::{ByHost, ByService, Names, PORT};
use pages::{PageError, Pages};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use reqwest::{Client, ClientBuilder, redirect::Policy};
use ruma::{OwnedServerName, ServerName};
use store::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use well_known::WellKnown;

use crate::{Body, Carrying, Config, Network, Transport, TransportError};

/// How long a connection may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that nothing goes over are closed after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Where names say where their servers are.
const WELL_KNOWN_PORT: u16 = 443;
/// Idle connections to one host.
const IDLE_MAX: usize = 4;
/// How often a quiet HTTP/2 connection is asked whether it lives, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests to one server at the same time. More wait.
const AT_ONCE: usize = 32;
/// From this many servers on, those that nothing is asked of are forgotten.
const SWEEP_FROM: usize = 1024;

/// The real network.
pub struct Wire {
    /// Connects to the port that the URL names.
    direct: Client,
    /// Connects where DNS says that the host's server is.
    served: Client,
    pages: Pages,
    well_known: WellKnown,
    #[cfg(test)]
    names: Arc<Names>,
    allowed: Vec<Network>,
    busy: Mutex<HashMap<OwnedServerName, Weak<Semaphore>>>,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    /// The host of the URL, perhaps with a port.
    authority: String,
    /// The `Host` header, where the URL would make another of it.
    host: Option<String>,
    /// Whether DNS says the port.
    by_service: bool,
}

impl Wire {
    /// Nothing is connected yet. Names are looked up as the operating system is configured to.
    ///
    /// # Errors
    /// Where the file of certificates cannot be read.
    pub fn new(config: &Config, clock: Arc<dyn Clock>, rng: &mut StdRng) -> io::Result<Self> {
        let resolver = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::warn!(%error, "the configuration of DNS cannot be read: the name server of this machine is asked");
            let servers = vec![NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into())];
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        });
        Self::with(config, resolver, WELL_KNOWN_PORT, clock, rng)
    }

    fn with(
        config: &Config,
        resolver: ResolverBuilder<TokioRuntimeProvider>,
        well_known_port: u16,
        clock: Arc<dyn Clock>,
        rng: &mut StdRng,
    ) -> io::Result<Self> {
        let tls = tls::config(config.ca_certificates.as_deref())?;
        let allowed = config.allowed_networks.clone();
        let names = Names::new(resolver, allowed.clone(), Arc::clone(&clock), rng).map_err(io::Error::other)?;
        let names = Arc::new(names);
        let direct = client(&tls).dns_resolver(Arc::new(ByHost(Arc::clone(&names)))).build().map_err(io::Error::other)?;
        let served = client(&tls).dns_resolver(Arc::new(ByService(Arc::clone(&names)))).build().map_err(io::Error::other)?;
        let pages = || Pages::new(direct.clone(), allowed.clone());
        let well_known = WellKnown::new(pages(), well_known_port, clock, rng);
        let pages = pages();
        Ok(Self {
            direct,
            served,
            pages,
            well_known,
            #[cfg(test)]
            names,
            allowed,
            busy: Mutex::default(),
        })
    }

    /// Steps 1 to 6.
    async fn route(&self, server: &ServerName) -> Result<Route, TransportError> {
        if let Some(route) = self.settled(server)? {
            return Ok(route);
        }
        match self.well_known.delegated(server).await {
            Some(delegated) => match self.settled(&delegated)? {
                Some(route) => Ok(route),
                None => Ok(Route { authority: delegated.host().to_owned(), host: None, by_service: true }),
            },
            None => Ok(Route { authority: server.host().to_owned(), host: None, by_service: true }),
        }
    }

    /// The route of a name that is an address or names its port: nobody needs to be asked.
    fn settled(&self, server: &ServerName) -> Result<Option<Route>, TransportError> {
        if server.is_ip_literal() {
            let address: IpAddr =
                server.host().trim_matches(['[', ']']).parse().map_err(|_| TransportError::NoAddress(server.to_string()))?;
            if !may_call(address, &self.allowed) {
                return Err(TransportError::ForbiddenAddress(address));
            }
            let authority = format!("{}:{}", server.host(), server.port().unwrap_or(PORT));
            let host = server.port().is_none().then(|| server.to_string());
            return Ok(Some(Route { authority, host, by_service: false }));
        }
        let named = |port| Route { authority: format!("{}:{port}", server.host()), host: None, by_service: false };
        Ok(server.port().map(named))
    }

    fn slots(&self, server: &ServerName) -> Arc<Semaphore> {
        let mut busy = self.busy.lock();
        if busy.len() >= SWEEP_FROM {
            busy.retain(|_, slots| slots.strong_count() > 0);
        }
        let slots = busy.entry(server.to_owned()).or_default();
        slots.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Semaphore::new(AT_ONCE));
            *slots = Arc::downgrade(&new);
            new
        })
    }

    async fn send(&self, server: &ServerName, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let route = self.route(server).await?;
        let (mut parts, content) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = format!("https://{}{path}", route.authority)
            .parse()
            .map_err(|error: http::uri::InvalidUri| TransportError::NoAddress(error.to_string()))?;
        if let Some(host) = route.host.and_then(|host| HeaderValue::from_str(&host).ok()) {
            parts.headers.insert(header::HOST, host);
        }
        let request = reqwest::Request::try_from(Request::from_parts(parts, content)).map_err(|error| carried(&error))?;
        let client = if route.by_service { &self.served } else { &self.direct };
        let response = client.execute(request).await.map_err(|error| carried(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut answer = Response::new(body(response.bytes_stream().boxed()));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}

impl Transport for Wire {
    fn carry<'a>(&'a self, destination: &'a ServerName, request: Request<Bytes>) -> Carrying<'a> {
        Box::pin(async move {
            let permit = self.slots(destination).acquire_owned().await;
            let permit = permit.map_err(|error| TransportError::NoConnection(error.to_string()))?;
            let response = self.send(destination, request).await?;
            Ok(response.map(|body| held(body, permit)))
        })
    }

    fn fetch<'a>(&'a self, url: &'a str) -> Carrying<'a> {
        Box::pin(async move {
            self.pages.get(url).await.map_err(|error| match error {
                PageError::Transport(error) => error,
                PageError::Nowhere(why) => TransportError::NoAddress(why.to_owned()),
            })
        })
    }
}

/// The body, with the slot that it takes until its end.
fn held(body: Body, permit: OwnedSemaphorePermit) -> Body {
    body.map(move |piece| {
        let _ = &permit;
        piece
    })
    .boxed()
}

fn client(tls: &rustls::ClientConfig) -> ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .https_only(true)
        // A proxy would resolve names itself, past the check of addresses.
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_MAX)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
}

/// A body as this layer has it.
fn body(pieces: BoxStream<'static, reqwest::Result<Bytes>>) -> Body {
    pieces.map(|piece| piece.map_err(|error| TransportError::BrokenOff(chain(&error)))).boxed()
}

/// What the client's failure means: what the resolver said of it, if it did.
fn carried(error: &reqwest::Error) -> TransportError {
    let mut cause: Option<&(dyn Cause + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(known) = error.downcast_ref::<TransportError>() {
            return known.clone();
        }
        cause = error.source();
    }
    TransportError::NoConnection(chain(error))
}

/// An error and its causes, without the URL, which may hold secrets.
fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_connect() { "cannot connect".to_owned() } else { "the request failed".to_owned() };
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
