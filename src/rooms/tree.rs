//! Persistent trees over small numbers: a changed tree shares with the old one all that did not change.
//!
//! A tree is the number of its top node; 0 is the empty tree. Its shape depends only on what it holds, nodes are written once,
//! and values are greater than 0. Reading one entry costs the depth (at most 5 nodes for a million numbers), a changed entry writes
//! one such path, and comparing two trees skips the nodes that they share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use store::{Owner, Read, RoomNo, Table, Tx};

use crate::{Result, head::Head};

pub(crate) static NODES: Table<(RoomNo, NodeNo), Node> = Table::new(
    "tree_nodes",
    "Nodes of a room's trees, of states and of auth chains: written once, shared by all trees with them.",
)
.owned_by(Owner::Room)
.cached();

store::numbers! {
    /// A node of a room's trees. 0 is the empty tree.
    NodeNo(u32);
}

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
    fn empty(height: u8) -> Self {
        Self { height, slots: 0, children: Vec::new() }
    }

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

    fn clear(&mut self, slot: u32) {
        if self.slots & (1 << slot) != 0 {
            self.children.remove(self.index(slot));
            self.slots &= !(1 << slot);
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

/// The value of a number.
pub(crate) fn lookup(db: &impl Read, room: RoomNo, root: u32, number: u32) -> Result<Option<u32>> {
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
pub(crate) fn insert(tx: &mut Tx<'_>, room: RoomNo, head: &mut Head, root: u32, number: u32, value: u32) -> Result<u32> {
    insert_all(tx, room, head, root, &[(number, value)])
}

/// A tree like `root` but for these numbers, in ascending order, which lead to these values. Each node is written once.
pub(crate) fn insert_all(tx: &mut Tx<'_>, room: RoomNo, head: &mut Head, root: u32, entries: &[(u32, u32)]) -> Result<u32> {
    let Some((greatest, _)) = entries.last() else { return Ok(root) };
    let mut height = if root == 0 { 0 } else { node(tx, room, root)?.height };
    while !Node::empty(height).reaches(*greatest) {
        height += 1;
    }
    let root = raised(tx, room, head, root, height)?;
    insert_below(tx, room, head, (root, height), entries)
}

fn insert_below(
    tx: &mut Tx<'_>,
    room: RoomNo,
    head: &mut Head,
    (root, height): (u32, u8),
    entries: &[(u32, u32)],
) -> Result<u32> {
    let old = if root == 0 { Node::empty(height) } else { (*node(tx, room, root)?).clone() };
    let mut new = old.clone();
    for entries in entries.chunk_by(|(one, _), (other, _)| old.slot(*one) == old.slot(*other)) {
        let [(number, value), ..] = entries else { continue };
        let slot = old.slot(*number);
        let child = match height {
            0 => *value,
            _ => insert_below(tx, room, head, (old.child(slot).unwrap_or(0), height - 1), entries)?,
        };
        new.set(slot, child);
    }
    if new == old { Ok(root) } else { write(tx, room, head, &new) }
}

/// The same tree with its top at this height, which is not lower than it is.
fn raised(tx: &mut Tx<'_>, room: RoomNo, head: &mut Head, mut root: u32, height: u8) -> Result<u32> {
    if root == 0 {
        return Ok(0);
    }
    for above in node(tx, room, root)?.height + 1..=height {
        root = write(tx, room, head, &Node { height: above, slots: 1, children: vec![root] })?;
    }
    Ok(root)
}

/// A tree like `root` without `number`.
pub(crate) fn remove(tx: &mut Tx<'_>, room: RoomNo, head: &mut Head, root: u32, number: u32) -> Result<u32> {
    if lookup(tx, room, root, number)?.is_none() {
        return Ok(root);
    }
    let mut path = Vec::new();
    let mut at = root;
    loop {
        let current = (*node(tx, room, at)?).clone();
        let (lowest, child) = (current.height == 0, current.child(current.slot(number)).unwrap_or(0));
        path.push(current);
        if lowest {
            break;
        }
        at = child;
    }
    let mut child = 0;
    while let Some(mut current) = path.pop() {
        let slot = current.slot(number);
        if child == 0 {
            current.clear(slot)
        } else {
            current.set(slot, child)
        }
        child = if current.slots == 0 { 0 } else { write(tx, room, head, &current)? };
    }
    Ok(child)
}

/// The branch at a slot of a tree as it would be at this height: the lower tree is the first branch of the higher one.
fn below(tree: &Node, root: u32, height: u8, slot: u32) -> u32 {
    match tree.height == height {
        true => tree.child(slot).unwrap_or(0),
        false if slot == 0 => root,
        false => 0,
    }
}

/// [`walk`] over the nodes that `unseen` says yes to. A node means the same wherever it is shared.
pub(crate) fn walk_unseen(
    db: &impl Read,
    room: RoomNo,
    root: u32,
    base: u32,
    unseen: &mut impl FnMut(u32) -> bool,
    visit: &mut impl FnMut(u32, u32),
) -> Result<()> {
    if root == 0 || !unseen(root) {
        return Ok(());
    }
    let current = node(db, room, root)?;
    for (slot, child) in current.branches() {
        let number = base | slot << (u32::from(current.height) * BITS);
        if current.height == 0 {
            visit(number, child);
        } else {
            walk_unseen(db, room, child, number, unseen, visit)?;
        }
    }
    Ok(())
}

/// Calls `visit` with every number and value of the tree, in order of number.
pub(crate) fn walk(
    db: &impl Read,
    room: RoomNo,
    root: u32,
    base: u32,
    visit: &mut impl FnMut(u32, u32) -> Result<()>,
) -> Result<()> {
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
pub(crate) fn compare(
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
    let height = a.height.max(b.height);
    for slot in 0..16 {
        let (old, new) = (below(&a, old, height, slot), below(&b, new, height, slot));
        let number = base | slot << (u32::from(height) * BITS);
        if height == 0 && old != new {
            visit(number, old, new)?;
        } else if height > 0 {
            compare(db, room, (old, new), number, visit)?;
        }
    }
    Ok(())
}

/// Whether any of these numbers, in ascending order, leads to its value or a greater one. It costs no more than the tree, or
/// than looking up each.
pub(crate) fn has_any(db: &impl Read, room: RoomNo, root: u32, base: u32, wanted: &[(u32, u32)]) -> Result<bool> {
    if root == 0 || wanted.is_empty() {
        return Ok(false);
    }
    let current = node(db, room, root)?;
    let shift = u32::from(current.height) * BITS;
    for (slot, child) in current.branches() {
        let number = base | slot << shift;
        let from = wanted.partition_point(|(wanted, _)| *wanted < number);
        let to = wanted.partition_point(|(wanted, _)| wanted >> shift <= number >> shift);
        let has = match wanted.get(from..to) {
            None | Some([]) => false,
            Some([(_, value), ..]) if current.height == 0 => child >= *value,
            Some(within) => has_any(db, room, child, number, within)?,
        };
        if has {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Several trees as one, in which a number leads to the greatest of its values in any of them, and of those beside them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Union {
    /// The trees.
    pub roots: BTreeSet<u32>,
    /// More numbers and values.
    pub beside: BTreeMap<u32, u32>,
}

impl Union {
    /// Has this number lead to this value, unless it leads to a greater one.
    pub fn raise(&mut self, number: u32, value: u32) {
        let entry = self.beside.entry(number).or_default();
        *entry = value.max(*entry);
    }
}

/// Calls `visit` with every number whose values in these differ, and with the least and the greatest of them (0 for none). Nodes that all
/// share are skipped, so that it costs the difference.
pub(crate) fn compare_unions(
    db: &impl Read,
    room: RoomNo,
    unions: &[Union],
    visit: &mut impl FnMut(u32, u32, u32) -> Result<()>,
) -> Result<()> {
    let beside: BTreeSet<u32> = unions.iter().flat_map(|union| union.beside.keys().copied()).collect();
    let mut height = 0;
    for root in unions.iter().flat_map(|union| &union.roots).collect::<BTreeSet<_>>() {
        height = height.max(node(db, room, *root)?.height);
    }
    while beside.last().is_some_and(|number| !Node::empty(height).reaches(*number)) {
        height += 1;
    }
    let tops: Vec<Vec<u32>> = unions.iter().map(|union| union.roots.iter().copied().collect()).collect();
    Comparison { db, room, unions, beside }.descend(&tops, height, 0, visit)
}

struct Comparison<'a, R> {
    db: &'a R,
    room: RoomNo,
    unions: &'a [Union],
    /// The numbers beside the trees of any union.
    beside: BTreeSet<u32>,
}

impl<R: Read> Comparison<'_, R> {
    /// Compares what lies below `base`, where each union has these nodes, of this height or lower.
    fn descend(
        &self,
        nodes: &[Vec<u32>],
        height: u8,
        base: u32,
        visit: &mut impl FnMut(u32, u32, u32) -> Result<()>,
    ) -> Result<()> {
        let last = base | u32::MAX.checked_shr(u32::BITS.saturating_sub((u32::from(height) + 1) * BITS)).unwrap_or(u32::MAX);
        if self.beside.range(base..=last).next().is_none() && nodes.windows(2).all(|pair| pair[0] == pair[1]) {
            return Ok(());
        }
        let mut read: BTreeMap<u32, Arc<Node>> = BTreeMap::new();
        for no in nodes.iter().flatten() {
            if !read.contains_key(no) {
                read.insert(*no, node(self.db, self.room, *no)?);
            }
        }
        for slot in 0..16 {
            let number = base | slot << (u32::from(height) * BITS);
            let branches = |nodes: &Vec<u32>| {
                let branches = nodes.iter().filter_map(|no| Some(below(read.get(no)?, *no, height, slot)));
                let mut branches: Vec<u32> = branches.filter(|branch| *branch != 0).collect();
                branches.sort_unstable();
                branches.dedup();
                branches
            };
            let below: Vec<Vec<u32>> = nodes.iter().map(branches).collect();
            if height > 0 {
                self.descend(&below, height - 1, number, visit)?;
                continue;
            }
            let values = self.unions.iter().zip(&below).map(|(union, values)| {
                let beside = union.beside.get(&number).copied().unwrap_or(0);
                values.last().copied().unwrap_or(0).max(beside)
            });
            let (least, greatest) =
                values.fold((u32::MAX, 0), |(least, greatest), value| (value.min(least), value.max(greatest)));
            if least < greatest {
                visit(number, least, greatest)?;
            }
        }
        Ok(())
    }
}
