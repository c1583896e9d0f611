//! Application services: bridges and bots that an administrator registers, and whose users and aliases are theirs.
//!
//! Registrations are read once, at the start; nothing of them is stored. What an application service may do follows from its token and
//! its namespaces, each time.
//!
//! Specification: application service API, "Registration".

use std::{collections::HashMap, fmt, sync::Arc};

use regex::Regex;
use ruma::{OwnedUserId, RoomAliasId, ServerName, UserId};
use serde::Deserialize;
use store::{Lock, Store};

use crate::{
    Error, Result,
    accounts::{self, Kind, NewAccount},
    numbers,
    token::{TokenHash, hash_of},
};

/// The memory that one namespace's expression may take when compiled, in bytes.
const REGEX_MAX_BYTES: usize = 1 << 20;

/// A registration, as its file has it. Other keys concern what is sent to it, or are those of extensions.
#[derive(Deserialize)]
pub struct Registration {
    /// The unique name of the application service.
    pub id: String,
    /// Where events are to be sent, if anywhere.
    pub url: Option<String>,
    /// The token by which it calls the server.
    pub as_token: String,
    /// The token by which the server calls it.
    pub hs_token: String,
    /// The localpart of its own user.
    pub sender_localpart: String,
    /// What it is interested in, and what is its own.
    pub namespaces: Namespaces,
    /// Whether the users that it masquerades as are limited in their rate.
    pub rate_limited: Option<bool>,
}

/// What an application service is interested in.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Users of this server.
    pub users: Vec<Namespace>,
    /// Room aliases.
    pub aliases: Vec<Namespace>,
    /// Rooms, by their ids.
    pub rooms: Vec<Namespace>,
}

/// A set of ids.
#[derive(Deserialize)]
pub struct Namespace {
    /// Whether nobody else may have ids in it.
    pub exclusive: bool,
    /// What its ids begin with.
    pub regex: String,
}

/// Why registrations cannot be used: a sentence that says what to change.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Invalid {
    /// A value is empty that must not be.
    #[error("{id:?}: {key} is empty")]
    Empty {
        /// The application service.
        id: String,
        /// The key.
        key: &'static str,
    },
    /// A token is too short to be a secret, or too long to be one of a request.
    #[error("{0:?}: as_token must have 1 to 255 bytes: `openssl rand -hex 32` draws a good one")]
    Token(String),
    /// The localpart of its user cannot be one.
    #[error("{id:?}: sender_localpart {localpart:?} is no localpart of a user id: it consists of a-z, 0-9 and . _ = - / +")]
    Sender {
        /// The application service.
        id: String,
        /// What it has.
        localpart: String,
    },
    /// An expression cannot be one.
    #[error("{id:?}: namespaces.{place} has the expression {regex:?}, which cannot be used: {reason}")]
    Regex {
        /// The application service.
        id: String,
        /// `users`, `aliases` or `rooms`.
        place: &'static str,
        /// The expression.
        regex: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two have one id.
    #[error("two registrations have the id {0:?}: each needs its own")]
    SameId(String),
    /// Two have one token.
    #[error("{0:?} and {1:?} have the same as_token: each needs its own")]
    SameToken(String, String),
}

/// A set of ids, ready to be asked.
struct Set {
    exclusive: bool,
    regex: Regex,
}

/// A registered application service.
pub struct Appservice {
    /// Its unique name.
    pub id: String,
    /// Its own user.
    pub sender: OwnedUserId,
    /// Whether the users that it masquerades as are limited in their rate. Its own never is.
    pub rate_limited: bool,
    users: Vec<Set>,
    aliases: Vec<Set>,
}

impl fmt::Debug for Appservice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Appservice").field(&self.id).finish()
    }
}

impl Appservice {
    fn new(registration: &Registration, server: &ServerName) -> std::result::Result<Self, Invalid> {
        let Registration { id, hs_token, sender_localpart, namespaces, rate_limited, .. } = registration;
        for (key, value) in [("id", id), ("hs_token", hs_token)] {
            if value.is_empty() {
                return Err(Invalid::Empty { id: id.clone(), key });
            }
        }
        // Bridges exist whose user has upper case letters: what was a user id once is accepted.
        let sender = UserId::parse(format!("@{sender_localpart}:{server}")).ok().filter(|_| !sender_localpart.is_empty());
        let sender = sender.filter(|sender| sender.localpart() == sender_localpart.as_str());
        let sender = sender.ok_or_else(|| Invalid::Sender { id: id.clone(), localpart: sender_localpart.clone() })?;
        Ok(Self {
            sender,
            rate_limited: rate_limited.unwrap_or(true),
            users: sets(id, "users", &namespaces.users)?,
            aliases: sets(id, "aliases", &namespaces.aliases)?,
            // Held against its grammar now, though only events sent to the application service will need it.
            id: sets(id, "rooms", &namespaces.rooms).map(|_| id.clone())?,
        })
    }

