//! Users: make, list, let in again, promote, deactivate.

use ::rooms::members;
use ::users::{
    accounts::{self, Account, Kind, NewAccount},
    devices::Keep,
    numbers, passwords,
    registration::{self, Registration},
    sessions,
};
use rand::{RngExt as _, rngs::StdRng};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use store::{Read, Topic, UserNo};

use crate::{Error, Homeserver, Operation, Result, Secret};

/// The characters of a password that the server draws: none that people mistake for another.
const DRAWN: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";
/// How many of them: 116 random bits.
const DRAWN_LENGTH: usize = 20;
/// The most users of one page of a list.
pub const LIST_MAX: usize = 1_000;

/// Makes a user.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The part of the user id before the colon.
    pub username: String,
    /// The password; without one the server draws it.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Whether the user may administrate the server.
    #[serde(default)]
    pub admin: bool,
}

/// A user whose password was set.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithPassword {
    /// The user.
    pub user_id: OwnedUserId,
    /// The password, where the server drew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

impl Operation for Create {
    const NAME: &'static str = "users_create";
    type Output = WithPassword;

    fn run(self, server: &Homeserver, now_ms: u64, rng: &mut StdRng) -> Result<WithPassword> {
        let Self { username, password, admin } = self;
        let user_id = accounts::wanted_user_id(localpart(server, &username), &server.name)?;
        accounts::check_available(&server.store.snapshot(), &user_id)?;
        let (hashed, drawn) = hash(password, rng)?;
        let displayname = Some(user_id.localpart().to_owned());
        let account = NewAccount { kind: Kind::Person, admin, password: Some(hashed), displayname };
        let registration = Registration { user_id: &user_id, account, token: None, upgrades_guest: false, login: None };
        // No session begins here, so it matters to nobody how long tokens hold.
        let config = sessions::Config::default();
        registration::register(&server.store, rng, registration, &config, now_ms)?.wait()?;
        Ok(WithPassword { user_id, password: drawn })
    }
}

/// Gives a user another password, and ends their sessions.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetPassword {
    /// The user id, or its part before the colon.
    pub user: String,
    /// The password; without one the server draws it.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Whether the user stays logged in everywhere.
    #[serde(default)]
    pub keep_sessions: bool,
}

impl Operation for ResetPassword {
    const NAME: &'static str = "users_reset_password";
    type Output = WithPassword;

    fn run(self, server: &Homeserver, _: u64, rng: &mut StdRng) -> Result<WithPassword> {
        let Self { user, password, keep_sessions } = self;
        let db = server.store.snapshot();
        let (user, user_id, _) = find(&db, server, &user)?;
        let (hashed, drawn) = hash(password, rng)?;
        let end = (!keep_sessions).then_some(Keep::None);
        accounts::set_password(&server.store, user, hashed, end, &rooms_of(&db, user)?)?.wait()?;
        Ok(WithPassword { user_id, password: drawn })
    }
}

/// Lets a user administrate the server, or no longer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetAdmin {
    /// The user id, or its part before the colon.
    pub user: String,
    /// Whether the user may.
    pub admin: bool,
}

/// A user whom something was done to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The user.
    pub user_id: OwnedUserId,
}

impl Operation for SetAdmin {
    const NAME: &'static str = "users_set_admin";
    type Output = Changed;

    fn run(self, server: &Homeserver, _: u64, _: &mut StdRng) -> Result<Changed> {
        let Self { user, admin } = self;
        let (user, user_id, _) = find(&server.store.snapshot(), server, &user)?;
        accounts::set_admin(&server.store, user, admin)?.wait()?;
        Ok(Changed { user_id })
    }
}

/// Deactivates a user for good: nobody can log in as them or take their name, and a job leaves their rooms.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deactivate {
    /// The user id, or its part before the colon.
    pub user: String,
    /// Whether their profile goes too.
    #[serde(default)]
    pub erase: bool,
}

impl Operation for Deactivate {
    const NAME: &'static str = "users_deactivate";
    type Output = Changed;

    fn run(self, server: &Homeserver, _: u64, _: &mut StdRng) -> Result<Changed> {
        let Self { user, erase } = self;
        let db = server.store.snapshot();
        let (user, user_id, _) = find(&db, server, &user)?;
        accounts::deactivate(&server.store, user, erase, &rooms_of(&db, user)?)?.wait()?;
        Ok(Changed { user_id })
    }
}

/// Lists users in the order in which they came, a page at a time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The last user of the page before.
    #[serde(default)]
    pub after: Option<OwnedUserId>,
}

/// A page of users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The users.
    pub users: Vec<User>,
    /// Whether there are more.
    pub more: bool,
}

/// A user, as administrators see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user id.
    pub user_id: OwnedUserId,
    /// When they came, in milliseconds since 1970.
    pub created_ms: u64,
    /// Whether they may administrate the server.
    pub admin: bool,
    /// Whether they are gone for good.
    pub deactivated: bool,
    /// Whether they may do nothing for now.
    pub locked: bool,
    /// Whether they may only read for now.
    pub suspended: bool,
    /// Whether it is a guest.
    pub guest: bool,
    /// Whether an application service acts through it.
    pub appservice: bool,
}

impl Operation for List {
    const NAME: &'static str = "users_list";
    type Output = Page;

    fn run(self, server: &Homeserver, _: u64, _: &mut StdRng) -> Result<Page> {
        let db = server.store.snapshot();
        let after = match self.after {
            None => None,
            Some(user) => Some(find(&db, server, user.as_str())?.0),
        };
        let mut rows = accounts::accounts(&db, after, LIST_MAX + 1)?;
        let more = rows.len() > LIST_MAX;
        rows.truncate(LIST_MAX);
        Ok(Page { users: rows.into_iter().map(|(_, user_id, account)| User::of(user_id, &account)).collect(), more })
    }
}

