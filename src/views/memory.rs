//! What views remember between requests. No answer needs it to be right: it only makes some of them cheap or short.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};
use rooms::{
    EventNo, Pos,
    members::{self, UserRoom},
    unread::{self, Reader, Tally, Unread},
};
use ruma::push::Ruleset;
use store::{RoomNo, Seq, Snapshot, Topic, UserNo};
use users::{
    account_data::{self, PUSH_RULES},
    devices::DeviceNo,
    push_rules,
};

use crate::Result;

/// Each of the four parts of the memory gets as many entries as fit a quarter of the budget, by what they mostly weigh, in bytes.
mod weights {
    /// A row of a list of rooms.
    pub const LISTED: usize = 80;
    /// The members of a room that were sent to a device: mostly few, at most [`super::SENT_MAX`].
    pub const SENT: usize = 512;
    /// What was counted of a room for a user: at most 2 KB, and mostly next to nothing.
    pub const COUNTED: usize = 512;
    /// A user's push rules.
    pub const RULES: usize = 10_000;
}
/// The rooms of a list that the map of lists is made for.
const ROOMS_ESTIMATE: usize = 64;
/// The members of a room that a device is known to have. A device that has more is sent some again.
const SENT_MAX: usize = 100;

/// The events that are judged for a count before it is worth storing: so many are judged again, at most, after a restart.
const STORED_EVERY: usize = 128;
/// The users whose counts wait to be stored.
const UNSAVED_MAX: usize = 1 << 10;

/// All rooms that a user has to do with, in order of their numbers.
pub type RoomList = Vec<(RoomNo, UserRoom)>;

struct Listed {
    as_of: Seq,
    rooms: Arc<RoomList>,
}

#[derive(Clone)]
struct ByRooms;

impl Weighter<UserNo, Arc<Listed>> for ByRooms {
    fn weight(&self, _: &UserNo, listed: &Arc<Listed>) -> u64 {
        1 + listed.rooms.len() as u64
    }
}

/// The member events that a device has of a room, with the position of the answer that brought each.
type Sent = Arc<Mutex<HashMap<EventNo, Seq>>>;

/// What was counted of a room for a user.
struct Counted {
    tally: Tally,
    /// The events that were judged since it was last stored.
    unsaved: usize,
}

/// A server's memory.
pub struct Memory {
    counted: Cache<(UserNo, RoomNo), Arc<Mutex<Counted>>>,
    unsaved: Mutex<HashMap<UserNo, Vec<(RoomNo, Tally)>>>,
    lists: Cache<UserNo, Arc<Listed>, ByRooms>,
    sent: Cache<(UserNo, DeviceNo, RoomNo), Sent>,
    /// With the commit that set them.
    rules: Cache<UserNo, (Seq, Arc<Ruleset>)>,
}

