//! Unread notifications: judged when they are read, so that a message costs its sender nothing for each member.
//!
//! Each event is judged once for a user, by the push rules of the time when their unread events are next counted: that is, for
//! who syncs, when it comes. A [`Tally`] holds what came out of it, so that a count goes on from the last one.
//!
//! Specification: client-server API, "Receiving notifications" and "Marking notifications as read".

mod tally;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{
    power_levels::PowerLevels,
    push::{self, Member, PushEvent},
};
use ruma::{OwnedEventId, OwnedUserId, push::Ruleset};
use serde::{Deserialize, Serialize};
use store::{Lock, Owner, Pending, Read, RoomNo, Seq, Store, Table, UserNo};

pub use self::tally::{SCANNED_MAX, Tally};
use crate::{Result, Sender, events::StoredEvent, head, numbers, state};

pub(crate) static TALLIES: Table<(UserNo, RoomNo), Tally> =
    Table::new("unread", "What a user has not read of a room, as it was counted up to some event: counts go on from there.")
        .owned_by(Owner::User);

/// How many notifications are unread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All of them.
    #[serde(rename = "notification_count")]
    pub notifications: u32,
    /// Those that are highlighted.
    #[serde(rename = "highlight_count")]
    pub highlights: u32,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.notifications += other.notifications;
        self.highlights += other.highlights;
    }

    fn add_one(&mut self, highlight: bool) {
        self.add(Self { notifications: 1, highlights: highlight.into() });
    }
}

/// The unread notifications of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// What is in no thread.
    pub main: Counts,
    /// By the root of the thread: those with any.
    pub threads: BTreeMap<OwnedEventId, Counts>,
}

impl Unread {
    /// Those of all threads together, as clients without threads see them.
    #[must_use]
    pub fn total(&self) -> Counts {
        let mut total = self.main;
        self.threads.values().for_each(|counts| total.add(*counts));
        total
    }
}

/// Whose notifications are counted.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The user.
    pub user: &'a Sender,
    /// Their push rules.
    pub rules: &'a Ruleset,
    /// Whom they ignore.
    pub ignored: &'a BTreeSet<OwnedUserId>,
    /// The commit that last changed whom they ignore.
    pub ignored_as_of: Seq,
}

/// What was counted of a room for a user and stored; nothing, if it never was.
///
/// # Errors
/// As the database says.
pub fn stored(db: &impl Read, user: UserNo, room: RoomNo) -> Result<Tally> {
    Ok(db.get(&TALLIES, &(user, room))?.unwrap_or_default())
}

/// Stores how far was counted, so that a count after a restart need not begin anew. Nothing is lost if it is not on disk.
///
/// # Errors
/// As the database says.
pub fn save(store: &Store, user: UserNo, tallies: &[(RoomNo, Tally)]) -> Result<Pending<()>> {
    store.transact(&[Lock::User(user)], |tx| {
        for (room, tally) in tallies {
            if stored(tx, user, *room)?.is_before(tally) {
                tx.put(&TALLIES, &(user, *room), tally)?;
            }
        }
        Ok(())
    })
}

/// What push rules ask of the room.
struct Facts {
    room: Arc<numbers::Room>,
    create: Option<Arc<StoredEvent>>,
    levels: Option<Arc<StoredEvent>>,
    joined: u64,
    display_name: Option<String>,
}

impl Facts {
    fn new(db: &impl Read, room: RoomNo, reader: &Reader<'_>) -> Result<Self> {
        #[derive(Deserialize)]
        struct Content {
            displayname: Option<String>,
        }
        let head = head(db, room)?;
        let member: Option<Content> = state::content(db, room, head.state, "m.room.member", reader.user.id.as_str())?;
        Ok(Self {
            room: numbers::room(db, room)?,
            create: state::event(db, room, head.state, "m.room.create", "")?,
            levels: state::event(db, room, head.state, "m.room.power_levels", "")?,
            joined: head.joined.into(),
            display_name: member.and_then(|member| member.displayname),
        })
    }

    fn levels(&self) -> Option<PowerLevels<'_>> {
        let (create, levels) = (self.create.as_ref(), self.levels.as_ref());
        PowerLevels::new(self.room.version().ok()?, create.map(|stored| &*stored.event), levels.map(|stored| &*stored.event)).ok()
    }

    /// Whether an event notifies the reader, and if so, whether it is highlighted.
    fn judge(&self, reader: &Reader<'_>, stored: &StoredEvent, levels: Option<PowerLevels<'_>>) -> Option<bool> {
        let event = PushEvent::new(&stored.event, self.joined, levels);
        let member = Member { user: &reader.user.id, display_name: self.display_name.as_deref() };
        let matched = push::evaluate(reader.rules, &event, member)?;
        matched.notifies().then(|| matched.highlights())
    }
}
