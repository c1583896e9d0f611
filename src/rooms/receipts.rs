//! Receipts: up to which event a user has read, in the whole room or in one of its threads.
//!
//! A receipt only ever moves forward. Beside the receipts lies an index of them by the commit that last moved them, so that
//! a sync reads what changed and nothing else. Private receipts are shown to their owner alone.
//!
//! Specification: client-server API, "Receipts" and "Fully read markers".

use std::collections::{BTreeMap, BTreeSet};

use protocol::json::JsonError;
use ruma::{EventId, OwnedEventId, OwnedUserId};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use store::{KeyPart, Lead, Lock, Owner, Pending, Preset, Range, Read, RoomNo, Seq, Store, Table, Tx, UserNo};
use users::{
    account_data::{self, FULLY_READ},
    numbers as user_numbers,
};

use crate::{
    Error, EventNo, Pos, Result, Sender,
    events::{self, StoredEvent},
    partial, threads,
    visibility::Viewer,
};

pub(crate) static RECEIPTS: Table<(RoomNo, UserNo, Kind, String), Receipt> = Table::new(
    "receipts",
    "Up to which event a user has read, by kind of receipt and thread (empty: the whole room; `main`; or the root's event id).",
)
.owned_by(Owner::Room)
.read_by(Preset::Scan);
pub(crate) static CHANGES: Table<(RoomNo, Seq, UserNo, Kind, String), ()> =
    Table::new("receipt_changes", "The public receipts by the commit that last moved them: what a sync looks for.")
        .owned_by(Owner::Room)
        .wakes(Owner::Room)
        .read_by(Preset::Scan);
pub(crate) static PRIVATE_CHANGES: Table<(UserNo, Seq, RoomNo), ()> = Table::new(
    "receipt_changes_private",
    "The rooms in which a user's private receipts moved, by the commit: nobody else is woken.",
)
.owned_by(Owner::User)
.wakes(Owner::User)
.read_by(Preset::Scan);

/// The most receipts of others that one answer tells of: the newest, so that a room where very many read stays readable.
pub const TOLD_MAX: usize = 2_000;

/// The thread of receipts for the main timeline.
const MAIN: &str = "main";

/// Who is told of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Everybody in the room: `m.read`.
    Public,
    /// The user alone: `m.read.private`.
    Private,
}

impl Kind {
    /// The type in the content of `m.receipt`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "m.read",
            Self::Private => "m.read.private",
        }
    }
}

impl KeyPart for Kind {
    const WIDTH: usize = 1;
    fn write(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Public => 1,
            Self::Private => 2,
        });
    }
    fn read(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [1] => Some(Self::Public),
            [2] => Some(Self::Private),
            _ => None,
        }
    }
}

/// What a receipt is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thread {
    /// The whole room, regardless of threads.
    Unthreaded,
    /// What is in no thread.
    Main,
    /// The thread of this root.
    Root(OwnedEventId),
}

impl Thread {
    /// The thread that a `thread_id` names.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it names none.
    pub fn parse(id: Option<&str>) -> Result<Self> {
        match id {
            None => Ok(Self::Unthreaded),
            Some(MAIN) => Ok(Self::Main),
            Some(root) => EventId::parse(root).map(Self::Root).map_err(|_| BAD_THREAD),
        }
    }

    /// The `thread_id` of requests and receipts.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        Some(self.key()).filter(|key| !key.is_empty())
    }

    fn key(&self) -> &str {
        match self {
            Self::Unthreaded => "",
            Self::Main => MAIN,
            Self::Root(root) => root.as_str(),
        }
    }
}

const BAD_THREAD: Error = Error::Invalid("thread_id is \"main\" or the event id of a thread's root");

/// A receipt as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Receipt {
    /// The event up to which the user has read.
    event: EventNo,
    /// Its place.
    pos: Pos,
    /// When (ms).
    ts: u64,
    /// The commit that set it.
    seq: Seq,
}

/// A user's statement of how far they have read.
#[derive(Clone, Debug)]
pub enum Mark {
    /// Up to this event they have seen all.
    Read {
        /// Who is told.
        kind: Kind,
        /// Of what.
        thread: Thread,
        /// The event.
        event: OwnedEventId,
    },
    /// Up to this event they have dealt with all: `m.fully_read`, which is account data.
    FullyRead(OwnedEventId),
}

/// Moves a user's receipts and read marker forward. What lies behind where they are already changes nothing.
///
/// # Errors
/// [`Error::Forbidden`] for one who is not in the room; [`Error::NotFound`] for an event that is not in the room or not visible to
/// the user; [`Error::Invalid`] for one that is not in the thread.
pub fn mark(store: &Store, user: &Sender, room: RoomNo, marks: &[Mark], now_ms: u64) -> Result<Pending<()>> {
    store.transact(&[Lock::Room(room), Lock::User(user.no)], |tx| {
        let mut viewer = Viewer::new(tx, room, &user.id, user.no)?;
        // What a user sees of whom nothing is known yet is not known either.
        let viewer = match viewer.is_joined() {
            true => Some(&mut viewer),
            false if partial::takes_part(tx, room, user.no)? => None,
            false => return Err(Error::Forbidden("You are not in this room")),
        };
        let found = places(tx, room, viewer, marks)?;
        for (mark, (event, pos)) in found {
            match mark {
                Mark::Read { kind, thread, .. } => {
                    put(tx, (room, user.no, *kind, thread.key()), &Receipt { event, pos, ts: now_ms, seq: Seq(0) })?;
                }
                Mark::FullyRead(id) => put_fully_read(tx, room, user.no, id, pos)?,
            }
        }
        Ok(())
    })
}

