//! Room state that is never copied: a persistent tree whose versions share what they have in common.
//!
//! A state is a [`Root`]: a tree by event type whose leaves are trees by state key, whose leaves are events. Types and
//! keys are numbered within their room in the order they appear, so the tree is a radix tree over small numbers whose
//! shape depends only on what it holds. Reading one entry costs the depth (at most 5 nodes a tree for a million keys),
//! a changed entry writes one such path, a type is a subtree, and comparing two states skips the nodes they share.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use store::{Owner, Read, RoomNo, Table, Tx};

use crate::{
    EventNo, Result,
    events::{self, StoredEvent},
    head::Head,
};

pub(crate) static NODES: Table<(RoomNo, NodeNo), Node> =
    Table::new("state_nodes", "Nodes of a room's state trees: written once, shared by all states that hold them.")
        .owned_by(Owner::Room)
        .cached();
pub(crate) static TYPES: Table<(RoomNo, String), u32> =
    Table::new("state_types", "The number of each type of state event in a room.").owned_by(Owner::Room).cached();
pub(crate) static KEYS: Table<(RoomNo, u32, String), u32> =
    Table::new("state_keys", "The number of each state key of a type in a room.").owned_by(Owner::Room).cached();

store::numbers! {
    /// A node of a room's state trees. 0 is the empty tree.
    NodeNo(u32);
}

/// A state of a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Root(pub(crate) NodeNo);

/// The numbers of a type and of a state key.
pub(crate) type Place = (u32, u32);

/// Each node tells 4 bits of the number apart.
const BITS: u32 = 4;

/// A node: which of 16 branches exist, and where they lead. At height 0 to values, else to nodes one lower.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    height: u8,
    slots: u16,
    children: Vec<u32>,
}

impl Node {
    fn slot(&self, number: u32) -> u32 {
        (number >> (u32::from(self.height) * BITS)) & 15
    }

    fn index(&self, slot: u32) -> usize {
        (self.slots & ((1 << slot) - 1)).count_ones() as usize
    }

    fn child(&self, slot: u32) -> Option<u32> {
        (self.slots & (1 << slot) != 0).then(|| self.children.get(self.index(slot)).copied()).flatten()
    }

    fn set(&mut self, slot: u32, child: u32) {
        let index = self.index(slot);
        if self.slots & (1 << slot) != 0 {
            self.children[index] = child;
        } else {
            self.slots |= 1 << slot;
            self.children.insert(index, child);
        }
    }

    /// Whether the tree below could hold this number.
    fn reaches(&self, number: u32) -> bool {
        number.checked_shr((u32::from(self.height) + 1) * BITS).unwrap_or(0) == 0
    }

    fn branches(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (0..16).filter(|slot| self.slots & (1 << slot) != 0).zip(self.children.iter().copied())
    }
}

fn node(db: &impl Read, room: RoomNo, no: u32) -> Result<Arc<Node>> {
    db.shared(&NODES, &(room, NodeNo(no)))?.ok_or(crate::Error::NotFound("a state node"))
}

fn lookup(db: &impl Read, room: RoomNo, root: u32, number: u32) -> Result<Option<u32>> {
    let mut at = root;
    if at == 0 {
        return Ok(None);
    }
    let mut current = node(db, room, at)?;
    if !current.reaches(number) {
        return Ok(None);
    }
    loop {
        match current.child(current.slot(number)) {
            None => return Ok(None),
            Some(value) if current.height == 0 => return Ok(Some(value)),
            Some(child) => at = child,
        }
        current = node(db, room, at)?;
    }
}

fn write(tx: &mut Tx<'_>, room: RoomNo, head: &mut Head, node: &Node) -> Result<u32> {
    head.nodes += 1;
    tx.put(&NODES, &(room, NodeNo(head.nodes)), node)?;
    Ok(head.nodes)
}