impl Memory {
    /// A memory that takes about as many bytes as this.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let part = |weight: usize| (bytes / 4 / weight).max(16);
        let listed = part(weights::LISTED);
        Self {
            lists: Cache::with_weighter(listed / ROOMS_ESTIMATE, listed as u64, ByRooms),
            sent: Cache::new(part(weights::SENT)),
            counted: Cache::new(part(weights::COUNTED)),
            unsaved: Mutex::default(),
            rules: Cache::new(part(weights::RULES)),
        }
    }

    /// All rooms that a user has to do with. They are read once, until something of the user's changes.
    ///
    /// # Errors
    /// As the database says.
    pub fn rooms(&self, db: &Snapshot, user: UserNo) -> Result<Arc<RoomList>> {
        if let Some(listed) = self.lists.get(&user)
            && listed.as_of <= db.seq()
            && db.changed_since(listed.as_of, [Topic::User(user)]).is_empty()
        {
            return Ok(Arc::clone(&listed.rooms));
        }
        let rooms = Arc::new(members::user_rooms(db, user)?);
        self.lists.insert(user, Arc::new(Listed { as_of: db.seq(), rooms: Arc::clone(&rooms) }));
        Ok(rooms)
    }

    /// The push rules of a user, which are read once after each change.
    ///
    /// # Errors
    /// As the database says.
    pub(crate) fn push_rules(&self, db: &Snapshot, user: UserNo) -> Result<Arc<Ruleset>> {
        let set_at = account_data::set_at(db, user, None, PUSH_RULES)?;
        if let Some((_, rules)) = self.rules.get(&user).filter(|(as_of, _)| *as_of == set_at) {
            return Ok(rules);
        }
        let rules = Arc::new(push_rules::rules(db, user)?);
        self.rules.insert(user, (set_at, Arc::clone(&rules)));
        Ok(rules)
    }

    /// What is unread for a user in a room, counted on from the last time.
    pub(crate) fn counted(&self, db: &Snapshot, reader: &Reader<'_>, room: RoomNo, until: Pos) -> Result<Unread> {
        let key = (reader.user.no, room);
        let counted = self.counted.get_or_insert_with(&key, || -> Result<_> {
            Ok(Arc::new(Mutex::new(Counted { tally: unread::stored(db, reader.user.no, room)?, unsaved: 0 })))
        })?;
        let mut counted = counted.lock();
        counted.unsaved += counted.tally.count(db, room, reader, until)?;
        if counted.unsaved >= STORED_EVERY {
            counted.unsaved = 0;
            let mut unsaved = self.unsaved.lock();
            // Of who does not come for theirs. Counting again is all it costs.
            if unsaved.len() >= UNSAVED_MAX {
                unsaved.clear();
            }
            unsaved.entry(reader.user.no).or_default().push((room, counted.tally.clone()));
        }
        Ok(counted.tally.unread(until))
    }

    /// What was counted for a user and is worth storing now ([`unread::save`]), so that it need not be counted again.
    #[must_use]
    pub fn unsaved(&self, user: UserNo) -> Vec<(RoomNo, Tally)> {
        self.unsaved.lock().remove(&user).unwrap_or_default()
    }

    /// The members of a room that a device has for certain: those of answers up to the one whose token it presents. What
    /// was in an answer that got lost is not among them.
    pub(crate) fn sent(&self, device: (UserNo, DeviceNo), room: RoomNo) -> SentMembers {
        let key = (device.0, device.1, room);
        SentMembers(self.sent.get(&key).unwrap_or_else(|| {
            let sent = Sent::default();
            self.sent.insert(key, Arc::clone(&sent));
            sent
        }))
    }
}

/// The member events that were sent to a device.
pub(crate) struct SentMembers(Sent);

impl SentMembers {
    /// Whether a device that presents this position has the member event.
    pub fn contains(&self, member: EventNo, since: Option<Seq>) -> bool {
        since.is_some_and(|since| self.0.lock().get(&member).is_some_and(|answered| *answered <= since))
    }

    /// Notes that an answer up to `until` brings these.
    pub fn note(&self, members: impl IntoIterator<Item = EventNo>, since: Option<Seq>, until: Seq) {
        let mut sent = self.0.lock();
        for member in members {
            if sent.len() >= SENT_MAX {
                sent.clear();
            }
            let answered = sent.entry(member).or_insert(until);
            // A device that presents less did not get, or has lost, the answer that brought it before.
            if since.is_none_or(|since| *answered > since) {
                *answered = until;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_known_once_its_answer_arrived() {
        let memory = Memory::new(1 << 20);
        let sent = || memory.sent((UserNo(1), DeviceNo(1)), RoomNo(1));
        sent().note([EventNo(5)], Some(Seq(10)), Seq(20));
        assert!(!sent().contains(EventNo(5), Some(Seq(10))), "the answer may be lost");
        assert!(sent().contains(EventNo(5), Some(Seq(20))) && !sent().contains(EventNo(6), Some(Seq(20))));
        sent().note([EventNo(5)], Some(Seq(10)), Seq(30));
        assert!(!sent().contains(EventNo(5), Some(Seq(20))), "it asked again: it never had the first answer");
        assert!(sent().contains(EventNo(5), Some(Seq(30))) && !sent().contains(EventNo(5), None));
        assert!(!memory.sent((UserNo(1), DeviceNo(2)), RoomNo(1)).contains(EventNo(5), Some(Seq(30))));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let memory = Memory::new(1 << 20);
        let sent = memory.sent((UserNo(1), DeviceNo(1)), RoomNo(1));
        for member in 0..10_000 {
            sent.note([EventNo(member)], None, Seq(1));
        }
        assert!(sent.0.lock().len() <= SENT_MAX);
    }
}
