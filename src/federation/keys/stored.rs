//! Keys as they are stored, for who checks events of the past without asking anybody.

use protocol::{
    keys::PublicKey,
    verify::{Validity, VerifyKey},
};
use ruma::ServerName;
use store::Read;

use super::{
    own::{OWN_KEYS, OwnKey},
    rows,
};
use crate::Result;

/// A key of the server `own` itself, or one of another that was seen at some time, by its id.
///
/// # Errors
/// As the store.
pub fn stored(db: &impl Read, own: &ServerName, server: &ServerName, id: &str) -> Result<Option<VerifyKey>> {
    if server != own {
        return Ok(rows::known(db, server)?.and_then(|known| known.keys().remove(id)));
    }
    let key = |row: OwnKey| {
        let validity = row.expired_ms.map_or(Validity::Until(u64::MAX), Validity::ExpiredAt);
        Some(VerifyKey { key: PublicKey::from_base64(&row.public).ok()?, validity })
    };
    Ok(db.get(&OWN_KEYS, &id)?.and_then(key))
}
