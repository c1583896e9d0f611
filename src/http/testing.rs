//! A server in the test's process: its store in memory, its clock set by hand, its router called without a socket.
//!
//! ```ignore
//! let hearth = Hearth::start();
//! let alice = hearth.register("alice").await;
//! let room = alice.post("/_matrix/client/v3/createRoom", json!({})).await.ok();
//! alice.get("/_matrix/client/v3/rooms/!none:x/state").await.fails(403, "M_FORBIDDEN");
//! ```
//!
//! Two servers in one process are two `Hearth`s. Rate limits are off, unless a test turns them on ([`Hearth::with`]).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod network;

use std::{
    future::{Future, IntoFuture},
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use federation::{
    Transport,
    x_matrix::{self, Signed},
};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
pub use network::Network;
use rand::{SeedableRng, rngs::StdRng};
use ruma::{OwnedUserId, UserId};
use serde_json::Value;
use store::{Store, TableSpec, UserNo};
use tower::ServiceExt;
use users::{
    accounts::{Kind, NewAccount},
    registration::{self, Registration},
    sessions::{self, Login},
};

use crate::{Clock, Config, Peer, Route, Server, Setup, config, limits, router, router::service};

/// The tables of all layers.
#[must_use]
pub fn tables() -> Vec<&'static TableSpec> {
    let layers = [::federation::TABLES, media::TABLES, rooms::TABLES, users::TABLES];
    layers.concat()
}

/// Accounts for everybody who asks.
fn open() -> users::Config {
    users::Config {
        registration: registration::Config { mode: registration::Mode::Open, ..Default::default() },
        ..users::Config::default()
    }
}

/// A configuration without rate limits.
fn unlimited() -> Config {
    Config { limits: limits::Config { enabled: false, ..limits::Config::default() }, ..Config::default() }
}

/// The signing key of a test's server: another for each name.
#[must_use]
pub fn signing_key(name: &str) -> protocol::keys::SigningKey {
    let seed = protocol::hash::sha256(name.as_bytes());
    protocol::keys::SigningKey::from_seed("test", &seed).expect("a key version")
}

/// What a test's server is made of.
struct Build<'a> {
    network: &'a Network,
    transport: Arc<dyn Transport>,
    name: &'a str,
    config: Config,
    users: users::Config,
    federation: federation::Config,
}

/// A clock that goes only when told.
#[derive(Debug)]
pub struct TestClock(AtomicU64);

impl TestClock {
    /// Lets time pass.
    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// Corrects a clock that was fast.
    pub fn set_back(&self, ms: u64) {
        self.0.fetch_sub(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.now_ms())
    }
}

/// A server of a test.
#[derive(Clone)]
pub struct Hearth {
    /// What its handlers see.
    pub server: Arc<Server>,
    /// Its clock, which starts in the year 2026.
    pub clock: Arc<TestClock>,
    client: Router,
    metrics: Router,
    /// What other servers of its network reach.
    federation: Arc<Router>,
    network: Network,
    /// The folder of its media, removed with the last clone.
    _folder: Arc<tempfile::TempDir>,
}

impl Hearth {
    /// A server named `hearth.test`.
    #[must_use]
    pub fn start() -> Self {
        Self::named("hearth.test")
    }

