//! Profiles: what others see of a user ("Profiles"): display name, avatar, and fields of any name.
//!
//! The display name and avatar are also in the user's membership of every room. A row in `profile_changes` asks a job of
//! the rooms to write them there, one room at a time; the job compares what a room has with the profile, so it may be cut
//! off and begin again.

use protocol::ids;
use serde_json::{Map, Value};
use store::{Json, Lead, Lock, Owner, Pending, Range, Read, Seq, Store, Table, Tx, UserNo};

use crate::{Error, Result, directory};

static FIELDS: Table<(UserNo, String), Json<Value>> =
    Table::new("profiles", "The fields of a user's profile by name.").owned_by(Owner::User);
static CHANGES: Table<UserNo, Seq> = Table::new(
    "profile_changes",
    "Users whose display name or avatar is to be written into their rooms, and the commit that last changed it.",
)
.owned_by(Owner::User);

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 2] = [FIELDS.spec(), CHANGES.spec()];

/// The display name.
pub const DISPLAYNAME: &str = "displayname";
/// The avatar, as an `mxc:` URI.
pub const AVATAR_URL: &str = "avatar_url";
/// The fields that are in member events too.
pub const SHOWN: [&str; 2] = [DISPLAYNAME, AVATAR_URL];

/// The most bytes of a profile as JSON, as the specification has it.
pub const PROFILE_MAX_BYTES: usize = 64 << 10;
/// The most bytes of a field's name, as the specification has it.
pub const NAME_MAX_BYTES: usize = 255;
/// The most bytes of a display name: it goes into every membership event, which has 64 KiB for all it holds.
pub const DISPLAYNAME_MAX_BYTES: usize = 1024;
/// The most bytes of an avatar's URI.
pub const AVATAR_URL_MAX_BYTES: usize = 1024;

/// A user's profile: its fields by name.
///
/// # Errors
/// As the store.
pub fn profile(db: &impl Read, user: UserNo) -> store::Result<Map<String, Value>> {
    let rows = db.range(&FIELDS, &Range::of(&Lead((user,))))?;
    rows.map(|row| row.map(|((_, name), Json(value))| (name, value))).collect()
}

/// One field of a user's profile.
///
/// # Errors
/// As the store.
pub fn field(db: &impl Read, user: UserNo, name: &str) -> store::Result<Option<Value>> {
    Ok(db.get(&FIELDS, &(user, name))?.map(|Json(value)| value))
}

/// A user's profile as member events carry it: the fields that are [`SHOWN`], where they are text.
///
/// # Errors
/// As the store.
pub fn shown(db: &impl Read, user: UserNo) -> store::Result<Map<String, Value>> {
    let mut shown = Map::new();
    for name in SHOWN {
        if let Some(value @ Value::String(_)) = field(db, user, name)? {
            shown.insert(name.to_owned(), value);
        }
    }
    Ok(shown)
}

/// Sets a field of a profile. The display name and the avatar become unset by `null` and by the empty string.
///
/// # Errors
/// [`Error::KeyTooLarge`], [`Error::ProfileTooLarge`], [`Error::InvalidParam`] for a name that cannot be one,
/// [`Error::BadJson`] for a value of the wrong type.
pub fn put(store: &Store, user: UserNo, name: &str, value: Value) -> Result<Pending<()>> {
    store.transact(&[Lock::User(user)], |tx| change(tx, user, name, Some(value)))
}

/// Deletes a field of a profile. One that is not there is already gone.
///
/// # Errors
/// [`Error::KeyTooLarge`], [`Error::InvalidParam`].
pub fn delete(store: &Store, user: UserNo, name: &str) -> Result<Pending<()>> {
    check_name(name)?;
    store.transact(&[Lock::User(user)], |tx| change(tx, user, name, None))
}

