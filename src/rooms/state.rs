//! Room state that is never copied: a persistent tree whose versions share what they have in common.
//!
//! A state is a [`Root`]: a tree by event type whose leaves are trees by state key, whose leaves are events. Types and
//! keys are numbered within their room in the order they appear. A type is a subtree, and comparing two states skips what
//! they share ([`crate::tree`]).

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use store::{Owner, Read, RoomNo, Table, Tx};

use crate::{
    EventNo, Result,
    events::{self, StoredEvent},
    head::Head,
    tree::{NodeNo, compare, insert, lookup, remove, walk},
};

pub(crate) static TYPES: Table<(RoomNo, String), u32> =
    Table::new("state_types", "The number of each type of state event in a room.").owned_by(Owner::Room).cached();
pub(crate) static KEYS: Table<(RoomNo, u32, String), u32> =
    Table::new("state_keys", "The number of each state key of a type in a room.").owned_by(Owner::Room).cached();

/// A state of a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Root(pub(crate) NodeNo);

/// The numbers of a type and of a state key.
pub(crate) type Place = (u32, u32);

/// The numbers of a type and key, if the room ever had such an event.
pub(crate) fn place(db: &impl Read, room: RoomNo, kind: &str, key: &str) -> Result<Option<Place>> {
    let Some(kind) = db.shared(&TYPES, &(room, kind))? else { return Ok(None) };
    Ok(db.shared(&KEYS, &(room, *kind, key))?.map(|key| (*kind, *key)))
}

/// The event of this type and key in a state.
///
/// # Errors
/// As the database says.
pub fn entry(db: &impl Read, room: RoomNo, root: Root, kind: &str, key: &str) -> Result<Option<EventNo>> {
    match place(db, room, kind, key)? {
        Some(place) => at(db, room, root, place),
        None => Ok(None),
    }
}

/// [`entry`] with the event.
///
/// # Errors
/// As the database says.
pub fn event(db: &impl Read, room: RoomNo, root: Root, kind: &str, key: &str) -> Result<Option<Arc<StoredEvent>>> {
    entry(db, room, root, kind, key)?.map(|no| events::event(db, room, no)).transpose()
}

/// The content of this type and key in a state, if it has the shape of `T`.
///
/// # Errors
/// As the database says.
pub fn content<T: serde::de::DeserializeOwned>(
    db: &impl Read,
    room: RoomNo,
    root: Root,
    kind: &str,
    key: &str,
) -> Result<Option<T>> {
    Ok(event(db, room, root, kind, key)?.and_then(|stored| serde_json::from_str(stored.event.content.get()).ok()))
}

/// All events of a state, in the order in which their types and keys first appeared.
///
/// # Errors
/// As the database says.
pub fn all(db: &impl Read, room: RoomNo, root: Root) -> Result<Vec<EventNo>> {
    let mut found = Vec::new();
    walk(db, room, root.0.0, 0, &mut |_, keys| {
        walk(db, room, keys, 0, &mut |_, event| {
            found.push(EventNo(event));
            Ok(())
        })
    })?;
    Ok(found)
}

/// All events of one type in a state.
///
/// # Errors
/// As the database says.
pub fn of_type(db: &impl Read, room: RoomNo, root: Root, kind: &str) -> Result<Vec<EventNo>> {
    let mut found = Vec::new();
    let Some(kind) = db.shared(&TYPES, &(room, kind))? else { return Ok(found) };
    if let Some(keys) = lookup(db, room, root.0.0, *kind)? {
        walk(db, room, keys, 0, &mut |_, event| {
            found.push(EventNo(event));
            Ok(())
        })?;
    }
    Ok(found)
}

/// Where two states differ: the old event and the new one of a type and key.
pub type Change = (Option<EventNo>, Option<EventNo>);

/// Where two states differ. It costs the difference.
///
/// # Errors
/// As the database says.
pub fn difference(db: &impl Read, room: RoomNo, old: Root, new: Root) -> Result<Vec<Change>> {
    differences(db, room, (old, new), |_| true)
}

