//! The keys of other servers as they are stored: all that were ever seen, because events stay signed by them.

use std::collections::BTreeMap;

use protocol::{
    json::Object,
    keys::PublicKey,
    verify::{Validity, VerifyKey},
};
use ruma::ServerName;
use serde::{Deserialize, Serialize};
use store::{Preset, Read, Store, Table};

use super::{Document, KEYS_MAX};
use crate::Result;

pub(crate) static SERVER_KEYS: Table<String, ServerKeys> =
    Table::new("server_keys", "The signing keys of other servers, and the last document that published them.")
        .read_by(Preset::Blob);

/// What is known of a server's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerKeys {
    keys: BTreeMap<String, Row>,
    /// The last document, as JSON, for those who ask this server as a notary.
    document: String,
    valid_until_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    key: String,
    validity: Counts,
    /// When a document last had it.
    seen_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Counts {
    Until(u64),
    ExpiredAt(u64),
}

impl ServerKeys {
    pub(super) fn keys(&self) -> BTreeMap<String, VerifyKey> {
        let read = |(id, row): (&String, &Row)| {
            let validity = match row.validity {
                Counts::Until(ms) => Validity::Until(ms),
                Counts::ExpiredAt(ms) => Validity::ExpiredAt(ms),
            };
            Some((id.clone(), VerifyKey { key: PublicKey::from_base64(&row.key).ok()?, validity }))
        };
        self.keys.iter().filter_map(read).collect()
    }

    /// When a document of the server was last seen, in milliseconds since 1970.
    pub(super) fn seen_ms(&self) -> u64 {
        self.keys.values().map(|row| row.seen_ms).max().unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn seen_at(seen_ms: u64) -> Self {
        let row = Row { key: String::new(), validity: Counts::Until(0), seen_ms };
        Self { keys: BTreeMap::from([("ed25519:a".to_owned(), row)]), ..Self::default() }
    }

    /// The last document, if it is to be believed at this time.
    pub(super) fn document(&self, valid_at_ms: u64) -> Option<Object> {
        if self.valid_until_ms < valid_at_ms { None } else { serde_json::from_str(&self.document).ok() }
    }

    /// The last document, however old.
    pub(super) fn last_document(&self) -> Option<Object> {
        self.document(0)
    }

    fn learn(&mut self, document: &Document, source: Source, now_ms: u64) {
        for (id, known) in &document.keys {
            let before = self.keys.get(id).map(|row| row.validity);
            let validity = match (known.validity, before) {
                (Validity::Until(ms), Some(Counts::Until(before))) => Counts::Until(ms.max(before)),
                // A notary may not know yet that a key was retired.
                (Validity::Until(_), Some(Counts::ExpiredAt(before))) if source == Source::Notary => Counts::ExpiredAt(before),
                (Validity::Until(ms), _) => Counts::Until(ms),
                (Validity::ExpiredAt(ms), _) => Counts::ExpiredAt(ms),
            };
            self.keys.insert(id.clone(), Row { key: known.key.to_base64(), validity, seen_ms: now_ms });
        }
        while self.keys.len() > KEYS_MAX {
            let oldest = self.keys.iter().min_by_key(|(_, row)| row.seen_ms).map(|(id, _)| id.clone());
            oldest.map(|id| self.keys.remove(&id));
        }
        if source == Source::Itself || self.valid_until_ms < document.valid_until_ms {
            self.document = serde_json::Value::Object(document.object.clone()).to_string();
            self.valid_until_ms = document.valid_until_ms;
        }
    }
}

/// Who showed a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The server whose it is, so that it is the newest.
    Itself,
    /// Another server, which may have kept it for long.
    Notary,
}

/// What is known of a server.
pub(super) fn known(db: &impl Read, server: &ServerName) -> Result<Option<ServerKeys>> {
    Ok(db.get(&SERVER_KEYS, &server.as_str())?)
}

/// Adds what a document says.
pub(super) async fn learn(
    store: &Store,
    server: &ServerName,
    document: &Document,
    source: Source,
    now_ms: u64,
) -> Result<ServerKeys> {
    let learned = store.transact(&[], |tx| {
        let mut row = tx.latest(&SERVER_KEYS, &server.as_str())?.unwrap_or_default();
        row.learn(document, source, now_ms);
        tx.put(&SERVER_KEYS, &server.as_str(), &row)?;
        Ok::<_, store::Error>(row)
    })?;
    // Whoever waits for the same keys looks for them in what readers see.
    Ok(learned.durable().await?)
}
