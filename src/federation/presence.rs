//! Presence between servers: who is online is told to the servers that share a room, and believed of their users.
//!
//! What is told is gathered every few seconds, each user once with what they are by then, a message for each server and at most so many together in
//! one round: the cost is bounded by rounds, not by how often people come and go. Those for whom a round has no room are told of in the next.
//!
//! Specification: server-server API, "Presence".

use std::{collections::BTreeSet, time::Duration};

use rooms::{Pos, members, servers};
use ruma::{OwnedUserId, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Seq, Snapshot, UserNo};
use users::{
    numbers,
    presence::{self, Shown, State, WORD_HOLDS_MS},
};

use crate::{
    Federation, Result,
    edus::{Edu, ROOMS_MAX, of},
};

/// The rest between two rounds.
pub(crate) const SPREAD: Duration = Duration::from_secs(2);
/// The most users of one message, told or believed.
pub(crate) const USERS_MAX: usize = 100;
/// The most servers that are told of users in one round, each counted for each user.
const TOLD_MAX: usize = 5_000;
/// The most rows of servers that are looked at for one user.
const SERVERS_MAX: usize = 5_000;
/// The most changes that one round takes up.
const CHANGES_MAX: usize = 1_000;
/// When it is said again that users are online, in milliseconds: before others stop believing it.
const AGAIN_MS: u64 = WORD_HOLDS_MS - 5 * 60 * 1000;
/// How long after a start that is said first, in milliseconds: by then those who were online are back.
const FIRST_MS: u64 = 60 * 1000;

/// How far presence was told.
pub(crate) struct Spreading {
    through: Seq,
    again_ms: u64,
    /// Users of whom others are still to be told, and the one after whom the next round begins: each has their turn.
    users: BTreeSet<UserNo>,
    last: UserNo,
}

impl Spreading {
    /// From now on.
    pub(crate) fn at(db: &Snapshot, now_ms: u64) -> Self {
        Self { through: db.seq(), again_ms: now_ms.saturating_add(FIRST_MS), users: BTreeSet::new(), last: UserNo(0) }
    }

    fn next(&mut self) -> Option<UserNo> {
        let next = self.users.range(self.last..).next().or_else(|| self.users.first()).copied()?;
        self.users.remove(&next);
        self.last = next;
        Some(next)
    }
}

#[derive(Serialize)]
struct Telling {
    user_id: OwnedUserId,
    #[serde(flatten)]
    shown: Shown,
}

#[derive(Deserialize)]
pub(crate) struct Told {
    push: Vec<Value>,
}

#[derive(Deserialize)]
struct Said {
    user_id: OwnedUserId,
    presence: State,
    status_msg: Option<String>,
    #[serde(default)]
    last_active_ago: u64,
    #[serde(default)]
    currently_active: bool,
}

impl Federation {
    /// One round: queues for other servers whose presence they are to be told.
    pub(crate) fn spread_presence(&self) -> Result<()> {
        let Some(online) = self.online.as_ref().filter(|_| self.config.send_presence) else { return Ok(()) };
        let (db, now_ms) = (self.store.snapshot(), self.now_ms());
        let mut spreading = self.spreading.lock();
        if now_ms >= spreading.again_ms {
            spreading.again_ms = now_ms.saturating_add(AGAIN_MS);
            spreading.users.extend(online.seen());
        }
        for (at, user) in presence::changed_after(&db, spreading.through, CHANGES_MAX)? {
            spreading.through = at;
            spreading.users.insert(user);
        }
        let mut told = 0;
        while told < TOLD_MAX
            && let Some(user) = spreading.next()
        {
            if numbers::user_id(&db, user)?.server_name() == self.name() {
                let servers = self.sharing(&db, user, Pos::last_of(db.seq()), SERVERS_MAX)?;
                told += servers.len();
                self.outbound.presence(servers, user);
            }
        }
        Ok(())
    }

    /// The message that tells how these users are.
    pub(crate) fn presence_of(&self, users: &BTreeSet<UserNo>) -> Result<Option<Edu>> {
        let Some(online) = self.online.as_ref().filter(|_| !users.is_empty()) else { return Ok(None) };
        let (db, now_ms) = (self.store.snapshot(), self.now_ms());
        let mut push = Vec::with_capacity(users.len());
        for user in users {
            let shown = online.shown(*user, presence::presence(&db, *user)?, now_ms).timed();
            push.push(Telling { user_id: numbers::user_id(&db, *user)?, shown });
        }
        Edu::new("m.presence", &json!({ "push": push })).map(Some)
    }

    /// Believes what another server says of its users who share a room with users of this one.
    pub(crate) fn receive_presence(&self, origin: &ServerName, told: Told) -> Result<()> {
        if self.online.is_none() {
            return Ok(());
        }
        for said in told.push.into_iter().take(USERS_MAX) {
            match serde_json::from_value::<Said>(said) {
                Ok(said) if of(origin, &said.user_id).is_ok() => self.believe(said)?,
                _ => tracing::debug!(server = %origin, "the presence of a user was left out"),
            }
        }
        Ok(())
    }

    fn believe(&self, said: Said) -> Result<()> {
        let db = self.store.snapshot();
        let Some(online) = &self.online else { return Ok(()) };
        let Some(user) = numbers::number(&db, &said.user_id)? else { return Ok(()) };
        if !self.meets(&db, user)? {
            return Ok(());
        }
        let now_ms = self.now_ms();
        let status = said.status_msg.filter(|status| presence::check_status(status).is_ok());
        online.hears(user, said.presence, said.currently_active, now_ms.saturating_sub(said.last_active_ago), now_ms);
        let known = presence::presence(&db, user)?;
        if (known.state, &known.status_msg) != (said.presence, &status) {
            rooms::presence::publish(&self.store, online, user, Some(status), now_ms)?.soft();
        }
        Ok(())
    }

    /// Whether a user of another server is in a room that this server is in.
    fn meets(&self, db: &Snapshot, user: UserNo) -> Result<bool> {
        for room in members::joined_rooms(db, user)?.into_iter().take(ROOMS_MAX) {
            if servers::is_in(db, room, self.name())? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
