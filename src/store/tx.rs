//! The write transaction: a snapshot with an ordered overlay, which commits as one batch.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, atomic::Ordering},
};

use parking_lot::MutexGuard;
use rocksdb::WriteBatch;

use crate::{
    AsKey, Error, Key, Lock, Owner, Read, Result, RoomNo, Seq, Table, TableSpec, Topic, UserNo, Value,
    cache::{Decoded, Fresh, RowCache, RowKey},
    commit::{CommitState, Shared},
    read::{Frozen, Row, Rows, Source, corrupt, family},
};

/// A table's changed rows.
type Changes = BTreeMap<Vec<u8>, Change>;

/// What became of a row.
struct Change {
    /// Its value; `None` where it was deleted.
    value: Option<Vec<u8>>,
    /// What that decodes to, of a row that is about to be read.
    decoded: Option<Decoded>,
}

/// A table, and what the keys begin with of its rows that were erased.
pub(crate) type Erased = (&'static str, [u8; 4]);

/// A write transaction. Reads see the rows as they were when its locks were taken, and its own writes.
pub struct Tx<'s> {
    shared: &'s Shared,
    rows: Frozen,
    /// The cache's changes before the snapshot was taken.
    cache_changes: u64,
    locks: Vec<Lock>,
    overlay: BTreeMap<&'static str, Changes>,
    /// Tables with the room whose stored rows are gone; what is written after that is in the overlay.
    erased: Vec<Erased>,
    touched: Vec<Topic>,
    /// Woken, but not changed.
    woken: Vec<Topic>,
    /// Rows of cached tables that are no longer what they were.
    replaced: Vec<RowKey>,
    /// Rows that were asked for.
    asked: Cell<u64>,
    /// Held from the first time the transaction needs to be alone (a sequence number, an interned number) to its end.
    alone: RefCell<Option<MutexGuard<'s, CommitState>>>,
}

