//! The device lists of other servers' users, as far as they are kept: whether they are to be trusted, and fetching anew those of which something was missed.
//!
//! Specification: server-server API, "Device Management". A server tells of its users' devices whoever shares a room with them. So what is kept is
//! current where a room was shared without a break since it was asked for, and every update that came since followed the one before.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use rooms::{Pos, members};
use ruma::{OwnedServerName, OwnedUserId, ServerName};
use store::{Lock, Read, Topic, Tx, UserNo};
use tokio::{sync::Notify, task::JoinSet};
use users::{
    device_lists::{self, DeviceList},
    foreign_keys::UserKeys,
    key_changes, numbers,
};

use crate::{Error, Federation, Result, edus::ROOMS_MAX, gates::Gates};

/// Lists that are fetched at one time, each of another server: one that tells of missing changes without end is asked by one request after the other.
const AT_ONCE: usize = 5;
/// Users of one server whose lists are to be fetched. Those of more are fetched when somebody asks for their keys.
const WAITING_MAX: usize = 1_000;
/// How long users wait whose server does not answer.
const WAIT: Duration = Duration::from_secs(60);
/// How often those who wait are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Users up to whom lists are read at once; more are read beside the threads that serve requests.
const INLINE_MAX: usize = 50;
/// Lists that are kept in one write.
const KEPT_AT_ONCE: usize = 100;

/// Users of whose devices something was missed.
#[derive(Default)]
pub(crate) struct Fetching {
    due: Mutex<BTreeMap<OwnedServerName, Due>>,
    changed: Notify,
    /// One who fetches each user's list.
    alone: Gates<UserNo>,
}

/// Those of one server.
#[derive(Default)]
struct Due {
    users: BTreeSet<UserNo>,
    /// When the server is asked.
    at: Duration,
}

impl Fetching {
    /// Has the lists of users of a server fetched.
    pub(crate) fn due(&self, server: &ServerName, users: BTreeSet<UserNo>) {
        if users.is_empty() {
            return;
        }
        let mut due = self.due.lock();
        let due = &mut due.entry(server.to_owned()).or_default().users;
        due.extend(users.into_iter().take(WAITING_MAX.saturating_sub(due.len())));
        self.changed.notify_one();
    }

    fn later(&self, server: OwnedServerName, user: UserNo, now: Duration) {
        let mut due = self.due.lock();
        let due = due.entry(server).or_default();
        due.users.insert(user);
        due.at = now + WAIT;
    }

    /// The next user of each server that is asked for none yet.
    fn next(&self, now: Duration, busy: &BTreeSet<OwnedServerName>) -> Vec<(OwnedServerName, UserNo)> {
        let mut due = self.due.lock();
        let ready = due.iter_mut().filter(|(server, due)| due.at <= now && !busy.contains(*server));
        let ready = ready.take(AT_ONCE.saturating_sub(busy.len()));
        let next = ready.filter_map(|(server, due)| Some((server.clone(), due.users.pop_first()?))).collect();
        due.retain(|_, due| !due.users.is_empty());
        next
    }

    fn is_idle(&self) -> bool {
        self.due.lock().is_empty()
    }
}

/// What a kept list is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is what the user's server would answer.
    Current,
    /// Something was missed.
    Stale,
    /// No room was shared meanwhile, so that it is not known what was missed.
    Broken,
}

/// A kept list of a user with whom a room is shared.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub user: UserNo,
    pub standing: Standing,
    pub keys: UserKeys,
}

impl Federation {
    /// What is kept of these users.
    pub(crate) async fn kept_lists(&self, users: Vec<OwnedUserId>) -> Result<BTreeMap<OwnedUserId, Kept>> {
        let (db, own) = (self.store.snapshot(), self.name().to_owned());
        let large = users.len() > INLINE_MAX;
        let work = move || {
            let kept = users.into_iter().filter_map(|id| Some(kept(&db, &own, &id).transpose()?.map(|kept| (id, kept))));
            kept.collect()
        };
        if large { self.computed(work).await? } else { work() }
    }

