//! The one door of durable change, with group commit.
//!
//! A transaction writes its batch under its owners' locks and lets go of them. Then comes a round: the log is synced once for
//! all that wait, a snapshot of exactly what is synced is published to readers, watchers are woken, and only then the writers
//! are acknowledged. So readers never see a row that a crash could take back, and one room is not bound to one sync a message.
//!
//! Who waits first does the round itself, for to hand it to another thread and back costs as much CPU as the sync. What was
//! written meanwhile, and what nobody waits for, is the publisher thread's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use rocksdb::{DB, WriteBatch, WriteOptions};
use tokio::sync::oneshot;

use crate::{
    Error, Lock, Owner, Result, RoomNo, Seq, Snapshot, Table, TableSpec, Topic, Tx, Value, Watch,
    cache::{Fresh, RowCache},
    lock::Locks,
    read::{Frozen, Published, corrupt, family},
    tx::{Finished, Within},
    watch::Watches,
};

/// The store's own row: the last sequence number.
pub(crate) static META: Table<String, crate::Json<serde_json::Value>> =
    Table::new("meta", "What the folder is: the server's name, the schema version, the last sequence number.");
/// The key in [`META`] of the last sequence number.
pub(crate) const SEQ: &str = "seq";

/// Where a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a folder: what is acknowledged is synced.
    Disk,
    /// In memory.
    Memory,
    /// In memory, and without a thread of its own.
    Simulation,
}

/// What committing changes, under one lock.
pub(crate) struct CommitState {
    /// The last commit written, perhaps not yet synced.
    pub(crate) written: Seq,
    waiting: Vec<oneshot::Sender<Result<()>>>,
    touched: Vec<Topic>,
    /// To be woken though they did not change.
    woken: Vec<Topic>,
    /// Rows to keep in the cache.
    fresh: Vec<Fresh>,
    /// Why writes are refused, once the disk failed.
    failed: Option<Error>,
    closing: bool,
    /// Whether a round is under way.
    publishing: bool,
    /// Whether the last round took too long to hold up a thread that has other work.
    slow: bool,
}

/// A round that took longer makes the next the publisher thread's: a hand-over is little beside it.
const SLOW: Duration = Duration::from_millis(2);

/// What transactions did since the store was opened: what tests of costs count, for it does not depend on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Rows that they asked for, from the cache or not.
    pub reads: u64,
    /// Bytes of the keys and values that they wrote.
    pub written_bytes: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) reads: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
}

/// What transactions, readers and the publisher share.
pub(crate) struct Shared {
    pub(crate) db: Arc<DB>,
    pub(crate) commit: Mutex<CommitState>,
    pub(crate) cache: Arc<RowCache>,
    locks: Locks,
    work: Condvar,
    pub(crate) counters: Counters,
    published: RwLock<Snapshot>,
    watches: Arc<Watches>,
    /// Whether there is a disk to sync to.
    on_disk: bool,
    /// Whether who writes publishes at once, because there is no publisher's thread.
    at_once: bool,
    memory_bytes: usize,
}

impl Shared {
    pub(crate) fn new(db: Arc<DB>, seq: Seq, memory_bytes: usize, place: Place) -> Self {
        let watches = Arc::new(Watches::new(seq));
        let cache = Arc::new(RowCache::new(memory_bytes / 4));
        let published = Published {
            seq,
            cache_changes: cache.changes(),
            rows: Frozen::now(&db),
            cache: Arc::clone(&cache),
            watches: Arc::clone(&watches),
        };
        let state = CommitState {
            written: seq,
            waiting: Vec::new(),
            touched: Vec::new(),
            woken: Vec::new(),
            fresh: Vec::new(),
            failed: None,
            closing: false,
            publishing: false,
            slow: false,
        };
        Self {
            db,
            commit: Mutex::new(state),
            cache,
            locks: Locks::new(),
            work: Condvar::new(),
            counters: Counters::default(),
            published: RwLock::new(Snapshot { inner: Arc::new(published) }),
            watches,
            on_disk: place == Place::Disk,
            at_once: place == Place::Simulation,
            memory_bytes,
        }
    }

    /// The publisher's thread.
    pub(crate) fn publish_until_closed(&self) {
        let mut state = self.commit.lock();
        loop {
            match state.waiting.is_empty() {
                true if state.closing => return,
                false if !state.publishing => {
                    self.publish(state);
                    state = self.commit.lock();
                }
                _ => self.work.wait(&mut state),
            }
        }
    }

    /// Does the next round here, unless one is under way or the disk is slow: then it is the publisher's.
    fn publish_or_leave(&self) {
        let state = self.commit.lock();
        if state.waiting.is_empty() || state.publishing {
            // Who does a round calls the publisher for what it leaves.
        } else if state.slow {
            self.work.notify_one();
        } else {
            self.publish(state);
        }
    }