/// [`difference`] in this type only.
///
/// # Errors
/// As the database says.
pub fn difference_of(db: &impl Read, room: RoomNo, old: Root, new: Root, kind: &str) -> Result<Vec<Change>> {
    match db.shared(&TYPES, &(room, kind))? {
        None => Ok(Vec::new()),
        Some(only) => differences(db, room, (old, new), |kind| kind == *only),
    }
}

/// [`difference`] in all types but this: for a reader who does not want the many members of a room.
///
/// # Errors
/// As the database says.
pub fn difference_but(db: &impl Read, room: RoomNo, old: Root, new: Root, kind: &str) -> Result<Vec<Change>> {
    let but = db.shared(&TYPES, &(room, kind))?;
    differences(db, room, (old, new), |kind| Some(kind) != but.as_deref().copied())
}

/// [`difference`] by the numbers of type and key.
pub(crate) fn places_of_difference(db: &impl Read, room: RoomNo, old: Root, new: Root) -> Result<BTreeMap<Place, Change>> {
    by_place(db, room, (old, new), |_| true)
}

fn differences(db: &impl Read, room: RoomNo, states: (Root, Root), wanted: impl Fn(u32) -> bool) -> Result<Vec<Change>> {
    Ok(by_place(db, room, states, wanted)?.into_values().collect())
}

fn by_place(
    db: &impl Read,
    room: RoomNo,
    (old, new): (Root, Root),
    wanted: impl Fn(u32) -> bool,
) -> Result<BTreeMap<Place, Change>> {
    let mut changes = BTreeMap::new();
    compare(db, room, (old.0.0, new.0.0), 0, &mut |kind, old, new| {
        if !wanted(kind) {
            return Ok(());
        }
        compare(db, room, (old, new), 0, &mut |key, old, new| {
            let event = |no: u32| (no != 0).then_some(EventNo(no));
            changes.insert((kind, key), (event(old), event(new)));
            Ok(())
        })
    })?;
    Ok(changes)
}

/// The state like `root` but for this type and key, which lead to `event`.
pub(crate) fn with(
    tx: &mut Tx<'_>,
    room: RoomNo,
    head: &mut Head,
    root: Root,
    pair: (&str, &str),
    event: EventNo,
) -> Result<Root> {
    let (kind, key) = intern(tx, room, head, pair)?;
    let keys = lookup(tx, room, root.0.0, kind)?.unwrap_or(0);
    let keys = insert(tx, room, head, keys, key, event.0)?;
    Ok(Root(NodeNo(insert(tx, room, head, root.0.0, kind, keys)?)))
}

/// The state like `root` without this type and key.
pub(crate) fn without(tx: &mut Tx<'_>, room: RoomNo, head: &mut Head, root: Root, (kind, key): Place) -> Result<Root> {
    let Some(keys) = lookup(tx, room, root.0.0, kind)? else { return Ok(root) };
    let keys = remove(tx, room, head, keys, key)?;
    let root = match keys {
        0 => remove(tx, room, head, root.0.0, kind)?,
        keys => insert(tx, room, head, root.0.0, kind, keys)?,
    };
    Ok(Root(NodeNo(root)))
}

/// The event at a type and key, by their numbers.
pub(crate) fn at(db: &impl Read, room: RoomNo, root: Root, (kind, key): Place) -> Result<Option<EventNo>> {
    let Some(keys) = lookup(db, room, root.0.0, kind)? else { return Ok(None) };
    Ok(lookup(db, room, keys, key)?.map(EventNo))
}

fn intern(tx: &mut Tx<'_>, room: RoomNo, head: &mut Head, (kind, key): (&str, &str)) -> Result<Place> {
    let kind = match tx.shared(&TYPES, &(room, kind))? {
        Some(no) => *no,
        None => {
            head.types += 1;
            tx.put(&TYPES, &(room, kind), &head.types)?;
            head.types
        }
    };
    let key = match tx.shared(&KEYS, &(room, kind, key))? {
        Some(no) => *no,
        None => {
            head.keys += 1;
            tx.put(&KEYS, &(room, kind, key), &head.keys)?;
            head.keys
        }
    };
    Ok((kind, key))
}
