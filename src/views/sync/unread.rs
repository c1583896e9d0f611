//! How many notifications of a room are unread, as a sync tells it.
//!
//! Specification: client-server API, "Receiving notifications" and "Threading", "Server-side aggregation".

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rooms::{
    Pos, Sender, receipts,
    unread::{Counts, Reader},
};
use ruma::{OwnedEventId, OwnedUserId, push::Ruleset};
use serde::Serialize;
use store::{RoomNo, Seq, Snapshot};
use users::account_data::{self, IGNORED_USERS};

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
    rules: OnceCell<(Arc<Ruleset>, Seq)>,
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

    /// The counts of a room, on from those of the last answer.
    ///
    /// # Errors
    /// As the database says.
    pub fn count(&self, room: RoomNo, by_thread: bool) -> Result<Unread> {
        let (rules, ignored_as_of) = self.rules()?;
        let reader = Reader { user: &self.reader, rules, ignored: self.ignored, ignored_as_of: *ignored_as_of };
        let until = Pos::last_of(self.db.seq());
        let unread = self.memory.counted(self.db, &reader, room, until)?;
        Ok(if by_thread {
            Unread { room: unread.main, threads: unread.threads }
        } else {
            Unread { room: unread.total(), threads: BTreeMap::new() }
        })
    }

    /// The push rules, and the commit that last changed whom the user ignores.
    fn rules(&self) -> Result<&(Arc<Ruleset>, Seq)> {
        if let Some(rules) = self.rules.get() {
            return Ok(rules);
        }
        let rules = self.memory.push_rules(self.db, self.reader.no)?;
        let ignored_as_of = account_data::set_at(self.db, self.reader.no, None, IGNORED_USERS)?;
        Ok(self.rules.get_or_init(|| (rules, ignored_as_of)))
    }
}
