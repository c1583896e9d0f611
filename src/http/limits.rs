//! Rate limits: token buckets by class and by user or address.
//!
//! A bucket is one number, the moment at which it will be full again (the generic cell rate algorithm), so buckets that are
//! full need no memory. Memory is bounded by [`BUCKETS_MAX`].

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use parking_lot::Mutex;
use serde::Deserialize;
use store::UserNo;

use crate::error::{Error, Result};

/// What an endpoint costs whom. A route names one, perhaps with a [`Class::cost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// No limit: answers from memory.
    Free,
    /// Reads a few rows.
    Read,
    /// Changes something of the user's own.
    Write,
    /// Sends an event to a room.
    Send,
    /// Joins, invites, creates rooms: what others notice, or other servers must answer.
    Join,
    /// `/sync` and its kind.
    Sync,
    /// Uploads, downloads, thumbnails, previews.
    Media,
    /// End-to-end keys and to-device messages.
    Keys,
    /// Searches and walks over many rows.
    Search,
    /// Proves who one is: passwords, tokens, codes.
    Login,
    /// Makes an account.
    Register,
    /// The administration API.
    Admin,
    /// Requests of other servers.
    Federation,
}

impl Class {
    /// The class with a cost other than 1.
    #[must_use]
    pub const fn cost(self, cost: u32) -> Limit {
        Limit { class: self, cost }
    }
}

/// A class, and how much of its bucket one request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Whose bucket.
    pub class: Class,
    /// How many tokens.
    pub cost: u32,
}

impl From<Class> for Limit {
    fn from(class: Class) -> Self {
        class.cost(1)
    }
}

/// A bucket's size and flow.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Tokens that come back each second.
    pub per_second: f64,
    /// Tokens of a full bucket.
    pub burst: u32,
}

impl Rate {
    const fn new(per_second: f64, burst: u32) -> Self {
        Self { per_second, burst }
    }
}

/// The buckets of each class. Each user has one a class; without a session, each address (of IPv6: each /64).
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the classes are documented at `Class`")]
pub struct Config {
    /// Whether there are limits at all.
    pub enabled: bool,
    pub read: Rate,
    pub write: Rate,
    pub send: Rate,
    pub join: Rate,
    pub sync: Rate,
    pub media: Rate,
    pub keys: Rate,
    pub search: Rate,
    pub login: Rate,
    pub register: Rate,
    pub admin: Rate,
    pub federation: Rate,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            read: Rate::new(50.0, 500),
            write: Rate::new(10.0, 200),
            send: Rate::new(10.0, 100),
            join: Rate::new(1.0, 30),
            sync: Rate::new(10.0, 100),
            media: Rate::new(20.0, 300),
            keys: Rate::new(20.0, 200),
            search: Rate::new(2.0, 30),
            login: Rate::new(0.2, 20),
            register: Rate::new(0.05, 10),
            admin: Rate::new(50.0, 500),
            federation: Rate::new(200.0, 2000),
        }
    }
}

impl Config {
    fn rate(&self, class: Class) -> Option<Rate> {
        match class {
            Class::Free => None,
            Class::Read => Some(self.read),
            Class::Write => Some(self.write),
            Class::Send => Some(self.send),
            Class::Join => Some(self.join),
            Class::Sync => Some(self.sync),
            Class::Media => Some(self.media),
            Class::Keys => Some(self.keys),
            Class::Search => Some(self.search),
            Class::Login => Some(self.login),
            Class::Register => Some(self.register),
            Class::Admin => Some(self.admin),
            Class::Federation => Some(self.federation),
        }
    }
}

/// Whose bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Payer {
    /// A user with a session.
    User(UserNo),
    /// Whoever shares this address.
    Address(IpAddr),
    /// Another server, by the hash of its name ([`Limits::payer_of`]).
    Server(u64),
    /// Whoever comes without one: over a Unix socket whose proxy sends no `X-Forwarded-For`.
    Unknown,
}

impl Payer {
    /// Who comes from this address. A /64 of IPv6 is one household.
    #[must_use]
    pub fn address(address: Option<IpAddr>) -> Self {
        match address {
            None => Self::Unknown,
            Some(IpAddr::V6(v6)) => Self::Address(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into()),
            Some(v4) => Self::Address(v4),
        }
    }
}

/// Buckets that are not full, at most. Beyond it those nearest to full are forgotten first.
const BUCKETS_MAX: usize = 1 << 18;
/// Buckets are sharded, so that requests do not wait for one lock.
const SHARDS: usize = 16;

