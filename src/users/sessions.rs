//! Sessions: the tokens by which a device acts for its user.
//!
//! A device has one session: an access token and perhaps a refresh token. A refresh *offers* a second pair; the first use of
//! either offered token confirms the offer and revokes the pair before it ("Refreshing access tokens"). So a client that
//! never saw the answer of a refresh can ask again, and an old refresh token dies once it is no longer needed.
//!
//! Tokens are rows by their hash. They are written under their user's lock though their keys do not begin with the user.

use std::{net::IpAddr, sync::Arc};

use rand::{CryptoRng, RngExt as _};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use store::{Lock, Owner, Pending, Preset, Read, Store, Table, Topic, Tx, UserNo};

use crate::{
    Error, Result, Token,
    accounts::{self, Kind},
    appservices::Appservice,
    devices::{self, DeviceNo, Keep, NewDevice},
    numbers, openid,
    token::{self, TokenHash, hash_of},
};

static ACCESS: Table<TokenHash, AccessToken> = Table::new("access_tokens", "Access tokens by their SHA-256.").cached();
static REFRESH: Table<TokenHash, RefreshToken> = Table::new("refresh_tokens", "Refresh tokens by their SHA-256.");
static SESSIONS: Table<(UserNo, DeviceNo), Tokens> =
    Table::new("sessions", "The tokens of a device: those in use, and those offered by its last refresh.").owned_by(Owner::User);
static LOGIN: Table<TokenHash, LoginToken> =
    Table::new("login_tokens", "Tokens of m.login.token, good for one login, by their SHA-256.").read_by(Preset::Scan);

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 4] = [ACCESS.spec(), REFRESH.spec(), SESSIONS.spec(), LOGIN.spec()];

/// The letters of a device id that the server draws, and how many.
const DRAWN_ID: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const DRAWN_ID_LENGTH: usize = 10;

