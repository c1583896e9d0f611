//! Accounts of this server: who exists, and what an administrator said about them.
//!
//! A user id is given once: a deactivated account keeps its row, so that nobody else can become that user.

use protocol::ids;
use rand::{CryptoRng, RngExt as _};
use ruma::{OwnedUserId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use store::{Lock, Owner, Pending, Range, Read, Store, Table, Topic, Tx, UserNo};

use crate::{
    Error, Result, account_data, devices, directory, forget_user, numbers, passwords::Hashed, presence, profiles, push_rules,
};

static ACCOUNTS: Table<UserNo, Account> =
    Table::new("accounts", "The accounts of this server, deactivated ones included.").owned_by(Owner::User).cached();
static PASSWORDS: Table<UserNo, String> =
    Table::new("passwords", "The password hash of an account in PHC form, of those that have a password.").owned_by(Owner::User);
static DEPARTURES: Table<UserNo, u8> =
    Table::new("departures", "Deactivated users whose rooms a job has still to leave for them.").owned_by(Owner::User);

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 3] = [ACCOUNTS.spec(), PASSWORDS.spec(), DEPARTURES.spec()];

/// The characters of a localpart that the server draws.
const DRAWN: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// How many of them.
const DRAWN_LENGTH: usize = 12;

/// Who acts through an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A person, or a bot that logs in as a person does.
    Person,
    /// A guest ("Guest Access").
    Guest,
    /// An application service, for a user of its namespaces.
    Appservice,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// Who acts through it.
    pub kind: Kind,
    /// Whether it may administrate the server.
    pub admin: bool,
    /// Whether it is gone for good: no login, no sessions.
    pub deactivated: bool,
    /// Whether its content was to be forgotten with it.
    pub erased: bool,
    /// Whether it may do nothing for now, but keeps its sessions ("Account locking").
    pub locked: bool,
    /// Whether it may only read for now ("Account suspension").
    pub suspended: bool,
}

/// What a new account is made of. Without a password nobody can log in to it by password.
pub struct NewAccount {
    /// Who will act through it.
    pub kind: Kind,
    /// Whether it may administrate the server.
    pub admin: bool,
    /// The hash of its password.
    pub password: Option<Hashed>,
    /// What others see as its name at first: for people the localpart, as they expect it of servers.
    pub displayname: Option<String>,
}

/// The user id of a name that someone wants to register. Upper case is taken as lower case.
///
/// # Errors
/// [`Error::InvalidUsername`] ("User Identifiers").
pub fn wanted_user_id(username: &str, server: &ServerName) -> Result<OwnedUserId> {
    ids::new_user_id(&username.to_ascii_lowercase(), server).map_err(|_| {
        Error::InvalidUsername("a user name consists of a-z, 0-9 and . _ = - / +, and the user id has at most 255 bytes")
    })
}

/// A user id for someone who wants none in particular.
///
/// # Errors
/// [`Error::InvalidUsername`] where the server's name leaves no place for one.
pub fn drawn_user_id(rng: &mut impl CryptoRng, server: &ServerName) -> Result<OwnedUserId> {
    let localpart: String = (0..DRAWN_LENGTH).map(|_| char::from(DRAWN[rng.random_range(0..DRAWN.len())])).collect();
    wanted_user_id(&localpart, server)
}

/// Refuses a user id that is taken, or was once.
///
/// # Errors
/// [`Error::UserInUse`].
pub fn check_available(db: &impl Read, user: &UserId) -> Result<()> {
    match find(db, user)? {
        Some(_) => Err(Error::UserInUse),
        None => Ok(()),
    }
}

/// The account of a user of this server.
///
/// # Errors
/// As the store.
pub fn account(db: &impl Read, user: UserNo) -> store::Result<Option<Account>> {
    Ok(db.shared(&ACCOUNTS, &user)?.map(|account| Account::clone(&account)))
}

/// The number and account of a user id of this server.
///
/// # Errors
/// As the store.
pub fn find(db: &impl Read, user: &UserId) -> store::Result<Option<(UserNo, Account)>> {
    let Some(number) = numbers::number(db, user)? else { return Ok(None) };
    Ok(account(db, number)?.map(|account| (number, account)))
}

/// The accounts after this one, in the order of their numbers: a page of at most `limit`.
///
/// # Errors
/// As the store.
pub fn accounts(db: &impl Read, after: Option<UserNo>, limit: usize) -> store::Result<Vec<(UserNo, OwnedUserId, Account)>> {
    let range = Range::of(&());
    let range = if let Some(after) = after { range.after(&after) } else { range };
    let rows = db.range(&ACCOUNTS, &range)?.take(limit);
    rows.map(|row| row.and_then(|(number, account)| Ok((number, numbers::user_id(db, number)?, account)))).collect()
}

/// Makes an account with its first profile and push rules.
///
/// # Errors
/// [`Error::UserInUse`].
pub fn create(tx: &mut Tx<'_>, user: UserNo, user_id: &UserId, new: NewAccount, now_ms: u64) -> Result<()> {
    if tx.contains(&ACCOUNTS, &user)? {
        return Err(Error::UserInUse);
    }
    let NewAccount { kind, admin, password, displayname } = new;
    let account = Account { created_ms: now_ms, kind, admin, deactivated: false, erased: false, locked: false, suspended: false };
    tx.put(&ACCOUNTS, &user, &account)?;
    directory::enter(tx, user, user_id, &account)?;
    if let Some(Hashed(password)) = password {
        tx.put(&PASSWORDS, &user, &password)?;
    }
    if let Some(displayname) = displayname {
        profiles::set(tx, user, profiles::DISPLAYNAME, displayname.into())?;
    }
    push_rules::put_defaults(tx, user, user_id)
}