/// The events that marks name, and their places.
fn places<'m>(
    db: &impl Read,
    room: RoomNo,
    mut viewer: Option<&mut Viewer<'_>>,
    marks: &'m [Mark],
) -> Result<Vec<(&'m Mark, (EventNo, Pos))>> {
    marks.iter().map(|mark| Ok((mark, place(db, room, viewer.as_deref_mut(), mark)?))).collect()
}

/// The event that a mark names, and its place.
fn place(db: &impl Read, room: RoomNo, viewer: Option<&mut Viewer<'_>>, mark: &Mark) -> Result<(EventNo, Pos)> {
    let (Mark::Read { event: id, .. } | Mark::FullyRead(id)) = mark;
    let missing = || Error::NotFound("the event");
    let (no, stored) = events::by_id(db, room, id)?.ok_or_else(missing)?;
    let pos = stored.header.pos.ok_or_else(missing)?;
    if let Some(viewer) = viewer
        && !viewer.sees(db, &stored)?
    {
        return Err(missing());
    }
    if let Mark::Read { thread, .. } = mark {
        check_thread(db, room, thread, &stored)?;
    }
    Ok((no, pos))
}

fn check_thread(db: &impl Read, room: RoomNo, thread: &Thread, stored: &StoredEvent) -> Result<()> {
    // A redacted event no longer says where it was.
    if stored.header.redacted_by.is_some() {
        return Ok(());
    }
    let belongs = match thread {
        Thread::Unthreaded => true,
        Thread::Main => threads::root(db, room, &stored.event)?.is_none(),
        Thread::Root(root) => threads::shows(db, room, root, &stored.event)?,
    };
    if belongs { Ok(()) } else { Err(Error::Invalid("the event is not in the thread that thread_id names")) }
}

/// Stores a receipt, unless the one that is there is as new. Asks for the commit's number.
fn put(tx: &mut Tx<'_>, key: (RoomNo, UserNo, Kind, &str), receipt: &Receipt) -> Result<()> {
    let (room, user, kind, thread) = key;
    if let Some(before) = tx.get(&RECEIPTS, &key)? {
        if before.pos >= receipt.pos {
            return Ok(());
        }
        match kind {
            Kind::Public => tx.delete(&CHANGES, &(room, before.seq, user, kind, thread))?,
            Kind::Private => tx.delete(&PRIVATE_CHANGES, &(user, before.seq, room))?,
        }
    }
    let seq = tx.seq();
    match kind {
        Kind::Public => tx.put(&CHANGES, &(room, seq, user, kind, thread), &())?,
        Kind::Private => tx.put(&PRIVATE_CHANGES, &(user, seq, room), &())?,
    }
    Ok(tx.put(&RECEIPTS, &key, &Receipt { seq, ..receipt.clone() })?)
}

/// Deletes the rows of a user's receipts in a room that goes that are not the room's own.
pub(crate) fn forget(tx: &mut Tx<'_>, room: RoomNo, user: UserNo) -> Result<()> {
    let rows = tx.range(&RECEIPTS, Range::of(&Lead((room, user, Kind::Private))))?;
    let seqs: Vec<Seq> = rows.map(|row| row.map(|(_, receipt)| receipt.seq)).collect::<store::Result<_>>()?;
    for seq in seqs {
        tx.delete(&PRIVATE_CHANGES, &(user, seq, room))?;
    }
    Ok(())
}

fn put_fully_read(tx: &mut Tx<'_>, room: RoomNo, user: UserNo, event: &EventId, pos: Pos) -> Result<()> {
    #[derive(Serialize, Deserialize)]
    struct Content {
        event_id: OwnedEventId,
    }
    let before = account_data::content(tx, user, Some(room), FULLY_READ)?;
    if let Some(before) = before.and_then(|content| serde_json::from_str::<Content>(&content).ok())
        && let Some((_, before)) = events::by_id(tx, room, &before.event_id)?
        && before.header.pos >= Some(pos)
    {
        return Ok(());
    }
    let content = serde_json::to_string(&Content { event_id: event.to_owned() }).map_err(JsonError::from)?;
    Ok(account_data::put(tx, user, Some(room), FULLY_READ, &content)?)
}

/// How far a user has read the whole room, by the later of their unthreaded receipts; `None` where they never said.
///
/// # Errors
/// As the database says.
pub fn read_position(db: &impl Read, room: RoomNo, user: UserNo) -> Result<Option<Pos>> {
    thread_position(db, room, user, &Thread::Unthreaded)
}

