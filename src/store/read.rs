//! Reading: the same queries over a published [`Snapshot`] and over a write transaction.

use std::{borrow::Borrow, sync::Arc};

use rocksdb::{ColumnFamily, DB, IteratorMode, ReadOptions};
use self_cell::self_cell;

use crate::{
    AsKey, Error, Key, Range, Result, Seq, Table, TableSpec, Topic, Value,
    cache::{Decoded, Fresh, RowCache},
    watch::Watches,
};

/// An encoded key and value.
pub type Row = (Box<[u8]>, Box<[u8]>);

/// Rows in key order, or against it.
pub type Rows<'a> = Box<dyn Iterator<Item = Result<Row>> + 'a>;

/// Encoded rows. Only the store implements it.
pub trait Source {
    /// Calls `decode` with the row's bytes.
    fn raw<R>(&self, table: &'static str, key: &[u8], decode: impl FnOnce(&[u8]) -> R) -> Result<Option<R>>;

    /// The rows from `lower` to before `upper` (unbounded where empty).
    fn raw_rows(&self, table: &'static str, lower: &[u8], upper: &[u8], reversed: bool) -> Result<Rows<'_>>;

    /// Told of each row that is asked for: transactions count them ([`crate::Work`]).
    fn asked(&self) {}

    /// What a row decodes to that this view wrote itself, if that is at hand.
    fn decoded(&self, _table: &'static str, _key: &[u8]) -> Option<Decoded> {
        None
    }

    /// The cache, and the number of its changes when this view was taken; `None` for a row that this view changed.
    fn row_cache(&self, table: &'static str, key: &[u8]) -> Option<(&RowCache, u64)>;
}

/// What queries are asked of.
pub trait Read: Source {
    /// The row of this key, shared with all who read it, of a table that is [`Table::cached`].
    ///
    /// # Errors
    /// As [`Read::get`].
    fn shared<K: Key, V: Value + Send + Sync + 'static>(
        &self,
        table: &'static Table<K, V>,
        key: &impl AsKey<K>,
    ) -> Result<Option<Arc<V>>> {
        self.asked();
        let mut bytes = Vec::with_capacity(48);
        key.encode(&mut bytes);
        let name = table.spec.name;
        if let Some(own) = self.decoded(name, &bytes).and_then(|own| own.downcast().ok()) {
            return Ok(Some(own));
        }
        let cache = self.row_cache(name, &bytes).filter(|_| table.spec.cached);
        if let Some(hit) = cache.and_then(|(cache, changes)| cache.get(name, &bytes, changes)) {
            return Ok(Some(hit));
        }
        let decoded = self.raw(name, &bytes, |row| V::decode(row).map(|value| (Arc::new(value), row.len())))?;
        let Some(decoded) = decoded else { return Ok(None) };
        let (value, length) = decoded.ok_or_else(|| corrupt(&table.spec, &bytes))?;
        if let Some((cache, changes)) = cache {
            cache.put([Fresh::new(name, &bytes, Arc::clone(&value) as _, length)], changes);
        }
        Ok(Some(value))
    }

    /// The row of this key.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where its bytes are no such value.
    fn get<K: Key, V: Value>(&self, table: &Table<K, V>, key: &impl AsKey<K>) -> Result<Option<V>> {
        self.asked();
        let mut bytes = Vec::with_capacity(48);
        key.encode(&mut bytes);
        match self.raw(table.spec.name, &bytes, V::decode)? {
            None => Ok(None),
            Some(Some(value)) => Ok(Some(value)),
            Some(None) => Err(corrupt(&table.spec, &bytes)),
        }
    }

    /// Whether there is a row of this key.
    ///
    /// # Errors
    /// As the database says.
    fn contains<K: Key, V: Value>(&self, table: &Table<K, V>, key: &impl AsKey<K>) -> Result<bool> {
        self.asked();
        let mut bytes = Vec::with_capacity(48);
        key.encode(&mut bytes);
        Ok(self.raw(table.spec.name, &bytes, |_| ())?.is_some())
    }

    /// The rows of this range, read as they are asked for.
    ///
    /// # Errors
    /// As the database says; each row is an [`Error::Corrupt`] where its bytes are none.
    fn range<K: Key, V: Value>(
        &self,
        table: &'static Table<K, V>,
        range: impl Borrow<Range<K>>,
    ) -> Result<impl Iterator<Item = Result<(K, V)>> + '_> {
        let range = range.borrow();
        let rows: Rows<'_> = if range.is_empty() {
            Box::new(std::iter::empty())
        } else {
            self.raw_rows(table.spec.name, &range.lower, &range.upper, range.reversed)?
        };
        Ok(rows.map(|row| {
            self.asked();
            let (key, value) = row?;
            K::decode(&key).zip(V::decode(&value)).ok_or_else(|| corrupt(&table.spec, &key))
        }))
    }

