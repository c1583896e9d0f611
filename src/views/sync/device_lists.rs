//! Whose devices a client must ask for again, and whose it may forget.
//!
//! Specification: client-server API, "Tracking the device list for a user". Users count as sharing a room whether it is
//! encrypted or not: it may become so, and clients look only at those whom they encrypt to.

use std::collections::BTreeSet;

use rooms::{
    Pos, events,
    members::{self, Membership, UserRoom},
    state::{self, Root},
    timeline,
};
use ruma::OwnedUserId;
use serde::Serialize;
use store::{RoomNo, Seq, Snapshot, UserNo};
use users::{key_changes, numbers};

use crate::{
    Memory, Result,
    sync::{
        Who,
        affected::{Extent, Part, affected},
    },
};

/// Changes of all users that are looked through before those with whom a room is shared are asked for one by one.
const CHANGES_MAX: usize = 10_000;
/// The most signatures of the own user that one response tells of.
const SIGNED_MAX: usize = 10_000;
/// Members of an unencrypted room who count as new to one who joins. Should a larger one be encrypted later, all its
/// members are told then.
const UNENCRYPTED_MAX: u32 = 1_000;

/// Whose devices changed, and with whom no room is shared any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceLists {
    /// Users whose devices or identity changed, or who share a room now.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub changed: BTreeSet<OwnedUserId>,
    /// Users who share no room any more.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub left: BTreeSet<OwnedUserId>,
}

impl DeviceLists {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }
}

/// How a room that the user was or is in moved.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// The room.
    pub room: RoomNo,
    /// Whether the user is in it.
    pub joined: bool,
    /// The state at the start, empty where the user was not in it.
    pub before: Root,
    /// The state at the end.
    pub after: Root,
}

/// What changed after `since`: what `/keys/changes` tells, and the syncs since then told.
///
/// # Errors
/// As the database says.
pub fn changes(db: &Snapshot, memory: &Memory, who: &Who, since: Seq) -> Result<DeviceLists> {
    let (since, now) = (since.min(db.seq()), Pos::last_of(db.seq()));
    let rooms = memory.rooms(db, who.user)?;
    let mut moved = Vec::new();
    for found in affected(db, who, &rooms, Extent { since: Some(since), all_joined: false, archived: false })? {
        let (joined, after, until) = match found.part {
            Part::Join { after } => (true, after, now),
            Part::Leave { seen: Some((after, until)) } => (false, after, until),
            Part::Leave { seen: None } | Part::Invite | Part::Knock => continue,
        };
        let at = |pos| timeline::state_at(db, found.room, pos);
        let before = after.filter(|_| !found.completed).map(at).transpose()?.unwrap_or_default();
        moved.push(Moved { room: found.room, joined, before, after: at(until)? });
    }
    device_lists(db, who, &rooms, since, &moved)
}

/// What changed after `since` for a user with these rooms, of which those in `moved` have news.
///
/// # Errors
/// As the database says.
pub fn device_lists(db: &Snapshot, who: &Who, rooms: &[(RoomNo, UserRoom)], since: Seq, moved: &[Moved]) -> Result<DeviceLists> {
    let from = Pos::last_of(since);
    let mut news = News { db, user: who.user, from, own: joined(rooms), changed: BTreeSet::new(), left: BTreeSet::new() };
    news.of_keys(who, since)?;
    for moved in moved {
        news.of_room(moved)?;
    }
    news.finish(who)
}

fn joined(rooms: &[(RoomNo, UserRoom)]) -> BTreeSet<RoomNo> {
    rooms.iter().filter(|(_, of)| of.membership == Membership::Join).map(|(room, _)| *room).collect()
}

struct News<'a> {
    db: &'a Snapshot,
    user: UserNo,
    /// From where the news are.
    from: Pos,
    own: BTreeSet<RoomNo>,
    changed: BTreeSet<UserNo>,
    /// Users who left a room that was shared, or whose room was left.
    left: BTreeSet<UserNo>,
}

