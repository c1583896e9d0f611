//! Who changed their device list or cross-signing keys, and when: what `device_lists.changed` and `/keys/changes` are
//! made of, and what other servers are told.
//!
//! Only the last change of each user is kept, so the log never outgrows the number of users. A reader therefore asks for
//! what changed *since* a position: a user who changed again later is named later still, and nobody is missed.

use ruma::DeviceId;
use serde::{Deserialize, Serialize};
use store::{Lead, Owner, Preset, Range, Read, Result, Seq, Table, Topic, Tx, UserNo};

static CHANGES: Table<(Seq, UserNo), Change> =
    Table::new("key_changes", "Users whose devices or cross-signing keys changed, in the order of their last change.")
        .read_by(Preset::Scan);
static LAST: Table<UserNo, Seq> = Table::new(
    "key_changes_last",
    "When a user's devices or cross-signing keys last changed: the key of their row in key_changes.",
)
.owned_by(Owner::User)
.wakes(Owner::User);
static SIGNED: Table<(UserNo, Seq, UserNo), ()> =
    Table::new("key_changes_signed", "Whose master key a user signed, and when last: only the signing user is told.")
        .owned_by(Owner::User)
        .wakes(Owner::User)
        .read_by(Preset::Scan);

/// A change of a user's devices or cross-signing keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The user's change before this one.
    pub before: Option<Seq>,
    /// The only device that changed, or went; `None` where it were several, or cross-signing keys.
    pub device: Option<String>,
}

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 3] = [CHANGES.spec(), LAST.spec(), SIGNED.spec()];

/// Notes that the device list or the cross-signing keys of a user changed, and wakes the user and `touch`: the rooms that
/// the user is in, where others must hear of it. `device`: the only one that changed. Asks for the commit's number, so call it last.
///
/// # Errors
/// [`store::Error::Unlocked`] without the user's lock.
pub fn record(tx: &mut Tx<'_>, user: UserNo, device: Option<&DeviceId>, touch: &[Topic]) -> Result<()> {
    touch.iter().for_each(|topic| tx.touch(*topic));
    tx.touch(Topic::Outgoing);
    let seq = tx.seq();
    let before = tx.get(&LAST, &user)?;
    if let Some(before) = before {
        tx.delete(&CHANGES, &(before, user))?;
    }
    tx.put(&CHANGES, &(seq, user), &Change { before, device: device.map(ToString::to_string) })?;
    tx.put(&LAST, &user, &seq)
}

/// When the devices or cross-signing keys of this user last changed, if ever.
///
/// # Errors
/// As the store.
pub fn last_change(db: &impl Read, user: UserNo) -> Result<Option<Seq>> {
    db.get(&LAST, &user)
}

/// The users whose devices or cross-signing keys changed after `from`, in the order of their last change, or `None` where
/// they are more than `limit`: ask [`last_change`] of those who matter instead.
///
/// # Errors
/// As the store.
pub fn changed_since(db: &impl Read, from: Seq, limit: usize) -> Result<Option<Vec<UserNo>>> {
    let range = Range::of(&()).after(&(from, UserNo(u32::MAX)));
    let rows = db.range(&CHANGES, &range)?.take(limit + 1).map(|row| row.map(|((_, user), _)| user));
    let users = rows.collect::<Result<Vec<_>>>()?;
    Ok(if users.len() > limit { None } else { Some(users) })
}

/// The changes after `from`, in their order, at most `limit`: for who goes through all of them.
///
/// # Errors
/// As the store.
pub fn after(db: &impl Read, from: Seq, limit: usize) -> Result<Vec<((Seq, UserNo), Change)>> {
    db.range(&CHANGES, Range::of(&()).after(&(from, UserNo(u32::MAX))))?.take(limit).collect()
}

/// Notes that `signer` signed another user's master key; `previous` is what this returned for the same pair before.
pub(crate) fn record_signed(tx: &mut Tx<'_>, signer: UserNo, signed: UserNo, previous: Option<Seq>) -> Result<Seq> {
    let seq = tx.seq();
    if let Some(previous) = previous {
        tx.delete(&SIGNED, &(signer, previous, signed))?;
    }
    tx.put(&SIGNED, &(signer, seq, signed), &())?;
    Ok(seq)
}

/// Forgets what [`record_signed`] noted.
pub(crate) fn forget_signed(tx: &mut Tx<'_>, signer: UserNo, signed: UserNo, at: Seq) -> Result<()> {
    tx.delete(&SIGNED, &(signer, at, signed))
}

/// Whose master keys this user signed after `from`: at most `limit`, oldest first. To be told to this user only, as
/// changed, because other devices of the user show the trust.
///
/// # Errors
/// As the store.
pub fn signed_since(db: &impl Read, user: UserNo, from: Seq, limit: usize) -> Result<Vec<UserNo>> {
    let range = Range::of(&Lead((user,))).after(&(user, from, UserNo(u32::MAX)));
    db.range(&SIGNED, &range)?.take(limit).map(|row| row.map(|((_, _, signed), ())| signed)).collect()
}
