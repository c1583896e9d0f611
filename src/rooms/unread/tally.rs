//! What is unread for one user in one room, counted up to a place.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ruma::OwnedEventId;
use serde::{Deserialize, Serialize};
use store::{Read, RoomNo, Seq};

use super::{Counts, Facts, Reader, Unread};
use crate::{
    Pos, Result,
    events::{self, StoredEvent},
    members::{self, Membership},
    receipts, threads,
    timeline::{self, Direction, Placed},
};

/// The most events that one count judges, the newest: who was away for more of them in one room sees a number that is too low.
pub const SCANNED_MAX: usize = 10_000;
/// The most notifications that are listed one by one. Of more, the older ones are kept as a sum, which follows receipts but not
/// redactions: whether what is redacted had notified is no longer to be seen, and clients show "99+".
const LISTED_MAX: usize = 128;
/// The most threads whose notifications are told apart, those with the newest.
const THREADS_MAX: usize = 500;

/// The root of a thread; `None` for the main timeline.
type Thread = Option<OwnedEventId>;

/// What is unread for a user in a room, counted up to a place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Every event up to here was judged.
    until: Pos,
    /// The commit that had last changed whom the user ignores.
    ignored_as_of: Seq,
    /// Those with any.
    threads: BTreeMap<Thread, Pile>,
}

/// The unread notifications of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Pile {
    /// The sum of the older ones.
    sum: Counts,
    /// The place of the first in the sum.
    first: Pos,
    /// The place of the last in the sum.
    last: Pos,
    /// Those after it, oldest first.
    listed: Vec<Notification>,
}

/// An unread event that notifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Notification {
    pos: Pos,
    highlight: bool,
}

impl Pile {
    fn is_empty(&self) -> bool {
        self.sum == Counts::default() && self.listed.is_empty()
    }

    /// Takes off what is read. Whether a part of the sum is among it, so that it must be counted anew.
    fn read(&mut self, up_to: Pos) -> bool {
        self.listed.retain(|listed| listed.pos > up_to);
        if up_to >= self.last {
            self.sum = Counts::default();
        }
        self.sum != Counts::default() && up_to >= self.first
    }

    /// Puts what is before a place into the sum.
    fn fold(&mut self, before: Pos) {
        let folded = self.listed.partition_point(|listed| listed.pos < before);
        for listed in self.listed.drain(..folded) {
            if self.sum == Counts::default() {
                self.first = listed.pos;
            }
            self.last = listed.pos;
            self.sum.add_one(listed.highlight);
        }
    }

    /// The place of the newest.
    fn newest(&self) -> Pos {
        self.listed.last().map_or(self.last, |listed| listed.pos)
    }

    fn counts(&self, until: Pos) -> Counts {
        let mut counts = self.sum;
        self.listed.iter().filter(|listed| listed.pos <= until).for_each(|listed| counts.add_one(listed.highlight));
        counts
    }
}

