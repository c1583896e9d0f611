//! Opening a data folder: whose it is, which schema it has, how much memory it may take.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, Env, Options, WriteBatch, WriteBufferManager,
};

use crate::{
    Error, Preset, Result, Seq, Store, TableSpec,
    commit::{META, Place, SEQ, Shared, read_meta},
    read::family,
};

/// The schema that this binary writes: one more than the number of migrations.
const SERVER_NAME: &str = "server_name";
const SCHEMA: &str = "schema";

/// A change of stored rows from one schema to the next. It may be cut off and run again, so it must be idempotent.
pub struct Migration {
    /// What it does, for the log.
    pub about: &'static str,
    /// Does it.
    pub run: fn(&Store) -> Result<()>,
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder.
    pub path: PathBuf,
    /// The server that the folder belongs to.
    pub server_name: String,
    /// The memory that RocksDB and the caches of all layers share, in bytes.
    pub memory_bytes: usize,
}

impl Config {
    fn in_memory(server_name: &str) -> Self {
        Self { path: "/hearth".into(), server_name: server_name.into(), memory_bytes: 32 << 20 }
    }
}

impl Store {
    /// Opens the folder, making it where there is none, and migrates it.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::OtherServer`], [`Error::Foreign`], [`Error::Newer`], [`Error::Unwritable`].
    pub fn open(config: &Config, tables: &[&'static TableSpec], migrations: &[Migration]) -> Result<Self> {
        let exists = holds_a_database(&config.path)?;
        Self::open_in(config, tables, migrations, Place::Disk, exists)
    }

    /// A store in memory, for tests.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn in_memory(server_name: &str, tables: &[&'static TableSpec]) -> Result<Self> {
        Self::open_in(&Config::in_memory(server_name), tables, &[], Place::Memory, false)
    }

    /// A store in memory with caches of another size than tests have, for benchmarks.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn in_memory_with(server_name: &str, tables: &[&'static TableSpec], memory_bytes: usize) -> Result<Self> {
        let config = Config { memory_bytes, ..Config::in_memory(server_name) };
        Self::open_in(&config, tables, &[], Place::Memory, false)
    }

    /// A store in memory that publishes each write where it is made: what others see when does not depend on how threads are
    /// scheduled. For simulations, which must go the same way again.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn simulated(server_name: &str, tables: &[&'static TableSpec]) -> Result<Self> {
        Self::open_in(&Config::in_memory(server_name), tables, &[], Place::Simulation, false)
    }

    /// The store of another simulation in the place of this one, which is no more: to open a database takes longer than a simulation.
    ///
    /// # Errors
    /// As the database says; [`Error::Closed`] for a store that is no simulation's.
    pub fn simulated_again(self, server_name: &str, tables: &[&'static TableSpec]) -> Result<Self> {
        let db = self.simulation().ok_or(Error::Closed)?;
        let mut batch = WriteBatch::default();
        for table in std::iter::once(META.spec()).chain(tables.iter().copied()) {
            let family = family(&db, table.name)?;
            let mut rows = db.raw_iterator_cf(family);
            rows.seek_to_last();
            if let Some(last) = rows.key() {
                batch.delete_range_cf(family, Vec::new(), [last, &[0]].concat());
            }
        }
        db.write(batch)?;
        Self::begin(db, &Config::in_memory(server_name), &[], Place::Simulation, false)
    }

    fn open_in(
        config: &Config,
        tables: &[&'static TableSpec],
        migrations: &[Migration],
        place: Place,
        exists: bool,
    ) -> Result<Self> {
        let memory = if place == Place::Disk { None } else { Some(Env::mem_env()?) };
        let db = Arc::new(open_database(config, tables, memory.as_ref())?);
        Self::begin(db, config, migrations, place, exists)
    }

    fn begin(db: Arc<DB>, config: &Config, migrations: &[Migration], place: Place, exists: bool) -> Result<Self> {
        let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX).saturating_add(1);
        let stored_name = read_meta(&db, SERVER_NAME)?;
        if exists && stored_name.is_none() {
            return Err(Error::Foreign(config.path.clone()));
        }
        if let Some(stored) = stored_name.as_ref().and_then(|name| name.as_str()).filter(|name| *name != config.server_name) {
            return Err(Error::OtherServer { stored: stored.into(), wanted: config.server_name.clone() });
        }
        let stored = read_meta(&db, SCHEMA)?.and_then(|schema| schema.as_u64()).map_or(known, |schema| schema as u32);
        if stored > known {
            return Err(Error::Newer { stored, known });
        }
        let seq = read_meta(&db, SEQ)?.and_then(|seq| seq.as_u64()).unwrap_or(0);
        let store = Self::start(Arc::new(Shared::new(db, Seq(seq), config.memory_bytes, place)))?;
        for (number, migration) in (stored..).zip(migrations.iter().skip(stored.saturating_sub(1) as usize)) {
            tracing::info!(from = number, about = migration.about, "migrating the data folder");
            (migration.run)(&store)?;
            store.put_meta(SCHEMA, (number + 1).into())?;
        }
        if stored_name.is_none() {
            store.put_meta(SCHEMA, known.into())?;
            store.put_meta(SERVER_NAME, config.server_name.clone().into())?;
        }
        Ok(store)
    }
}