impl User {
    fn of(user_id: OwnedUserId, account: &Account) -> Self {
        let Account { created_ms, kind, admin, deactivated, erased: _, locked, suspended } = *account;
        let (guest, appservice) = (kind == Kind::Guest, kind == Kind::Appservice);
        Self { user_id, created_ms, admin, deactivated, locked, suspended, guest, appservice }
    }
}

/// The part of a name before the colon, where what follows is this server.
fn localpart<'a>(server: &Homeserver, name: &'a str) -> &'a str {
    let whole = name.strip_prefix('@').and_then(|name| name.split_once(':'));
    whole.filter(|(_, of)| *of == server.name).map_or(name, |(localpart, _)| localpart)
}

/// The user of a user id, or of its part before the colon.
fn find(db: &impl Read, server: &Homeserver, name: &str) -> Result<(UserNo, OwnedUserId, Account)> {
    let unknown = || Error::NoSuchUser(name.to_owned());
    // Not `wanted_user_id`: users of other servers' making may have names that no new user gets.
    let user_id = UserId::parse(format!("@{}:{}", localpart(server, name), server.name)).map_err(|_| unknown())?;
    let (user, account) = accounts::find(db, &user_id)?.ok_or_else(unknown)?;
    Ok((user, numbers::user_id(db, user)?, account))
}

/// What wakes those who must hear that a user's devices go.
fn rooms_of(db: &impl Read, user: UserNo) -> Result<Vec<Topic>> {
    Ok(members::joined_rooms(db, user)?.into_iter().map(Topic::Room).collect())
}

/// The hash of a password, and the password where it was drawn here.
fn hash(password: Option<Secret>, rng: &mut StdRng) -> Result<(passwords::Hashed, Option<Secret>)> {
    match password {
        Some(Secret(password)) => {
            passwords::check(&password, passwords::LENGTH_MIN)?;
            Ok((passwords::hash(&password, rng)?, None))
        }
        None => {
            let drawn: String = (0..DRAWN_LENGTH).map(|_| char::from(DRAWN[rng.random_range(0..DRAWN.len())])).collect();
            Ok((passwords::hash(&drawn, rng)?, Some(Secret(drawn))))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::testing::{ask, homeserver};

    fn create(server: &Homeserver, username: &str, password: Option<&str>) -> Result<WithPassword> {
        let password = password.map(|password| Secret(password.to_owned()));
        ask(server, &Create { username: username.into(), password, admin: false })
    }

    fn logs_in(server: &Homeserver, user: &str, password: &str) -> bool {
        let db = server.store.snapshot();
        let (user, ..) = find(&db, server, user).unwrap();
        passwords::matches(password, accounts::password(&db, user).unwrap().as_ref())
    }

    #[test]
    fn a_user_is_made_with_the_given_or_a_drawn_password() {
        let server = homeserver();
        let alice = create(&server, "Alice", Some("correct horse")).unwrap();
        assert_eq!(alice.user_id, "@alice:hearth.test");
        assert!(alice.password.is_none() && logs_in(&server, "alice", "correct horse"));
        let bob = create(&server, "@bob:hearth.test", None).unwrap();
        let Secret(drawn) = bob.password.unwrap();
        assert!(drawn.len() == DRAWN_LENGTH && logs_in(&server, "@bob:hearth.test", &drawn));
        assert!(matches!(create(&server, "alice", None), Err(Error::Users(::users::Error::UserInUse))));
        assert!(matches!(create(&server, "carol", Some("short")), Err(Error::Users(::users::Error::WeakPassword(_)))));
        assert!(matches!(create(&server, "@dan:other.test", None), Err(Error::Users(::users::Error::InvalidUsername(_)))));
    }

    #[test]
    fn users_are_listed_as_administrators_see_them() {
        let server = homeserver();
        for name in ["zoe", "adam"] {
            create(&server, name, Some("correct horse")).unwrap();
        }
        ask(&server, &SetAdmin { user: "zoe".into(), admin: true }).unwrap();
        ask(&server, &Deactivate { user: "adam".into(), erase: true }).unwrap();
        let Page { users, more } = ask(&server, &List::default()).unwrap();
        let told: Vec<_> = users.iter().map(|user| (user.user_id.localpart(), user.admin, user.deactivated)).collect();
        assert_eq!((told, more), (vec![("zoe", true, false), ("adam", false, true)], false));
        let rest = ask(&server, &List { after: Some(users[0].user_id.clone()) }).unwrap();
        assert_eq!(rest.users, users[1..]);
    }

    #[test]
    fn a_reset_password_replaces_the_old_one() {
        let server = homeserver();
        create(&server, "alice", Some("correct horse")).unwrap();
        let reset = ResetPassword { user: "alice".into(), password: None, keep_sessions: false };
        let Secret(drawn) = ask(&server, &reset).unwrap().password.unwrap();
        assert!(logs_in(&server, "alice", &drawn) && !logs_in(&server, "alice", "correct horse"));
    }

    #[test]
    fn who_is_not_there_cannot_be_changed() {
        let server = homeserver();
        for user in ["nobody", "@nobody:hearth.test", "@alice:other.test", "no body", ""] {
            let refused = ask(&server, &SetAdmin { user: user.into(), admin: true }).err().unwrap();
            assert!(matches!(refused, Error::NoSuchUser(_)), "{user}");
        }
    }
}
