//! Stories of accounts and what they keep here.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use ruma::{OwnedUserId, UserId};
use store::{RoomNo, Store, Topic, UserNo};

use crate::{
    Result,
    accounts::{Kind, NewAccount},
    registration::{self, Registered, Registration},
    sessions::{self, LoggedIn, Login, Session},
};

mod account_data;
mod accounts;
mod devices;
mod directory;
mod filters;
mod presence;
mod profiles;
mod push_rules;
mod refreshing;
mod succession;
mod tokens;

/// The room that all users of these stories are in.
const ROOM: Topic = Topic::Room(RoomNo(1));

/// Access tokens of those who can refresh hold for a minute.
fn config() -> sessions::Config {
    sessions::Config { access_token_ms: 60_000, ..sessions::Config::default() }
}

fn store() -> Store {
    Store::in_memory("localhost", crate::TABLES).unwrap()
}

fn user_id(localpart: &str) -> OwnedUserId {
    UserId::parse(format!("@{localpart}:localhost")).unwrap()
}

fn person() -> NewAccount {
    NewAccount { kind: Kind::Person, admin: false, password: None, displayname: None }
}

fn register_with(
    store: &Store,
    localpart: &str,
    token: Option<&str>,
    login: Option<Login<'_>>,
    now_ms: u64,
) -> Result<Registered> {
    let user_id = user_id(localpart);
    let registration = Registration { user_id: &user_id, account: person(), token, upgrades_guest: false, login };
    Ok(registration::register(store, &mut rand::rng(), registration, &config(), now_ms)?.wait()?)
}

/// A user with a device named `PHONE`, at the time 0.
fn register(store: &Store, localpart: &str) -> (UserNo, LoggedIn) {
    let first = Login { device_id: Some("PHONE".into()), display_name: Some("a phone"), ..Login::default() };
    let registered = register_with(store, localpart, None, Some(first), 0).unwrap();
    (registered.user, registered.session.unwrap())
}

/// What the token of a login stands for.
fn session(store: &Store, login: &LoggedIn, now_ms: u64) -> Result<Session> {
    sessions::authenticate(&store.snapshot(), &login.tokens.access_token.clone().into_text(), now_ms)
}