type Buckets = HashMap<(Class, Payer), Duration>;

/// All buckets of a server.
pub struct Limits {
    config: Config,
    shards: Vec<Mutex<Buckets>>,
    hasher: std::hash::RandomState,
}

impl Limits {
    /// All full.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect();
        Self { config, shards, hasher: std::hash::RandomState::new() }
    }

    /// Another server. The hash is secret, so that no server can choose a name that shares another's bucket.
    #[must_use]
    pub fn payer_of(&self, server: &ruma::ServerName) -> Payer {
        Payer::Server(std::hash::BuildHasher::hash_one(&self.hasher, server.as_str()))
    }

    /// Takes the cost from the payer's bucket. `now` is any clock that does not go back.
    ///
    /// # Errors
    /// 429 with the time after which the cost is there again.
    pub fn take(&self, limit: Limit, payer: Payer, now: Duration) -> Result<()> {
        let Some(rate) = self.config.rate(limit.class).filter(|_| self.config.enabled) else { return Ok(()) };
        if rate.per_second <= 0.0 {
            return Err(Error::limit_exceeded(Duration::from_secs(3600)));
        }
        let of = |tokens: u32| Duration::from_secs_f64((f64::from(tokens) / rate.per_second).min(1e9));
        let key = (limit.class, payer);
        let shard = std::hash::BuildHasher::hash_one(&self.hasher, key) as usize % SHARDS;
        let Some(mut buckets) = self.shards.get(shard).map(Mutex::lock) else { return Ok(()) };
        let full_at = buckets.get(&key).copied().unwrap_or(now).max(now) + of(limit.cost);
        let allowed_until = now + of(rate.burst.max(limit.cost));
        if full_at > allowed_until {
            return Err(Error::limit_exceeded(full_at.saturating_sub(allowed_until)));
        }
        if buckets.len() >= BUCKETS_MAX / SHARDS {
            forget(&mut buckets, now);
        }
        buckets.insert(key, full_at);
        Ok(())
    }
}

/// Forgets the buckets that are full again, and where that is not enough, the half that is nearest to it.
fn forget(buckets: &mut Buckets, now: Duration) {
    buckets.retain(|_, full_at| *full_at > now);
    if buckets.len() < BUCKETS_MAX / SHARDS / 2 {
        return;
    }
    let mut times: Vec<Duration> = buckets.values().copied().collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let median = *median;
    buckets.retain(|_, full_at| *full_at > median);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Payer = Payer::User(UserNo(1));
    const BOB: Payer = Payer::User(UserNo(2));

    fn limits() -> Limits {
        Limits::new(Config { send: Rate::new(2.0, 4), ..Config::default() })
    }

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let limits = limits();
        let at = Duration::from_millis;
        for _ in 0..4 {
            assert!(limits.take(Class::Send.into(), ALICE, at(1000)).is_ok());
        }
        assert!(limits.take(Class::Send.into(), ALICE, at(1000)).is_err());
        assert!(limits.take(Class::Send.into(), BOB, at(1000)).is_ok(), "another user has a bucket of their own");
        assert!(limits.take(Class::Read.into(), ALICE, at(1000)).is_ok(), "and so has another class");
        assert!(limits.take(Class::Send.into(), ALICE, at(1499)).is_err());
        assert!(limits.take(Class::Send.into(), ALICE, at(1500)).is_ok());
    }

    #[test]
    fn a_refused_request_costs_nothing_and_a_dear_one_is_possible() {
        let limits = limits();
        assert!(limits.take(Class::Send.cost(9), ALICE, Duration::ZERO).is_ok(), "a cost above the burst needs a full bucket");
        for _ in 0..100 {
            assert!(limits.take(Class::Send.into(), ALICE, Duration::ZERO).is_err());
        }
        assert!(limits.take(Class::Send.into(), ALICE, Duration::from_secs(5)).is_ok());
    }

    #[test]
    fn memory_is_bounded() {
        let limits = limits();
        for user in 0..2 * BUCKETS_MAX as u32 {
            assert!(limits.take(Class::Send.into(), Payer::User(UserNo(user)), Duration::ZERO).is_ok());
        }
        let kept: usize = limits.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(kept <= BUCKETS_MAX, "{kept}");
    }

    #[test]
    fn off_is_off() {
        let limits = Limits::new(Config { enabled: false, register: Rate::new(0.0, 0), ..Config::default() });
        assert!(limits.take(Class::Register.into(), ALICE, Duration::ZERO).is_ok());
    }
}
