//! Registration tokens: who has one may register, as often as it says ("Token-authenticated registration").
//!
//! A use counts in the transaction that makes the account, so a token cannot make more accounts than it allows, and a
//! registration that breaks off costs none.

use protocol::ids;
use rand::{CryptoRng, RngExt as _};
use serde::{Deserialize, Serialize};
use store::{Pending, Range, Read, Store, Table, Tx};

use crate::{Error, Result};

static TOKENS: Table<String, Row> =
    Table::new("registration_tokens", "Registration tokens, in the clear: administrators hand them out.");

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 1] = [TOKENS.spec()];

/// The longest token ("Opaque identifiers" of at most 64 bytes).
const TOKEN_MAX_BYTES: usize = 64;
/// The characters of a token that the server draws, and how many.
const DRAWN: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";
const DRAWN_LENGTH: usize = 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    uses_allowed: Option<u32>,
    completed: u32,
    expires_ms: Option<u64>,
}

/// What bounds the use of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// How many accounts it may make; `None` for any number.
    pub uses_allowed: Option<u32>,
    /// When it ends, in milliseconds since 1970; `None` for never.
    pub expires_ms: Option<u64>,
}

/// A registration token, as administrators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationToken {
    /// The token.
    pub token: String,
    /// What bounds its use.
    pub bounds: Bounds,
    /// How many accounts it made.
    pub completed: u32,
}

impl RegistrationToken {
    fn of(token: String, row: &Row) -> Self {
        let Row { uses_allowed, completed, expires_ms } = *row;
        Self { token, bounds: Bounds { uses_allowed, expires_ms }, completed }
    }
}

/// A token for the administrator who names none.
pub fn draw(rng: &mut impl CryptoRng) -> String {
    (0..DRAWN_LENGTH).map(|_| char::from(DRAWN[rng.random_range(0..DRAWN.len())])).collect()
}

/// Stores a new token.
///
/// # Errors
/// [`Error::InvalidParam`] where it cannot be a token, or there is one of this text.
pub fn create(store: &Store, token: &str, bounds: Bounds) -> Result<Pending<RegistrationToken>> {
    if token.len() > TOKEN_MAX_BYTES || !ids::is_opaque(token) {
        return Err(Error::InvalidParam("a registration token has 1 to 64 of the characters A-Z a-z 0-9 . _ ~ -"));
    }
    store.transact(&[], |tx| {
        if tx.latest(&TOKENS, &token)?.is_some() {
            return Err(Error::InvalidParam("there is a registration token of this text"));
        }
        let row = Row { uses_allowed: bounds.uses_allowed, completed: 0, expires_ms: bounds.expires_ms };
        tx.put(&TOKENS, &token, &row)?;
        Ok(RegistrationToken::of(token.into(), &row))
    })
}

/// All tokens, those that no longer hold included, at most `limit` after `after`.
///
/// # Errors
/// As the store.
pub fn tokens(db: &impl Read, after: Option<&str>, limit: usize) -> store::Result<Vec<RegistrationToken>> {
    let range = Range::of(&());
    let range = if let Some(after) = after { range.after(&after) } else { range };
    db.range(&TOKENS, &range)?.take(limit).map(|row| row.map(|(token, row)| RegistrationToken::of(token, &row))).collect()
}

/// A token.
///
/// # Errors
/// As the store.
pub fn token(db: &impl Read, token: &str) -> store::Result<Option<RegistrationToken>> {
    Ok(db.get(&TOKENS, &token)?.map(|row| RegistrationToken::of(token.into(), &row)))
}

/// Changes what bounds a token.
///
/// # Errors
/// [`Error::NotFound`].
pub fn update(store: &Store, token: &str, bounds: Bounds) -> Result<Pending<RegistrationToken>> {
    store.transact(&[], |tx| {
        let row = tx.latest(&TOKENS, &token)?.ok_or(Error::NotFound("there is no such registration token"))?;
        let row = Row { uses_allowed: bounds.uses_allowed, expires_ms: bounds.expires_ms, ..row };
        tx.put(&TOKENS, &token, &row)?;
        Ok(RegistrationToken::of(token.into(), &row))
    })
}

/// Deletes a token.
///
/// # Errors
/// [`Error::NotFound`].
pub fn delete(store: &Store, token: &str) -> Result<Pending<()>> {
    store.transact(&[], |tx| {
        tx.latest(&TOKENS, &token)?.ok_or(Error::NotFound("there is no such registration token"))?;
        Ok(tx.delete(&TOKENS, &token)?)
    })
}

/// Whether a token would be good for a registration now.
///
/// # Errors
/// As the store.
pub fn is_valid(db: &impl Read, token: &str, now_ms: u64) -> store::Result<bool> {
    Ok(db.get(&TOKENS, &token)?.is_some_and(|row| allows(&row, now_ms)))
}

fn allows(row: &Row, now_ms: u64) -> bool {
    row.uses_allowed.is_none_or(|allowed| row.completed < allowed) && row.expires_ms.is_none_or(|expires| now_ms < expires)
}

/// Counts a use, in the transaction that makes the account.
pub(crate) fn use_up(tx: &mut Tx<'_>, token: &str, now_ms: u64) -> Result<()> {
    let row = tx.latest(&TOKENS, &token)?.filter(|row| allows(row, now_ms)).ok_or(Error::InvalidRegistrationToken)?;
    let row = Row { completed: row.completed.saturating_add(1), ..row };
    Ok(tx.put(&TOKENS, &token, &row)?)
}
