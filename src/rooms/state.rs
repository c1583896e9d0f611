//! Room state that is never copied: a persistent tree whose versions share what they have in common.
//!
//! A state is a [`Root`]: a tree by event type whose leaves are trees by state key, whose leaves are events. Types and
//! keys are numbered within their room in the order they appear. A type is a subtree, and comparing two states skips what
//! they share ([`crate::tree`]).

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use protocol::event::Event;
use serde::{Deserialize, Serialize};
use store::{Lead, Owner, Range, Read, RoomNo, Table, Tx};

use crate::{
    EventNo, Result,
    events::{self, StoredEvent},
    head::Head,
    tree::{NodeNo, compare, insert, insert_all, lookup, remove, walk},
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

/// Calls `judge` with a state as the protocol's functions ask for it.
pub(crate) fn with_events<T>(
    db: &impl Read,
    room: RoomNo,
    root: Root,
    judge: impl FnOnce(&dyn Fn(&str, &str) -> Option<Arc<Event>>) -> T,
) -> Result<T> {
    let failed = RefCell::new(None);
    let verdict = judge(&|kind, key| match event(db, room, root, kind, key) {
        Ok(stored) => stored.map(|stored| Arc::clone(&stored.event)),
        Err(error) => {
            failed.borrow_mut().get_or_insert(error);
            None
        }
    });
    failed.into_inner().map_or(Ok(verdict), Err)
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

/// The state keys that events of a type ever had in the room, those after this one, in their order and as they are asked for.
pub(crate) fn keys_after<'a>(
    db: &'a impl Read,
    room: RoomNo,
    kind: &str,
    after: &str,
) -> Result<impl Iterator<Item = Result<String>> + 'a> {
    let kind = db.shared(&TYPES, &(room, kind))?.map(|kind| *kind);
    let rows = kind.map(|kind| db.range(&KEYS, Range::of(&Lead((room, kind))).after(&(room, kind, after)))).transpose()?;
    Ok(rows.into_iter().flatten().map(|row| row.map(|((.., key), _)| key).map_err(Into::into)))
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

/// [`difference`] by the numbers of type and key, and in their order.
pub(crate) fn places_of_difference(db: &impl Read, room: RoomNo, old: Root, new: Root) -> Result<Vec<(Place, Change)>> {
    by_place(db, room, (old, new), |_| true)
}

fn differences(db: &impl Read, room: RoomNo, states: (Root, Root), wanted: impl Fn(u32) -> bool) -> Result<Vec<Change>> {
    Ok(by_place(db, room, states, wanted)?.into_iter().map(|(_, change)| change).collect())
}

fn by_place(
    db: &impl Read,
    room: RoomNo,
    (old, new): (Root, Root),
    wanted: impl Fn(u32) -> bool,
) -> Result<Vec<(Place, Change)>> {
    let mut changes = Vec::new();
    compare(db, room, (old.0.0, new.0.0), 0, &mut |kind, old, new| {
        if !wanted(kind) {
            return Ok(());
        }
        compare(db, room, (old, new), 0, &mut |key, old, new| {
            let event = |no: u32| (no != 0).then_some(EventNo(no));
            changes.push(((kind, key), (event(old), event(new))));
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

/// The state like `root` but for these entries, which lead to these events or to none. Nodes are written once, but for what is taken out.
pub(crate) fn changed(
    tx: &mut Tx<'_>,
    room: RoomNo,
    head: &mut Head,
    mut root: Root,
    changes: &BTreeMap<Place, Option<EventNo>>,
) -> Result<Root> {
    let mut types: Vec<(u32, u32)> = Vec::new();
    let changes: Vec<(Place, Option<EventNo>)> = changes.iter().map(|(place, event)| (*place, *event)).collect();
    for of_type in changes.chunk_by(|((kind, _), _), ((other, _), _)| kind == other) {
        let [((kind, _), _), ..] = of_type else { continue };
        let before = lookup(tx, room, root.0.0, *kind)?.unwrap_or(0);
        let mut keys = before;
        for ((_, key), _) in of_type.iter().filter(|(_, event)| event.is_none()) {
            keys = remove(tx, room, head, keys, *key)?;
        }
        let set = of_type.iter().filter_map(|((_, key), event)| event.map(|event| (*key, event.0)));
        keys = insert_all(tx, room, head, keys, &set.collect::<Vec<_>>())?;
        match keys {
            0 => root = Root(NodeNo(remove(tx, room, head, root.0.0, *kind)?)),
            keys if keys != before => types.push((*kind, keys)),
            _ => {}
        }
    }
    Ok(Root(NodeNo(insert_all(tx, room, head, root.0.0, &types)?)))
}

/// The event at a type and key, by their numbers.
pub(crate) fn at(db: &impl Read, room: RoomNo, root: Root, (kind, key): Place) -> Result<Option<EventNo>> {
    let Some(keys) = lookup(db, room, root.0.0, kind)? else { return Ok(None) };
    Ok(lookup(db, room, keys, key)?.map(EventNo))
}

/// The numbers of a type and key, which are drawn where the room never had such an event.
pub(crate) fn intern(tx: &mut Tx<'_>, room: RoomNo, head: &mut Head, (kind, key): (&str, &str)) -> Result<Place> {
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