    /// The first row of this range.
    ///
    /// # Errors
    /// As [`Read::range`].
    fn first<K: Key, V: Value>(&self, table: &'static Table<K, V>, range: impl Borrow<Range<K>>) -> Result<Option<(K, V)>> {
        self.range(table, range)?.next().transpose()
    }
}

pub(crate) fn corrupt(table: &TableSpec, key: &[u8]) -> Error {
    use std::fmt::Write;
    let key = key.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    Error::Corrupt { table: table.name, key }
}

type Borrowed<'a> = rocksdb::SnapshotWithThreadMode<'a, DB>;

self_cell!(
    /// A snapshot that keeps its database open.
    pub(crate) struct Frozen {
        owner: Arc<DB>,
        #[covariant]
        dependent: Borrowed,
    }
);

impl Frozen {
    pub(crate) fn now(db: &Arc<DB>) -> Self {
        Self::new(Arc::clone(db), |db| db.snapshot())
    }

    fn family(&self, table: &'static str) -> Result<&ColumnFamily> {
        family(self.borrow_owner(), table)
    }
}

/// The column family of a table.
pub(crate) fn family<'a>(db: &'a DB, table: &'static str) -> Result<&'a ColumnFamily> {
    db.cf_handle(table).ok_or_else(|| Error::Database(format!("no table {table}: it is missing from its layer's TABLES")))
}

impl Frozen {
    pub(crate) fn raw<R>(&self, table: &'static str, key: &[u8], decode: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let row = self.borrow_dependent().get_pinned_cf(self.family(table)?, key)?;
        Ok(row.map(|bytes| decode(&bytes)))
    }

    pub(crate) fn raw_rows(&self, table: &'static str, lower: &[u8], upper: &[u8], reversed: bool) -> Result<Rows<'_>> {
        let mut options = ReadOptions::default();
        if !lower.is_empty() {
            options.set_iterate_lower_bound(lower);
        }
        if !upper.is_empty() {
            options.set_iterate_upper_bound(upper);
        }
        let mode = if reversed { IteratorMode::End } else { IteratorMode::Start };
        let rows = self.borrow_dependent().iterator_cf_opt(self.family(table)?, options, mode);
        Ok(Box::new(rows.map(|row| row.map_err(Error::from))))
    }
}

/// All that was committed and synced up to one moment. Cheap to clone; holds no lock.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) inner: Arc<Published>,
}

pub(crate) struct Published {
    pub(crate) seq: Seq,
    pub(crate) rows: Frozen,
    pub(crate) cache: Arc<RowCache>,
    /// The cache's changes before the snapshot was taken.
    pub(crate) cache_changes: u64,
    pub(crate) watches: Arc<Watches>,
}

impl Snapshot {
    /// The last commit that it holds: what a sync token says.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.inner.seq
    }

    /// Those of `topics` that may have changed after `since`, without reading the disk. May name a topic that did not.
    pub fn changed_since(&self, since: Seq, topics: impl IntoIterator<Item = Topic>) -> Vec<Topic> {
        self.inner.watches.changed_since(since, topics)
    }
}

impl Read for Snapshot {}

impl Source for Snapshot {
    fn raw<R>(&self, table: &'static str, key: &[u8], decode: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.inner.rows.raw(table, key, decode)
    }

    fn raw_rows(&self, table: &'static str, lower: &[u8], upper: &[u8], reversed: bool) -> Result<Rows<'_>> {
        self.inner.rows.raw_rows(table, lower, upper, reversed)
    }

    fn row_cache(&self, _: &'static str, _: &[u8]) -> Option<(&RowCache, u64)> {
        Some((&self.inner.cache, self.inner.cache_changes))
    }
}
