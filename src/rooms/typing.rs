//! Who is typing in a room. Rows that live for seconds: they ride with the next sync of the disk, and an index by the time at
//! which they end lets [`expire`] find what is due.
//!
//! Specification: client-server API, "Typing Notifications".

use ruma::OwnedUserId;
use store::{Lead, Lock, Owner, Preset, Range, Read, RoomNo, Seq, Store, Table, Tx, UserNo};
use users::numbers as user_numbers;

use crate::{Error, Result, partial};

pub(crate) static TYPING: Table<(RoomNo, UserNo), u64> =
    Table::new("typing", "Until when (ms) a user is typing in a room.").owned_by(Owner::Room).read_by(Preset::Scan);
pub(crate) static CHANGED: Table<RoomNo, Seq> =
    Table::new("typing_changes", "The commit that last changed who is typing in a room.")
        .owned_by(Owner::Room)
        .wakes(Owner::Room);
pub(crate) static DUE: Table<(u64, RoomNo, UserNo), ()> =
    Table::new("typing_due", "The rows of typing by their time, written under the room's lock.").read_by(Preset::Scan);

/// The longest time for which one statement holds.
pub const TIMEOUT_MAX_MS: u64 = 120_000;
/// The time for which it holds where the client says none.
pub const TIMEOUT_DEFAULT_MS: u64 = 30_000;
/// The most users of a room who are shown as typing.
pub const SHOWN_MAX: usize = 100;
/// The most rows that one run of [`expire`] removes.
pub const EXPIRED_MAX: usize = 1_000;

/// States that a user types for so long, or no longer types. It may be lost in a crash, where nobody types any more.
///
/// # Errors
/// [`Error::Forbidden`] for one who is not in the room.
pub fn set(store: &Store, user: UserNo, room: RoomNo, timeout_ms: Option<u64>, now_ms: u64) -> Result<()> {
    let until_ms = timeout_ms.map(|timeout_ms| now_ms.saturating_add(timeout_ms.min(TIMEOUT_MAX_MS)));
    let change = |tx: &mut Tx<'_>| {
        if !partial::takes_part(tx, room, user)? {
            return Err(Error::Forbidden("You are not in this room"));
        }
        put(tx, room, user, until_ms, now_ms)
    };
    store.transact(&[Lock::Room(room)], change)?.soft();
    Ok(())
}

fn put(tx: &mut Tx<'_>, room: RoomNo, user: UserNo, until_ms: Option<u64>, now_ms: u64) -> Result<()> {
    let before = tx.get(&TYPING, &(room, user))?;
    if let Some(before) = before {
        tx.delete(&DUE, &(before, room, user))?;
        tx.delete(&TYPING, &(room, user))?;
    }
    if let Some(until_ms) = until_ms {
        tx.put(&DUE, &(until_ms, room, user), &())?;
        tx.put(&TYPING, &(room, user), &until_ms)?;
    }
    // Who goes on typing changes nothing for the others. One whose time was over may have been seen as gone.
    let goes_on = before.is_some_and(|before| before > now_ms) && until_ms.is_some();
    if !goes_on && (before.is_some() || until_ms.is_some()) {
        let seq = tx.seq();
        tx.put(&CHANGED, &room, &seq)?;
    }
    Ok(())
}

/// Ends the typing of those whose time is over, and wakes who sees them. Returns how many they were.
///
/// # Errors
/// As the database says.
pub fn expire(store: &Store, now_ms: u64) -> Result<usize> {
    let due: Vec<(u64, RoomNo, UserNo)> = store
        .snapshot()
        .range(&DUE, Range::of(&()).through(&Lead((now_ms,))))?
        .map(|row| row.map(|(key, ())| key))
        .take(EXPIRED_MAX)
        .collect::<store::Result<_>>()?;
    for &(until_ms, room, user) in &due {
        let end = |tx: &mut Tx<'_>| -> Result<()> {
            if tx.get(&TYPING, &(room, user))? == Some(until_ms) { put(tx, room, user, None, now_ms) } else { Ok(()) }
        };
        store.transact(&[Lock::Room(room)], end)?.soft();
    }
    Ok(due.len())
}

/// Deletes what is not the room's own of who types in a room that goes.
pub(crate) fn forget(tx: &mut Tx<'_>, room: RoomNo) -> Result<()> {
    let rows = tx.range(&TYPING, Range::of(&Lead((room,))))?;
    let rows: Vec<((RoomNo, UserNo), u64)> = rows.collect::<store::Result<_>>()?;
    for ((_, user), until_ms) in rows {
        tx.delete(&DUE, &(until_ms, room, user))?;
        tx.delete(&TYPING, &(room, user))?;
    }
    Ok(())
}

/// Whether it changed who is typing in a room after one commit and up to another.
///
/// # Errors
/// As the database says.
pub fn changed(db: &impl Read, room: RoomNo, from: Seq, to: Seq) -> Result<bool> {
    Ok(db.get(&CHANGED, &room)?.is_some_and(|seq| from < seq && seq <= to))
}

/// Who is typing in a room, up to [`SHOWN_MAX`] of them.
///
/// # Errors
/// As the database says.
pub fn users(db: &impl Read, room: RoomNo, now_ms: u64) -> Result<Vec<OwnedUserId>> {
    let mut typing = Vec::new();
    for row in db.range(&TYPING, Range::of(&Lead((room,))))? {
        let ((_, user), until_ms) = row?;
        if until_ms > now_ms && partial::takes_part(db, room, user)? {
            typing.push(user_numbers::user_id(db, user)?);
        }
        if typing.len() == SHOWN_MAX {
            break;
        }
    }
    Ok(typing)
}