/// A tree like `root` but for `number`, which leads to `value`.
fn insert(tx: &mut Tx<'_>, room: RoomNo, head: &mut Head, root: u32, number: u32, value: u32) -> Result<u32> {
    let mut path = Vec::new();
    let mut at = root;
    let mut height = 0;
    if root != 0 {
        let top = node(tx, room, root)?;
        height = top.height;
        if !top.reaches(number) {
            // One level more, whose first branch is the old tree.
            let above = Node { height: height + 1, slots: 1, children: vec![root] };
            let root = write(tx, room, head, &above)?;
            return insert(tx, room, head, root, number, value);
        }
    } else {
        while !(Node { height, slots: 0, children: Vec::new() }).reaches(number) {
            height += 1;
        }
    }
    for height in (0..=height).rev() {
        let current = if at == 0 { Node { height, slots: 0, children: Vec::new() } } else { (*node(tx, room, at)?).clone() };
        at = current.child(current.slot(number)).unwrap_or(0);
        path.push(current);
    }
    let mut child = value;
    while let Some(mut current) = path.pop() {
        let slot = current.slot(number);
        current.set(slot, child);
        child = write(tx, room, head, &current)?;
    }
    Ok(child)
}

/// Calls `visit` with every number and value of the tree, in order of number.
fn walk(db: &impl Read, room: RoomNo, root: u32, base: u32, visit: &mut impl FnMut(u32, u32) -> Result<()>) -> Result<()> {
    if root == 0 {
        return Ok(());
    }
    let current = node(db, room, root)?;
    for (slot, child) in current.branches() {
        let number = base | slot << (u32::from(current.height) * BITS);
        if current.height == 0 {
            visit(number, child)?;
        } else {
            walk(db, room, child, number, visit)?;
        }
    }
    Ok(())
}

/// Calls `visit` with every number whose values differ, and the two values (0 for none).
fn compare(
    db: &impl Read,
    room: RoomNo,
    (old, new): (u32, u32),
    base: u32,
    visit: &mut impl FnMut(u32, u32, u32) -> Result<()>,
) -> Result<()> {
    if old == new {
        return Ok(());
    }
    if old == 0 {
        return walk(db, room, new, base, &mut |number, value| visit(number, 0, value));
    }
    if new == 0 {
        return walk(db, room, old, base, &mut |number, value| visit(number, value, 0));
    }
    let (a, b) = (node(db, room, old)?, node(db, room, new)?);
    // The lower tree is the first branch of what would be a tree of the other's height.
    let height = a.height.max(b.height);
    for slot in 0..16 {
        let below = |tree: &Node, root: u32| match tree.height == height {
            true => tree.child(slot).unwrap_or(0),
            false if slot == 0 => root,
            false => 0,
        };
        let (old, new) = (below(&a, old), below(&b, new));
        let number = base | slot << (u32::from(height) * BITS);
        if height == 0 && old != new {
            visit(number, old, new)?;
        } else if height > 0 {
            compare(db, room, (old, new), number, visit)?;
        }
    }
    Ok(())
}

/// The numbers of a type and key, if the room ever had such an event.
fn place(db: &impl Read, room: RoomNo, kind: &str, key: &str) -> Result<Option<Place>> {
    let Some(kind) = db.shared(&TYPES, &(room, kind))? else { return Ok(None) };
    Ok(db.shared(&KEYS, &(room, *kind, key))?.map(|key| (*kind, *key)))
}

/// The event of this type and key in a state.
///
/// # Errors
/// As the database says.
pub fn entry(db: &impl Read, room: RoomNo, root: Root, kind: &str, key: &str) -> Result<Option<EventNo>> {
    let Some((kind, key)) = place(db, room, kind, key)? else { return Ok(None) };
    let Some(keys) = lookup(db, room, root.0.0, kind)? else { return Ok(None) };
    Ok(lookup(db, room, keys, key)?.map(EventNo))
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

fn differences(db: &impl Read, room: RoomNo, (old, new): (Root, Root), wanted: impl Fn(u32) -> bool) -> Result<Vec<Change>> {
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
    Ok(changes.into_values().collect())
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
