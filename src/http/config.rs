//! What an operator chooses of this layer. `Default` is what an absent key means.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::Deserialize;

use crate::{address::Network, limits};

/// The configuration of the HTTP layer.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    pub listeners: Vec<Listener>,
    /// Connections at once, over all listeners. More wait to be accepted.
    pub connections_max: usize,
    /// How long a client may take to send a request's head, or to begin another on an open connection, in milliseconds.
    pub head_timeout_ms: u64,
    /// How long a client may take to send a request's body (of an upload: to send any more of it), in milliseconds.
    pub body_timeout_ms: u64,
    /// How long requests in flight may take to finish after a stop was asked for, in milliseconds.
    pub grace_ms: u64,
    /// Heavy computations (password hashes, thumbnails, long scans) at once. More wait.
    pub blocking_max: usize,
    /// Proxies whose `X-Forwarded-For` is believed, as addresses or networks.
    pub trusted_proxies: Vec<Network>,
    /// Rate limits.
    pub limits: limits::Config,
    /// What `/.well-known/matrix/` tells.
    pub well_known: WellKnown,
    /// The TURN server for calls.
    pub turn: Option<Turn>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: vec![Listener::default()],
            connections_max: 10_000,
            head_timeout_ms: 30_000,
            body_timeout_ms: 30_000,
            grace_ms: 10_000,
            blocking_max: 16,
            trusted_proxies: Network::loopback(),
            limits: limits::Config::default(),
            well_known: WellKnown::default(),
            turn: None,
        }
    }
}

/// A place to listen.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// What it serves.
    pub kind: Kind,
    /// The TCP address and port. Port 0 lets the system choose. Not beside `unix`.
    pub address: SocketAddr,
    /// A Unix socket in place of the TCP address. Who can write to it is trusted as a proxy is.
    pub unix: Option<PathBuf>,
    /// The permissions of the Unix socket, as in `0o660`.
    pub unix_mode: u32,
    /// The certificate and key, where Hearth ends TLS itself.
    pub tls: Option<Tls>,
}

impl Default for Listener {
    fn default() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 8008));
        Self { kind: Kind::Client, address, unix: None, unix_mode: 0o660, tls: None }
    }
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The Matrix APIs, that for other servers too: enough where one address is for everybody.
    #[default]
    Client,
    /// The API for other servers alone.
    Federation,
    /// `/metrics`, `/health` and `/ready`, for the operator's network only.
    Metrics,
}

/// Files of PEM. They are read again on SIGHUP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate, then those that lead to its root.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Discovery documents. What is absent answers 404.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WellKnown {
    /// The base URL of the client-server API: `m.homeserver` of `/.well-known/matrix/client`.
    pub client: Option<String>,
    /// Further keys of `/.well-known/matrix/client`, such as those of a call service.
    pub client_extra: BTreeMap<String, serde_json::Value>,
    /// `host:port` of the server-server API: `m.server` of `/.well-known/matrix/server`.
    pub server: Option<String>,
    /// Whom to ask for help: `contacts` of `/.well-known/matrix/support`.
    pub contacts: Vec<Contact>,
    /// Where to find help: `support_page` of `/.well-known/matrix/support`.
    pub support_page: Option<String>,
}

/// Someone to ask for help. At least one of the two ways must be there.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// `m.role.admin` or `m.role.security`.
    pub role: String,
    /// A Matrix user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix_id: Option<String>,
    /// An e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_address: Option<String>,
}

/// The TURN server that clients are sent to for calls ("Voice over IP").
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Turn {
    /// `turn:` and `turns:` URIs.
    pub uris: Vec<String>,
    /// How long credentials hold, in seconds. 0 stands for a day.
    pub ttl_s: u64,
    /// coturn's `static-auth-secret`: each user gets credentials of their own that end.
    pub secret: Option<String>,
    /// Without a secret: the user name that all share.
    pub username: String,
    /// Without a secret: the password that all share.
    pub password: String,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn").field("uris", &self.uris).field("ttl_s", &self.ttl_s).finish_non_exhaustive()
    }
}
