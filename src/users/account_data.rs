//! Account data: what clients keep on the server for their user, for all rooms or for one ("Client Config").
//!
//! Rooms are numbers here; room 0, which no room has, stands for the data of all rooms.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use store::{Lead, Lock, Owner, Pending, Preset, Range, Read, RoomNo, Seq, Store, Table, Tx, UserNo};

use crate::{Error, Result, push_rules};

static DATA: Table<(UserNo, RoomNo, String), Row> =
    Table::new("account_data", "Account data of a user by room (0: of all rooms) and type, with the commit that last set it.")
        .owned_by(Owner::User)
        .wakes(Owner::User)
        .read_by(Preset::Scan);
static CHANGES: Table<(UserNo, Seq, RoomNo, String), ()> =
    Table::new("account_data_changes", "The rows of account_data by the commit that last set them: what a sync looks for.")
        .owned_by(Owner::User)
        .read_by(Preset::Scan);

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 2] = [DATA.spec(), CHANGES.spec()];

/// The type of the push rules.
pub const PUSH_RULES: &str = "m.push_rules";
/// The type of a room's read marker.
pub const FULLY_READ: &str = "m.fully_read";
/// The type of a room's tags.
pub const TAG: &str = "m.tag";
/// The type of the list of ignored users.
pub const IGNORED_USERS: &str = "m.ignored_user_list";

/// The longest type, in bytes.
pub const TYPE_MAX_BYTES: usize = 255;
/// The longest content, in bytes.
pub const CONTENT_MAX_BYTES: usize = 256 << 10;
/// The most tags of a room.
pub const TAGS_MAX: usize = 100;
/// The longest tag, in bytes ("Room Tagging").
pub const TAG_MAX_BYTES: usize = 255;
/// The most ignored users that are looked at.
pub const IGNORED_MAX: usize = 10_000;

/// The room number that stands for all rooms.
const ALL_ROOMS: RoomNo = RoomNo(0);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    seq: Seq,
    /// JSON text.
    content: String,
}

/// A piece of account data.
#[derive(Clone, Debug)]
pub struct AccountData {
    /// The room, or `None` for all rooms.
    pub room: Option<RoomNo>,
    /// The type.
    pub event_type: String,
    /// The content, as JSON text.
    pub content: String,
}

impl AccountData {
    fn of(db: &impl Read, (user, room, event_type): (UserNo, RoomNo, String), row: Row) -> store::Result<Self> {
        let room = Some(room).filter(|room| *room != ALL_ROOMS);
        let content = shown(db, user, room, &event_type, row)?;
        Ok(Self { room, event_type, content })
    }
}

/// The content as it is shown: push rules with the defaults of this version.
fn shown(db: &impl Read, user: UserNo, room: Option<RoomNo>, event_type: &str, row: Row) -> store::Result<String> {
    match (room, event_type) {
        (None, PUSH_RULES) => push_rules::up_to_date(db, user, &row.content),
        _ => Ok(row.content),
    }
}

/// Sets account data for a client, which may not set what the server writes itself.
///
/// # Errors
/// [`Error::ServerControlled`], [`Error::BadJson`] for content that is no object, [`Error::TooLarge`].
pub fn set(store: &Store, user: UserNo, room: Option<RoomNo>, event_type: &str, content: &RawValue) -> Result<Pending<()>> {
    if [PUSH_RULES, FULLY_READ].contains(&event_type) {
        return Err(Error::ServerControlled);
    }
    if !content.get().starts_with('{') {
        return Err(Error::BadJson("account data is a JSON object"));
    }
    store.transact(&[Lock::User(user)], |tx| put(tx, user, room, event_type, content.get()))
}

/// Sets account data of any type; `content` is the text of a JSON object. Asks for the commit's number, so call it late.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::InvalidParam`] for a type that cannot be one.
pub fn put(tx: &mut Tx<'_>, user: UserNo, room: Option<RoomNo>, event_type: &str, content: &str) -> Result<()> {
    if event_type.is_empty() || event_type.len() > TYPE_MAX_BYTES {
        return Err(Error::InvalidParam("the type of account data has 1 to 255 bytes"));
    }
    Error::limit("bytes of account data", content.len(), CONTENT_MAX_BYTES)?;
    let room = room.unwrap_or(ALL_ROOMS);
    if let Some(before) = tx.get(&DATA, &(user, room, event_type))? {
        if before.content == content {
            return Ok(());
        }
        tx.delete(&CHANGES, &(user, before.seq, room, event_type))?;
    }
    let seq = tx.seq();
    tx.put(&CHANGES, &(user, seq, room, event_type), &())?;
    Ok(tx.put(&DATA, &(user, room, event_type), &Row { seq, content: content.to_owned() })?)
}

/// The content of one piece, as JSON text.
///
/// # Errors
/// As the store.
pub fn content(db: &impl Read, user: UserNo, room: Option<RoomNo>, event_type: &str) -> store::Result<Option<String>> {
    let row = db.get(&DATA, &(user, room.unwrap_or(ALL_ROOMS), event_type))?;
    row.map(|row| shown(db, user, room, event_type, row)).transpose()
}

/// The commit that last set one piece; 0 where none did.
///
/// # Errors
/// As the store.
pub fn set_at(db: &impl Read, user: UserNo, room: Option<RoomNo>, event_type: &str) -> store::Result<Seq> {
    Ok(db.get(&DATA, &(user, room.unwrap_or(ALL_ROOMS), event_type))?.map(|row| row.seq).unwrap_or_default())
}

