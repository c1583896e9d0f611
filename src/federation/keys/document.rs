//! What servers publish of their keys: reading it strictly, and writing our own.

use std::collections::BTreeMap;

use protocol::{
    json::{self, Object},
    keys::{ED25519, PublicKey},
    sign,
    verify::{Validity, VerifyKey},
};
use ruma::ServerName;
use serde::Deserialize;

use super::KEYS_MAX;

/// The longest that a key is believed without asking again ("valid_until_ts"), in milliseconds.
const VALID_MAX_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// The largest document, in bytes.
pub(super) const DOCUMENT_MAX: usize = 16 << 10;

/// Why a document is not believed.
#[derive(Debug, thiserror::Error)]
pub enum WrongKeys {
    /// It is not of the specified form.
    #[error("it is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It is of another server.
    #[error("it is of another server")]
    OtherServer,
    /// It has more keys than servers have.
    #[error("it has too many keys")]
    TooMany,
    /// It is larger than documents are.
    #[error("it is too large")]
    TooLarge,
    /// None of the server's keys signed it, or one wrongly.
    #[error("its server did not sign it")]
    Unsigned,
}

#[derive(Deserialize)]
struct Form {
    server_name: String,
    verify_keys: BTreeMap<String, Key>,
    #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
    old_verify_keys: BTreeMap<String, OldKey>,
    valid_until_ts: u64,
}

#[derive(Deserialize)]
struct Key {
    key: String,
}

#[derive(Deserialize)]
struct OldKey {
    key: String,
    expired_ts: u64,
}

/// A document that its server signed.
#[derive(Clone, Debug)]
pub struct Document {
    /// The document as it came, with all its signatures.
    pub object: Object,
    /// Until when it is to be believed, in milliseconds since 1970, as its server says.
    pub valid_until_ms: u64,
    pub(super) keys: BTreeMap<String, VerifyKey>,
}

impl Document {
    /// Reads and checks the document of this server.
    ///
    /// # Errors
    /// [`WrongKeys`].
    pub fn read(object: Object, server: &ServerName, now_ms: u64) -> Result<Self, WrongKeys> {
        let form = Form::deserialize(&serde_json::Value::Object(object.clone()))?;
        if form.server_name != server.as_str() {
            return Err(WrongKeys::OtherServer);
        }
        if form.verify_keys.len() + form.old_verify_keys.len() > KEYS_MAX {
            return Err(WrongKeys::TooMany);
        }
        let until_ms = form.valid_until_ts.min(now_ms.saturating_add(VALID_MAX_MS));
        let mut keys = BTreeMap::new();
        // A key of an algorithm that is not known, or which is none, is passed over: the others may serve.
        let read = |id: &str, key: &str| {
            let known = id.strip_prefix(ED25519).is_some_and(protocol::ids::is_key_version);
            PublicKey::from_base64(key).ok().filter(|_| known)
        };
        for (id, OldKey { key, expired_ts }) in form.old_verify_keys {
            if let Some(key) = read(&id, &key) {
                keys.insert(id, VerifyKey { key, validity: Validity::ExpiredAt(expired_ts) });
            }
        }
        for (id, Key { key }) in form.verify_keys {
            if let Some(key) = read(&id, &key) {
                keys.insert(id, VerifyKey { key, validity: Validity::Until(until_ms) });
            }
        }
        let document = Self { object, valid_until_ms: form.valid_until_ts, keys };
        if document.is_signed_by_itself(server) { Ok(document) } else { Err(WrongKeys::Unsigned) }
    }

    /// At least one of the current keys signed it, and none of them wrongly.
    fn is_signed_by_itself(&self, server: &ServerName) -> bool {
        let current = self.keys.iter().filter(|(_, key)| matches!(key.validity, Validity::Until(_)));
        let mut signed = false;
        for (id, key) in current {
            match sign::verify_json(&self.object, server.as_str(), id, &key.key) {
                Ok(()) => signed = true,
                Err(sign::SignatureError::Missing) => {}
                Err(_) => return false,
            }
        }
        signed
    }

    /// Whether one of these keys of a server signed it, as a notary does.
    pub(super) fn is_signed_by(&self, server: &ServerName, keys: &BTreeMap<String, VerifyKey>) -> bool {
        keys.iter().any(|(id, key)| sign::verify_json(&self.object, server.as_str(), id, &key.key).is_ok())
    }
}

/// Reads the JSON object that a server sent.
pub(super) fn object(bytes: &[u8]) -> Result<Object, WrongKeys> {
    json::parse_object(bytes, DOCUMENT_MAX).map_err(|error| match error {
        json::JsonError::Syntax(error) => error.into(),
        _ => WrongKeys::TooLarge,
    })
}