thread_local! {
    /// Whether this thread is within a transaction, to refuse a second that would wait for the first.
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

/// Marks the thread for as long as it lives.
pub(crate) struct Within;

impl Within {
    pub(crate) fn enter() -> Result<Self> {
        if WITHIN.replace(true) { Err(Error::Nested) } else { Ok(Self) }
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        WITHIN.set(false);
    }
}

impl<'s> Tx<'s> {
    pub(crate) fn new(shared: &'s Shared, locks: &[Lock]) -> Self {
        let cache_changes = shared.cache.changes();
        Self {
            shared,
            rows: Frozen::now(&shared.db),
            cache_changes,
            locks: locks.to_vec(),
            overlay: BTreeMap::new(),
            erased: Vec::new(),
            touched: Vec::new(),
            woken: Vec::new(),
            replaced: Vec::new(),
            asked: Cell::new(0),
            alone: RefCell::new(None),
        }
    }

    /// The number of this commit. From this call to its end the transaction commits before any other that asks, so ask late.
    pub fn seq(&self) -> Seq {
        Seq(self.alone().written.0 + 1)
    }

    /// The rows of a room or user whose number was drawn in this transaction: nobody else can know it.
    pub fn own_new(&mut self, lock: Lock) {
        self.locks.push(lock);
    }

    /// The next number of a counter, from 1. Numbers drawn in a transaction that fails are drawn again.
    ///
    /// # Errors
    /// As the database says.
    pub fn draw(&mut self, counter: &Table<String, u32>, name: &'static str) -> Result<u32> {
        let next = self.latest(counter, &name)?.unwrap_or(0) + 1;
        self.put(counter, &name, &next)?;
        Ok(next)
    }

    /// The row as the last commit left it, be it after this transaction began: for rows that no room's or user's lock
    /// guards. Nobody else changes it until this transaction ends.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where its bytes are no such value.
    pub fn latest<K: Key, V: Value>(&self, table: &Table<K, V>, key: &impl AsKey<K>) -> Result<Option<V>> {
        drop(self.alone());
        let mut bytes = Vec::with_capacity(48);
        key.encode(&mut bytes);
        if let Some(own) = self.overlay.get(table.spec.name).and_then(|changes| changes.get(&bytes)) {
            return own.value.as_ref().map(|value| V::decode(value).ok_or_else(|| corrupt(&table.spec, &bytes))).transpose();
        }
        if self.is_erased(table.spec.name, &bytes) {
            return Ok(None);
        }
        let row = self.shared.db.get_pinned_cf(family(&self.shared.db, table.spec.name)?, &bytes)?;
        row.map(|value| V::decode(&value).ok_or_else(|| corrupt(&table.spec, &bytes))).transpose()
    }

    /// Writes a row; of a [`Table::cached`] table one that is not there yet.
    ///
    /// # Errors
    /// [`Error::Unlocked`] without the owner's lock, [`Error::Unencodable`] for a value without an encoding.
    pub fn put<K: Key, V: Value>(&mut self, table: &Table<K, V>, key: &impl AsKey<K>, value: &V) -> Result<()> {
        let mut bytes = Vec::with_capacity(64);
        value.encode(&mut bytes).ok_or(Error::Unencodable { table: table.spec.name })?;
        self.change(&table.spec, key, Change { value: Some(bytes), decoded: None })
    }

    /// Writes a row of a [`Table::cached`] table that is not there yet and that will be read at once: this transaction finds it
    /// decoded, and so do others once it is published.
    ///
    /// # Errors
    /// As [`Tx::put`].
    pub fn put_shared<K: Key, V: Value + Send + Sync + 'static>(
        &mut self,
        table: &Table<K, V>,
        key: &impl AsKey<K>,
        value: &Arc<V>,
    ) -> Result<()> {
        let mut bytes = Vec::with_capacity(64);
        value.encode(&mut bytes).ok_or(Error::Unencodable { table: table.spec.name })?;
        self.change(&table.spec, key, Change { value: Some(bytes), decoded: Some(Arc::clone(value) as _) })
    }

    /// Writes a row of a [`Table::cached`] table over the one that is there.
    ///
    /// # Errors
    /// As [`Tx::put`].
    pub fn replace<K: Key, V: Value>(&mut self, table: &Table<K, V>, key: &impl AsKey<K>, value: &V) -> Result<()> {
        self.forget(&table.spec, key);
        self.put(table, key, value)
    }

    /// Deletes a row, if there is one.
    ///
    /// # Errors
    /// [`Error::Unlocked`] without the owner's lock.
    pub fn delete<K: Key, V: Value>(&mut self, table: &Table<K, V>, key: &impl AsKey<K>) -> Result<()> {
        self.forget(&table.spec, key);
        self.change(&table.spec, key, Change { value: None, decoded: None })
    }

    /// Deletes all rows of a room in a table that rooms own, at the cost of one.
    ///
    /// # Errors
    /// [`Error::Unlocked`] without the room's lock, and for a table that rooms do not own.
    pub fn erase(&mut self, table: &TableSpec, room: RoomNo) -> Result<()> {
        if table.owner != Owner::Room || !self.locks.contains(&Lock::Room(room)) {
            return Err(Error::Unlocked(table.name));
        }
        let prefix = room.0.to_be_bytes();
        if let Some(changes) = self.overlay.get_mut(table.name) {
            changes.retain(|key, _| !key.starts_with(&prefix));
        }
        if table.wakes == Owner::Room {
            self.touch(Topic::Room(room));
        }
        self.erased.push((table.name, prefix));
        Ok(())
    }

    fn is_erased(&self, table: &str, key: &[u8]) -> bool {
        self.erased.iter().any(|(erased, prefix)| *erased == table && key.starts_with(prefix))
    }

    fn forget<K>(&mut self, table: &TableSpec, key: &impl AsKey<K>) {
        if table.cached {
            let mut bytes = Vec::with_capacity(48);
            key.encode(&mut bytes);
            self.replaced.push((table.name, bytes.into_boxed_slice()));
        }
    }

    /// Wakes who watches this, though no row of it changed.
    pub fn touch(&mut self, topic: Topic) {
        if !self.touched.contains(&topic) {
            self.touched.push(topic);
        }
    }

    /// Wakes who watches this, which does not count as changed: they look for something else.
    pub fn wake(&mut self, topic: Topic) {
        self.woken.push(topic);
    }

    fn change<K>(&mut self, table: &TableSpec, key: &impl AsKey<K>, change: Change) -> Result<()> {
        let mut bytes = Vec::with_capacity(48);
        key.encode(&mut bytes);
        let first = bytes.first_chunk().map_or(0, |first| u32::from_be_bytes(*first));
        let held = match table.owner {
            Owner::Nobody => true,
            Owner::Room => self.locks.contains(&Lock::Room(RoomNo(first))),
            Owner::User => self.locks.contains(&Lock::User(UserNo(first))),
        };
        if !held {
            return Err(Error::Unlocked(table.name));
        }
        match table.wakes {
            Owner::Nobody => {}
            Owner::Room => self.touch(Topic::Room(RoomNo(first))),
            Owner::User => self.touch(Topic::User(UserNo(first))),
        }
        self.overlay.entry(table.name).or_default().insert(bytes, change);
        Ok(())
    }

    fn alone(&self) -> std::cell::RefMut<'_, MutexGuard<'s, CommitState>> {
        std::cell::RefMut::map(self.alone.borrow_mut(), |guard| guard.get_or_insert_with(|| self.shared.commit.lock()))
    }

    /// What there is to commit.
    pub(crate) fn finish(self) -> Result<(MutexGuard<'s, CommitState>, Option<Finished>)> {
        self.shared.counters.reads.fetch_add(self.asked.get(), Ordering::Relaxed);
        let guard = self.alone.into_inner().unwrap_or_else(|| self.shared.commit.lock());
        if self.overlay.is_empty() && self.erased.is_empty() && self.touched.is_empty() {
            return Ok((guard, None));
        }
        let mut batch = WriteBatch::default();
        for (table, prefix) in &self.erased {
            let end = u32::from_be_bytes(*prefix).saturating_add(1).to_be_bytes();
            batch.delete_range_cf(family(&self.shared.db, table)?, *prefix, end);
        }
        let (mut written, mut fresh) = (0, Vec::new());
        for (table, changes) in self.overlay {
            let family = family(&self.shared.db, table)?;
            for (key, Change { value, decoded }) in changes {
                let length = value.as_ref().map_or(0, Vec::len);
                written += key.len() + length;
                fresh.extend(decoded.map(|decoded| Fresh::new(table, &key, decoded, length)));
                match value {
                    Some(value) => batch.put_cf(family, key, value),
                    None => batch.delete_cf(family, key),
                }
            }
        }
        self.shared.counters.written_bytes.fetch_add(written as u64, Ordering::Relaxed);
        let Self { touched, woken, replaced, erased, .. } = self;
        Ok((guard, Some(Finished { batch, touched, woken, replaced, erased, fresh })))
    }
}

