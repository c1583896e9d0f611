//! Devices: what a user is logged in on. Each has at most one session; ending either ends both.
//!
//! A device is numbered within its user, and its number is never given again, so what is kept by number cannot leak to a
//! later device of the same id.

use protocol::ids;
use ruma::{DeviceId, OwnedDeviceId};
use serde::{Deserialize, Serialize};
use store::{Lead, Lock, Owner, Pending, Range, Read, Store, Table, Topic, Tx, UserNo};

use crate::{Error, Result, cross_signing, forget_device, key_changes, numbers, sessions};

store::numbers! {
    /// The number that stands for a device of its user.
    DeviceNo(u32);
}

static DEVICES: Table<(UserNo, String), Row> = Table::new("devices", "The devices of a user by their ids.").owned_by(Owner::User);
static LAST: Table<UserNo, DeviceNo> =
    Table::new("device_counters", "The number of a user's newest device, be it still there or not.").owned_by(Owner::User);
static SEEN: Table<(UserNo, DeviceNo), Seen> =
    Table::new("device_seen", "When and from where a device last asked for something, to the minute.").owned_by(Owner::User);

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 3] = [DEVICES.spec(), LAST.spec(), SEEN.spec()];

/// The longest display name of a device, in bytes.
pub const DISPLAY_NAME_MAX_BYTES: usize = 512;
/// The most devices that one request deletes.
pub const DELETED_MAX: usize = 1_000;
/// How often a device's last use is written, in milliseconds.
const SEEN_EVERY_MS: u64 = 60_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    number: DeviceNo,
    display_name: Option<String>,
    created_ms: u64,
    /// It has keys but no session, and outlives the logout of all others ("Dehydrated devices", MSC3814).
    dehydrated: bool,
}

/// When and from where a device was last used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// The IP address.
    pub ip: String,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub number: DeviceNo,
    /// Its id.
    pub id: OwnedDeviceId,
    /// What its user calls it.
    pub display_name: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// When and from where it was last used, first to log in.
    pub seen: Option<Seen>,
    /// Whether it is a dehydrated device, which has keys but no session (MSC3814).
    pub dehydrated: bool,
}

/// Which devices stay when all others go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// None: the account is going.
    None,
    /// Dehydrated ones: the user comes back to them.
    Dehydrated,
    /// Dehydrated ones, and this one.
    This(DeviceNo),
}

/// What a new device is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewDevice<'a> {
    /// What its user calls it.
    pub display_name: Option<&'a str>,
    /// Whether it is a dehydrated device (MSC3814).
    pub dehydrated: bool,
}

/// The number of a device.
///
/// # Errors
/// As the store.
pub fn number(db: &impl Read, user: UserNo, device: &DeviceId) -> store::Result<Option<DeviceNo>> {
    Ok(db.get(&DEVICES, &(user, device.as_str()))?.map(|row| row.number))
}

/// The numbers and ids of all devices of a user.
///
/// # Errors
/// As the store.
pub fn numbers(db: &impl Read, user: UserNo) -> store::Result<Vec<(DeviceNo, OwnedDeviceId)>> {
    let rows = db.range(&DEVICES, &Range::of(&Lead((user,))))?;
    rows.map(|row| row.map(|((_, id), row)| (row.number, id.into()))).collect()
}

/// What its user calls a device.
///
/// # Errors
/// As the store.
pub fn display_name(db: &impl Read, user: UserNo, device: &DeviceId) -> store::Result<Option<String>> {
    Ok(db.get(&DEVICES, &(user, device.as_str()))?.and_then(|row| row.display_name))
}

/// A device.
///
/// # Errors
/// As the store.
pub fn device(db: &impl Read, user: UserNo, device: &DeviceId) -> store::Result<Option<Device>> {
    let row = db.get(&DEVICES, &(user, device.as_str()))?;
    row.map(|row| with_seen(db, user, device.to_owned(), row)).transpose()
}

/// All devices of a user.
///
/// # Errors
/// As the store.
pub fn devices(db: &impl Read, user: UserNo) -> store::Result<Vec<Device>> {
    let rows = db.range(&DEVICES, &Range::of(&Lead((user,))))?;
    rows.map(|row| row.and_then(|((_, id), row)| with_seen(db, user, id.into(), row))).collect()
}

fn with_seen(db: &impl Read, user: UserNo, id: OwnedDeviceId, row: Row) -> store::Result<Device> {
    let seen = db.get(&SEEN, &(user, row.number))?;
    let Row { number, display_name, created_ms, dehydrated } = row;
    Ok(Device { number, id, display_name, created_ms, seen, dehydrated })
}

/// The device of this id, made where there is none; one that is there keeps its name.
///
/// # Errors
/// [`Error::InvalidParam`] where the id or the name cannot be one.
pub(crate) fn open(tx: &mut Tx<'_>, user: UserNo, device: &DeviceId, new: NewDevice<'_>, now_ms: u64) -> Result<DeviceNo> {
    if let Some(known) = number(tx, user, device)? {
        return Ok(known);
    }
    if !ids::is_device_id(device.as_str()) {
        return Err(Error::InvalidParam("a device id has 1 to 255 bytes and no control characters"));
    }
    if cross_signing::is_public_key(tx, user, device.as_str())? {
        // Both name signing keys, and clients verify a master key as if it were a device.
        return Err(Error::InvalidParam("the device id is one of the user's cross-signing keys"));
    }
    let display_name = new.display_name.map(checked_name).transpose()?;
    let number = DeviceNo(tx.get(&LAST, &user)?.unwrap_or_default().0 + 1);
    tx.put(&LAST, &user, &number)?;
    let row = Row { number, display_name, created_ms: now_ms, dehydrated: new.dehydrated };
    tx.put(&DEVICES, &(user, device.as_str()), &row)?;
    Ok(number)
}