    /// Whether it may act as this user: its own, or one of its namespaces.
    #[must_use]
    pub fn covers_user(&self, user: &UserId) -> bool {
        *user == self.sender || (user.server_name() == self.sender.server_name() && contain(&self.users, user.as_str()))
    }

    /// Whether the alias is in one of its namespaces.
    #[must_use]
    pub fn covers_alias(&self, alias: &RoomAliasId) -> bool {
        contain(&self.aliases, alias.as_str())
    }

    fn owns_user(&self, user: &UserId) -> bool {
        *user == self.sender || is_exclusive(&self.users, user.as_str())
    }
}

fn contain(sets: &[Set], id: &str) -> bool {
    sets.iter().any(|set| set.regex.is_match(id))
}

fn is_exclusive(sets: &[Set], id: &str) -> bool {
    sets.iter().any(|set| set.exclusive && set.regex.is_match(id))
}

/// Expressions hold from the beginning of an id and need not reach its end, as other servers have it.
fn sets(id: &str, place: &'static str, namespaces: &[Namespace]) -> std::result::Result<Vec<Set>, Invalid> {
    let compiled = namespaces.iter().map(|Namespace { exclusive, regex }| {
        let anchored = format!("^(?:{regex})");
        let compiled = regex::RegexBuilder::new(&anchored).size_limit(REGEX_MAX_BYTES).build();
        let invalid = |error: regex::Error| {
            // The first lines of a syntax error draw the expression; the last says what is wrong.
            let reason = error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Invalid::Regex { id: id.to_owned(), place, regex: regex.clone(), reason }
        };
        Ok(Set { exclusive: *exclusive, regex: compiled.map_err(invalid)? })
    });
    compiled.collect()
}

/// All registered application services.
#[derive(Clone, Debug, Default)]
pub struct Appservices(Arc<Known>);

#[derive(Default)]
struct Known {
    all: Vec<Arc<Appservice>>,
    by_token: HashMap<TokenHash, Arc<Appservice>>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all.fmt(f)
    }
}

