//! Registering: a new account, and with it the use of a registration token and a first session, in one write.

use std::{collections::BTreeMap, fmt};

use rand::CryptoRng;
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use store::{Lock, Pending, Store, UserNo};

use crate::{
    Result,
    accounts::{self, NewAccount},
    numbers,
    passwords::LENGTH_MIN,
    registration_tokens,
    sessions::{self, LoggedIn, Login},
    uiaa::{Flow, Stage},
};

/// Who may register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nobody: administrators make accounts.
    #[default]
    Closed,
    /// Who has a registration token.
    Token,
    /// Anybody.
    Open,
}

/// How accounts are made by their users.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who may register.
    pub mode: Mode,
    /// The fewest characters of a password that a user chooses.
    pub min_password_length: usize,
    /// Whether anybody may have a guest account.
    pub guests: bool,
    /// The secret of scripts that make accounts at `/_synapse/admin/v1/register`. Without one there is no such endpoint.
    pub shared_secret: Option<String>,
    /// Documents that users must agree to, by an id such as `privacy_policy`.
    pub terms: BTreeMap<String, Terms>,
}

impl Default for Config {
    fn default() -> Self {
        let mode = Mode::default();
        Self { mode, min_password_length: LENGTH_MIN, guests: false, shared_secret: None, terms: BTreeMap::new() }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, min_password_length, guests, shared_secret: _, terms } = self;
        let mut shown = f.debug_struct("Config");
        shown.field("mode", mode).field("min_password_length", min_password_length).field("guests", guests);
        shown.field("terms", terms).finish_non_exhaustive()
    }
}

/// A document that users must agree to.
#[derive(Clone, Debug, Deserialize)]
pub struct Terms {
    /// Its version: any text.
    pub version: String,
    /// Its name and address by language, as `en`.
    #[serde(flatten)]
    pub translations: BTreeMap<String, Translation>,
}

/// A document in one language.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Translation {
    /// What it is called.
    pub name: String,
    /// Where it can be read.
    pub url: String,
}

impl Config {
    /// What a stranger has to pass to register; `None` where nobody may.
    #[must_use]
    pub fn flows(&self) -> Option<Vec<Flow>> {
        let mut flow = match self.mode {
            Mode::Closed => return None,
            Mode::Token => vec![Stage::RegistrationToken],
            Mode::Open => Vec::new(),
        };
        if !self.terms.is_empty() {
            flow.push(Stage::Terms);
        }
        if flow.is_empty() {
            flow.push(Stage::Dummy);
        }
        Some(vec![flow])
    }
}

/// Who registers, after being let in.
pub struct Registration<'a> {
    /// The user id, of the grammar of [`accounts::wanted_user_id`].
    pub user_id: &'a UserId,
    /// The account.
    pub account: NewAccount,
    /// The registration token to use up.
    pub token: Option<&'a str>,
    /// Whether the user is a guest of this server, who becomes a person. The caller has made sure of who it is.
    pub upgrades_guest: bool,
    /// The first session; `None` where the client wants none (`inhibit_login`).
    pub login: Option<Login<'a>>,
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
    config: &sessions::Config,
    now_ms: u64,
) -> Result<Pending<Registered>> {
    let Registration { user_id, account, token, upgrades_guest, login } = registration;
    if !upgrades_guest {
        accounts::check_available(&store.snapshot(), user_id)?;
    }
    let user = numbers::ensure(store, user_id)?;
    store.transact(&[Lock::User(user)], |tx| {
        if upgrades_guest {
            accounts::upgrade_guest(tx, user, account)?;
        } else {
            accounts::create(tx, user, user_id, account, now_ms)?;
        }
        let session = match login {
            None => None,
            Some(login) => Some(sessions::begin(tx, rng, user, login, config, now_ms)?),
        };
        // Last, because it makes others wait.
        if let Some(token) = token {
            registration_tokens::use_up(tx, token, now_ms)?;
        }
        Ok(Registered { user, user_id: user_id.to_owned(), session })
    })
}
