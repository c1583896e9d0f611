//! Keys of servers: this server's own, and those of others as they are fetched, remembered and handed on.
//!
//! Specification: server-server API, "Retrieving server keys".

mod document;
mod fetch;
mod notary;
mod own;
mod prune;
mod rows;
mod stored;

use std::collections::{BTreeMap, HashMap};

pub use document::{Document, WrongKeys};
pub(crate) use fetch::Fetching;
pub(crate) use own::OWN_KEYS;
use protocol::verify::{Validity, VerifyKey};
pub(crate) use rows::SERVER_KEYS;
use ruma::{OwnedServerName, ServerName};
pub use stored::stored;

/// The keys that a server may have at a time, and those that are remembered of it.
pub(crate) const KEYS_MAX: usize = 64;

/// Keys to be had: of each server by id, and for what time they must count.
#[derive(Clone, Debug, Default)]
pub struct Wanted(BTreeMap<OwnedServerName, BTreeMap<String, u64>>);

impl Wanted {
    /// A key that must count at this time, in milliseconds since 1970.
    pub fn add(&mut self, server: &ServerName, key_id: &str, at_ms: u64) {
        if !self.0.contains_key(server) {
            self.0.insert(server.to_owned(), BTreeMap::new());
        }
        let Some(keys) = self.0.get_mut(server) else { return };
        if let Some(known) = keys.get_mut(key_id) {
            *known = at_ms.max(*known);
        } else if keys.len() < KEYS_MAX {
            // Which of many ids are invented is not to be known: whoever signs with more than this is not believed.
            keys.insert(key_id.to_owned(), at_ms);
        }
    }
}

/// Keys that are known.
#[derive(Clone, Debug, Default)]
pub struct KeySet(HashMap<OwnedServerName, HashMap<String, VerifyKey>>);

impl KeySet {
    /// A server's key by its id, for [`protocol::verify::Parsed::verify`].
    #[must_use]
    pub fn key(&self, server: &ServerName, key_id: &str) -> Option<VerifyKey> {
        self.0.get(server)?.get(key_id).copied()
    }

    fn add(&mut self, server: &ServerName, keys: impl IntoIterator<Item = (String, VerifyKey)>) {
        self.0.entry(server.to_owned()).or_default().extend(keys);
    }
}

/// Whether a key counts at this time, so that it need not be fetched again.
fn counts(key: &VerifyKey, at_ms: u64) -> bool {
    match key.validity {
        Validity::Until(until_ms) => at_ms <= until_ms,
        // Its server retired it: there is nothing more to learn.
        Validity::ExpiredAt(_) => true,
    }
}
