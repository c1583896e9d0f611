//! Ed25519 keys: the one that this server signs with, and those of others that it checks with.
//!
//! Specification: appendices, "Signing Details"; server-server API, "Retrieving server keys".

use ed25519_dalek::{Signature, Signer as _, VerifyingKey};

use crate::{base64, ids};

/// The id of the key by which policy servers sign, in every room ("Validating Policy Server signatures").
pub const POLICY_KEY_ID: &str = "ed25519:policy_server";

/// What every key id of this algorithm begins with.
pub const ED25519: &str = "ed25519:";

/// Why text is not a signing key. It says nothing of the text, which is secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not three words, or the first is not `ed25519`.
    #[error("a signing key is written as `ed25519 <version> <seed>`")]
    Form,
    /// The version holds something else than `[a-zA-Z0-9_]`.
    #[error("a key's version consists of letters, digits and underscores")]
    Version,
    /// The seed or public key is not the base64 of 32 bytes, or these are no key.
    #[error("a key is the base64 of 32 bytes")]
    Bytes,
}

/// A secret key and its id. It has no `Debug`: the seed must reach no log.
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    id: String,
}

impl SigningKey {
    /// The key of this seed with the id `ed25519:<version>`.
    ///
    /// # Errors
    /// [`KeyError::Version`].
    pub fn from_seed(version: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        if !ids::is_key_version(version) {
            return Err(KeyError::Version);
        }
        Ok(Self { key: ed25519_dalek::SigningKey::from_bytes(seed), id: format!("{ED25519}{version}") })
    }

    /// Reads a line of a `signing.key` file: `ed25519 <version> <seed in unpadded base64>`.
    ///
    /// # Errors
    /// [`KeyError`]: which part is not as it should be.
    pub fn from_line(line: &str) -> Result<Self, KeyError> {
        let mut words = line.split_ascii_whitespace();
        let (Some("ed25519"), Some(version), Some(seed), None) = (words.next(), words.next(), words.next(), words.next()) else {
            return Err(KeyError::Form);
        };
        let seed: [u8; 32] = base64::decode(seed).and_then(|bytes| bytes.try_into().ok()).ok_or(KeyError::Bytes)?;
        Self::from_seed(version, &seed)
    }

    /// The line for a `signing.key` file, without a line end. It is secret.
    #[must_use]
    pub fn to_line(&self) -> String {
        format!("ed25519 {} {}", self.version(), base64::encode(self.key.as_bytes()))
    }

    /// The key id, `ed25519:<version>`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The part of the key id behind the algorithm.
    #[must_use]
    pub fn version(&self) -> &str {
        self.id.strip_prefix(ED25519).unwrap_or_default()
    }

    /// The public half, which servers publish.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.key.verifying_key())
    }

    /// The signature of these bytes in unpadded base64.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> String {
        base64::encode(&self.key.sign(bytes).to_bytes())
    }
}

/// The public half of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a public key from base64.
    ///
    /// # Errors
    /// [`KeyError::Bytes`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let bytes: [u8; 32] = base64::decode(text).and_then(|bytes| bytes.try_into().ok()).ok_or(KeyError::Bytes)?;
        VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| KeyError::Bytes)
    }

    /// Reads a public key from either alphabet of base64: in both do identity servers and policy servers publish theirs.
    ///
    /// # Errors
    /// [`KeyError::Bytes`].
    pub fn from_either_base64(text: &str) -> Result<Self, KeyError> {
        Self::from_base64(&text.replace('-', "+").replace('_', "/"))
    }

    /// The key in unpadded base64.
    #[must_use]
    pub fn to_base64(&self) -> String {
        base64::encode(self.0.as_bytes())
    }

    /// Whether a signature in base64 is that of this key over these bytes. Weak keys and malleable signatures are refused,
    /// as libsodium refuses them, so that all servers agree.
    #[must_use]
    pub fn verifies(&self, bytes: &[u8], signature: &str) -> bool {
        let Some(signature) = base64::decode(signature).and_then(|raw| Signature::from_slice(&raw).ok()) else {
            return false;
        };
        self.0.verify_strict(bytes, &signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const LINE: &str = "ed25519 a_AbCd YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";

    #[test]
    fn a_signing_key_is_read_from_and_written_to_the_form_of_other_servers() {
        let key = SigningKey::from_line(&format!("{LINE}\n")).ok().unwrap();
        assert_eq!(key.id(), "ed25519:a_AbCd");
        assert_eq!(key.version(), "a_AbCd");
        // The seed of the appendix has stray trailing bits, so it is written a little differently and means the same.
        let again = SigningKey::from_line(&key.to_line()).ok().unwrap();
        assert_eq!(again.to_line(), key.to_line());
        assert_eq!(again.public(), key.public());
        assert_eq!(key.public().to_base64(), "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI");
        assert_eq!(PublicKey::from_base64(&key.public().to_base64()), Ok(key.public()));
    }

    #[test]
    fn broken_keys_are_refused_and_the_reason_says_nothing_of_them() {
        let seed = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";
        let broken = [
            (String::new(), KeyError::Form),
            (seed.to_owned(), KeyError::Form),
            (format!("rsa 1 {seed}"), KeyError::Form),
            (format!("ed25519 1 {seed} more"), KeyError::Form),
            (format!("ed25519 a-b {seed}"), KeyError::Version),
            (format!("ed25519 1 {}", &seed[2..]), KeyError::Bytes),
            ("ed25519 1 !!!".to_owned(), KeyError::Bytes),
        ];
        for (line, reason) in broken {
            assert_eq!(SigningKey::from_line(&line).err(), Some(reason));
            assert!(!reason.to_string().contains(&seed[2..]));
        }
        assert_eq!(PublicKey::from_base64("AAAA"), Err(KeyError::Bytes));
    }

    #[test]
    fn signatures_of_weak_keys_do_not_count() {
        // The neutral element as key and a signature of zeros fit any message under the plain check.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        let weak = PublicKey::from_base64(&base64::encode(&neutral)).unwrap();
        assert!(!weak.verifies(b"anything", &base64::encode(&signature)));
    }
}