/// [`put`] for a user whom no room shows yet. Tells whether anything changed.
pub(crate) fn set(tx: &mut Tx<'_>, user: UserNo, name: &str, value: Value) -> Result<bool> {
    check_name(name)?;
    if !check_value(name, &value)? {
        return remove(tx, user, name);
    }
    let mut profile = profile(tx, user)?;
    if profile.get(name) == Some(&value) {
        return Ok(false);
    }
    profile.insert(name.to_owned(), value.clone());
    if Value::Object(profile).to_string().len() > PROFILE_MAX_BYTES {
        return Err(Error::ProfileTooLarge);
    }
    if name == DISPLAYNAME {
        directory::rename(tx, user, value.as_str().unwrap_or_default())?;
    }
    tx.put(&FIELDS, &(user, name), &Json(value))?;
    Ok(true)
}

fn remove(tx: &mut Tx<'_>, user: UserNo, name: &str) -> Result<bool> {
    if !tx.contains(&FIELDS, &(user, name))? {
        return Ok(false);
    }
    if name == DISPLAYNAME {
        directory::rename(tx, user, "")?;
    }
    tx.delete(&FIELDS, &(user, name))?;
    Ok(true)
}

/// Sets or removes a field, and asks for the job that writes it into rooms, which needs the commit's number: so call it late.
fn change(tx: &mut Tx<'_>, user: UserNo, name: &str, value: Option<Value>) -> Result<()> {
    let changed = match value {
        Some(value) => set(tx, user, name, value)?,
        None => remove(tx, user, name)?,
    };
    if changed && SHOWN.contains(&name) {
        let seq = tx.seq();
        tx.put(&CHANGES, &user, &seq)?;
    }
    Ok(())
}

/// Names other than the two old ones are namespaced: `m.tz`, `org.example.job`.
fn check_name(name: &str) -> Result<()> {
    if name.len() > NAME_MAX_BYTES {
        return Err(Error::KeyTooLarge);
    }
    let known = SHOWN.contains(&name);
    if known || (ids::is_namespaced(name) && name.contains('.')) {
        return Ok(());
    }
    Err(Error::InvalidParam("a profile field is displayname, avatar_url, or of the common namespaced identifier grammar"))
}

/// Whether the value sets the field; that it does not, unsets it.
fn check_value(name: &str, value: &Value) -> Result<bool> {
    match (name, value) {
        (DISPLAYNAME | AVATAR_URL, Value::Null) => Ok(false),
        (DISPLAYNAME, Value::String(text)) if text.len() > DISPLAYNAME_MAX_BYTES => {
            Err(Error::InvalidParam("a display name has at most 1024 bytes"))
        }
        (AVATAR_URL, Value::String(text)) if text.len() > AVATAR_URL_MAX_BYTES => {
            Err(Error::InvalidParam("an avatar's URI has at most 1024 bytes"))
        }
        (DISPLAYNAME | AVATAR_URL, Value::String(text)) => Ok(!text.is_empty()),
        (DISPLAYNAME | AVATAR_URL | "m.tz", value) if !value.is_string() => Err(Error::BadJson("the field's value is a string")),
        _ => Ok(true),
    }
}

/// Deletes the profile of a user who goes and is to be forgotten.
pub(crate) fn erase(tx: &mut Tx<'_>, user: UserNo) -> Result<()> {
    let names: Vec<String> = profile(tx, user)?.into_iter().map(|(name, _)| name).collect();
    names.iter().try_for_each(|name| change(tx, user, name, None))
}

/// Users whose display name or avatar is still to be written into their rooms, each with the commit that last changed it,
/// at most `limit`.
///
/// # Errors
/// As the store.
pub fn pending_changes(db: &impl Read, limit: usize) -> store::Result<Vec<(UserNo, Seq)>> {
    db.range(&CHANGES, &Range::of(&()))?.take(limit).collect()
}

/// Notes that the change of this commit is in all rooms, unless another came since.
///
/// # Errors
/// As the store.
pub fn change_done(store: &Store, user: UserNo, of: Seq) -> store::Result<Pending<()>> {
    store.transact(&[Lock::User(user)], |tx| match tx.get(&CHANGES, &user)? {
        Some(last) if last == of => tx.delete(&CHANGES, &user),
        _ => Ok(()),
    })
}
