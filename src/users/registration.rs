//! Registering: a new account, and with it the use of a registration token and a first session, in one write.

use rand::CryptoRng;
use ruma::{DeviceId, OwnedUserId, UserId};
use store::{Lock, Pending, Store, UserNo};

use crate::{
    Result,
    accounts::{self, NewAccount},
    numbers, registration_tokens,
    sessions::{self, Config, LoggedIn, Login},
};

/// Who registers, after being let in.
pub struct Registration<'a> {
    /// The user id, of the grammar of [`accounts::wanted_user_id`].
    pub user_id: &'a UserId,
    /// The account.
    pub account: NewAccount,
    /// The registration token to use up.
    pub token: Option<&'a str>,
    /// The first session; `None` where the client wants none (`inhibit_login`).
    pub login: Option<FirstLogin<'a>>,
}

/// The first session of an account.
#[derive(Clone, Copy, Debug, Default)]
pub struct FirstLogin<'a> {
    /// The device, where the client names one.
    pub device_id: Option<&'a DeviceId>,
    /// What to call the device.
    pub display_name: Option<&'a str>,
    /// Whether the client can refresh.
    pub refresh: bool,
}

/// A registration's outcome.
pub struct Registered {
    /// The user's number.
    pub user: UserNo,
    /// The user.
    pub user_id: OwnedUserId,
    /// The first session, where one was asked for.
    pub session: Option<LoggedIn>,
}

/// Makes an account, or nothing.
///
/// # Errors
/// [`crate::Error::UserInUse`], [`crate::Error::InvalidRegistrationToken`], [`crate::Error::InvalidParam`].
pub fn register(
    store: &Store,
    rng: &mut impl CryptoRng,
    registration: Registration<'_>,
    config: &Config,
    now_ms: u64,
) -> Result<Pending<Registered>> {
    let Registration { user_id, account, token, login } = registration;
    accounts::check_available(&store.snapshot(), user_id)?;
    let user = numbers::ensure(store, user_id)?;
    store.transact(&[Lock::User(user)], |tx| {
        accounts::create(tx, user, user_id, account, now_ms)?;
        let session = match login {
            None => None,
            Some(FirstLogin { device_id, display_name, refresh }) => {
                Some(sessions::begin(tx, rng, Login { user, device_id, display_name, refresh }, config, now_ms)?)
            }
        };
        // Last, because it makes others wait.
        if let Some(token) = token {
            registration_tokens::use_up(tx, token, now_ms)?;
        }
        Ok(Registered { user, user_id: user_id.to_owned(), session })
    })
}
