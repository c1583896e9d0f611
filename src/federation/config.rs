//! What an operator chooses of this layer. `Default` is what an absent key means.

use std::path::PathBuf;

use ruma::OwnedServerName;
use serde::Deserialize;

use crate::Network;

/// The configuration of federation.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this server talks with others at all.
    pub enabled: bool,
    /// A file of PEM: authorities that are trusted beside those of the operating system.
    pub ca_certificates: Option<PathBuf>,
    /// Networks that may be called though they are private: without them, no name of another server leads into the operator's
    /// own network.
    pub allowed_networks: Vec<Network>,
    /// Servers that are asked for the keys of those that do not answer.
    pub trusted_key_servers: Vec<OwnedServerName>,
    /// Whether servers with users in common rooms are told who of this server's users is online.
    pub send_presence: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            ca_certificates: None,
            allowed_networks: Vec::new(),
            trusted_key_servers: Vec::new(),
            send_presence: false,
        }
    }
}
