//! Presence: who is online, who is idle, and what they say of themselves.
//!
//! What others see is a row that changes when a user comes, idles or goes: a few times a day, however often their clients ask. When a
//! device last asked or its user last did something is kept in memory only ([`Online`]); after a restart everybody who was online has a
//! moment to come back before they are shown as gone.
//!
//! Users who are online are always shown as `currently_active`: they become idle once they no longer are. So nobody is told of each of
//! their doings.
//!
//! Of a user of another server counts what that server says ([`Online::hears`]), until it has said nothing for long.
//!
//! Specification: client-server API, "Presence".

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use store::{Owner, Preset, Range, Read, Seq, Table, Topic, Tx, UserNo};

use crate::{Error, Result, accounts, devices::DeviceNo};

static PRESENCE: Table<UserNo, Presence> =
    Table::new("presence", "What others see of a user's presence, of those who ever had any.").owned_by(Owner::User);
static CHANGES: Table<(Seq, UserNo), ()> =
    Table::new("presence_changes", "Users in the order in which their presence last changed. Written under the user's lock.")
        .read_by(Preset::Scan);

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 2] = [PRESENCE.spec(), CHANGES.spec()];

/// How long one who does nothing is shown as online, in milliseconds.
pub const IDLE_MS: u64 = 5 * 60 * 1000;
/// How long a device counts as connected after its last sync was answered, in milliseconds: it is about to ask again.
pub const GONE_MS: u64 = 30 * 1000;
/// How long the word of another server holds that a user of it is not offline, in milliseconds. It must say so again before.
pub const WORD_HOLDS_MS: u64 = 30 * 60 * 1000;
/// The longest status message, in bytes: it is sent to all who share a room.
pub const STATUS_MAX_BYTES: usize = 1024;
/// The devices of a user that are told apart. More push out those that asked longest ago.
const DEVICES_MAX: usize = 16;
/// The users that one call of [`Online::due`] finds.
const DUE_MAX: usize = 1_000;

/// Whether someone can be reached. The greatest of what a user's devices say counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not connected, or not to be seen.
    #[default]
    Offline,
    /// Connected, but idle.
    Unavailable,
    /// Connected and active.
    Online,
}

/// What others see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Whether the user can be reached.
    pub state: State,
    /// What the user says.
    pub status_msg: Option<String>,
    /// When the user last did something, as of the change, in milliseconds since 1970.
    pub active_ms: Option<u64>,
    /// The commit that changed it: the key of the row in `presence_changes`.
    changed: Seq,
}

/// Presence as responses and events have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    presence: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_active_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_msg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currently_active: Option<bool>,
}

impl Shown {
    /// As servers tell each other, where the time of the last doing must be said: of one of whom nothing is known it is now.
    #[must_use]
    pub fn timed(mut self) -> Self {
        self.last_active_ago.get_or_insert_default();
        self
    }
}

/// What others see of a user: of one who never was online, that they are not.
///
/// # Errors
/// As the store.
pub fn presence(db: &impl Read, user: UserNo) -> store::Result<Presence> {
    Ok(db.get(&PRESENCE, &user)?.unwrap_or_default())
}

/// Users whose presence changed after `from`, the last first, at most `limit`.
///
/// # Errors
/// As the store.
pub fn changed_since(db: &impl Read, from: Seq, limit: usize) -> store::Result<Vec<UserNo>> {
    let range = Range::of(&()).after(&(from, UserNo(u32::MAX))).reversed();
    db.range(&CHANGES, &range)?.take(limit).map(|row| row.map(|((_, user), ())| user)).collect()
}

/// Users whose presence changed after `from`, each with the commit of its last change, the first first, at most `limit`.
///
/// # Errors
/// As the store.
pub fn changed_after(db: &impl Read, from: Seq, limit: usize) -> store::Result<Vec<(Seq, UserNo)>> {
    let range = Range::of(&()).after(&(from, UserNo(u32::MAX)));
    db.range(&CHANGES, &range)?.take(limit).map(|row| row.map(|(change, ())| change)).collect()
}

/// What a user wants to say from now on.
///
/// # Errors
/// [`Error::InvalidParam`] for one that is too long.
pub fn check_status(status: &str) -> Result<()> {
    if status.len() > STATUS_MAX_BYTES {
        return Err(Error::InvalidParam("a status message has at most 1024 bytes"));
    }
    Ok(())
}