    /// A server of this name, alone on its network.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::named_in(&Network::default(), name)
    }

    /// A server of this name on a network with others.
    #[must_use]
    pub fn named_in(network: &Network, name: &str) -> Self {
        Self::built_in(network, name, federation::Config::default())
    }

    /// A server on a network, with this configuration of federation.
    #[must_use]
    pub fn built_in(network: &Network, name: &str, federation: federation::Config) -> Self {
        let transport = Arc::new(network.clone());
        Self::build(Build { network, transport, name, config: unlimited(), users: open(), federation })
    }

    /// A server that reaches others by this transport.
    #[must_use]
    pub fn wired(transport: Arc<dyn Transport>, name: &str, config: Config, federation: federation::Config) -> Self {
        Self::build(Build { network: &Network::default(), transport, name, config, users: open(), federation })
    }

    /// A server with this configuration of accounts.
    #[must_use]
    pub fn with_users(users: users::Config) -> Self {
        Self::with_both(unlimited(), users)
    }

    /// A server with this configuration, rate limits and all.
    #[must_use]
    pub fn with(config: Config) -> Self {
        Self::with_both(config, open())
    }

    /// A server with both.
    #[must_use]
    pub fn with_both(config: Config, users: users::Config) -> Self {
        let (network, federation) = (Network::default(), federation::Config::default());
        let transport = Arc::new(network.clone());
        Self::build(Build { network: &network, transport, name: "hearth.test", config, users, federation })
    }

    fn build(build: Build<'_>) -> Self {
        let Build { network, transport, name, config, users, federation } = build;
        let store = Arc::new(Store::in_memory(name, &tables()).expect("a store in memory opens"));
        let clock = Arc::new(TestClock(AtomicU64::new(1_767_225_600_000)));
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let media = media::Media::open(folder.path(), media::Config::default()).expect("an empty folder");
        users.appservices.make_senders(&store, clock.now_ms()).expect("the store in memory does not fail");
        let server = Server::new(Setup {
            identity: rooms::Identity { server_name: name.try_into().expect("a server name"), key: signing_key(name) },
            config,
            users,
            rooms: rooms::Config::default(),
            media: Arc::new(media),
            store,
            federation,
            transport,
            clock: clock.clone(),
            computing: federation::Computing::Beside,
            rng: StdRng::seed_from_u64(name.bytes().map(u64::from).sum()),
        });
        server.federation.publish_own_key().expect("the store in memory does not fail");
        let (client, metrics) = (router(&server, config::Kind::Client), router(&server, config::Kind::Metrics));
        let federation = Arc::new(router(&server, config::Kind::Federation));
        network.connect(name, &federation);
        Self { server, clock, client, metrics, federation, network: network.clone(), _folder: folder }
    }

    /// What other servers reach, to be put on another network too.
    #[must_use]
    pub fn federation(&self) -> &Arc<Router> {
        &self.federation
    }

    /// The same server with only these endpoints, for its network too.
    #[must_use]
    pub fn serving(mut self, routes: Vec<Route>) -> Self {
        self.client = service(&self.server, routes);
        self.federation = Arc::new(self.client.clone());
        self.network.connect(self.server.name.as_str(), &self.federation);
        self
    }

    /// The service that answers clients.
    pub fn router(&self) -> Router {
        self.client.clone()
    }

    /// A request without a token.
    pub fn ask(&self, method: Method, path: &str) -> Ask {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a valid request");
        Ask { request, router: self.client.clone() }
    }

    /// A request that another server signs.
    pub fn ask_by(&self, server: &str, method: Method, path: &str, body: Option<&Value>) -> Ask {
        let (origin, destination) = (server.try_into().expect("a server name"), &self.server.name);
        let content = body.and_then(Value::as_object);
        let signed = Signed { method: method.as_str(), uri: path, origin, destination, content };
        let key = signing_key(server);
        let signature = key.sign(signed.canonical().expect("a canonical form").as_bytes());
        let header = x_matrix::header(origin, destination, key.id(), &signature);
        let ask = self.ask(method, path).header("authorization", &header);
        if let Some(body) = body { ask.json(body) } else { ask }
    }

    /// A `GET` without a token.
    pub fn get(&self, path: &str) -> Ask {
        self.ask(Method::GET, path)
    }

    /// A `POST` without a token.
    pub fn post(&self, path: &str, body: Value) -> Ask {
        self.ask(Method::POST, path).json(&body)
    }

    /// What the metrics listener answers.
    pub fn metrics(&self, path: &str) -> Ask {
        Ask { router: self.metrics.clone(), ..self.get(path) }
    }

    /// Waits until what nobody waits for (typing, presence, acknowledgements) is on disk too.
    pub async fn settle(&self) {
        let touch = |tx: &mut store::Tx<'_>| {
            tx.touch(store::Topic::User(UserNo(0)));
            Ok::<_, store::Error>(())
        };
        self.server.store.transact(&[], touch).expect("a write").durable().await.expect("the store in memory does not fail");
    }

    /// A new user with a device. They have no password; a test of passwords registers by `POST /register`.
    pub async fn register(&self, localpart: &str) -> Person {
        self.register_as(localpart, Kind::Person, false).await
    }

    /// A new user who administers the server.
    pub async fn register_admin(&self, localpart: &str) -> Person {
        self.register_as(localpart, Kind::Person, true).await
    }

    /// A new account of this kind with a device.
    pub async fn register_as(&self, localpart: &str, kind: Kind, admin: bool) -> Person {
        let (server, mut rng) = (&self.server, self.server.rng());
        let new = NewUser { localpart, kind, admin };
        let (user_id, registered) = new.register(&server.store, server.name.as_str(), &mut rng, server.now_ms()).await;
        let session = registered.session.expect("a session was asked for");
        Person {
            hearth: self.clone(),
            user: registered.user,
            user_id: user_id.into(),
            device_id: session.device_id.into(),
            token: session.tokens.access_token.into_text(),
        }
    }
}