    /// A round: syncs and publishes all that is written, and acknowledges it.
    fn publish(&self, mut state: MutexGuard<'_, CommitState>) {
        let began = Instant::now();
        state.publishing = true;
        let waiting = std::mem::take(&mut state.waiting);
        let mut touched = std::mem::take(&mut state.touched);
        let mut woken = std::mem::take(&mut state.woken);
        let fresh = std::mem::take(&mut state.fresh);
        let seq = state.written;
        let cache_changes = self.cache.changes();
        let rows = Frozen::now(&self.db);
        drop(state);
        let outcome = self.db.flush_wal(self.on_disk).map_err(|error| self.fail(error));
        if outcome.is_ok() {
            touched.sort_unstable();
            touched.dedup();
            self.watches.mark(&touched, seq);
            self.cache.put(fresh, cache_changes);
            let (cache, watches) = (Arc::clone(&self.cache), Arc::clone(&self.watches));
            let published = Published { seq, rows, cache, cache_changes, watches };
            *self.published.write() = Snapshot { inner: Arc::new(published) };
            woken.append(&mut touched);
            self.watches.wake(&woken);
        }
        for waiter in waiting {
            // Who no longer waits does not need to know.
            let _ = waiter.send(outcome.clone());
        }
        let mut state = self.commit.lock();
        state.publishing = false;
        state.slow = self.on_disk && began.elapsed() > SLOW;
        if !state.waiting.is_empty() || state.closing {
            self.work.notify_one();
        }
    }

    /// Refuses all later writes: what is in memory may no longer be what the log holds.
    fn fail(&self, error: rocksdb::Error) -> Error {
        let error = Error::from(error);
        tracing::error!(%error, "the data folder cannot be written, so writes are refused until a restart");
        self.commit.lock().failed.get_or_insert(error).clone()
    }

    fn write(&self, tx: Tx<'_>) -> Result<oneshot::Receiver<Result<()>>> {
        let (mut state, finished) = tx.finish()?;
        if let Some(failed) = &state.failed {
            return Err(failed.clone());
        }
        if let Some(Finished { mut batch, touched, woken, replaced, erased, fresh }) = finished {
            let seq = Seq(state.written.0 + 1);
            put_seq(&self.db, &mut batch, seq)?;
            let mut options = WriteOptions::default();
            options.set_sync(false);
            if let Err(error) = self.db.write_opt(batch, &options) {
                let error = Error::from(error);
                state.failed = Some(error.clone());
                tracing::error!(%error, "the data folder cannot be written, so writes are refused until a restart");
                return Err(error);
            }
            self.cache.forget(&replaced, &erased);
            if !replaced.is_empty() || !erased.is_empty() {
                state.fresh.retain(|fresh| !fresh.is_gone(&replaced, &erased));
            }
            state.fresh.extend(fresh);
            state.written = seq;
            state.touched.extend(touched);
            state.woken.extend(woken);
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push(sender);
        if self.at_once {
            self.publish(state);
        }
        Ok(receiver)
    }

    pub(crate) fn close(&self) {
        self.commit.lock().closing = true;
        self.work.notify_all();
    }
}

fn put_seq(db: &DB, batch: &mut WriteBatch, seq: Seq) -> Result<()> {
    let mut value = Vec::new();
    crate::Json(serde_json::Value::from(seq.0)).encode(&mut value).ok_or(Error::Unencodable { table: META.spec.name })?;
    batch.put_cf(family(db, META.spec.name)?, SEQ, value);
    Ok(())
}

/// What a transaction returned, before it is known to be on disk.
#[must_use = "a write is acknowledged only once it is durable"]
pub struct Pending<T> {
    value: T,
    round: Round,
}

/// The round that makes a write durable.
struct Round {
    shared: Arc<Shared>,
    done: oneshot::Receiver<Result<()>>,
}

impl Drop for Round {
    /// Nobody waits (any more): whoever is not told yet is the publisher's.
    fn drop(&mut self) {
        if !self.done.is_terminated() {
            self.shared.work.notify_one();
        }
    }
}

impl<T> Pending<T> {
    /// Waits until the write is synced and visible to readers.
    ///
    /// # Errors
    /// [`Error::Unwritable`] where the disk refused; what the write holds may or may not be there after a restart.
    pub async fn durable(mut self) -> Result<T> {
        self.round.shared.publish_or_leave();
        (&mut self.round.done).await.map_err(|_| Error::Closed)??;
        Ok(self.value)
    }

    /// [`Pending::durable`] for code that is not async: it blocks the thread.
    ///
    /// # Errors
    /// As [`Pending::durable`].
    pub fn wait(self) -> Result<T> {
        pollster::block_on(self.durable())
    }

    /// The value at once, for soft data (typing, presence) that rides with the next sync and may be lost in a crash.
    pub fn soft(self) -> T {
        self.value
    }

    /// The same write with a value made from this one's.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Pending<U> {
        Pending { value: f(self.value), round: self.round }
    }
}

