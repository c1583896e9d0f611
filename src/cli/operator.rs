//! Runs an operator's operation where the data is: in the running server, or on the data folder itself.

use std::sync::Arc;

use admin::{Homeserver, KnownKeys, Operation};
use http_layer::{Clock as _, SystemClock};
use rand::rngs::StdRng;
use ruma::{OwnedServerName, ServerName};
use store::Store;

use super::{Failure, Place, Result, socket};
use crate::{
    config::Config,
    folder::{self, Layout},
};

/// Who carries operations out.
pub(super) enum Operator {
    /// The running server, over its socket.
    Running(socket::Client),
    /// This process, which has the data folder open.
    Stopped(Homeserver),
}

impl Operator {
    /// Finds the running server of the data folder, or opens the folder.
    pub(super) fn find(place: &Place) -> Result<Self> {
        let config = place.load(Vec::new())?.config;
        let layout = Layout(&config.data);
        if let Some(client) = socket::Client::connect(&layout.socket())? {
            return Ok(Self::Running(client));
        }
        if !layout.is_inhabited() {
            let folder = config.data.display();
            return Err(Failure(format!(
                "there is no server in {folder}: start one with `hearth serve`, or name its folder with --data"
            )));
        }
        Self::open(&config)
    }

    fn open(config: &Config) -> Result<Self> {
        match folder::open(config) {
            Ok(folder::Folder { name, store }) => {
                let store = Arc::new(store);
                let keys = known_keys(name.clone(), Arc::clone(&store));
                Ok(Self::Stopped(Homeserver { name, store, keys, jobs: None }))
            }
            Err(folder::Error::Store(store::Error::Locked(folder))) => {
                let folder = folder.display();
                Err(Failure(format!(
                    "{folder} is in use, but no running server answers beside it: it may be starting or stopping"
                )))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Runs an operation.
    pub(super) fn ask<O: Operation>(&mut self, operation: O) -> Result<O::Output> {
        match self {
            Self::Running(client) => client.ask(&operation),
            Self::Stopped(server) => {
                Ok(operation.run(server, SystemClock::default().now_ms(), &mut rand::make_rng::<StdRng>())?)
            }
        }
    }
}

/// The keys with which events can be checked: all that are stored.
pub(super) fn known_keys(own: OwnedServerName, store: Arc<Store>) -> KnownKeys {
    Box::new(move |server: &ServerName, id: &str| {
        federation::keys::stored(&store.snapshot(), &own, server, id).unwrap_or_else(|error| {
            tracing::warn!(%error, %server, id, "a key could not be read");
            None
        })
    })
}
