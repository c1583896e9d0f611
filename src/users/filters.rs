//! Filters that clients stored to name them in later requests ("Filtering").

use ruma::api::client::filter::FilterDefinition;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use store::{Json, Lead, Lock, Owner, Pending, Range, Read, Store, Table, UserNo};

use crate::{Error, Result};

static FILTERS: Table<(UserNo, u32), Json<Value>> =
    Table::new("filters", "Filters of a user by their number, as the client sent them.").owned_by(Owner::User);
static NUMBERS: Table<(UserNo, [u8; 32]), u32> =
    Table::new("filter_numbers", "The number of a user's filter by the SHA-256 of its JSON.").owned_by(Owner::User);

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 2] = [FILTERS.spec(), NUMBERS.spec()];

/// The most filters of a user. Clients store the same few again and again; beyond this the oldest goes.
pub const FILTERS_MAX: usize = 1_000;
/// The most bytes of a filter.
pub const FILTER_MAX_BYTES: usize = 64 << 10;

/// Stores a filter and returns its id. The same filter has the same id.
///
/// # Errors
/// [`Error::BadJson`], [`Error::TooLarge`].
pub fn create(store: &Store, user: UserNo, filter: Value) -> Result<Pending<String>> {
    serde_json::from_value::<FilterDefinition>(filter.clone()).map_err(|_| Error::BadJson("this is not a filter"))?;
    let text = filter.to_string();
    Error::limit("bytes of a filter", text.len(), FILTER_MAX_BYTES)?;
    let hash = digest(&text);
    store.transact(&[Lock::User(user)], |tx| {
        if let Some(known) = tx.get(&NUMBERS, &(user, hash))? {
            return Ok(known.to_string());
        }
        let all = Range::of(&Lead((user,)));
        let last = tx.first(&FILTERS, all.clone().reversed())?.map_or(0, |((_, number), _)| number);
        if let Some(((_, oldest), Json(filter))) = tx.first(&FILTERS, &all)?
            && (last - oldest) as usize + 1 >= FILTERS_MAX
        {
            tx.delete(&NUMBERS, &(user, digest(&filter.to_string())))?;
            tx.delete(&FILTERS, &(user, oldest))?;
        }
        let number = last.saturating_add(1);
        tx.put(&FILTERS, &(user, number), &Json(filter))?;
        tx.put(&NUMBERS, &(user, hash), &number)?;
        Ok(number.to_string())
    })
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// A filter as the client sent it.
///
/// # Errors
/// As the store.
pub fn filter(db: &impl Read, user: UserNo, id: &str) -> store::Result<Option<Value>> {
    let Ok(number) = id.parse::<u32>() else { return Ok(None) };
    Ok(db.get(&FILTERS, &(user, number))?.map(|Json(filter)| filter))
}

/// A filter to be applied.
///
/// # Errors
/// [`Error::BadJson`] for a filter of an older Hearth that this one does not understand.
pub fn definition(db: &impl Read, user: UserNo, id: &str) -> Result<Option<FilterDefinition>> {
    let filter = filter(db, user, id)?;
    filter.map(|filter| serde_json::from_value(filter).map_err(|_| Error::BadJson("this is not a filter"))).transpose()
}