/// Makes a guest a person, who keeps rooms, profile and sessions ("Guest Access").
///
/// # Errors
/// [`Error::UserInUse`] where the user is no guest, or no longer one.
pub(crate) fn upgrade_guest(tx: &mut Tx<'_>, user: UserNo, new: NewAccount) -> Result<()> {
    let guest = account(tx, user)?.filter(|account| account.kind == Kind::Guest);
    let guest = guest.ok_or(Error::UserInUse)?;
    check_active(&guest)?;
    let NewAccount { kind, admin, password, displayname: _ } = new;
    tx.replace(&ACCOUNTS, &user, &Account { kind, admin, ..guest })?;
    match password {
        Some(Hashed(password)) => Ok(tx.put(&PASSWORDS, &user, &password)?),
        None => Ok(()),
    }
}

/// The stored hash of a user's password, to be compared by [`crate::passwords::matches`] off the async threads.
///
/// # Errors
/// As the store.
pub fn password(db: &impl Read, user: UserNo) -> store::Result<Option<Hashed>> {
    Ok(db.get(&PASSWORDS, &user)?.map(Hashed))
}

/// Refuses an account that may not log in or act.
///
/// # Errors
/// [`Error::Deactivated`], [`Error::Locked`].
pub fn check_active(account: &Account) -> Result<()> {
    match account {
        Account { deactivated: true, .. } => Err(Error::Deactivated),
        Account { locked: true, .. } => Err(Error::Locked),
        _ => Ok(()),
    }
}

/// Changes the password of an account, and ends its other sessions where asked to: all but that of the device `keep`.
/// `touch`: the rooms of the user, where others must hear of devices that go.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Deactivated`].
pub fn set_password(
    store: &Store,
    user: UserNo,
    password: Hashed,
    end_sessions: Option<devices::Keep>,
    touch: &[Topic],
) -> Result<Pending<()>> {
    store.transact(&[Lock::User(user)], |tx| {
        let account = account(tx, user)?.ok_or(NO_ACCOUNT)?;
        if account.deactivated {
            return Err(Error::Deactivated);
        }
        tx.put(&PASSWORDS, &user, &password.0)?;
        match end_sessions {
            Some(keep) => devices::remove_all(tx, user, keep, touch),
            None => Ok(()),
        }
    })
}

const NO_ACCOUNT: Error = Error::NotFound("there is no such account");

fn change(store: &Store, user: UserNo, change: impl FnOnce(&mut Account) -> Result<()>) -> Result<Pending<()>> {
    store.transact(&[Lock::User(user)], |tx| {
        let mut account = account(tx, user)?.ok_or(NO_ACCOUNT)?;
        change(&mut account)?;
        Ok(tx.replace(&ACCOUNTS, &user, &account)?)
    })
}

/// Makes an account an administrator's, or no longer.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Deactivated`], [`Error::InvalidParam`] for a guest.
pub fn set_admin(store: &Store, user: UserNo, admin: bool) -> Result<Pending<()>> {
    change(store, user, |account| {
        if account.deactivated {
            return Err(Error::Deactivated);
        }
        if admin && account.kind == Kind::Guest {
            return Err(Error::InvalidParam("a guest cannot administrate the server"));
        }
        account.admin = admin;
        Ok(())
    })
}

/// Locks or unlocks an account.
///
/// # Errors
/// [`Error::NotFound`].
pub fn set_locked(store: &Store, user: UserNo, locked: bool) -> Result<Pending<()>> {
    change(store, user, |account| {
        account.locked = locked;
        Ok(())
    })
}

/// Suspends an account, or lets it write again.
///
/// # Errors
/// [`Error::NotFound`].
pub fn set_suspended(store: &Store, user: UserNo, suspended: bool) -> Result<Pending<()>> {
    change(store, user, |account| {
        account.suspended = suspended;
        Ok(())
    })
}

/// Deactivates an account for good: password, sessions, devices, keys and account data go at once, the profile where
/// `erase`; a job leaves its rooms ([`departures`]). To be repeated with `erase` where that was not asked for at first.
///
/// # Errors
/// [`Error::NotFound`].
pub fn deactivate(store: &Store, user: UserNo, erase: bool, touch: &[Topic]) -> Result<Pending<()>> {
    store.transact(&[Lock::User(user)], |tx| {
        let mut account = account(tx, user)?.ok_or(NO_ACCOUNT)?;
        account.deactivated = true;
        account.admin = false;
        account.erased |= erase;
        tx.replace(&ACCOUNTS, &user, &account)?;
        tx.delete(&PASSWORDS, &user)?;
        tx.put(&DEPARTURES, &user, &0)?;
        let user_id = numbers::user_id(tx, user)?;
        directory::withdraw(tx, user, &user_id)?;
        if erase {
            profiles::erase(tx, user)?;
        }
        account_data::erase(tx, user)?;
        presence::forget(tx, user)?;
        devices::remove_all(tx, user, devices::Keep::None, touch)?;
        Ok(forget_user(tx, user, touch)?)
    })
}

/// Deactivated users whose rooms are still to be left, at most `limit`.
///
/// # Errors
/// As the store.
pub fn departures(db: &impl Read, limit: usize) -> store::Result<Vec<UserNo>> {
    db.range(&DEPARTURES, &Range::of(&()))?.take(limit).map(|row| row.map(|(user, _)| user)).collect()
}

/// Notes that a deactivated user has left all rooms.
///
/// # Errors
/// [`store::Error::Unlocked`] without the user's lock.
pub fn departed(tx: &mut Tx<'_>, user: UserNo) -> store::Result<()> {
    tx.delete(&DEPARTURES, &user)
}
