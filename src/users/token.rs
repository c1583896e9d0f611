//! Secrets that a client holds and the server only knows the hash of.

use protocol::base64;
use rand::CryptoRng;
use sha2::{Digest as _, Sha256};
use store::{Range, Read, Table, Tx, Value};

/// What a token is stored as.
pub(crate) type TokenHash = [u8; 32];

/// How many expired tokens of a kind one purge deletes.
const PURGED_MAX: usize = 10_000;
/// The longest token that is looked at. All of ours are shorter.
const TOKEN_MAX_BYTES: usize = 255;

/// A token in the clear: 256 random bits behind a prefix that secret scanners can find. It is shown once to the client that
/// asked for it. No `Debug` and no `Display`: it must not reach a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new token.
    pub(crate) fn draw(rng: &mut impl CryptoRng, prefix: &str) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(format!("{prefix}{}", base64::encode_url_safe(&bytes)))
    }

    /// The text, for the response.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }

    /// What it is stored as.
    pub(crate) fn hash(&self) -> TokenHash {
        hash(&self.0)
    }
}

/// What a token that a client sent would be stored as; `None` for what cannot be one, such as the empty string.
pub(crate) fn hash_of(token: &str) -> Option<TokenHash> {
    (1..=TOKEN_MAX_BYTES).contains(&token.len()).then(|| hash(token))
}

/// Deletes expired rows of a table of tokens, at most [`PURGED_MAX`].
pub(crate) fn purge<V: Value>(
    tx: &mut Tx<'_>,
    table: &'static Table<TokenHash, V>,
    expired: impl Fn(&V) -> bool,
) -> store::Result<()> {
    let expired = |row: &store::Result<(TokenHash, V)>| row.as_ref().map_or(true, |(_, row)| expired(row));
    let rows = tx.range(table, &Range::of(&()))?.filter(expired).take(PURGED_MAX).collect::<store::Result<Vec<_>>>()?;
    rows.iter().try_for_each(|(hash, _)| tx.delete(table, hash))
}

/// The token has 256 bits of entropy, so one round without salt suffices, and looking up a hash tells nothing by its time.
fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}