/// The content of one piece of all rooms as it was stored.
pub(crate) fn stored(db: &impl Read, user: UserNo, event_type: &str) -> store::Result<Option<String>> {
    Ok(db.get(&DATA, &(user, ALL_ROOMS, event_type))?.map(|row| row.content))
}

/// All pieces of a room, or those of all rooms.
///
/// # Errors
/// As the store.
pub fn all(db: &impl Read, user: UserNo, room: Option<RoomNo>) -> store::Result<Vec<AccountData>> {
    let rows = db.range(&DATA, &Range::of(&Lead((user, room.unwrap_or(ALL_ROOMS)))))?;
    rows.map(|row| row.and_then(|(key, row)| AccountData::of(db, key, row))).collect()
}

/// The pieces that were set after `since`, of all rooms and of single ones, in the order in which they were set.
///
/// # Errors
/// As the store.
pub fn changed_since(db: &impl Read, user: UserNo, since: Seq) -> store::Result<Vec<AccountData>> {
    let range = Range::of(&Lead((user,))).from(&Lead((user, Seq(since.0.saturating_add(1)))));
    let mut changed = Vec::new();
    for row in db.range(&CHANGES, &range)? {
        let ((_, _, room, event_type), ()) = row?;
        if let Some(row) = db.get(&DATA, &(user, room, event_type.as_str()))? {
            changed.push(AccountData::of(db, (user, room, event_type), row)?);
        }
    }
    Ok(changed)
}

/// Deletes all account data of a user who goes.
pub(crate) fn erase(tx: &mut Tx<'_>, user: UserNo) -> store::Result<()> {
    let rows = tx.range(&DATA, &Range::of(&Lead((user,))))?.collect::<store::Result<Vec<_>>>()?;
    for (key, row) in rows {
        tx.delete(&CHANGES, &(user, row.seq, key.1, key.2.as_str()))?;
        tx.delete(&DATA, &key)?;
    }
    Ok(())
}

/// Deletes a user's account data of a room that goes.
///
/// # Errors
/// As the store.
pub fn forget_room(tx: &mut Tx<'_>, user: UserNo, room: RoomNo) -> store::Result<()> {
    let rows = tx.range(&DATA, &Range::of(&Lead((user, room))))?.collect::<store::Result<Vec<_>>>()?;
    for (key, row) in rows {
        tx.delete(&CHANGES, &(user, row.seq, room, key.2.as_str()))?;
        tx.delete(&DATA, &key)?;
    }
    Ok(())
}

/// The tags of a room, each with its content ("Room Tagging").
///
/// # Errors
/// As the store.
pub fn tags(db: &impl Read, user: UserNo, room: RoomNo) -> store::Result<Map<String, Value>> {
    let content = content(db, user, Some(room), TAG)?;
    let content = content.and_then(|text| serde_json::from_str::<Map<String, Value>>(&text).ok());
    Ok(match content.and_then(|mut content| content.remove("tags")) {
        Some(Value::Object(tags)) => tags,
        _ => Map::new(),
    })
}

/// Tags a room.
///
/// # Errors
/// [`Error::InvalidParam`], [`Error::TooLarge`].
pub fn set_tag(store: &Store, user: UserNo, room: RoomNo, tag: &str, content: Map<String, Value>) -> Result<Pending<()>> {
    if tag.is_empty() || tag.len() > TAG_MAX_BYTES {
        return Err(Error::InvalidParam("a tag has 1 to 255 bytes"));
    }
    store.transact(&[Lock::User(user)], |tx| {
        let mut tags = tags(tx, user, room)?;
        tags.insert(tag.to_owned(), content.into());
        Error::limit("tags of a room", tags.len(), TAGS_MAX)?;
        put_tags(tx, user, room, tags)
    })
}

/// Takes a tag off a room. One that is not there is already off.
///
/// # Errors
/// As the store.
pub fn delete_tag(store: &Store, user: UserNo, room: RoomNo, tag: &str) -> Result<Pending<()>> {
    store.transact(&[Lock::User(user)], |tx| {
        let mut tags = tags(tx, user, room)?;
        if tags.remove(tag).is_some() { put_tags(tx, user, room, tags) } else { Ok(()) }
    })
}

fn put_tags(tx: &mut Tx<'_>, user: UserNo, room: RoomNo, tags: Map<String, Value>) -> Result<()> {
    put(tx, user, Some(room), TAG, &serde_json::json!({ "tags": tags }).to_string())
}

/// Whom a user ignores ("Ignoring Users"). Entries that are no user ids are passed over.
///
/// # Errors
/// As the store.
pub fn ignored_users(db: &impl Read, user: UserNo) -> store::Result<BTreeSet<OwnedUserId>> {
    #[derive(Deserialize)]
    struct Ignored {
        ignored_users: BTreeMap<String, Value>,
    }
    let content = content(db, user, None, IGNORED_USERS)?;
    let ignored = content.and_then(|text| serde_json::from_str::<Ignored>(&text).ok()).map(|content| content.ignored_users);
    let ids = ignored.unwrap_or_default().into_keys().take(IGNORED_MAX);
    Ok(ids.filter_map(|id| UserId::parse(id).ok()).collect())
}
