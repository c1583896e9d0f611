//! The operator's socket: operations by HTTP over a Unix socket in the data folder, which only the server's own user can open.
//!
//! `POST /users_create` with the operation's input as JSON is answered by its output, or by `{"error": "why"}`.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use admin::{Homeserver, Operation};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use http_layer::Server;
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1::SendRequest, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{UnixListener, UnixStream},
    runtime::{Builder, Runtime},
    task::JoinSet,
};

use super::{Failure, Result};

/// The largest input, in bytes.
const INPUT_MAX: usize = 1 << 20;
/// Connections at once. More wait.
const CONNECTIONS_MAX: usize = 16;
/// Only the server's own user opens the socket.
const MODE: u32 = 0o600;

#[derive(Serialize, Deserialize)]
struct Refused {
    error: String,
}

/// A socket that is bound.
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

/// Binds the socket. A socket that is there was left by a dead process, since this one has the store open.
pub(super) fn bind(path: &Path) -> io::Result<Socket> {
    // Nobody can open it at its name before its permissions are right.
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(MODE))?;
    fs::rename(&draft, path)?;
    Ok(Socket { listener, path: path.to_owned() })
}

impl Socket {
    /// Serves until the server stops; operations that were begun are finished.
    pub(super) async fn run(self, server: Arc<Server>, homeserver: Arc<Homeserver>) {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            if connections.len() >= CONNECTIONS_MAX {
                connections.join_next().await;
                continue;
            }
            let accepted = tokio::select! {
                () = server.stopping() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(stream, Arc::clone(&server), Arc::clone(&homeserver)))),
                Err(error) => {
                    tracing::warn!(%error, "a connection to the operator's socket could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
        // A socket that stays behind is replaced at the next start.
        let _ = fs::remove_file(&self.path);
        connections.join_all().await;
    }
}

async fn serve(stream: UnixStream, server: Arc<Server>, homeserver: Arc<Homeserver>) {
    let service = service_fn(|request| {
        let (server, homeserver) = (Arc::clone(&server), Arc::clone(&homeserver));
        async move { answer(request, server, homeserver).await }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = server.stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the operator's socket broke off");
    }
}

async fn answer(
    request: Request<Incoming>,
    server: Arc<Server>,
    homeserver: Arc<Homeserver>,
) -> std::result::Result<Response<Full<Bytes>>, serde_json::Error> {
    let name = request.uri().path().trim_start_matches('/').to_owned();
    let input = match Limited::new(request.into_body(), INPUT_MAX).collect().await {
        Ok(input) => input.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return refused("the input is too large".into()),
        Err(error) => return refused(error.to_string()),
    };
    let (now_ms, mut rng) = (server.now_ms(), server.rng());
    let ran = tokio::task::spawn_blocking(move || admin::run(&name, &input, &homeserver, now_ms, &mut rng)).await;
    match ran {
        Ok(Ok(output)) => Ok(Response::new(Full::new(output.into()))),
        Ok(Err(error)) => refused(error.to_string()),
        Err(error) => refused(format!("internal error: {error}")),
    }
}

fn refused(error: String) -> std::result::Result<Response<Full<Bytes>>, serde_json::Error> {
    let mut response = Response::new(Full::new(serde_json::to_vec(&Refused { error })?.into()));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    Ok(response)
}

/// A connection to a running server.
pub(super) struct Client {
    runtime: Runtime,
    requests: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects, where a server listens.
    pub(super) fn connect(path: &Path) -> Result<Option<Self>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let connected = runtime.block_on(async {
            let stream = TokioIo::new(UnixStream::connect(path).await?);
            let (requests, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
            // Where it fails, so does the request.
            drop(tokio::spawn(connection));
            io::Result::Ok(requests)
        });
        match connected {
            Ok(requests) => Ok(Some(Self { runtime, requests })),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => Err(Failure(format!("the running server cannot be reached at {}: {error}", path.display()))),
        }
    }

    /// Has the server run an operation.
    pub(super) fn ask<O: Operation>(&mut self, operation: &O) -> Result<O::Output> {
        let broken = |error: hyper::Error| Failure(format!("the running server broke the connection off: {error}"));
        let input = serde_json::to_vec(operation)?;
        let request = Request::post(format!("/{}", O::NAME)).header("host", "hearth").body(Full::new(input.into()));
        let request = request.map_err(|error| Failure(error.to_string()))?;
        let requests = &mut self.requests;
        let (status, output) = self.runtime.block_on(async {
            requests.ready().await.map_err(broken)?;
            let (head, body) = requests.send_request(request).await.map_err(broken)?.into_parts();
            Ok::<_, Failure>((head.status, body.collect().await.map_err(broken)?.to_bytes()))
        })?;
        if status == StatusCode::OK {
            return Ok(serde_json::from_slice(&output)?);
        }
        Err(Failure(serde_json::from_slice::<Refused>(&output)?.error))
    }
}