/// A user with a device who is to be.
pub(crate) struct NewUser<'a> {
    pub(crate) localpart: &'a str,
    pub(crate) kind: Kind,
    pub(crate) admin: bool,
}

impl NewUser<'_> {
    pub(crate) async fn register(
        self,
        store: &Store,
        server: &str,
        rng: &mut StdRng,
        now_ms: u64,
    ) -> (OwnedUserId, registration::Registered) {
        let user_id = UserId::parse(format!("@{}:{server}", self.localpart)).expect("a user id");
        let account = NewAccount { kind: self.kind, admin: self.admin, password: None, displayname: None };
        let login = Some(Login::default());
        let registration = Registration { user_id: &user_id, account, token: None, upgrades_guest: false, login };
        let registered = registration::register(store, rng, registration, &sessions::Config::default(), now_ms);
        let registered = registered.expect("a new user").durable().await.expect("the store in memory does not fail");
        (user_id, registered)
    }
}

/// A user with a device.
#[derive(Clone)]
pub struct Person {
    /// Their server.
    pub hearth: Hearth,
    /// Their number.
    pub user: UserNo,
    /// Their user id.
    pub user_id: String,
    /// Their device.
    pub device_id: String,
    /// The device's access token.
    pub token: String,
}

impl Person {
    /// A request with their token.
    pub fn ask(&self, method: Method, path: &str) -> Ask {
        self.hearth.ask(method, path).token(&self.token)
    }

    /// A `GET` with their token.
    pub fn get(&self, path: &str) -> Ask {
        self.ask(Method::GET, path)
    }

    /// A `PUT` with their token.
    pub fn put(&self, path: &str, body: Value) -> Ask {
        self.ask(Method::PUT, path).json(&body)
    }

    /// A `POST` with their token.
    pub fn post(&self, path: &str, body: Value) -> Ask {
        self.ask(Method::POST, path).json(&body)
    }

    /// A `DELETE` with their token.
    pub fn delete(&self, path: &str) -> Ask {
        self.ask(Method::DELETE, path)
    }
}

/// A request to be awaited.
#[must_use = "a request is sent by awaiting it"]
pub struct Ask {
    request: Request<Body>,
    router: Router,
}

impl Ask {
    /// With this access token.
    pub fn token(self, token: &str) -> Self {
        self.header(header::AUTHORIZATION.as_str(), &format!("Bearer {token}"))
    }

    /// With this header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = http::HeaderName::try_from(name).expect("a header's name");
        self.request.headers_mut().insert(name, value.parse().expect("a header's value"));
        self
    }

    /// With this JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// With this body, be it JSON or not.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        *self.request.body_mut() = body.into();
        self
    }

    /// As if over a connection from this address.
    pub fn from(mut self, address: &str) -> Self {
        let address: IpAddr = address.parse().expect("an address");
        self.request.extensions_mut().insert(Peer { address: Some(address) });
        self
    }
}

impl IntoFuture for Ask {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let about = format!("{} {}", self.request.method(), self.request.uri());
            let (parts, body) = self.router.oneshot(self.request).await.expect("the router cannot fail").into_parts();
            let body = body.collect().await.expect("the body of the answer").to_bytes();
            Answer { about, status: parts.status, headers: parts.headers, body }
        })
    }
}

/// What the server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    about: String,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}: not JSON: {}", self.about, String::from_utf8_lossy(&self.body)))
    }

    /// The body as JSON, of an answer that must be a success.
    pub fn ok(&self) -> Value {
        assert!(self.status.is_success(), "{}: {} {}", self.about, self.status, String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Asserts that it is this error, and gives its body.
    pub fn fails(&self, status: u16, errcode: &str) -> Value {
        let body = self.json();
        let told = (self.status.as_u16(), body["errcode"].as_str().unwrap_or_default());
        assert_eq!(told, (status, errcode), "{}: {body}", self.about);
        assert!(body["error"].is_string(), "{}: an error says what went wrong: {body}", self.about);
        body
    }
}