impl Appservices {
    /// Checks registrations, one by one and against each other.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new(registrations: &[Registration], server: &ServerName) -> std::result::Result<Self, Invalid> {
        let mut known = Known::default();
        for registration in registrations {
            let appservice = Arc::new(Appservice::new(registration, server)?);
            if known.all.iter().any(|other| other.id == appservice.id) {
                return Err(Invalid::SameId(appservice.id.clone()));
            }
            let token = hash_of(&registration.as_token).ok_or_else(|| Invalid::Token(appservice.id.clone()))?;
            if let Some(other) = known.by_token.insert(token, Arc::clone(&appservice)) {
                return Err(Invalid::SameToken(other.id.clone(), appservice.id.clone()));
            }
            known.all.push(appservice);
        }
        Ok(Self(Arc::new(known)))
    }

    /// Whose token this is. It is looked up by its hash, which tells nothing by its time.
    #[must_use]
    pub fn by_token(&self, token: &str) -> Option<Arc<Appservice>> {
        if self.0.all.is_empty() {
            return None;
        }
        self.0.by_token.get(&hash_of(token)?).map(Arc::clone)
    }

    /// Refuses a user id that is another's own: in an exclusive namespace of an application service that is not `of`.
    ///
    /// # Errors
    /// [`Error::Exclusive`].
    pub fn check_user(&self, user: &UserId, of: Option<&Appservice>) -> Result<()> {
        self.check(of, |other| other.owns_user(user))
    }

    /// Refuses an alias that is another's own.
    ///
    /// # Errors
    /// [`Error::Exclusive`].
    pub fn check_alias(&self, alias: &RoomAliasId, of: Option<&Appservice>) -> Result<()> {
        self.check(of, |other| is_exclusive(&other.aliases, alias.as_str()))
    }

    fn check(&self, of: Option<&Appservice>, owns: impl Fn(&Appservice) -> bool) -> Result<()> {
        let mut others = self.0.all.iter().filter(|other| of.is_none_or(|of| of.id != other.id));
        if others.any(|other| owns(other)) { Err(Error::Exclusive) } else { Ok(()) }
    }

    /// Makes the users of application services that do not exist yet.
    ///
    /// # Errors
    /// As the store.
    pub fn make_senders(&self, store: &Store, now_ms: u64) -> Result<()> {
        for appservice in &self.0.all {
            let sender = &appservice.sender;
            let user = numbers::ensure(store, sender)?;
            if accounts::account(&store.snapshot(), user)?.is_some() {
                continue;
            }
            let account = NewAccount { kind: Kind::Appservice, admin: false, password: None, displayname: None };
            store.transact(&[Lock::User(user)], |tx| accounts::create(tx, user, sender, account, now_ms))?.wait()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ruma::{room_alias_id, server_name, user_id};
    use serde_json::{Value, json};

    use super::*;

    fn registration(id: &str, change: impl FnOnce(&mut Value)) -> Registration {
        let mut registration = json!({
            "id": id,
            "url": null,
            "as_token": format!("{id}-token"),
            "hs_token": "secret",
            "sender_localpart": format!("_{id}_bot"),
            "namespaces": {
                "users": [{ "exclusive": true, "regex": format!("@_{id}_.*:hearth\\.test") }, { "exclusive": false, "regex": "@shared" }],
                "aliases": [{ "exclusive": true, "regex": format!("#_{id}_.*") }],
            },
            "org.example.extension": true,
        });
        change(&mut registration);
        serde_json::from_value(registration).unwrap()
    }

    fn known(registrations: &[Registration]) -> std::result::Result<Appservices, Invalid> {
        Appservices::new(registrations, server_name!("hearth.test"))
    }

    #[test]
    fn namespaces_are_closed_to_others_where_they_are_exclusive() {
        let known = known(&[registration("irc", |_| ()), registration("xmpp", |_| ())]).unwrap();
        let (irc, xmpp) = (known.by_token("irc-token").unwrap(), known.by_token("xmpp-token").unwrap());
        assert!(known.by_token("guess").is_none() && known.by_token("").is_none());
        let (ours, bot) = (user_id!("@_irc_alice:hearth.test"), user_id!("@_irc_bot:hearth.test"));
        for user in [ours, bot] {
            assert!(irc.covers_user(user) && !xmpp.covers_user(user));
            assert!(known.check_user(user, Some(&irc)).is_ok());
            assert!(matches!(known.check_user(user, Some(&xmpp)), Err(Error::Exclusive)));
            assert!(matches!(known.check_user(user, None), Err(Error::Exclusive)));
        }
        let shared = user_id!("@shared42:hearth.test");
        assert!(irc.covers_user(shared) && xmpp.covers_user(shared) && known.check_user(shared, None).is_ok());
        assert!(!irc.covers_user(user_id!("@shared:elsewhere.test")), "users of this server only");
        assert!(!irc.covers_user(user_id!("@x@_irc_:hearth.test")) && !irc.covers_user(user_id!("@alice:hearth.test")));
        let alias = room_alias_id!("#_irc_room:hearth.test");
        assert!(irc.covers_alias(alias) && known.check_alias(alias, Some(&irc)).is_ok());
        assert!(known.check_alias(alias, None).is_err() && known.check_alias(room_alias_id!("#a:hearth.test"), None).is_ok());
        assert!(!format!("{known:?}").contains("token"), "secrets are not shown");
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_what_to_do() {
        let said = |change: fn(&mut Value)| known(&[registration("irc", change)]).unwrap_err().to_string();
        assert!(said(|r| r["as_token"] = "".into()).contains("openssl rand"));
        assert!(said(|r| r["hs_token"] = "".into()).contains("hs_token is empty"));
        assert!(said(|r| r["sender_localpart"] = "a b:c".into()).contains("sender_localpart"));
        assert!(said(|r| r["sender_localpart"] = "".into()).contains("sender_localpart"));
        let regex = said(|r| r["namespaces"]["users"][0]["regex"] = "@(".into());
        assert!(regex.contains("namespaces.users") && regex.contains("unclosed group"), "{regex}");
        let look = said(|r| r["namespaces"]["aliases"][0]["regex"] = "#(?!x)".into());
        assert!(look.contains("look-around"), "{look}");
        assert!(said(|r| r["namespaces"]["rooms"] = json!([{ "exclusive": false, "regex": "a{1000}{1000}" }])).contains("rooms"));
        let same_id = known(&[registration("irc", |_| ()), registration("irc", |r| r["as_token"] = "other".into())]);
        assert_eq!(same_id.unwrap_err(), Invalid::SameId("irc".into()));
        let same_token = known(&[registration("irc", |_| ()), registration("xmpp", |r| r["as_token"] = "irc-token".into())]);
        assert_eq!(same_token.unwrap_err(), Invalid::SameToken("irc".into(), "xmpp".into()));
    }

    #[test]
    fn their_users_are_made_once() {
        let store = Store::in_memory("hearth.test", crate::TABLES).unwrap();
        let known = known(&[registration("irc", |_| ())]).unwrap();
        known.make_senders(&store, 5).unwrap();
        known.make_senders(&store, 6).unwrap();
        let (_, account) = accounts::find(&store.snapshot(), user_id!("@_irc_bot:hearth.test")).unwrap().unwrap();
        assert_eq!((account.kind, account.created_ms), (Kind::Appservice, 5));
    }
}