/// Whether the folder holds a database. An empty or absent folder is fine; one with other files is not ours to fill.
fn holds_a_database(path: &Path) -> Result<bool> {
    if path.join("CURRENT").exists() {
        return Ok(true);
    }
    let unwritable = |error: std::io::Error| Error::Unwritable(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(path).map_err(unwritable)?;
    // RocksDB leaves its lock and log behind when it could not create a database.
    let ours = |name: &std::ffi::OsStr| name == "LOCK" || name.to_string_lossy().starts_with("LOG");
    let mut entries = std::fs::read_dir(path).map_err(unwritable)?;
    if entries.any(|entry| entry.is_ok_and(|entry| !ours(&entry.file_name()))) {
        return Err(Error::Foreign(path.into()));
    }
    Ok(false)
}

fn open_database(config: &Config, tables: &[&'static TableSpec], memory: Option<&Env>) -> Result<DB> {
    // Of the budget three eighths are RocksDB's blocks, two its write buffers, two the cache of decoded rows; one is left to those
    // who ask for it (`Store::spare_memory`).
    let cache = Cache::new_lru_cache(config.memory_bytes / 8 * 3);
    let write_buffers = config.memory_bytes / 4;
    let mut options = Options::default();
    if let Some(env) = memory {
        options.set_env(env);
    }
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // The log is written out with each sync: a batch costs no system call of its own.
    options.set_manual_wal_flush(true);
    options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager(write_buffers, false));
    options.set_max_total_wal_size(64 << 20);
    options.set_max_open_files(512);
    options.set_keep_log_file_num(3);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    let families = std::iter::once(META.spec()).chain(tables.iter().copied());
    let families = families.map(|table| ColumnFamilyDescriptor::new(table.name, family_options(table, &cache, write_buffers)));
    DB::open_cf_descriptors(&options, &config.path, families).map_err(|error| {
        let text = error.to_string();
        // Not where the lock's file could not be made, as in a read-only folder.
        let held = text.contains("While lock file") || text.contains("lock hold by current process");
        if held && matches!(error.kind(), rocksdb::ErrorKind::IOError) {
            Error::Locked(config.path.clone())
        } else if text.contains("Column families not opened") {
            Error::Foreign(config.path.clone())
        } else {
            error.into()
        }
    })
}

fn family_options(table: &TableSpec, cache: &Cache, write_buffers: usize) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_format_version(6);
    if table.preset != Preset::Scan {
        blocks.set_bloom_filter(10.0, false);
    }
    blocks.set_block_size(if table.preset == Preset::Blob { 16 << 10 } else { 4 << 10 });
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(if table.preset == Preset::Blob { DBCompressionType::Zstd } else { DBCompressionType::Lz4 });
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options.set_write_buffer_size((write_buffers / 4).max(1 << 20));
    // Many tables are small: their first row must not cost a megabyte.
    options.set_arena_block_size(32 << 10);
    options
}