/// How far a user has read a thread, by the later of their receipts for it alone.
///
/// # Errors
/// As the database says.
pub fn thread_position(db: &impl Read, room: RoomNo, user: UserNo, thread: &Thread) -> Result<Option<Pos>> {
    let of = |kind| db.get(&RECEIPTS, &(room, user, kind, thread.key())).map(|row| row.map(|receipt| receipt.pos));
    Ok(of(Kind::Public)?.max(of(Kind::Private)?))
}

/// Whether a user's own receipts of a room moved after a commit.
///
/// # Errors
/// As the database says.
pub fn moved_after(db: &impl Read, room: RoomNo, user: UserNo, since: Seq) -> Result<bool> {
    for row in db.range(&RECEIPTS, Range::of(&Lead((room, user))))? {
        if row?.1.seq > since {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The rooms in which a user's private receipts moved after a commit.
///
/// # Errors
/// As the database says.
pub fn private_rooms(db: &impl Read, user: UserNo, since: Seq) -> Result<BTreeSet<RoomNo>> {
    let range = Range::of(&Lead((user,))).from(&Lead((user, Seq(since.0.saturating_add(1)))));
    Ok(db.range(&PRIVATE_CHANGES, range)?.map(|row| row.map(|((.., room), ())| room)).collect::<store::Result<_>>()?)
}

/// Whether any public receipt of a room moved after one commit and up to another.
///
/// # Errors
/// As the database says.
pub fn changed_between(db: &impl Read, room: RoomNo, from: Seq, to: Seq) -> Result<bool> {
    Ok(db.first(&CHANGES, changes(room, from, to))?.is_some())
}

fn changes(room: RoomNo, from: Seq, to: Seq) -> Range<(RoomNo, Seq, UserNo, Kind, String)> {
    Range::of(&Lead((room,))).from(&Lead((room, Seq(from.0.saturating_add(1))))).through(&Lead((room, to)))
}

/// The contents of the `m.receipt` events that tell a user what receipts moved after `since` and up to `until` (all, where
/// the user knows none): their own, and the newest [`TOLD_MAX`] public ones of others. Seldom more than one: only where
/// somebody has read two threads up to the same event, which one content cannot say. Unthreaded receipts are in the first.
///
/// # Errors
/// As the database says.
pub fn contents(db: &impl Read, room: RoomNo, viewer: UserNo, since: Option<Seq>, until: Seq) -> Result<Vec<Box<RawValue>>> {
    let mut contents = Contents::default();
    for key in told(db, room, viewer, since, until)? {
        contents.add(db, room, key)?;
    }
    let written = contents.0.iter().map(|content| Ok(to_raw_value(content).map_err(JsonError::from)?));
    written.collect()
}

type Key = (UserNo, Kind, String);

/// Which receipts to tell of, by thread within user and kind.
fn told(db: &impl Read, room: RoomNo, viewer: UserNo, since: Option<Seq>, until: Seq) -> Result<BTreeSet<Key>> {
    let mut told = BTreeSet::new();
    let since = since.unwrap_or_default();
    for row in db.range(&RECEIPTS, Range::of(&Lead((room, viewer))))? {
        let ((_, user, kind, thread), receipt) = row?;
        if since < receipt.seq && receipt.seq <= until {
            told.insert((user, kind, thread));
        }
    }
    let mut others = 0;
    for row in db.range(&CHANGES, changes(room, since, until).reversed())? {
        let ((_, _, user, kind, thread), ()) = row?;
        if user != viewer {
            told.insert((user, kind, thread));
            others += 1;
        }
        if others == TOLD_MAX {
            break;
        }
    }
    Ok(told)
}

/// A receipt as clients read it.
#[derive(Serialize)]
struct Shown {
    ts: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    thread_id: String,
}

/// Receipts by event, kind and user.
type Content = BTreeMap<OwnedEventId, BTreeMap<&'static str, BTreeMap<OwnedUserId, Shown>>>;

#[derive(Default)]
struct Contents(Vec<Content>);

impl Contents {
    fn add(&mut self, db: &impl Read, room: RoomNo, (user, kind, thread_id): Key) -> Result<()> {
        let Some(receipt) = db.get(&RECEIPTS, &(room, user, kind, thread_id.as_str()))? else { return Ok(()) };
        let event = events::event(db, room, receipt.event)?.header.id.clone();
        let (user, kind) = (user_numbers::user_id(db, user)?, kind.as_str());
        let has = |content: &Content| content.get(&event).and_then(|of| of.get(kind)).is_some_and(|by| by.contains_key(&user));
        let free = self.0.iter().position(|content| !has(content)).unwrap_or(self.0.len());
        if free == self.0.len() {
            self.0.push(Content::new());
        }
        if let Some(content) = self.0.get_mut(free) {
            content.entry(event).or_default().entry(kind).or_default().insert(user, Shown { ts: receipt.ts, thread_id });
        }
        Ok(())
    }
}
