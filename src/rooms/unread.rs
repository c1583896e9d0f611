//! Unread notifications: counted when they are read, from how far the user has read, so that a message costs its sender nothing
//! for each member.
//!
//! Specification: client-server API, "Receiving notifications" and "Marking notifications as read".

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
use store::{Read, RoomNo};

use crate::{
    Pos, Result, Sender,
    events::StoredEvent,
    head, members,
    members::Membership,
    numbers, receipts, state, threads,
    timeline::{self, Direction},
};

/// The most events that are looked at for one count, the newest. Clients show "99+" long before.
pub const SCANNED_MAX: usize = 1_000;

/// How many notifications are unread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
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
    fn add(&mut self, thread: Option<OwnedEventId>, counts: Counts) {
        thread.map_or(&mut self.main, |root| self.threads.entry(root).or_default()).add(counts);
    }

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
}

/// The unread notifications of a user who is in the room, up to a place: of events after the one they joined with, after their
/// receipts, and after the last event that they sent themselves (in its thread).
///
/// # Errors
/// As the database says.
pub fn unread(db: &impl Read, room: RoomNo, reader: &Reader<'_>, until: Pos) -> Result<Unread> {
    let mut unread = Unread::default();
    let standing = members::user_room(db, reader.user.no, room)?;
    let Some(standing) = standing.filter(|standing| standing.membership == Membership::Join) else { return Ok(unread) };
    let read = receipts::positions(db, room, reader.user.no)?;
    let floor = standing.pos.max(read.everywhere.unwrap_or(standing.pos));
    // What is at the floor or before it is read, and most rooms have nothing after it.
    let mut after = timeline::read(db, room, Direction::Backward, until, Some(floor))?.take(SCANNED_MAX).peekable();
    if after.peek().is_none() {
        return Ok(unread);
    }
    let facts = Facts::new(db, room, reader)?;
    let levels = facts.levels();
    let mut by_thread = read.by_thread;
    for placed in after {
        let placed = placed?;
        let stored = &placed.stored;
        if stored.header.redacted_by.is_some() || reader.ignored.contains(&stored.event.sender) {
            continue;
        }
        let thread = threads::root(db, room, &stored.event)?;
        if stored.header.sender == reader.user.no {
            let read = by_thread.entry(thread).or_insert(placed.pos);
            *read = placed.pos.max(*read);
            continue;
        }
        if by_thread.get(&thread).is_some_and(|read| *read >= placed.pos) {
            continue;
        }
        let counts = facts.judge(reader, stored, levels);
        if counts.notifications > 0 {
            unread.add(thread, counts);
        }
    }
    Ok(unread)
}

/// The unread notifications up to a place, from those up to an earlier one: since then the user's receipts, push rules and
/// membership must not have changed. `None` where a full count is needed, because of an event of their own or a redaction.
///
/// # Errors
/// As the database says.
pub fn unread_since(
    db: &impl Read,
    room: RoomNo,
    reader: &Reader<'_>,
    before: &Unread,
    from: Pos,
    until: Pos,
) -> Result<Option<Unread>> {
    let mut unread = before.clone();
    let mut facts = None;
    for (scanned, placed) in timeline::read(db, room, Direction::Forward, from, Some(until))?.enumerate() {
        let stored = placed?.stored;
        if scanned == SCANNED_MAX || stored.header.sender == reader.user.no || stored.event.kind == "m.room.redaction" {
            return Ok(None);
        }
        if reader.ignored.contains(&stored.event.sender) {
            continue;
        }
        if facts.is_none() {
            facts = Some(Facts::new(db, room, reader)?);
        }
        let counts = facts.as_ref().map(|facts| facts.judge(reader, &stored, facts.levels())).unwrap_or_default();
        if counts.notifications > 0 {
            unread.add(threads::root(db, room, &stored.event)?, counts);
        }
    }
    Ok(Some(unread))
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

    fn judge(&self, reader: &Reader<'_>, stored: &StoredEvent, levels: Option<PowerLevels<'_>>) -> Counts {
        let event = PushEvent::new(&stored.event, self.joined, levels);
        let member = Member { user: &reader.user.id, display_name: self.display_name.as_deref() };
        let matched = push::evaluate(reader.rules, &event, member);
        matched.map_or_else(Counts::default, |matched| Counts {
            notifications: matched.notifies().into(),
            highlights: matched.highlights().into(),
        })
    }
}