impl Tally {
    /// Whether another was counted further.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.until < other.until
    }

    /// Judges the events up to a place that were not judged before, and takes off what is read by now: what is from before the
    /// user joined, lies behind one of their receipts or behind a message of their own (in its thread), or is redacted.
    /// Returns how many events were looked at. Of one who is not in the room nothing is counted.
    ///
    /// # Errors
    /// As the database says.
    pub fn count(&mut self, db: &impl Read, room: RoomNo, reader: &Reader<'_>, until: Pos) -> Result<usize> {
        self.count_listing(db, room, reader, until, LISTED_MAX)
    }

    /// Counts, and keeps this many notifications in lists at most.
    pub(crate) fn count_listing(
        &mut self,
        db: &impl Read,
        room: RoomNo,
        reader: &Reader<'_>,
        until: Pos,
        listed_max: usize,
    ) -> Result<usize> {
        let standing = members::user_room(db, reader.user.no, room)?;
        let joined = standing.filter(|standing| standing.membership == Membership::Join).and_then(|joined| joined.joined_from);
        let Some(joined_from) = joined else {
            self.threads.clear();
            return Ok(0);
        };
        if self.ignored_as_of != reader.ignored_as_of {
            *self = Self { ignored_as_of: reader.ignored_as_of, ..Self::default() };
        }
        let mut count = Count::new(db, room, reader, joined_from)?;
        let partly_read = self.read(&mut count)?;
        let from = self.until.max(count.everywhere);
        let judged = count.range(from, until)?;
        for placed in judged.iter().rev() {
            self.take(&mut count, placed)?;
        }
        self.until = self.until.max(until);
        for thread in partly_read {
            self.recount(&mut count, thread)?;
        }
        self.threads.retain(|_, pile| !pile.is_empty());
        self.shorten(listed_max);
        Ok(judged.len())
    }

    /// What is unread, as far as a place.
    #[must_use]
    pub fn unread(&self, until: Pos) -> Unread {
        let mut unread = Unread::default();
        for (thread, pile) in &self.threads {
            let counts = pile.counts(until);
            match thread {
                None => unread.main = counts,
                Some(root) if counts.notifications > 0 => drop(unread.threads.insert(root.clone(), counts)),
                Some(_) => {}
            }
        }
        unread
    }

    /// Takes off what receipts say is read. Returns the threads with sums that are read in part.
    fn read<R: Read>(&mut self, count: &mut Count<'_, R>) -> Result<BTreeSet<Thread>> {
        let mut partly = BTreeSet::new();
        for (thread, pile) in &mut self.threads {
            if pile.read(count.read_up_to(thread)?) {
                partly.insert(thread.clone());
            }
        }
        Ok(partly)
    }

    fn take<R: Read>(&mut self, count: &mut Count<'_, R>, placed: &Placed) -> Result<()> {
        let stored = &placed.stored;
        if let Some(redacts) = &stored.event.redacts
            && let Some((_, target)) = events::by_id(count.db, count.room, redacts)?
            && target.header.redacted_by.is_some()
        {
            self.threads.values_mut().for_each(|pile| pile.listed.retain(|listed| Some(listed.pos) != target.header.pos));
        }
        if stored.header.sender == count.reader.user.no {
            // Who says something has read what was there. A member event or a redaction may be by hand of a machine.
            if stored.event.state_key.is_none() && stored.event.kind != "m.room.redaction" {
                self.threads.remove(&threads::root(count.db, count.room, &stored.event)?);
            }
            return Ok(());
        }
        let Some(highlight) = count.judge(stored)? else { return Ok(()) };
        let thread = threads::root(count.db, count.room, &stored.event)?;
        if count.read_up_to(&thread)? < placed.pos {
            self.threads.entry(thread).or_default().listed.push(Notification { pos: placed.pos, highlight });
        }
        Ok(())
    }

    /// Counts the sum of a thread anew, from how far the user has read.
    fn recount<R: Read>(&mut self, count: &mut Count<'_, R>, thread: Thread) -> Result<()> {
        let after = count.read_up_to(&thread)?;
        let Some(pile) = self.threads.get_mut(&thread) else { return Ok(()) };
        pile.sum = Counts::default();
        for placed in count.range(after, pile.last)?.iter().rev() {
            if placed.stored.header.sender != count.reader.user.no
                && threads::root(count.db, count.room, &placed.stored.event)? == thread
                && let Some(highlight) = count.judge(&placed.stored)?
            {
                if pile.sum == Counts::default() {
                    pile.first = placed.pos;
                }
                pile.sum.add_one(highlight);
            }
        }
        Ok(())
    }

    /// Keeps the lists within their limits.
    fn shorten(&mut self, listed_max: usize) {
        if self.threads.len() > THREADS_MAX {
            let mut newest: Vec<Pos> = self.threads.values().map(Pile::newest).collect();
            newest.sort_unstable();
            let cut = newest[newest.len() - THREADS_MAX];
            self.threads.retain(|_, pile| pile.newest() >= cut);
        }
        let mut listed: Vec<Pos> = self.threads.values().flat_map(|pile| pile.listed.iter().map(|listed| listed.pos)).collect();
        if listed.len() > listed_max {
            listed.sort_unstable();
            let cut = listed[listed.len() - listed_max / 2];
            self.threads.values_mut().for_each(|pile| pile.fold(cut));
        }
    }
}

/// One count, with what is found out in the course of it.
struct Count<'a, R> {
    db: &'a R,
    room: RoomNo,
    reader: &'a Reader<'a>,
    /// How far the user has read all threads, or when they joined.
    everywhere: Pos,
    by_thread: HashMap<Thread, Pos>,
    /// What most counts need not know, because there is nothing to judge.
    facts: Option<Facts>,
}

impl<'a, R: Read> Count<'a, R> {
    fn new(db: &'a R, room: RoomNo, reader: &'a Reader<'a>, joined_from: Pos) -> Result<Self> {
        let everywhere = receipts::read_position(db, room, reader.user.no)?.map_or(joined_from, |read| read.max(joined_from));
        Ok(Self { db, room, reader, everywhere, by_thread: HashMap::new(), facts: None })
    }

    fn read_up_to(&mut self, thread: &Thread) -> Result<Pos> {
        if let Some(read) = self.by_thread.get(thread) {
            return Ok(*read);
        }
        let named = thread.clone().map_or(receipts::Thread::Main, receipts::Thread::Root);
        let read = receipts::thread_position(self.db, self.room, self.reader.user.no, &named)?;
        let read = read.map_or(self.everywhere, |read| read.max(self.everywhere));
        self.by_thread.insert(thread.clone(), read);
        Ok(read)
    }

    /// The newest events between two places, newest first.
    fn range(&self, after: Pos, until: Pos) -> Result<Vec<Placed>> {
        if after >= until {
            return Ok(Vec::new());
        }
        timeline::read(self.db, self.room, Direction::Backward, until, Some(after))?.take(SCANNED_MAX).collect()
    }

    /// Whether an event of another notifies the reader, and if so, whether it is highlighted.
    fn judge(&mut self, stored: &StoredEvent) -> Result<Option<bool>> {
        if stored.header.redacted_by.is_some() || self.reader.ignored.contains(&stored.event.sender) {
            return Ok(None);
        }
        if self.facts.is_none() {
            self.facts = Some(Facts::new(self.db, self.room, self.reader)?);
        }
        Ok(self.facts.as_ref().and_then(|facts| facts.judge(self.reader, stored, facts.levels())))
    }
}