/// Stores what the devices of a user say now, and the status message where it is set or unset. Returns whether that changed anything.
/// Asks for the commit's number where it did, so call it late.
///
/// # Errors
/// [`store::Error::Unlocked`] without the user's lock.
pub fn put(tx: &mut Tx<'_>, online: &Online, user: UserNo, status: Option<Option<String>>, now_ms: u64) -> store::Result<bool> {
    let (state, active_ms) = online.show(user, now_ms);
    let before = tx.get(&PRESENCE, &user)?;
    let was = before.clone().unwrap_or_default();
    let status_msg = status.unwrap_or_else(|| was.status_msg.clone());
    if (was.state, &was.status_msg) == (state, &status_msg) {
        return Ok(false);
    }
    let changed = tx.seq();
    if before.is_some() {
        tx.delete(&CHANGES, &(was.changed, user))?;
    }
    tx.put(&CHANGES, &(changed, user), &())?;
    tx.put(&PRESENCE, &user, &Presence { state, status_msg, active_ms: active_ms.or(was.active_ms), changed })?;
    tx.touch(Topic::Presence);
    Ok(true)
}

/// Forgets what a user who goes for good said.
pub(crate) fn forget(tx: &mut Tx<'_>, user: UserNo) -> store::Result<()> {
    if let Some(presence) = tx.get(&PRESENCE, &user)? {
        tx.delete(&CHANGES, &(presence.changed, user))?;
        tx.delete(&PRESENCE, &user)?;
    }
    Ok(())
}

/// Who is connected, and when they last did something. It grows with those who are online and no further.
#[derive(Default)]
pub struct Online {
    users: Mutex<HashMap<UserNo, Entry>>,
    recovered: AtomicBool,
}

#[derive(Default)]
struct Entry {
    connections: Vec<Connection>,
    /// Of a user of another server, what that said last; nothing where they are offline.
    word: Option<Word>,
    active_ms: u64,
    /// What others were last shown.
    shown: State,
}

struct Word {
    state: State,
    currently_active: bool,
    said_ms: u64,
}

impl Word {
    fn holds(&self, now_ms: u64) -> bool {
        now_ms < self.said_ms.saturating_add(WORD_HOLDS_MS)
    }
}

struct Connection {
    device: DeviceNo,
    says: State,
    /// Requests of it that wait for news.
    waiting: u32,
    seen_ms: u64,
}

impl Connection {
    fn is_open(&self, now_ms: u64) -> bool {
        self.waiting > 0 || now_ms < self.seen_ms.saturating_add(GONE_MS)
    }
}

impl Entry {
    fn state(&self, now_ms: u64) -> State {
        if let Some(word) = &self.word {
            return if word.holds(now_ms) { word.state } else { State::Offline };
        }
        let open = self.connections.iter().filter(|connection| connection.is_open(now_ms));
        match open.map(|connection| connection.says).max().unwrap_or_default() {
            State::Online if now_ms >= self.active_ms.saturating_add(IDLE_MS) => State::Unavailable,
            state => state,
        }
    }

    fn connection(&mut self, device: DeviceNo) -> &mut Connection {
        let known = self.connections.iter().position(|connection| connection.device == device);
        let at = known.unwrap_or_else(|| {
            let oldest = self.connections.iter().enumerate().min_by_key(|(_, connection)| connection.seen_ms);
            if let Some((oldest, _)) = oldest.filter(|_| self.connections.len() >= DEVICES_MAX) {
                self.connections.swap_remove(oldest);
            }
            self.connections.push(Connection { device, says: State::Offline, waiting: 0, seen_ms: 0 });
            self.connections.len() - 1
        });
        &mut self.connections[at]
    }
}

/// By what a device says something of its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A sync, which may wait: [`Online::left`] follows.
    Sync,
    /// The user's word.
    Word,
}

impl Online {
    /// A device says how its user is; `None`, by a sync that does not, that they are online, be it that they do nothing. Returns whether
    /// others see a change, which is then to be stored by [`put`].
    pub fn says(&self, user: UserNo, device: DeviceNo, state: Option<State>, by: By, now_ms: u64) -> bool {
        let mut users = self.users.lock();
        if state == Some(State::Offline) && by == By::Sync && !users.contains_key(&user) {
            return false;
        }
        let entry = users.entry(user).or_default();
        let connection = entry.connection(device);
        // To come online is to do something, and so is to say so; to go on asking is not.
        let comes = !connection.is_open(now_ms) || connection.says != State::Online;
        connection.says = state.unwrap_or(State::Online);
        connection.seen_ms = now_ms;
        connection.waiting += u32::from(by == By::Sync);
        if connection.says == State::Online && (comes || state.is_some()) {
            entry.active_ms = now_ms;
        }
        entry.state(now_ms) != entry.shown
    }

