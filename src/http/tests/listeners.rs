//! Listeners over real sockets: protocols, TLS, patience, shutdown.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

use super::requests::server_of;
use crate::{
    Arrival, Call, Class, Config, Place, Result, Route,
    auth::Public,
    config::{Kind, Listener, Tls},
    listen::{self, Address, Reload},
    streaming,
    testing::Hearth,
};

/// A server that listens.
struct Running {
    hearth: Hearth,
    addresses: Vec<Address>,
    reload: Reload,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(config: Config) -> Self {
        let hearth = Hearth::with(config);
        let listening = listen::bind(&hearth.server).await.unwrap();
        let (addresses, reload) = (listening.addresses(), listening.reload());
        Self { hearth, addresses, reload, task: tokio::spawn(listening.run()) }
    }

    fn tcp(&self, number: usize) -> SocketAddr {
        match &self.addresses[number] {
            Address::Tcp(address) => *address,
            Address::Unix(path) => panic!("{path:?} is no TCP address"),
        }
    }

    async fn stop(self) -> Duration {
        let began = Instant::now();
        self.hearth.server.stop();
        self.task.await.unwrap();
        began.elapsed()
    }
}

fn tcp() -> Listener {
    Listener { address: ([127, 0, 0, 1], 0).into(), ..Listener::default() }
}