/// Makes a device without a session, and names it: for an application service, whose users need no login. Returns whether it is new;
/// one that is there is left as it is.
///
/// # Errors
/// [`Error::InvalidParam`] where the id or the name cannot be one.
pub fn make(store: &Store, user: UserNo, device: &DeviceId, name: Option<&str>, now_ms: u64) -> Result<Pending<bool>> {
    store.transact(&[Lock::User(user)], |tx| {
        let new = number(tx, user, device)?.is_none();
        open(tx, user, device, NewDevice { display_name: name, dehydrated: false }, now_ms)?;
        Ok(new)
    })
}

fn checked_name(name: &str) -> Result<String> {
    if name.len() > DISPLAY_NAME_MAX_BYTES {
        return Err(Error::InvalidParam("the display name of a device has at most 512 bytes"));
    }
    Ok(name.to_owned())
}

/// Names a device. `touch`: the rooms of the user, where others must hear of it.
///
/// # Errors
/// [`Error::NotFound`], [`Error::InvalidParam`].
pub fn rename(store: &Store, user: UserNo, device: &DeviceId, name: &str, touch: &[Topic]) -> Result<Pending<()>> {
    let name = checked_name(name)?;
    store.transact(&[Lock::User(user)], |tx| {
        let mut row = tx.get(&DEVICES, &(user, device.as_str()))?.ok_or(Error::NotFound("there is no such device"))?;
        if row.display_name.as_ref() == Some(&name) {
            return Ok(());
        }
        row.display_name = Some(name);
        tx.put(&DEVICES, &(user, device.as_str()), &row)?;
        Ok(key_changes::record(tx, user, Some(device), touch)?)
    })
}

/// Deletes devices with their sessions, keys and waiting messages. Devices that do not exist are passed over: they are gone.
///
/// # Errors
/// [`Error::TooLarge`].
pub fn delete(store: &Store, user: UserNo, ids: &[OwnedDeviceId], touch: &[Topic]) -> Result<Pending<()>> {
    Error::limit("devices to delete", ids.len(), DELETED_MAX)?;
    store.transact(&[Lock::User(user)], |tx| remove(tx, user, ids, touch))
}

/// Deletes all devices but those to keep.
///
/// # Errors
/// As the store.
pub fn delete_all(store: &Store, user: UserNo, keep: Keep, touch: &[Topic]) -> Result<Pending<()>> {
    store.transact(&[Lock::User(user)], |tx| remove_all(tx, user, keep, touch))
}

/// [`delete_all`] within a transaction. Asks for the commit's number, so call it last.
pub(crate) fn remove_all(tx: &mut Tx<'_>, user: UserNo, keep: Keep, touch: &[Topic]) -> Result<()> {
    let goes = |row: &Row| match keep {
        Keep::None => true,
        Keep::Dehydrated => !row.dehydrated,
        Keep::This(number) => !row.dehydrated && row.number != number,
    };
    let all = tx.range(&DEVICES, &Range::of(&Lead((user,))))?.collect::<store::Result<Vec<_>>>()?;
    let ids: Vec<OwnedDeviceId> = all.into_iter().filter(|(_, row)| goes(row)).map(|((_, id), _)| id.into()).collect();
    remove(tx, user, &ids, touch)
}

/// [`delete`] within a transaction. Asks for the commit's number, so call it last.
pub(crate) fn remove(tx: &mut Tx<'_>, user: UserNo, ids: &[OwnedDeviceId], touch: &[Topic]) -> Result<()> {
    let user_id = numbers::user_id(tx, user)?;
    let mut visible = false;
    for id in ids {
        let Some(number) = number(tx, user, id)? else { continue };
        sessions::end(tx, user, number)?;
        visible |= forget_device(tx, (user, &user_id), (number, id))?;
        tx.delete(&SEEN, &(user, number))?;
        tx.delete(&DEVICES, &(user, id.as_str()))?;
    }
    if visible {
        let only = if let [id] = ids { Some(&**id) } else { None };
        key_changes::record(tx, user, only, touch)?;
    }
    Ok(())
}

/// Notes that a device was used. Written at most once a minute and not waited for: it may be lost in a crash.
///
/// # Errors
/// As the store.
pub fn seen(store: &Store, user: UserNo, device: DeviceNo, ip: &str, now_ms: u64) -> store::Result<()> {
    let lately = |last: Option<Seen>| last.is_some_and(|last| now_ms < last.at_ms.saturating_add(SEEN_EVERY_MS));
    if lately(store.snapshot().get(&SEEN, &(user, device))?) {
        return Ok(());
    }
    store.note(&[Lock::User(user)], |tx| {
        // The snapshot may be older than the last such write, and the device may have gone since the caller was let in.
        if lately(tx.get(&SEEN, &(user, device))?) || !sessions::exists(tx, user, device)? {
            return Ok(());
        }
        used(tx, user, device, ip, now_ms)
    })
}

/// Notes that a device is used.
pub(crate) fn used(tx: &mut Tx<'_>, user: UserNo, device: DeviceNo, ip: &str, now_ms: u64) -> store::Result<()> {
    tx.put(&SEEN, &(user, device), &Seen { at_ms: now_ms, ip: ip.to_owned() })
}