/// How long tokens hold, in milliseconds.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Access tokens of clients that can refresh.
    pub access_token_ms: u64,
    /// Refresh tokens that are not used. Without a value they hold until logout.
    pub refresh_token_ms: Option<u64>,
    /// Access tokens of clients that cannot refresh. Without a value they hold until logout.
    pub lasting_token_ms: Option<u64>,
    /// Tokens for `m.login.token`.
    pub login_token_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { access_token_ms: 3_600_000, refresh_token_ms: None, lasting_token_ms: None, login_token_ms: 120_000 }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct AccessToken {
    user: UserNo,
    device: DeviceNo,
    device_id: OwnedDeviceId,
    expires_ms: Option<u64>,
    /// Its first use confirms the refresh that made it.
    offered: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct RefreshToken {
    user: UserNo,
    device: DeviceNo,
    device_id: OwnedDeviceId,
    expires_ms: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tokens {
    current: Pair,
    offered: Option<Pair>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pair {
    access: TokenHash,
    refresh: Option<TokenHash>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct LoginToken {
    user: UserNo,
    expires_ms: u64,
}

/// Who asks: what an access token stands for.
#[derive(Clone)]
pub struct Session {
    /// The user's number.
    pub user: UserNo,
    /// The user's id.
    pub user_id: OwnedUserId,
    /// The device's number.
    pub device: DeviceNo,
    /// The device's id.
    pub device_id: OwnedDeviceId,
    /// Who acts through the account.
    pub kind: Kind,
    /// Whether it may administrate the server.
    pub admin: bool,
    /// Whether the account may only read for now.
    pub suspended: bool,
    /// The application service that acts for the user, by its own token.
    pub appservice: Option<Arc<Appservice>>,
    /// The token, where its first use is to be [`confirm`]ed.
    offered: Option<TokenHash>,
}

/// New tokens, in the clear.
pub struct Issued {
    /// The access token.
    pub access_token: Token,
    /// How long it holds, in milliseconds; `None` until logout.
    pub expires_in_ms: Option<u64>,
    /// The refresh token, where one was asked for.
    pub refresh_token: Option<Token>,
}

/// What a client says of itself that logs a user in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Login<'a> {
    /// The device, where the client names one; else the server draws an id.
    pub device_id: Option<&'a DeviceId>,
    /// What to call the device if it is new.
    pub display_name: Option<&'a str>,
    /// Whether the client can refresh.
    pub refresh: bool,
    /// Where it is, as far as that is known.
    pub address: Option<IpAddr>,
}

/// A login's outcome.
pub struct LoggedIn {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device.
    pub device_id: OwnedDeviceId,
    /// Its tokens.
    pub tokens: Issued,
}

/// Whom an access token stands for: what every request asks. Where [`Session::is_offered`], call [`confirm`] too.
///
/// # Errors
/// [`Error::UnknownToken`], [`Error::Locked`].
pub fn authenticate(db: &impl Read, token: &str, now_ms: u64) -> Result<Session> {
    session(db, token, now_ms, false)
}

/// [`authenticate`] for the endpoints that a locked account may still use: those of logout ("Account locking").
///
/// # Errors
/// [`Error::UnknownToken`].
pub fn authenticate_even_locked(db: &impl Read, token: &str, now_ms: u64) -> Result<Session> {
    session(db, token, now_ms, true)
}

const UNKNOWN: Error = Error::UnknownToken { soft_logout: false };

fn session(db: &impl Read, token: &str, now_ms: u64, even_locked: bool) -> Result<Session> {
    let hash = hash_of(token).ok_or(UNKNOWN)?;
    let row: Arc<AccessToken> = db.shared(&ACCESS, &hash)?.ok_or(UNKNOWN)?;
    let account = accounts::account(db, row.user)?.filter(|account| !account.deactivated).ok_or(UNKNOWN)?;
    if row.expires_ms.is_some_and(|expires| expires <= now_ms) {
        return Err(Error::UnknownToken { soft_logout: true });
    }
    if account.locked && !even_locked {
        return Err(Error::Locked);
    }
    Ok(Session {
        user: row.user,
        user_id: numbers::user_id(db, row.user)?,
        device: row.device,
        device_id: row.device_id.clone(),
        kind: account.kind,
        admin: account.admin,
        suspended: account.suspended,
        appservice: None,
        offered: row.offered.then_some(hash),
    })
}

impl Session {
    /// An application service acts for a user of its namespaces, or where none is named for its own, perhaps as one of their devices
    /// ("Identity assertion"). Without a device its id is empty and its number one that no device has.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a user of others or one who was not registered; [`Error::UnknownDevice`]; [`Error::Deactivated`],
    /// [`Error::Locked`].
    pub fn of_appservice(
        db: &impl Read,
        appservice: Arc<Appservice>,
        as_user: Option<&UserId>,
        as_device: Option<&DeviceId>,
    ) -> Result<Self> {
        let user_id = as_user.unwrap_or(&appservice.sender).to_owned();
        if !appservice.covers_user(&user_id) {
            return Err(Error::Forbidden("the application service acts only as users of its namespaces"));
        }
        let not_registered = Error::Forbidden("the application service has not registered this user");
        let (user, account) = accounts::find(db, &user_id)?.ok_or(not_registered)?;
        accounts::check_active(&account)?;
        let (device, device_id) = match as_device {
            Some(id) => (devices::number(db, user, id)?.ok_or(Error::UnknownDevice)?, id.to_owned()),
            None => (DeviceNo(0), OwnedDeviceId::from("")),
        };
        let accounts::Account { kind, admin, suspended, .. } = account;
        Ok(Self { user, user_id, device, device_id, kind, admin, suspended, appservice: Some(appservice), offered: None })
    }

    /// Whether no rate limit holds: for an application service's own user, and for others where its registration says so.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.appservice.as_ref().is_some_and(|appservice| !appservice.rate_limited || appservice.sender == self.user_id)
    }

    /// Whether this is perhaps the first use of a refreshed token, which [`confirm`] must note.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        self.offered.is_some()
    }
}

/// Notes the first use of a refreshed token: what it replaced is revoked.
///
/// # Errors
/// As the store.
pub fn confirm(store: &Store, session: &Session) -> Result<Pending<()>> {
    store.transact(&[Lock::User(session.user)], |tx| {
        let Some(tokens) = tx.get(&SESSIONS, &(session.user, session.device))? else { return Ok(()) };
        match tokens.offered {
            Some(offered) if Some(offered.access) == session.offered => {
                take_offer(tx, (session.user, session.device), tokens.current, offered)
            }
            _ => Ok(()),
        }
    })
}

fn take_offer(tx: &mut Tx<'_>, of: (UserNo, DeviceNo), before: Pair, offered: Pair) -> Result<()> {
    revoke(tx, before)?;
    if let Some(row) = tx.get(&ACCESS, &offered.access)? {
        tx.replace(&ACCESS, &offered.access, &AccessToken { offered: false, ..row })?;
    }
    Ok(tx.put(&SESSIONS, &of, &Tokens { current: offered, offered: None })?)
}

fn revoke(tx: &mut Tx<'_>, pair: Pair) -> store::Result<()> {
    tx.delete(&ACCESS, &pair.access)?;
    if let Some(refresh) = pair.refresh {
        tx.delete(&REFRESH, &refresh)?;
    }
    Ok(())
}

/// Starts the session of a device, and ends the one that it had. The caller has made sure of who it is.
///
/// # Errors
/// [`Error::Deactivated`], [`Error::Locked`]; [`Error::InvalidParam`] where the device id or its name cannot be one.
pub fn login(
    store: &Store,
    rng: &mut impl CryptoRng,
    user: UserNo,
    login: Login<'_>,
    config: &Config,
    now_ms: u64,
) -> Result<Pending<LoggedIn>> {
    store.transact(&[Lock::User(user)], |tx| begin(tx, rng, user, login, config, now_ms))
}

/// [`login`] within a transaction.
pub(crate) fn begin(
    tx: &mut Tx<'_>,
    rng: &mut impl CryptoRng,
    user: UserNo,
    login: Login<'_>,
    config: &Config,
    now_ms: u64,
) -> Result<LoggedIn> {
    let Login { device_id, display_name, refresh, address } = login;
    let account = accounts::account(tx, user)?.ok_or(Error::WrongCredentials)?;
    accounts::check_active(&account)?;
    let device_id = device_id.map_or_else(|| drawn_device_id(rng), ToOwned::to_owned);
    let device = devices::open(tx, user, &device_id, NewDevice { display_name, dehydrated: false }, now_ms)?;
    if let Some(address) = address {
        devices::used(tx, user, device, &address.to_string(), now_ms)?;
    }
    end(tx, user, device)?;
    let (current, tokens) =
        issue(tx, rng, Issue { user, device, device_id: &device_id, refresh, offered: false }, config, now_ms)?;
    tx.put(&SESSIONS, &(user, device), &Tokens { current, offered: None })?;
    Ok(LoggedIn { user_id: numbers::user_id(tx, user)?, device_id, tokens })
}

fn drawn_device_id(rng: &mut impl CryptoRng) -> OwnedDeviceId {
    let id: String = (0..DRAWN_ID_LENGTH).map(|_| char::from(DRAWN_ID[rng.random_range(0..DRAWN_ID.len())])).collect();
    id.into()
}

#[derive(Clone, Copy)]
struct Issue<'a> {
    user: UserNo,
    device: DeviceNo,
    device_id: &'a DeviceId,
    refresh: bool,
    offered: bool,
}