    /// A sync of a device was answered, or nobody waits for it any more.
    pub fn left(&self, user: UserNo, device: DeviceNo, now_ms: u64) {
        let mut users = self.users.lock();
        let Some(entry) = users.get_mut(&user) else { return };
        if let Some(connection) = entry.connections.iter_mut().find(|connection| connection.device == device) {
            connection.waiting = connection.waiting.saturating_sub(1);
            connection.seen_ms = now_ms;
        }
    }

    /// A user does something on a device: who was idle no longer is. Returns as [`Online::says`].
    pub fn acts(&self, user: UserNo, device: DeviceNo, now_ms: u64) -> bool {
        let mut users = self.users.lock();
        let Some(entry) = users.get_mut(&user) else { return false };
        entry.active_ms = now_ms;
        let of_device = entry.connections.iter_mut().find(|connection| connection.device == device);
        if let Some(idle) = of_device.filter(|connection| connection.says == State::Unavailable) {
            idle.says = State::Online;
        }
        entry.state(now_ms) != entry.shown
    }

    /// Another server says how a user of it is, and when they last did something. [`put`] stores it where others see a change.
    pub fn hears(&self, user: UserNo, state: State, currently_active: bool, active_ms: u64, now_ms: u64) {
        let mut users = self.users.lock();
        if state == State::Offline && !users.contains_key(&user) {
            return;
        }
        let entry = users.entry(user).or_default();
        entry.active_ms = active_ms;
        entry.word = (state != State::Offline).then_some(Word { state, currently_active, said_ms: now_ms });
    }

    /// Presence as it is told at this moment.
    #[must_use]
    pub fn shown(&self, user: UserNo, presence: Presence, now_ms: u64) -> Shown {
        let said = || self.users.lock().get(&user)?.word.as_ref().map(|word| word.currently_active);
        let currently_active = match presence.state {
            State::Offline => None,
            State::Unavailable => Some(false),
            State::Online => Some(said().unwrap_or(true)),
        };
        let active_ms = self.active_ms(user).max(presence.active_ms);
        Shown {
            presence: presence.state,
            last_active_ago: active_ms.map(|active_ms| now_ms.saturating_sub(active_ms)),
            status_msg: presence.status_msg,
            currently_active,
        }
    }

    /// The users whom others see as online or idle.
    pub fn seen(&self) -> Vec<UserNo> {
        self.users.lock().iter().filter(|(_, entry)| entry.shown != State::Offline).map(|(user, _)| *user).collect()
    }

    /// When a user who is online last did something, in milliseconds since 1970.
    #[must_use]
    pub fn active_ms(&self, user: UserNo) -> Option<u64> {
        self.users.lock().get(&user).map(|entry| entry.active_ms).filter(|active_ms| *active_ms > 0)
    }

    /// How a user is now, and when they last did something, taken as shown.
    fn show(&self, user: UserNo, now_ms: u64) -> (State, Option<u64>) {
        let mut users = self.users.lock();
        let Some(entry) = users.get_mut(&user) else { return (State::Offline, None) };
        entry.shown = entry.state(now_ms);
        (entry.shown, Some(entry.active_ms).filter(|active_ms| *active_ms > 0))
    }

    /// Users of whom time made something else than others see, and forgets those who are gone.
    pub fn due(&self, now_ms: u64) -> Vec<UserNo> {
        let mut users = self.users.lock();
        users.retain(|_, entry| {
            entry.connections.retain(|connection| connection.is_open(now_ms));
            entry.word.take_if(|word| !word.holds(now_ms));
            entry.shown != State::Offline || !entry.connections.is_empty() || entry.word.is_some()
        });
        let due = users.iter().filter(|(_, entry)| entry.state(now_ms) != entry.shown);
        due.map(|(user, _)| *user).take(DUE_MAX).collect()
    }

    /// Once after a start: gives those who were online before it the time to come back, and other servers the time to speak of theirs.
    ///
    /// # Errors
    /// As the store.
    pub fn recover(&self, db: &impl Read, now_ms: u64) -> store::Result<()> {
        if self.recovered.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        for row in db.range(&PRESENCE, &Range::of(&()))? {
            let (user, Presence { state, active_ms, .. }) = row?;
            if state == State::Offline {
                continue;
            }
            let is_local = accounts::account(db, user)?.is_some();
            let mut users = self.users.lock();
            let entry = users.entry(user).or_default();
            if !entry.connections.is_empty() || entry.word.is_some() {
                continue;
            }
            (entry.active_ms, entry.shown) = (active_ms.unwrap_or_default(), state);
            if is_local {
                // No device has the number 0.
                entry.connections.push(Connection { device: DeviceNo(0), says: state, waiting: 0, seen_ms: now_ms });
            } else {
                entry.word = Some(Word { state, currently_active: state == State::Online, said_ms: now_ms });
            }
        }
        Ok(())
    }
}
