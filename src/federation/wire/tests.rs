//! Names to connections over real sockets: a name server, a web server with its own authority, and the steps of the specification.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::{
        op::{Message, OpCode, ResponseCode},
        rr::{
            Name, RData, Record, RecordType,
            rdata::{A, SRV},
        },
    },
};
use http::Request;
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rand::{SeedableRng as _, rngs::StdRng};
use ruma::ServerName;
use rustls::{crypto::ring, pki_types::PrivateKeyDer};
use serde_json::{Value, json};
use store::Clock;
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::Wire;
use crate::{Config, Transport as _, TransportError, collect};

struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.now_ms())
    }
}

/// What DNS knows: by name and type. What is absent does not exist; with `broken` it fails at all.
#[derive(Default)]
struct Zone {
    records: HashMap<(String, RecordType), Vec<RData>>,
    broken: bool,
}

type Page = Box<dyn Fn(&str) -> (u16, Option<(&'static str, String)>, String) + Send>;

/// The internet of a test.
struct Internet {
    wire: Wire,
    clock: Arc<TestClock>,
    zone: Arc<Mutex<Zone>>,
    /// What hosts answer at `/.well-known/matrix/server`, and how often they were asked.
    pages: Arc<Mutex<HashMap<String, Page>>>,
    asked: Arc<AtomicU64>,
    port: u16,
    _tasks: JoinSet<()>,
    _folder: tempfile::TempDir,
}

/// The names that the web server has a certificate for.
const NAMES: [&str; 8] = ["port.test", "wk.test", "there.test", "srv.test", "old.test", "wksrv.test", "loop.test", "127.0.0.1"];

impl Internet {
    async fn start(allowed: &[&str]) -> Self {
        let (zone, pages, asked) = (Arc::default(), Arc::default(), Arc::default());
        let mut tasks = JoinSet::new();
        let dns = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dns_port = dns.local_addr().unwrap().port();
        tasks.spawn(answer_names(dns, Arc::clone(&zone)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let made = rcgen::generate_simple_self_signed(NAMES.map(str::to_owned)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let authorities = folder.path().join("authorities.pem");
        std::fs::write(&authorities, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let tls = tls.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut tls = tls.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tasks.spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), Arc::clone(&pages), Arc::clone(&asked)));

        let config = Config {
            ca_certificates: Some(authorities),
            allowed_networks: allowed.iter().map(|network| network.parse().unwrap()).collect(),
            ..Config::default()
        };
        let mut udp = ConnectionConfig::udp();
        udp.port = dns_port;
        let server = NameServerConfig::new([127, 0, 0, 1].into(), true, vec![udp]);
        let resolver = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut resolver = TokioResolver::builder_with_config(resolver, TokioRuntimeProvider::default());
        resolver.options_mut().timeout = Duration::from_millis(500);
        let clock = Arc::new(TestClock(AtomicU64::new(1)));
        let wire = Wire::with(&config, resolver, port, Arc::clone(&clock) as Arc<dyn Clock>, &mut StdRng::seed_from_u64(1));
        Self { wire: wire.unwrap(), clock, zone, pages, asked, port, _tasks: tasks, _folder: folder }
    }

    fn host(&self, name: &str, address: [u8; 4]) {
        let record = RData::A(A::new(address[0], address[1], address[2], address[3]));
        self.zone.lock().records.insert((format!("{name}."), RecordType::A), vec![record]);
    }

    fn service(&self, service: &str, host: &str, target: &str, port: u16) {
        let record = RData::SRV(SRV::new(1, 1, port, Name::from_ascii(format!("{target}.")).unwrap()));
        self.zone.lock().records.insert((format!("{service}.{host}."), RecordType::SRV), vec![record]);
    }

    fn page(&self, host: &str, answer: impl Fn(&str) -> (u16, Option<(&'static str, String)>, String) + Send + 'static) {
        self.pages.lock().insert(host.to_owned(), Box::new(answer));
    }

    fn delegates(&self, host: &str, to: &str) {
        let text = json!({ "m.server": to }).to_string();
        self.page(host, move |_| (200, None, text.clone()));
    }

    /// The host that the web server was asked for.
    async fn reach(&self, name: &str) -> Result<String, TransportError> {
        let server: &ServerName = name.try_into().unwrap();
        let request = Request::get("/_matrix/federation/v1/version?a=b").body(Bytes::new()).unwrap();
        let response = self.wire.carry(server, request).await?;
        assert_eq!(response.status(), 200);
        let answer: Value = serde_json::from_slice(&collect(response.into_body(), 1000).await.unwrap()).unwrap();
        assert_eq!(answer["path"], "/_matrix/federation/v1/version?a=b");
        Ok(answer["host"].as_str().unwrap().to_owned())
    }
}

async fn answer_names(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 1500];
    loop {
        let (length, from): (usize, SocketAddr) = socket.recv_from(&mut buffer).await.unwrap();
        let query = Message::from_vec(&buffer[..length]).unwrap();
        let mut answer = Message::response(query.metadata.id, OpCode::Query);
        let asked = query.queries[0].clone();
        {
            let zone = zone.lock();
            match zone.records.get(&(asked.name().to_ascii().to_lowercase(), asked.query_type())) {
                _ if zone.broken => answer.metadata.response_code = ResponseCode::ServFail,
                // Nothing is cached, so that the zone can change.
                Some(records) => {
                    let record = |data: &RData| Record::from_rdata(asked.name().clone(), 0, data.clone());
                    answer.add_answers(records.iter().map(record));
                }
                None => answer.metadata.response_code = ResponseCode::NXDomain,
            }
        }
        answer.add_query(asked);
        socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, pages: Arc<Mutex<HashMap<String, Page>>>, asked: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, pages, asked) = (tls.clone(), Arc::clone(&pages), Arc::clone(&asked));
        connections.spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let answer = service_fn(move |request: Request<Incoming>| {
                let header = request.headers().get("host").and_then(|host| host.to_str().ok());
                let host = header.or_else(|| request.uri().authority().map(http::uri::Authority::as_str)).unwrap_or_default();
                let path = request.uri().path_and_query().unwrap().to_string();
                let (status, header, text) = match pages.lock().get(host.split(':').next().unwrap()) {
                    Some(page) if !path.starts_with("/_matrix") => {
                        asked.fetch_add(1, Ordering::SeqCst);
                        page(&path)
                    }
                    _ if path.starts_with("/_matrix") => (200, None, json!({ "host": host, "path": path }).to_string()),
                    _ => (404, None, "nothing".to_owned()),
                };
                let mut response = http::Response::builder().status(status);
                if let Some((name, value)) = header {
                    response = response.header(name, value);
                }
                let response = response.body(Full::new(Bytes::from(text))).unwrap();
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

#[tokio::test]
async fn servers_are_found_by_every_step_of_the_specification() {
    let net = Internet::start(&["127.0.0.1"]).await;
    let port = net.port;
    for name in ["port.test", "wk.test", "there.test", "srv.test", "old.test", "wksrv.test", "target.test"] {
        net.host(name, [127, 0, 0, 1]);
    }
    net.service("_matrix-fed._tcp", "srv.test", "target.test", port);
    net.service("_matrix._tcp", "srv.test", "nowhere.test", 1);
    net.service("_matrix._tcp", "old.test", "target.test", port);
    net.service("_matrix-fed._tcp", "there.test", "target.test", port);
    net.delegates("wk.test", &format!("there.test:{port}"));
    net.delegates("wksrv.test", "there.test");
    // A stale service of the old name must not win over the document.
    net.service("_matrix-fed._tcp", "wk.test", "nowhere.test", 1);
    for (name, host) in [
        (format!("127.0.0.1:{port}"), format!("127.0.0.1:{port}")),
        (format!("port.test:{port}"), format!("port.test:{port}")),
        ("wk.test".to_owned(), format!("there.test:{port}")),
        ("wksrv.test".to_owned(), "there.test".to_owned()),
        ("srv.test".to_owned(), "srv.test".to_owned()),
        ("old.test".to_owned(), "old.test".to_owned()),
    ] {
        assert_eq!(net.reach(&name).await.unwrap(), host, "{name}");
    }
    net.delegates("srv.test", &format!("127.0.0.1:{port}"));
    assert_eq!(net.reach("srv.test").await.unwrap(), "srv.test", "that there was no document is remembered");
    net.clock.0.fetch_add(2 * 60 * 60 * 1000, Ordering::SeqCst);
    assert_eq!(net.reach("srv.test").await.unwrap(), format!("127.0.0.1:{port}"));
}

/// T39: the address is checked after every way that leads to it.
#[tokio::test]
async fn t39_no_name_leads_to_a_forbidden_address() {
    let net = Internet::start(&[]).await;
    let port = net.port;
    for name in ["port.test", "target.test", "srv.test", "wk.test", "there.test"] {
        net.host(name, [127, 0, 0, 1]);
    }
    net.host("meta.test", [169, 254, 169, 254]);
    net.service("_matrix-fed._tcp", "srv.test", "target.test", port);
    net.delegates("wk.test", &format!("there.test:{port}"));
    let names = [format!("127.0.0.1:{port}"), format!("[::ffff:127.0.0.1]:{port}"), format!("port.test:{port}")];
    for name in names.iter().map(String::as_str).chain(["127.0.0.1", "10.0.0.1", "[::1]", "meta.test:80", "srv.test", "wk.test"])
    {
        let refused = net.reach(name).await.unwrap_err();
        assert!(matches!(refused, TransportError::ForbiddenAddress(_)), "{name}: {refused}");
    }
    assert_eq!(net.asked.load(Ordering::SeqCst), 0, "nobody was called");
}

/// T39: a redirect is checked like the first address, and there are few.
#[tokio::test]
async fn t39_redirects_of_the_document_are_bounded_and_checked() {
    let net = Internet::start(&["127.0.0.1"]).await;
    let port = net.port;
    for name in ["wk.test", "loop.test", "there.test", "target.test"] {
        net.host(name, [127, 0, 0, 1]);
    }
    net.service("_matrix-fed._tcp", "wk.test", "target.test", port);
    net.service("_matrix-fed._tcp", "loop.test", "target.test", port);
    let to = |location: String| move |_: &str| (302, Some(("location", location.clone())), String::new());
    net.delegates("there.test", &format!("there.test:{port}"));
    net.page("wk.test", to(format!("https://there.test:{port}/elsewhere")));
    assert_eq!(net.reach("wk.test").await.unwrap(), format!("there.test:{port}"));
    net.page("loop.test", to("/again".to_owned()));
    assert_eq!(net.reach("loop.test").await.unwrap(), "loop.test");
    assert!(net.asked.load(Ordering::SeqCst) <= 8);
    for location in
        [format!("https://127.0.0.2:{port}/x"), format!("http://there.test:{port}/x"), "https://169.254.169.254/".to_owned()]
    {
        net.page("wk.test", to(location.clone()));
        net.clock.0.fetch_add(100 * 60 * 60 * 1000, Ordering::SeqCst);
        assert_eq!(net.reach("wk.test").await.unwrap(), "wk.test", "{location}");
    }
}

#[tokio::test]
async fn a_document_that_is_none_changes_nothing() {
    let net = Internet::start(&["127.0.0.1"]).await;
    for name in ["wk.test", "target.test"] {
        net.host(name, [127, 0, 0, 1]);
    }
    net.service("_matrix-fed._tcp", "wk.test", "target.test", net.port);
    let huge = json!({ "m.server": "there.test:1", "pad": "x".repeat(60_000) }).to_string();
    for text in ["", "[]", "{}", r#"{"m.server":1}"#, r#"{"m.server":"a/b"}"#, r#"{"m.server":""}"#, "<html>", &huge] {
        let text = text.to_owned();
        net.page("wk.test", move |_| (200, None, text.clone()));
        net.clock.0.fetch_add(100 * 60 * 60 * 1000, Ordering::SeqCst);
        assert_eq!(net.reach("wk.test").await.unwrap(), "wk.test");
    }
}

#[tokio::test]
async fn what_was_found_serves_on_while_others_fail() {
    let net = Internet::start(&["127.0.0.1"]).await;
    let port = net.port;
    for name in ["wk.test", "there.test", "port.test"] {
        net.host(name, [127, 0, 0, 1]);
    }
    net.delegates("wk.test", &format!("there.test:{port}"));
    let delegated = format!("there.test:{port}");
    assert_eq!(net.reach("wk.test").await.unwrap(), delegated);
    assert_eq!(net.reach("wk.test").await.unwrap(), delegated);
    assert_eq!(net.asked.load(Ordering::SeqCst), 1, "an answer is remembered");
    net.page("wk.test", |_| (502, None, "<html>".to_owned()));
    net.clock.0.fetch_add(27 * 60 * 60 * 1000, Ordering::SeqCst);
    assert_eq!(net.reach("wk.test").await.unwrap(), delegated, "the last document serves on for a while");
    net.clock.0.fetch_add(48 * 60 * 60 * 1000, Ordering::SeqCst);
    assert!(net.reach("wk.test").await.is_err(), "but not for ever");
    assert!(net.reach("never.test:1").await.is_err());
}

#[tokio::test]
async fn only_the_right_certificate_makes_a_connection() {
    let net = Internet::start(&["127.0.0.1"]).await;
    net.host("other.test", [127, 0, 0, 1]);
    let refused = net.reach(&format!("other.test:{}", net.port)).await.unwrap_err();
    assert!(matches!(refused, TransportError::NoConnection(_)), "{refused}");
}

#[tokio::test]
async fn addresses_are_remembered_while_name_servers_fail() {
    let net = Internet::start(&["127.0.0.1"]).await;
    net.host("port.test", [127, 0, 0, 1]);
    let name = format!("port.test:{}", net.port);
    net.reach(&name).await.unwrap();
    net.zone.lock().broken = true;
    let names = &net.wire.names;
    let found = names.host("port.test", 1).await.unwrap();
    assert_eq!(found, ["127.0.0.1:1".parse().unwrap()]);
    net.zone.lock().broken = false;
    net.zone.lock().records.clear();
    assert!(names.host("port.test", 1).await.is_err(), "that there is no such name is no failure");
}