/// The status and version of the answer to `GET path` over this connection.
async fn get(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, http2: bool, path: &str) -> (u16, Version, Bytes) {
    let io = TokioIo::new(stream);
    let request =
        Request::get(format!("http://localhost{path}")).header("host", "localhost").body(Empty::<Bytes>::new()).unwrap();
    let response = if http2 {
        let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        send.send_request(request).await.unwrap()
    } else {
        let (mut send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        send.send_request(request).await.unwrap()
    };
    let (status, version) = (response.status().as_u16(), response.version());
    (status, version, response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn http_1_and_2_are_served_over_tcp_and_unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hearth.sock");
    let unix = || Listener { unix: Some(path.clone()), unix_mode: 0o600, ..Listener::default() };
    let running = Running::start(Config { listeners: vec![tcp(), unix()], ..Config::default() }).await;
    for http2 in [false, true] {
        let version = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        let (status, told, _) = get(TcpStream::connect(running.tcp(0)).await.unwrap(), http2, "/_matrix/client/versions").await;
        assert_eq!((status, told), (200, version));
        let (status, told, _) = get(UnixStream::connect(&path).await.unwrap(), http2, "/_matrix/client/versions").await;
        assert_eq!((status, told), (200, version));
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let taken = listen::bind(&Hearth::with(Config { listeners: vec![unix()], ..Config::default() }).server).await;
    assert!(taken.is_err(), "a socket that answers is not taken over");
    running.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_other_files_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hearth.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let config = || Config { listeners: vec![Listener { unix: Some(path.clone()), ..Listener::default() }], ..Config::default() };
    assert!(path.exists());
    Running::start(config()).await.stop().await;
    std::fs::write(&path, "precious").unwrap();
    assert!(listen::bind(&Hearth::with(config()).server).await.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn the_metrics_listener_serves_metrics_and_no_client_api() {
    let metrics = Listener { kind: Kind::Metrics, ..tcp() };
    let running = Running::start(Config { listeners: vec![tcp(), metrics], ..Config::default() }).await;
    let connect = |number| TcpStream::connect(running.tcp(number));
    assert_eq!(get(connect(1).await.unwrap(), false, "/metrics").await.0, 200);
    assert_eq!(get(connect(1).await.unwrap(), false, "/_matrix/client/versions").await.0, 404);
    assert_eq!(get(connect(0).await.unwrap(), false, "/metrics").await.0, 404);
    running.stop().await;
}

/// Writes a new certificate for `localhost`, and gives it in DER.
fn certificate(tls: &Tls) -> rustls::pki_types::CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

fn files(folder: &Path) -> Tls {
    Tls { certificate: folder.join("cert.pem"), key: folder.join("key.pem") }
}

async fn over_tls(
    address: SocketAddr,
    trusted: &rustls::pki_types::CertificateDer<'static>,
    alpn: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

#[tokio::test]
async fn tls_chooses_the_protocol_and_reloads_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let tls = files(folder.path());
    let first = certificate(&tls);
    let listener = Listener { tls: Some(tls.clone()), ..tcp() };
    let running = Running::start(Config { listeners: vec![listener], ..Config::default() }).await;
    let address = running.tcp(0);
    for (alpn, http2) in [(&[b"h2".as_slice(), b"http/1.1"][..], true), (&[b"http/1.1"], false), (&[], false)] {
        let stream = over_tls(address, &first, alpn).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), http2);
        assert_eq!(get(stream, http2, "/_matrix/client/versions").await.0, 200);
    }
    let second = certificate(&tls);
    assert!(over_tls(address, &second, &[]).await.is_err());
    running.reload.certificates().unwrap();
    assert_eq!(get(over_tls(address, &second, &[]).await.unwrap(), false, "/health").await.0, 200);
    std::fs::write(&tls.certificate, "no certificate").unwrap();
    let error = running.reload.certificates().unwrap_err().to_string();
    assert!(error.contains("cert.pem"), "{error}");
    assert_eq!(get(over_tls(address, &second, &[]).await.unwrap(), false, "/health").await.0, 200, "the old one stays");
    running.stop().await;
}

#[tokio::test]
async fn silent_and_slow_heads_are_cut_off() {
    let running = Running::start(Config { listeners: vec![tcp()], head_timeout_ms: 60, ..Config::default() }).await;
    for begins in ["", "GET /health HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n"] {
        let mut stream = TcpStream::connect(running.tcp(0)).await.unwrap();
        stream.write_all(begins.as_bytes()).await.unwrap();
        let mut told = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut told)).await;
        assert!(ended.is_ok(), "{begins:?} holds its connection");
    }
    running.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let running = Running::start(Config { listeners: vec![tcp()], connections_max: 1, ..Config::default() }).await;
    let address = running.tcp(0);
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    first.read_u8().await.unwrap();
    let second = tokio::spawn(async move { get(TcpStream::connect(address).await.unwrap(), false, "/health").await.0 });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(second.await.unwrap(), 200);
    running.stop().await;
}

async fn slow(call: Call<()>, _: Arrival) -> Result<axum::response::Response> {
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(axum::response::Response::new(Body::from(call.server.is_stopping().to_string())))
}

async fn poll(call: Call<()>, _: Arrival) -> Result<axum::response::Response> {
    call.server.stopping().await;
    Ok(axum::response::Response::new(Body::from("woken")))
}

async fn forever(_: Call<()>, _: Arrival) -> Result<axum::response::Response> {
    std::future::pending().await
}

fn waiting() -> Vec<Route> {
    vec![
        streaming(Place::at(http::Method::GET, &["/slow"]), Public, Class::Free, slow),
        streaming(Place::at(http::Method::GET, &["/poll"]), Public, Class::Free, poll),
        streaming(Place::at(http::Method::GET, &["/forever"]), Public, Class::Free, forever),
    ]
}

#[tokio::test]
async fn a_stop_finishes_requests_in_flight_and_wakes_long_polls() {
    let hearth = server_of(Config { listeners: vec![tcp()], grace_ms: 5_000, ..Config::default() }, waiting);
    let listening = listen::bind_serving(&hearth.server, |_| hearth.router()).await.unwrap();
    let Address::Tcp(address) = listening.addresses()[0].clone() else { panic!("no TCP address") };
    let task = tokio::spawn(listening.run());
    let asked = ["/slow", "/poll"]
        .map(|path| tokio::spawn(async move { get(TcpStream::connect(address).await.unwrap(), false, path).await }));
    let idle = TcpStream::connect(address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    hearth.server.stop();
    let mut told = Vec::new();
    for asked in asked {
        told.push(asked.await.unwrap().2);
    }
    assert_eq!(told, ["true", "woken"]);
    tokio::time::timeout(Duration::from_secs(2), task).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    drop(idle);
}

#[tokio::test]
async fn the_grace_time_ends() {
    let hearth = server_of(Config { listeners: vec![tcp()], grace_ms: 50, ..Config::default() }, waiting);
    let listening = listen::bind_serving(&hearth.server, |_| hearth.router()).await.unwrap();
    let Address::Tcp(address) = listening.addresses()[0].clone() else { panic!("no TCP address") };
    let task = tokio::spawn(listening.run());
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /forever HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    hearth.server.stop();
    tokio::time::timeout(Duration::from_secs(2), task).await.unwrap().unwrap();
    let mut told = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut told)).await.unwrap();
    assert!(told.is_empty());
}