fn issue(tx: &mut Tx<'_>, rng: &mut impl CryptoRng, issue: Issue<'_>, config: &Config, now_ms: u64) -> Result<(Pair, Issued)> {
    let Issue { user, device, device_id, refresh, offered } = issue;
    let device_id = device_id.to_owned();
    let expires_in_ms = if refresh { Some(config.access_token_ms) } else { config.lasting_token_ms };
    let expires_ms = expires_in_ms.map(|ms| now_ms.saturating_add(ms));
    let access_token = Token::draw(rng, "hsa_");
    let row = AccessToken { user, device, device_id: device_id.clone(), expires_ms, offered };
    tx.put(&ACCESS, &access_token.hash(), &row)?;
    let refresh_token = refresh.then(|| Token::draw(rng, "hsr_"));
    if let Some(token) = &refresh_token {
        let expires_ms = config.refresh_token_ms.map(|ms| now_ms.saturating_add(ms));
        tx.put(&REFRESH, &token.hash(), &RefreshToken { user, device, device_id, expires_ms })?;
    }
    let pair = Pair { access: access_token.hash(), refresh: refresh_token.as_ref().map(Token::hash) };
    Ok((pair, Issued { access_token, expires_in_ms, refresh_token }))
}

/// Whether a device has a session.
pub(crate) fn exists(db: &impl Read, user: UserNo, device: DeviceNo) -> store::Result<bool> {
    db.contains(&SESSIONS, &(user, device))
}

/// Revokes all tokens of a device.
pub(crate) fn end(tx: &mut Tx<'_>, user: UserNo, device: DeviceNo) -> store::Result<()> {
    let Some(tokens) = tx.get(&SESSIONS, &(user, device))? else { return Ok(()) };
    revoke(tx, tokens.current)?;
    if let Some(offered) = tokens.offered {
        revoke(tx, offered)?;
    }
    tx.delete(&SESSIONS, &(user, device))
}

