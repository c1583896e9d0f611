//! This server's own keys: the one that it signs with, and those that it signed with before ("Publishing Keys").
//!
//! To change the key an operator moves `signing.key` away and makes another. What was published before stays known here, so that
//! others still verify the events that it signed.

use protocol::{
    json::Object,
    keys::PublicKey,
    sign,
    verify::{Validity, VerifyKey},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Preset, Range, Read as _, Table};

use crate::{Error, Federation, Result};

pub(crate) static OWN_KEYS: Table<String, OwnKey> =
    Table::new("own_keys", "The keys that this server signs or signed with, by their ids.").read_by(Preset::Scan);

/// How long others may believe the document without asking again, in milliseconds.
const VALID_MS: u64 = 24 * 60 * 60 * 1000;
/// The most old keys that are published: other servers refuse documents with very many.
const OLD_KEYS_MAX: usize = super::KEYS_MAX - 1;

/// A key of this server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnKey {
    pub(super) public: String,
    /// When it was retired; `None` of the one that signs.
    pub(super) expired_ms: Option<u64>,
}

impl Federation {
    /// Notes the key that signs from now on, and when the one before was retired. Called when the server starts.
    ///
    /// # Errors
    /// As the store.
    pub fn publish_own_key(&self) -> Result<()> {
        let (now_ms, current) = (self.now_ms(), &self.identity.key);
        let publish = |tx: &mut store::Tx<'_>| {
            let rows = tx.range(&OWN_KEYS, Range::of(&()))?.collect::<store::Result<Vec<_>>>()?;
            for (id, row) in rows {
                if id != current.id() && row.expired_ms.is_none() {
                    tx.put(&OWN_KEYS, &id.as_str(), &OwnKey { expired_ms: Some(now_ms), ..row })?;
                }
            }
            let row = OwnKey { public: current.public().to_base64(), expired_ms: None };
            tx.put(&OWN_KEYS, &current.id(), &row)
        };
        self.store.transact(&[], publish)?.soft();
        Ok(())
    }

    /// The keys that this server signed with before, by their ids.
    fn old_keys(&self) -> Result<Vec<(String, OwnKey, u64)>> {
        let db = self.store.snapshot();
        let mut old = Vec::new();
        for row in db.range(&OWN_KEYS, Range::of(&()))? {
            let (id, row) = row?;
            if let Some(expired_ms) = row.expired_ms.filter(|_| id != self.identity.key.id()) {
                old.push((id, row, expired_ms));
            }
        }
        old.sort_by_key(|(_, _, expired_ms)| std::cmp::Reverse(*expired_ms));
        old.truncate(OLD_KEYS_MAX);
        Ok(old)
    }

    /// The document that `GET /_matrix/key/v2/server` answers, signed.
    ///
    /// # Errors
    /// As the store.
    pub fn own_document(&self) -> Result<Object> {
        let key = &self.identity.key;
        let old: Object = self
            .old_keys()?
            .into_iter()
            .map(|(id, row, expired_ms)| (id, json!({ "expired_ts": expired_ms, "key": row.public })))
            .collect();
        let mut document = Object::new();
        document.insert("server_name".to_owned(), self.name().as_str().into());
        document.insert("valid_until_ts".to_owned(), self.now_ms().saturating_add(VALID_MS).into());
        document.insert("verify_keys".to_owned(), json!({ key.id(): { "key": key.public().to_base64() } }));
        document.insert("old_verify_keys".to_owned(), Value::Object(old));
        sign::sign_json(&mut document, self.name().as_str(), key).map_err(|error| Error::Internal(error.to_string()))?;
        Ok(document)
    }

    /// The own keys as those that events are checked with.
    pub(super) fn own_keys(&self) -> Result<Vec<(String, VerifyKey)>> {
        let key = &self.identity.key;
        let mut keys = vec![(key.id().to_owned(), VerifyKey { key: key.public(), validity: Validity::Until(u64::MAX) })];
        for (id, row, expired_ms) in self.old_keys()? {
            if let Ok(key) = PublicKey::from_base64(&row.public) {
                keys.push((id, VerifyKey { key, validity: Validity::ExpiredAt(expired_ms) }));
            }
        }
        Ok(keys)
    }
}