impl News<'_> {
    fn shares(&self, user: UserNo) -> Result<bool> {
        let rooms = members::joined_rooms(self.db, user)?;
        Ok(rooms.iter().any(|room| self.own.contains(room)))
    }

    /// Changes of keys and devices.
    fn of_keys(&mut self, who: &Who, since: Seq) -> Result<()> {
        self.changed.extend(key_changes::signed_since(self.db, who.user, since, SIGNED_MAX)?);
        let Some(users) = key_changes::changed_since(self.db, since, CHANGES_MAX)? else { return self.of_all_members(since) };
        for user in users {
            if user == who.user || self.shares(user)? {
                self.changed.insert(user);
            }
        }
        Ok(())
    }

    /// [`News::of_keys`] after so many changes that it costs less to ask each user with whom a room is shared.
    fn of_all_members(&mut self, since: Seq) -> Result<()> {
        let mut seen = BTreeSet::new();
        for room in &self.own {
            for member in members::members(self.db, *room)? {
                let (user, membership) = member?;
                if membership == Membership::Join
                    && seen.insert(user)
                    && key_changes::last_change(self.db, user)?.is_some_and(|last| last > since)
                {
                    self.changed.insert(user);
                }
            }
        }
        Ok(())
    }

    /// Who came and went in a room.
    fn of_room(&mut self, moved: &Moved) -> Result<()> {
        let Moved { room, joined, before, after } = *moved;
        if !joined {
            return self.of_left_room(room);
        }
        if before == after {
            return Ok(());
        }
        let encrypted = |root| state::entry(self.db, room, root, "m.room.encryption", "").map(|event| event.is_some());
        let (was_encrypted, is_encrypted) = (encrypted(before)?, encrypted(after)?);
        if before == Root::default() || (is_encrypted && !was_encrypted) {
            return self.of_new_room(room, is_encrypted);
        }
        for (old, new) in state::difference_of(self.db, room, before, after, "m.room.member")? {
            let Some(new) = new else { continue };
            let new = events::event(self.db, room, new)?;
            let was_in = match old {
                Some(old) => Membership::of(&events::event(self.db, room, old)?.event) == Membership::Join,
                None => false,
            };
            let is_in = Membership::of(&new.event) == Membership::Join;
            let target = new.event.state_key.as_deref().and_then(|key| <&ruma::UserId>::try_from(key).ok());
            let Some(user) = target.map(|user| numbers::number(self.db, user)).transpose()?.flatten() else { continue };
            match (was_in, is_in) {
                (false, true) if user != self.user => drop(self.changed.insert(user)),
                (true, false) => drop(self.left.insert(user)),
                // Who went and came back was not followed meanwhile.
                (true, true) if user != self.user && self.came_back(room, user)? => drop(self.changed.insert(user)),
                _ => {}
            }
        }
        Ok(())
    }

    fn came_back(&self, room: RoomNo, user: UserNo) -> Result<bool> {
        Ok(members::user_room(self.db, user, room)?.and_then(|of| of.joined_from).is_some_and(|joined| joined > self.from))
    }

    fn of_new_room(&mut self, room: RoomNo, encrypted: bool) -> Result<()> {
        if !encrypted && rooms::head(self.db, room)?.joined > UNENCRYPTED_MAX {
            return Ok(());
        }
        for member in members::members(self.db, room)? {
            let (user, membership) = member?;
            // The user too: their other devices, which the room now shows to others, may be new to this one.
            if membership == Membership::Join {
                self.changed.insert(user);
            }
        }
        Ok(())
    }

    fn of_left_room(&mut self, room: RoomNo) -> Result<()> {
        for member in members::members(self.db, room)? {
            let (user, membership) = member?;
            if membership == Membership::Join {
                self.left.insert(user);
            }
        }
        Ok(())
    }

    fn finish(self, who: &Who) -> Result<DeviceLists> {
        let mut lists = DeviceLists::default();
        for user in self.left.difference(&self.changed) {
            if *user != who.user && !self.shares(*user)? {
                lists.left.insert(numbers::user_id(self.db, *user)?);
            }
        }
        for user in &self.changed {
            lists.changed.insert(numbers::user_id(self.db, *user)?);
        }
        Ok(lists)
    }
}