/// Offers new tokens for a refresh token. The old ones hold until either new one is used.
///
/// # Errors
/// [`Error::UnknownToken`], [`Error::Locked`].
pub fn refresh(store: &Store, rng: &mut impl CryptoRng, token: &str, config: &Config, now_ms: u64) -> Result<Pending<Issued>> {
    let hash = hash_of(token).ok_or(UNKNOWN)?;
    let user = store.snapshot().get(&REFRESH, &hash)?.ok_or(UNKNOWN)?.user;
    store.transact(&[Lock::User(user)], |tx| {
        let row = tx.get(&REFRESH, &hash)?.ok_or(UNKNOWN)?;
        let account = accounts::account(tx, user)?.filter(|account| !account.deactivated).ok_or(UNKNOWN)?;
        if row.expires_ms.is_some_and(|expires| expires <= now_ms) {
            return Err(Error::UnknownToken { soft_logout: true });
        }
        accounts::check_active(&account)?;
        let of = (user, row.device);
        let mut tokens = tx.get(&SESSIONS, &of)?.ok_or(UNKNOWN)?;
        match tokens.offered {
            Some(offered) if offered.refresh == Some(hash) => {
                take_offer(tx, of, tokens.current, offered)?;
                tokens.current = offered;
            }
            // The answer that brought it was lost, or the client would use it.
            Some(lost) => revoke(tx, lost)?,
            None => {}
        }
        let issued = Issue { user, device: row.device, device_id: &row.device_id, refresh: true, offered: true };
        let (offered, issued) = issue(tx, rng, issued, config, now_ms)?;
        tx.put(&SESSIONS, &of, &Tokens { current: tokens.current, offered: Some(offered) })?;
        Ok(issued)
    })
}

/// Ends a session and deletes its device. `touch`: the rooms of the user, where others must hear of it.
///
/// # Errors
/// As the store.
pub fn logout(store: &Store, session: &Session, touch: &[Topic]) -> Result<Pending<()>> {
    store.transact(&[Lock::User(session.user)], |tx| {
        // A later device of the same id is not the one that logs out.
        if devices::number(tx, session.user, &session.device_id)? != Some(session.device) {
            return Ok(());
        }
        devices::remove(tx, session.user, std::slice::from_ref(&session.device_id), touch)
    })
}

/// Ends all sessions of a user and deletes their devices. Dehydrated devices stay.
///
/// # Errors
/// As the store.
pub fn logout_all(store: &Store, user: UserNo, touch: &[Topic]) -> Result<Pending<()>> {
    devices::delete_all(store, user, Keep::Dehydrated, touch)
}

/// A token by which a user who is logged in, or was recognised by other means, logs in once.
///
/// # Errors
/// As the store.
pub fn issue_login_token(
    store: &Store,
    rng: &mut impl CryptoRng,
    user: UserNo,
    config: &Config,
    now_ms: u64,
) -> Result<Pending<Token>> {
    let token = Token::draw(rng, "hsl_");
    let row = LoginToken { user, expires_ms: now_ms.saturating_add(config.login_token_ms) };
    let pending = store.transact(&[], |tx| tx.put(&LOGIN, &token.hash(), &row))?;
    Ok(pending.map(|()| token))
}

/// [`login`] by a login token, which is used up.
///
/// # Errors
/// [`Error::WrongCredentials`] for a token that is unknown, used or expired; as [`login`].
pub fn login_by_token(
    store: &Store,
    rng: &mut impl CryptoRng,
    token: &str,
    login: Login<'_>,
    config: &Config,
    now_ms: u64,
) -> Result<Pending<LoggedIn>> {
    let hash = hash_of(token).ok_or(Error::WrongCredentials)?;
    let user = store.snapshot().get(&LOGIN, &hash)?.ok_or(Error::WrongCredentials)?.user;
    store.transact(&[Lock::User(user)], |tx| {
        let row = tx.get(&LOGIN, &hash)?.filter(|row| now_ms < row.expires_ms).ok_or(Error::WrongCredentials)?;
        tx.delete(&LOGIN, &hash)?;
        begin(tx, rng, row.user, login, config, now_ms)
    })
}

/// Deletes login and OpenID tokens that expired: to be called now and then.
///
/// # Errors
/// As the store.
pub fn purge(store: &Store, now_ms: u64) -> Result<Pending<()>> {
    store.transact(&[], |tx| {
        token::purge(tx, &LOGIN, |row| row.expires_ms <= now_ms)?;
        Ok(openid::purge(tx, now_ms)?)
    })
}
