//! Collecting what is no longer needed: the nodes of a room's trees that no event leads to, as resolutions leave behind.
//!
//! Mark and sweep of one room at a time ([decision 6](../../docs/decisions/0006-collecting-state.md)). The roots are in the headers of
//! the room's events. Whoever makes a tree begins from one of them and writes what is new under new numbers; so a node that no
//! event of a snapshot leads to is never led to again, and may go at any time, one bounded write after the other.

use store::{Lead, Lock, Owner, Range, Read, RoomNo, Snapshot, Store, Table};

use crate::{
    Result,
    events::{EVENTS, StoredEvent},
    head::{self, HEADS},
    numbers,
    state::Root,
    tree::{self, NODES, NodeNo},
};

pub(crate) static COLLECTED: Table<RoomNo, u32> =
    Table::new("tree_nodes_collected", "How many tree nodes a room had made when those that nothing needs were last collected.")
        .owned_by(Owner::Room);

/// The fewest nodes that a room makes before they are worth a look.
pub const NEW_MIN: u32 = 4_096;
/// The most rows that one write deletes.
const DELETED_MAX: usize = 1_000;

/// What became of a room's nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Those that events need.
    pub kept: u64,
    /// Those that are gone.
    pub removed: u64,
}

/// The rooms that made as many nodes since they were last looked at as they had made then, so that all looking costs no more than all
/// making: at least [`NEW_MIN`].
///
/// # Errors
/// As the database says.
pub fn due(db: &impl Read) -> Result<Vec<RoomNo>> {
    let mut due = Vec::new();
    for row in db.range(&HEADS, Range::of(&()))? {
        let (room, head) = row?;
        let collected = db.get(&COLLECTED, &room)?.unwrap_or(0);
        if head.nodes.saturating_sub(collected) >= collected.max(NEW_MIN) {
            due.push(room);
        }
    }
    Ok(due)
}

/// Deletes the nodes of a room that no event needs, while it is used. `stopping` is asked now and then, and ends it early.
///
/// # Errors
/// As the database says.
pub fn collect(store: &Store, room: RoomNo, stopping: impl Fn() -> bool) -> Result<Collected> {
    let db = store.snapshot();
    let made = head::head(&db, room)?.nodes;
    let Some(marks) = mark(&db, room, made, &stopping)? else { return Ok(Collected::default()) };
    let mut collected = Collected::default();
    let mut unneeded = Vec::with_capacity(DELETED_MAX);
    for row in db.range(&NODES, Range::of(&Lead((room,))).through(&(room, NodeNo(made))))? {
        let ((_, no), _) = row?;
        if marks.has(no.0) {
            collected.kept += 1;
            continue;
        }
        unneeded.push(no);
        collected.removed += 1;
        if unneeded.len() == DELETED_MAX {
            delete(store, room, &std::mem::take(&mut unneeded))?;
            if stopping() {
                return Ok(collected);
            }
        }
    }
    delete(store, room, &unneeded)?;
    finish(store, room, made)?;
    Ok(collected)
}

fn delete(store: &Store, room: RoomNo, nodes: &[NodeNo]) -> Result<()> {
    let delete = |tx: &mut store::Tx<'_>| nodes.iter().try_for_each(|no| tx.delete(&NODES, &(room, *no)));
    Ok(store.transact::<_, store::Error>(&[Lock::Room(room)], delete)?.wait()?)
}

fn finish(store: &Store, room: RoomNo, made: u32) -> Result<()> {
    let note = |tx: &mut store::Tx<'_>| -> Result<()> {
        // It may have been purged meanwhile.
        if tx.contains(&numbers::ROOMS, &room)? {
            tx.put(&COLLECTED, &room, &made)?;
        }
        Ok(())
    };
    Ok(store.transact(&[Lock::Room(room)], note)?.wait()?)
}

/// One bit for each node that a room ever made.
struct Marks(Vec<u64>);

impl Marks {
    /// Marks a node; whether it was not marked.
    fn set(&mut self, no: u32) -> bool {
        let (word, bit) = (no as usize / 64, 1 << (no % 64));
        let Some(word) = self.0.get_mut(word) else { return false };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn has(&self, no: u32) -> bool {
        self.0.get(no as usize / 64).is_some_and(|word| word & (1 << (no % 64)) != 0)
    }

    /// Marks a tree, and calls `visit` with the values that were not reached before.
    fn set_tree(&mut self, db: &Snapshot, room: RoomNo, root: u32, visit: &mut impl FnMut(u32)) -> Result<()> {
        tree::walk_unseen(db, room, root, 0, &mut |no| self.set(no), &mut |_, value| visit(value))
    }

    /// Marks the trees of a state: that of its types, and those of their keys.
    fn set_state(&mut self, db: &Snapshot, room: RoomNo, root: Root) -> Result<()> {
        let mut types = Vec::new();
        self.set_tree(db, room, root.0.0, &mut |keys| types.push(keys))?;
        types.into_iter().try_for_each(|keys| self.set_tree(db, room, keys, &mut |_| ()))
    }

    fn set_event(&mut self, db: &Snapshot, room: RoomNo, stored: &StoredEvent) -> Result<()> {
        let header = &stored.header;
        for root in [header.before, header.after, header.current] {
            self.set_state(db, room, root)?;
        }
        for link in [header.dag, header.auth].into_iter().flatten() {
            self.set_tree(db, room, link.reach().0, &mut |_| ())?;
        }
        Ok(())
    }
}

/// Marks what the events of a room need; nothing where it is to stop.
fn mark(db: &Snapshot, room: RoomNo, made: u32, stopping: &impl Fn() -> bool) -> Result<Option<Marks>> {
    let mut marks = Marks(vec![0; made as usize / 64 + 1]);
    marks.set_state(db, room, head::head(db, room)?.state)?;
    for (looked_at, row) in db.range(&EVENTS, Range::of(&Lead((room,))))?.enumerate() {
        marks.set_event(db, room, &row?.1)?;
        if looked_at % DELETED_MAX == 0 && stopping() {
            return Ok(None);
        }
    }
    Ok(Some(marks))
}
