//! Accounts, sessions, devices, end-to-end keys, account data, profiles: what belongs to a user and not to a room.
//!
//! Functions, not services: queries read any [`store::Read`], commands take the [`store::Store`] and return a
//! [`store::Pending`] that the caller awaits, or take a [`store::Tx`] where others compose them. Clock and randomness
//! are arguments. What depends on the rooms of a user (whom to tell of a new device, where to show a new display name)
//! is either an argument or a row that a job of the layers above picks up.

use ruma::{DeviceId, UserId};
use store::{TableSpec, Topic, Tx, UserNo};

pub mod account_data;
pub mod accounts;
pub mod appservices;
pub mod cross_signing;
pub mod device_lists;
pub mod devices;
pub mod directory;
mod error;
pub mod filters;
pub mod foreign_keys;
pub mod key_backup;
pub mod key_changes;
mod key_error;
pub mod keys;
pub mod numbers;
pub mod one_time_keys;
pub mod openid;
pub mod passwords;
pub mod presence;
pub mod profiles;
pub mod push_rules;
pub mod registration;
pub mod registration_tokens;
pub mod sessions;
pub mod shared_secret;
pub mod signatures;
mod signed;
pub mod succession;
pub mod to_device;
mod token;
pub mod uiaa;

#[cfg(test)]
mod key_tests;
#[cfg(test)]
mod stories;

pub use error::{Error, Result};
pub use key_error::KeyError;
pub use token::Token;

/// What an operator chooses of this layer.
#[derive(Clone, Debug)]
pub struct Config {
    /// How accounts are made.
    pub registration: registration::Config,
    /// How long tokens hold.
    pub sessions: sessions::Config,
    /// Whether users see who of those they share a room with is online.
    pub presence: bool,
    /// Bridges and bots that are registered.
    pub appservices: appservices::Appservices,
}

impl Default for Config {
    fn default() -> Self {
        let (registration, sessions) = (registration::Config::default(), sessions::Config::default());
        Self { registration, sessions, presence: true, appservices: appservices::Appservices::default() }
    }
}

/// All tables of this layer.
pub const TABLES: &[&TableSpec] = &[
    account_data::TABLES[0],
    account_data::TABLES[1],
    accounts::TABLES[0],
    accounts::TABLES[1],
    accounts::TABLES[2],
    cross_signing::TABLES[0],
    cross_signing::TABLES[1],
    device_lists::TABLES[0],
    devices::TABLES[0],
    devices::TABLES[1],
    devices::TABLES[2],
    directory::TABLES[0],
    directory::TABLES[1],
    filters::TABLES[0],
    filters::TABLES[1],
    key_backup::TABLES[0],
    key_backup::TABLES[1],
    key_changes::TABLES[0],
    key_changes::TABLES[1],
    key_changes::TABLES[2],
    keys::TABLES[0],
    numbers::TABLES[0],
    numbers::TABLES[1],
    numbers::TABLES[2],
    one_time_keys::TABLES[0],
    one_time_keys::TABLES[1],
    one_time_keys::TABLES[2],
    one_time_keys::TABLES[3],
    one_time_keys::TABLES[4],
    openid::TABLES[0],
    presence::TABLES[0],
    presence::TABLES[1],
    profiles::TABLES[0],
    profiles::TABLES[1],
    registration_tokens::TABLES[0],
    sessions::TABLES[0],
    sessions::TABLES[1],
    sessions::TABLES[2],
    sessions::TABLES[3],
    to_device::TABLES[0],
    to_device::TABLES[1],
    to_device::TABLES[2],
];

/// Removes what the end-to-end side keeps of a device that is going: keys, one-time keys, signatures, waiting messages.
/// Returns whether others could see its keys, thus must hear that it is gone ([`key_changes::record`]).
pub(crate) fn forget_device(
    tx: &mut Tx<'_>,
    (user, user_id): (UserNo, &UserId),
    (device, device_id): (devices::DeviceNo, &DeviceId),
) -> store::Result<bool> {
    let visible = keys::forget(tx, user, device_id.as_str())?;
    one_time_keys::forget(tx, user, device)?;
    to_device::forget(tx, user, device)?;
    cross_signing::forget_device(tx, user, user_id, device_id.as_str())?;
    Ok(visible)
}

/// Removes what the end-to-end side keeps of a user whose account goes, after the last device went. `touch`: the rooms of
/// the user, where others must hear of it.
pub(crate) fn forget_user(tx: &mut Tx<'_>, user: UserNo, touch: &[Topic]) -> store::Result<()> {
    key_backup::forget(tx, user)?;
    if cross_signing::forget(tx, user, &numbers::user_id(tx, user)?)? {
        key_changes::record(tx, user, None, touch)?;
    }
    Ok(())
}