    /// Keeps what was told of users with whom a room is shared, and forgets what is kept of others.
    pub(crate) async fn keep_lists(&self, lists: Vec<(OwnedUserId, DeviceList)>) -> Result<()> {
        let db = self.store.snapshot();
        let mut known = Vec::new();
        for (id, list) in lists {
            known.extend(numbers::number(&db, &id)?.map(|user| (user, list)));
        }
        drop(db);
        for lists in known.chunks(KEPT_AT_ONCE) {
            let locks: Vec<Lock> = lists.iter().map(|(user, _)| Lock::User(*user)).collect();
            self.store.transact(&locks, |tx| self.keep_told(tx, lists))?.durable().await?;
        }
        Ok(())
    }

    fn keep_told(&self, tx: &mut Tx<'_>, lists: &[(UserNo, DeviceList)]) -> Result<()> {
        let mut changed = Vec::new();
        for (user, list) in lists {
            if members::shared_since(tx, self.name(), *user)?.is_none() {
                device_lists::forget(tx, *user)?;
            } else if device_lists::keep(tx, *user, list)? {
                changed.push(*user);
            }
        }
        for user in changed {
            let rooms: Vec<Topic> = members::joined_rooms(tx, user)?.into_iter().take(ROOMS_MAX).map(Topic::Room).collect();
            key_changes::record(tx, user, None, &rooms)?;
        }
        Ok(())
    }

    /// Fetches stale lists anew that a client waits for. One that cannot be had stays as it is.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub(crate) async fn refresh_lists(&self, users: Vec<UserNo>, timeout: Duration) -> Result<()> {
        let refreshing = stream::iter(users).for_each_concurrent(AT_ONCE, |user| async move {
            if let Err(error) = self.refresh_list(user).await {
                tracing::debug!(%error, "a list of devices was not told");
            }
        });
        tokio::time::timeout(timeout, refreshing).await.map_err(|_| Error::TimedOut)
    }

    /// Fetches a list anew, unless it is current when it is this one's turn.
    async fn refresh_list(&self, user: UserNo) -> Result<()> {
        let gate = self.device_lists.alone.at(user);
        let _alone = gate.lock().await;
        let db = self.store.snapshot();
        let id = numbers::user_id(&db, user)?;
        if kept(&db, self.name(), &id)?.is_none_or(|kept| kept.standing == Standing::Current) {
            return Ok(());
        }
        let asked = db.seq();
        drop(db);
        let told = self.devices(&id).await?;
        let list = DeviceList { stream_id: Some(told.stream_id), asked, stale: false, keys: told.keys };
        self.keep_lists(vec![(id, list)]).await
    }

    /// Fetches lists anew that are due. What is due at the end is fetched when somebody asks for those keys.
    pub(crate) async fn fetch_device_lists(self: &Arc<Self>) -> Infallible {
        let mut under_way: JoinSet<OwnedServerName> = JoinSet::new();
        let mut busy: BTreeSet<OwnedServerName> = BTreeSet::new();
        loop {
            for (server, user) in self.device_lists.next(self.clock.elapsed(), &busy) {
                busy.insert(server.clone());
                let federation = Arc::clone(self);
                under_way.spawn(async move {
                    federation.fetch_device_list(&server, user).await;
                    server
                });
            }
            tokio::select! {
                biased;
                () = self.device_lists.changed.notified() => {}
                Some(done) = under_way.join_next() => {
                    if let Ok(server) = done { busy.remove(&server); }
                }
                () = tokio::time::sleep(TICK), if !self.device_lists.is_idle() => {}
            }
        }
    }

    async fn fetch_device_list(&self, server: &ServerName, user: UserNo) {
        let Err(error) = self.refresh_list(user).await else { return };
        tracing::debug!(%error, %server, user = user.0, "a list of devices was not told");
        // One that refuses is asked again when somebody needs the list.
        if matches!(error, Error::Unreachable(_) | Error::TimedOut | Error::BackedOff { .. }) {
            self.device_lists.later(server.to_owned(), user, self.clock.elapsed());
        }
    }
}

/// What is kept of a user with whom a room is shared.
fn kept(db: &impl Read, own: &ServerName, id: &OwnedUserId) -> Result<Option<Kept>> {
    let Some(user) = numbers::number(db, id)? else { return Ok(None) };
    let Some(list) = device_lists::list(db, user)? else { return Ok(None) };
    let Some(since) = members::shared_since(db, own, user)? else { return Ok(None) };
    let standing = match (since <= Pos::last_of(list.asked), list.stale) {
        (false, _) => Standing::Broken,
        (true, true) => Standing::Stale,
        (true, false) => Standing::Current,
    };
    Ok(Some(Kept { user, standing, keys: list.keys }))
}
