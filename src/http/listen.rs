//! Listeners: TCP, TLS and Unix sockets, HTTP/1.1 and HTTP/2, connections that are bounded in number and patience, and a
//! shutdown that finishes what is in flight.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tower::ServiceExt;

use crate::{Peer, Server, config, router, tls::Certificate, wakeful::Wakeful};

/// Headers of a request, at most.
const HEADERS_MAX: usize = 100;
/// A request's head, at most, in bytes.
const HEAD_MAX: usize = 64 << 10;
/// Requests at once over one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// How often a quiet HTTP/2 connection is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long to wait after the system refused a connection, as when all file descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a listener came to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address, with the port that the system chose.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

struct Listener {
    socket: Socket,
    address: Address,
    certificate: Option<Arc<Certificate>>,
    router: Router,
}

/// Listeners that are bound. Nothing is served until [`Listening::run`].
pub struct Listening {
    server: Arc<Server>,
    listeners: Vec<Listener>,
}

/// Reads the certificates of listeners again.
#[derive(Clone)]
pub struct Reload(Vec<Arc<Certificate>>);

impl Reload {
    /// Takes what the files hold now for new connections.
    ///
    /// # Errors
    /// What is wrong with the first bad file; its old certificate stays.
    pub fn certificates(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|certificate| certificate.reload())
    }
}

/// Binds all configured listeners.
///
/// # Errors
/// What the system says of the first that cannot be bound, with its address.
pub async fn bind(server: &Arc<Server>) -> io::Result<Listening> {
    bind_serving(server, |kind| router(server, kind)).await
}

/// [`bind`] with other services than the server's own.
pub(crate) async fn bind_serving(server: &Arc<Server>, service: impl Fn(config::Kind) -> Router) -> io::Result<Listening> {
    let mut listeners = Vec::new();
    for listener in &server.config.listeners {
        let place = listener.unix.as_ref().map_or_else(|| listener.address.to_string(), |path| path.display().to_string());
        let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen at {place}: {error}"));
        let (socket, address) = socket(listener).await.map_err(named)?;
        let certificate = listener.tls.clone().map(Certificate::load).transpose()?.map(Arc::new);
        tracing::info!(?address, kind = ?listener.kind, tls = certificate.is_some(), "listening");
        listeners.push(Listener { socket, address, certificate, router: service(listener.kind) });
    }
    Ok(Listening { server: Arc::clone(server), listeners })
}

async fn socket(listener: &config::Listener) -> io::Result<(Socket, Address)> {
    let Some(path) = &listener.unix else {
        let socket = TcpListener::bind(listener.address).await?;
        let address = Address::Tcp(socket.local_addr()?);
        return Ok((Socket::Tcp(socket), address));
    };
    remove_stale(path)?;
    let socket = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(listener.unix_mode))?;
    Ok((Socket::Unix(socket), Address::Unix(path.clone())))
}

/// Removes a socket that a dead process left. One that answers, and any other file, is not ours to remove.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file")),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

impl Listening {
    /// Where each listener listens, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners.iter().map(|listener| listener.address.clone()).collect()
    }

    /// What reads the certificates again, as on SIGHUP.
    #[must_use]
    pub fn reload(&self) -> Reload {
        Reload(self.listeners.iter().filter_map(|listener| listener.certificate.clone()).collect())
    }

    /// Serves until [`Server::stop`], then finishes the requests in flight within the configured grace.
    pub async fn run(self) {
        let Self { server, listeners } = self;
        let room = Arc::new(Semaphore::new(server.config.connections_max.max(1)));
        let graceful = Arc::new(GracefulShutdown::new());
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(accept(Arc::clone(&server), listener, Arc::clone(&room), Arc::clone(&graceful)));
        }
        let mut connections = Vec::new();
        while let Some(accepted) = accepting.join_next().await {
            connections.extend(accepted.ok());
        }
        let grace = Duration::from_millis(server.config.grace_ms);
        let Some(graceful) = Arc::into_inner(graceful) else { return };
        if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests in flight were cut off at the end of the grace time");
        }
        // Dropping the sets of connections ends those that did not end themselves.
        drop(connections);
    }
}

/// Accepts until the server stops. Returns the connections that are still open.
async fn accept(server: Arc<Server>, listener: Listener, room: Arc<Semaphore>, graceful: Arc<GracefulShutdown>) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await.ok()?;
            Some((permit, next(&listener.socket).await))
        };
        let (permit, accepted) = tokio::select! {
            () = server.stopping() => break,
            next = next => match next { Some(next) => next, None => break },
        };
        let connection = Connection {
            server: Arc::clone(&server),
            router: listener.router.clone(),
            watcher: graceful.watcher(),
            _permit: permit,
        };
        match accepted {
            Ok((stream, peer)) => drop(connections.spawn(start(connection, stream, peer, listener.certificate.clone()))),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    if let Address::Unix(path) = &listener.address {
        // A socket that stays behind is removed at the next start.
        let _ = fs::remove_file(path);
    }
    connections
}

/// What connects two ends, whatever it is made of.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn next(socket: &Socket) -> io::Result<(Box<dyn Stream>, Option<IpAddr>)> {
    match socket {
        Socket::Tcp(socket) => {
            let (stream, peer) = socket.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream), Some(peer.ip())))
        }
        Socket::Unix(socket) => Ok((Box::new(socket.accept().await?.0), None)),
    }
}

/// What serves one connection.
struct Connection {
    server: Arc<Server>,
    router: Router,
    watcher: Watcher,
    _permit: OwnedSemaphorePermit,
}

async fn start(connection: Connection, stream: Box<dyn Stream>, peer: Option<IpAddr>, certificate: Option<Arc<Certificate>>) {
    let _counted = connection.server.metrics.connection();
    let Some(certificate) = certificate else { return connection.serve(stream, peer).await };
    let patience = Duration::from_millis(connection.server.config.head_timeout_ms);
    match tokio::time::timeout(patience, certificate.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => connection.serve(stream, peer).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

impl Connection {
    async fn serve(self, stream: impl Stream + 'static, peer: Option<IpAddr>) {
        let patience = Duration::from_millis(self.server.config.head_timeout_ms);
        let asked = Arc::new(AtomicBool::new(false));
        let (router, has_asked) = (self.router, Arc::clone(&asked));
        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            has_asked.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(Peer { address: peer });
            router.clone().oneshot(request.map(Body::new))
        });
        let builder = builder(patience);
        let serving = pin!(self.watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()));
        let mut serving = Wakeful::new(serving);
        let result = tokio::select! {
            result = &mut serving => result,
            // The builder's own time limits begin once it knows the protocol, which a silent client never tells.
            () = tokio::time::sleep(patience) => {
                if !asked.load(Ordering::Relaxed) {
                    tracing::debug!("a connection sent no request");
                    return;
                }
                serving.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(error, "a connection broke off");
        }
    }
}

fn builder(patience: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let mut http1 = builder.http1();
    http1.timer(TokioTimer::new()).header_read_timeout(patience).max_headers(HEADERS_MAX).max_buf_size(HEAD_MAX);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL).keep_alive_timeout(patience);
    http2.max_concurrent_streams(STREAMS_MAX).max_header_list_size(HEAD_MAX as u32);
    builder
}
