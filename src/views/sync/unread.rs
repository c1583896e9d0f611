//! How many notifications of a room are unread, as a sync tells it.
//!
//! Specification: client-server API, "Receiving notifications" and "Threading", "Server-side aggregation".

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
};

use rooms::{
    Pos, Sender, receipts,
    unread::{self, Counts, Reader},
};
use ruma::{OwnedEventId, OwnedUserId, push::Ruleset};
use serde::Serialize;
use store::{RoomNo, Seq, Snapshot};
use users::push_rules;

use crate::{Memory, Result, sync::Who};

/// The counts of a room.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Unread {
    /// Those of all threads together, or of none where each is told.
    #[serde(rename = "unread_notifications")]
    pub room: Counts,
    /// Those of the threads with any.
    #[serde(rename = "unread_thread_notifications", skip_serializing_if = "BTreeMap::is_empty")]
    pub threads: BTreeMap<OwnedEventId, Counts>,
}

/// Counts for one reader, whose push rules are read once, if at all.
pub struct Counter<'a> {
    db: &'a Snapshot,
    memory: &'a Memory,
    reader: Sender,
    ignored: &'a BTreeSet<OwnedUserId>,
    rules: OnceCell<Ruleset>,
}

impl<'a> Counter<'a> {
    /// A counter for a user who ignores some others.
    #[must_use]
    pub fn new(db: &'a Snapshot, memory: &'a Memory, who: &Who, ignored: &'a BTreeSet<OwnedUserId>) -> Self {
        let reader = Sender { no: who.user, id: who.user_id.clone() };
        Self { db, memory, reader, ignored, rules: OnceCell::new() }
    }

    /// Whether the user's own receipts in a room moved after `since`, so that the counts may be others.
    ///
    /// # Errors
    /// As the database says.
    pub fn may_differ(&self, room: RoomNo, since: Seq) -> Result<bool> {
        Ok(receipts::moved_after(self.db, room, self.reader.no, since)?)
    }

    /// The counts of a room: from those of the last answer, where the user did nothing since.
    ///
    /// # Errors
    /// As the database says.
    pub fn count(&self, room: RoomNo, by_thread: bool) -> Result<Unread> {
        let reader = Reader { user: &self.reader, rules: self.rules()?, ignored: self.ignored };
        let unread = match self.continued(room, &reader)? {
            Some(unread) => unread,
            None => unread::unread(self.db, room, &reader, Pos::last_of(self.db.seq()))?,
        };
        self.memory.note_counted(self.reader.no, room, self.db.seq(), unread.clone());
        Ok(if by_thread {
            Unread { room: unread.main, threads: unread.threads }
        } else {
            Unread { room: unread.total(), threads: BTreeMap::new() }
        })
    }

    fn continued(&self, room: RoomNo, reader: &Reader<'_>) -> Result<Option<unread::Unread>> {
        let Some(counted) = self.memory.counted(self.db, self.reader.no, room) else { return Ok(None) };
        if receipts::moved_after(self.db, room, self.reader.no, counted.as_of)? {
            return Ok(None);
        }
        let (from, until) = (Pos::last_of(counted.as_of), Pos::last_of(self.db.seq()));
        Ok(unread::unread_since(self.db, room, reader, &counted.unread, from, until)?)
    }

    fn rules(&self) -> Result<&Ruleset> {
        if let Some(rules) = self.rules.get() {
            return Ok(rules);
        }
        let rules = push_rules::rules(self.db, self.reader.no)?;
        Ok(self.rules.get_or_init(|| rules))
    }
}
