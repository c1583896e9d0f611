//! Decoded rows of tables that are [`crate::Table::cached`]: events, state nodes, interned names.
//!
//! Such rows change seldom (an event is redacted, or gets its place), and are deleted with their room. A changed row leaves the
//! cache with its commit, and who reads from before finds none that is newer than what they read.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use quick_cache::{Weighter, sync::Cache};

use crate::tx::Erased;

/// A row's table and key.
pub(crate) type RowKey = (&'static str, Box<[u8]>);
/// A decoded row.
pub(crate) type Decoded = Arc<dyn Any + Send + Sync>;
/// A decoded row, and the bytes that encode it.
type Row = (Decoded, u32);
/// A row that is cached, and the number of changes before the snapshot that it was read from: older ones may have had another.
type Cached = (Row, u64);

/// A row for the cache.
pub(crate) struct Fresh {
    key: RowKey,
    row: Row,
}

impl Fresh {
    pub(crate) fn new(table: &'static str, key: &[u8], decoded: Decoded, bytes: usize) -> Self {
        Self { key: (table, key.into()), row: (decoded, u32::try_from(bytes).unwrap_or(u32::MAX)) }
    }

    /// Whether it is one of the changed rows, or of those that were erased.
    pub(crate) fn is_gone(&self, changed: &[RowKey], erased: &[Erased]) -> bool {
        changed.contains(&self.key) || is_erased(&self.key, erased)
    }
}

/// What a cached row weighs beside its encoded bytes: keys, pointers, the shape of the decoded value.
const OVERHEAD_BYTES: u64 = 160;

#[derive(Clone)]
struct ByBytes;

impl Weighter<RowKey, Cached> for ByBytes {
    fn weight(&self, key: &RowKey, ((_, bytes), _): &Cached) -> u64 {
        OVERHEAD_BYTES + key.1.len() as u64 + 2 * u64::from(*bytes)
    }
}

pub struct RowCache {
    rows: Cache<RowKey, Cached, ByBytes>,
    /// How often rows were changed, so that a reader with an old snapshot does not put an old row back.
    changes: AtomicU64,
}

/// An estimate of the number of cached rows a budget holds, which only sizes the map.
const ROW_ESTIMATE_BYTES: usize = 512;

impl RowCache {
    pub(crate) fn new(bytes: usize) -> Self {
        let rows = Cache::with_weighter(bytes / ROW_ESTIMATE_BYTES, bytes as u64, ByBytes);
        Self { rows, changes: AtomicU64::new(0) }
    }

    /// The row as a snapshot has it that was taken when there had been `changes`.
    pub(crate) fn get<V: Send + Sync + 'static>(&self, table: &'static str, key: &[u8], changes: u64) -> Option<Arc<V>> {
        let ((row, _), since) = self.rows.get(&Borrowed(table, key))?;
        if since <= changes { row.downcast().ok() } else { None }
    }

    /// The number of changes so far: what a snapshot taken now may put into the cache.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Keeps rows of a snapshot that was taken when there had been `changes`.
    pub(crate) fn put(&self, rows: impl IntoIterator<Item = Fresh>, changes: u64) {
        for Fresh { key, row } in rows {
            if self.changes() != changes {
                return;
            }
            let (table, bytes) = key.clone();
            self.rows.insert(key, (row, changes));
            if self.changes() != changes {
                self.rows.remove(&Borrowed(table, &bytes));
            }
        }
    }

    /// Forgets changed rows, once their commit is written. `changed` and `erased` are rows that the cache may hold.
    pub(crate) fn forget(&self, changed: &[RowKey], erased: &[Erased]) {
        if changed.is_empty() && erased.is_empty() {
            return;
        }
        self.changes.fetch_add(1, Ordering::SeqCst);
        if !erased.is_empty() {
            self.rows.retain(|key, _| !is_erased(key, erased));
        }
        for (table, key) in changed {
            self.rows.remove(&Borrowed(table, key));
        }
    }
}

fn is_erased((table, key): &RowKey, erased: &[Erased]) -> bool {
    erased.iter().any(|(erased, prefix)| erased == table && key.starts_with(prefix))
}

/// A key to look up without owning it.
#[derive(Hash)]
struct Borrowed<'a>(&'static str, &'a [u8]);

impl quick_cache::Equivalent<RowKey> for Borrowed<'_> {
    fn equivalent(&self, key: &RowKey) -> bool {
        self.0 == key.0 && self.1 == &*key.1
    }
}
