//! OpenID tokens: a user hands one to a third party, which asks the server who that user is ("OpenID").
//!
//! They prove who someone is and open nothing else: they are no access tokens.

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use store::{Pending, Preset, Read, Store, Table, Tx, UserNo};

use crate::{
    Result, Token, accounts,
    token::{self, TokenHash, hash_of},
};

static TOKENS: Table<TokenHash, OpenIdToken> =
    Table::new("openid_tokens", "OpenID tokens of users by their SHA-256.").read_by(Preset::Scan);

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 1] = [TOKENS.spec()];

/// How long a token holds, in milliseconds.
pub const HOLDS_MS: u64 = 3_600_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OpenIdToken {
    user: UserNo,
    expires_ms: u64,
}

/// A token for a third party, which holds for [`HOLDS_MS`].
///
/// # Errors
/// As the store.
pub fn issue(store: &Store, rng: &mut impl CryptoRng, user: UserNo, now_ms: u64) -> Result<Pending<Token>> {
    let token = Token::draw(rng, "hso_");
    let row = OpenIdToken { user, expires_ms: now_ms.saturating_add(HOLDS_MS) };
    let pending = store.transact(&[], |tx| tx.put(&TOKENS, &token.hash(), &row))?;
    Ok(pending.map(|()| token))
}

/// Whose token this is; `None` where it is unknown or expired, or its user is locked or gone.
///
/// # Errors
/// As the store.
pub fn owner(db: &impl Read, token: &str, now_ms: u64) -> store::Result<Option<UserNo>> {
    let Some(hash) = hash_of(token) else { return Ok(None) };
    let Some(row) = db.get(&TOKENS, &hash)?.filter(|row| now_ms < row.expires_ms) else { return Ok(None) };
    let account = accounts::account(db, row.user)?;
    Ok(account.filter(|account| accounts::check_active(account).is_ok()).map(|_| row.user))
}

/// Deletes tokens that expired.
pub(crate) fn purge(tx: &mut Tx<'_>, now_ms: u64) -> store::Result<()> {
    token::purge(tx, &TOKENS, |row| row.expires_ms <= now_ms)
}