/// The store of one server.
pub struct Store {
    shared: Arc<Shared>,
    publisher: Option<std::thread::JoinHandle<()>>,
}

impl Store {
    pub(crate) fn start(shared: Arc<Shared>) -> Result<Self> {
        if shared.at_once {
            return Ok(Self { shared, publisher: None });
        }
        let publishing = Arc::clone(&shared);
        let publisher = std::thread::Builder::new()
            .name("publisher".into())
            .spawn(move || publishing.publish_until_closed())
            .map_err(|error| Error::Database(error.to_string()))?;
        Ok(Self { shared, publisher: Some(publisher) })
    }

    /// Runs `change` under these locks and commits what it wrote as one batch, or nothing where it fails.
    /// `change` must not block on anything but the disk.
    ///
    /// # Errors
    /// What `change` returns; [`Error::Unwritable`] where the disk refuses.
    pub fn transact<T, E: From<Error>>(
        &self,
        locks: &[Lock],
        change: impl FnOnce(&mut Tx<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<Pending<T>, E> {
        let _within = Within::enter()?;
        let _guards = self.shared.locks.acquire(locks);
        let mut tx = Tx::new(&self.shared, locks);
        let value = change(&mut tx)?;
        let done = self.shared.write(tx)?;
        Ok(Pending { value, round: Round { shared: Arc::clone(&self.shared), done } })
    }

    /// Writes what is noted beside a read (when a device was seen, what it received). Nothing waits for it, a crash may lose
    /// it, and where writes are refused it is left out, so that reads go on.
    ///
    /// # Errors
    /// What `change` returns.
    pub fn note<E: From<Error>>(
        &self,
        locks: &[Lock],
        change: impl FnOnce(&mut Tx<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        if self.failure().is_some() {
            return Ok(());
        }
        self.transact(locks, change).map(Pending::soft)
    }

    /// All that is committed, synced and visible now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.published.read().clone()
    }

    /// Watches these topics from now on. Take the snapshot to compare with after this.
    #[must_use]
    pub fn watch(&self, topics: Vec<Topic>) -> Watch {
        Watch::new(Arc::clone(&self.shared.watches), topics)
    }

    /// What of the memory budget the store leaves to caches of other layers, in bytes.
    #[must_use]
    pub fn spare_memory(&self) -> usize {
        self.shared.memory_bytes / 8
    }

    /// Lets the disk space of a room's deleted rows in these tables be used again now, rather than at some time.
    ///
    /// # Errors
    /// As the database says.
    pub fn compact(&self, room: RoomNo, tables: &[&'static TableSpec]) -> Result<()> {
        let (from, to) = (room.0.to_be_bytes(), room.0.saturating_add(1).to_be_bytes());
        for table in tables.iter().filter(|table| table.owner == Owner::Room) {
            self.shared.db.compact_range_cf(family(&self.shared.db, table.name)?, Some(from), Some(to));
        }
        Ok(())
    }

    /// What transactions did so far; those that failed do not count.
    #[must_use]
    pub fn work(&self) -> Work {
        let Counters { reads, written_bytes } = &self.shared.counters;
        Work { reads: reads.load(Ordering::Relaxed), written_bytes: written_bytes.load(Ordering::Relaxed) }
    }

    /// Why writes are refused, if they are.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.shared.commit.lock().failed.clone()
    }

    /// All rows of these tables as text, for tests.
    ///
    /// # Errors
    /// As the database says.
    pub fn dump(&self, tables: &[&'static TableSpec]) -> Result<String> {
        let mut text = String::new();
        let snapshot = self.snapshot();
        for table in tables {
            text += &format!("{}\n", table.name);
            for row in crate::read::Source::raw_rows(&snapshot, table.name, &[], &[], false)? {
                let (key, value) = row?;
                text += &format!("  {}\n", (table.show)(&key, &value));
            }
        }
        Ok(text)
    }

    /// The database of a simulation's store.
    pub(crate) fn simulation(&self) -> Option<Arc<DB>> {
        self.shared.at_once.then(|| Arc::clone(&self.shared.db))
    }

    pub(crate) fn put_meta(&self, key: &str, value: serde_json::Value) -> Result<()> {
        self.transact(&[], |tx| tx.put(&META, &key, &crate::Json(value)))?.wait()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(publisher) = self.publisher.take() {
            // A publisher that panicked has nothing left to publish.
            let _ = publisher.join();
        }
    }
}

/// Reads a row of [`META`] before the store runs.
pub(crate) fn read_meta(db: &Arc<DB>, key: &str) -> Result<Option<serde_json::Value>> {
    let row = Frozen::now(db).raw(META.spec.name, key.as_bytes(), crate::Json::<serde_json::Value>::decode)?;
    match row {
        None => Ok(None),
        Some(Some(value)) => Ok(Some(value.0)),
        Some(None) => Err(corrupt(&META.spec, key.as_bytes())),
    }
}