/// A transaction's changes, ready to be written.
pub(crate) struct Finished {
    pub(crate) batch: WriteBatch,
    pub(crate) touched: Vec<Topic>,
    pub(crate) woken: Vec<Topic>,
    pub(crate) replaced: Vec<RowKey>,
    pub(crate) erased: Vec<Erased>,
    /// New rows of cached tables, which somebody is about to read.
    pub(crate) fresh: Vec<Fresh>,
}

impl Read for Tx<'_> {}

impl Source for Tx<'_> {
    fn asked(&self) {
        self.asked.set(self.asked.get() + 1);
    }

    fn decoded(&self, table: &'static str, key: &[u8]) -> Option<Decoded> {
        self.overlay.get(table)?.get(key)?.decoded.clone()
    }

    fn row_cache(&self, table: &'static str, key: &[u8]) -> Option<(&RowCache, u64)> {
        let own = self.overlay.get(table).is_some_and(|changes| changes.contains_key(key));
        (!own && !self.is_erased(table, key)).then_some((&self.shared.cache, self.cache_changes))
    }

    fn raw<R>(&self, table: &'static str, key: &[u8], decode: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        match self.overlay.get(table).and_then(|changes| changes.get(key)) {
            Some(own) => Ok(own.value.as_deref().map(decode)),
            None if self.is_erased(table, key) => Ok(None),
            None => self.rows.raw(table, key, decode),
        }
    }

    fn raw_rows(&self, table: &'static str, lower: &[u8], upper: &[u8], reversed: bool) -> Result<Rows<'_>> {
        let mut stored = self.rows.raw_rows(table, lower, upper, reversed)?;
        if self.erased.iter().any(|(erased, _)| *erased == table) {
            stored = Box::new(stored.filter(move |row| row.as_ref().map_or(true, |(key, _)| !self.is_erased(table, key))));
        }
        let Some(changes) = self.overlay.get(table) else { return Ok(stored) };
        let upper = if upper.is_empty() { Bound::Unbounded } else { Bound::Excluded(upper) };
        let own = changes.range::<[u8], _>((Bound::Included(lower), upper)).map(|(key, change)| (key, &change.value));
        let own: Box<dyn Iterator<Item = _>> = if reversed { Box::new(own.rev()) } else { Box::new(own) };
        Ok(Box::new(Merged { stored: stored.peekable(), own: own.peekable(), reversed }))
    }
}

/// Stored rows with the transaction's own over them, in one order.
struct Merged<'a, O: Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>> {
    stored: std::iter::Peekable<Rows<'a>>,
    own: std::iter::Peekable<O>,
    reversed: bool,
}

impl<'a, O: Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>> Iterator for Merged<'a, O> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((own, _)) = self.own.peek() else { return self.stored.next() };
            if let Some(stored) = self.stored.peek() {
                let Ok((stored, _)) = stored else { return self.stored.next() };
                let order = if self.reversed { own.as_slice().cmp(stored) } else { stored.as_ref().cmp(own.as_slice()) };
                match order {
                    std::cmp::Ordering::Less => return self.stored.next(),
                    std::cmp::Ordering::Equal => drop(self.stored.next()),
                    std::cmp::Ordering::Greater => {}
                }
            }
            if let Some((key, Some(value))) = self.own.next() {
                return Some(Ok((key.clone().into_boxed_slice(), value.clone().into_boxed_slice())));
            }
        }
    }
}
