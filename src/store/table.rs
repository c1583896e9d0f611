//! Tables as constants: a name, a key type, a value type, an owner.
//!
//! A table is private to the module that declares it; the list of all of them (each layer's `TABLES`) opens
//! the database and generates `docs/schema.md`.

use std::marker::PhantomData;

use crate::{Key, Value};

/// Whom a row concerns: the room or user whose number its key begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody in particular.
    Nobody,
    /// The room whose `RoomNo` the key begins with.
    Room,
    /// The user whose `UserNo` the key begins with.
    User,
}

/// How a table is read, which decides how RocksDB stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Single rows by key: bloom filters.
    Point,
    /// Ranges in key order.
    Scan,
    /// Large rows that are read by key: bloom filters and strong compression.
    Blob,
}

/// What there is to know of a table without its types.
#[derive(Debug)]
pub struct TableSpec {
    /// The column family.
    pub name: &'static str,
    /// What a row means.
    pub about: &'static str,
    /// Whose lock a write needs.
    pub owner: Owner,
    /// Who is woken when a row changes.
    pub wakes: Owner,
    /// How it is read.
    pub preset: Preset,
    /// Whether decoded rows are kept in memory.
    pub cached: bool,
    /// The names of the key and value types.
    pub types: fn() -> (&'static str, &'static str),
    /// A row as text, for tests.
    pub show: fn(&[u8], &[u8]) -> String,
}

/// A table of rows `V` by keys `K`.
#[derive(Debug)]
pub struct Table<K, V> {
    pub(crate) spec: TableSpec,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Value> Table<K, V> {
    /// A table that nobody owns, read by key.
    #[must_use]
    pub const fn new(name: &'static str, about: &'static str) -> Self {
        let spec = TableSpec {
            name,
            about,
            owner: Owner::Nobody,
            wakes: Owner::Nobody,
            preset: Preset::Point,
            cached: false,
            types: || (std::any::type_name::<K>(), std::any::type_name::<V>()),
            show: show::<K, V>,
        };
        Self { spec, types: PhantomData }
    }

    /// The same table, written only under the lock of the room or user that its keys begin with.
    #[must_use]
    pub const fn owned_by(mut self, owner: Owner) -> Self {
        self.spec.owner = owner;
        self
    }

    /// The same table, whose changes wake those who watch the room or user that its keys begin with.
    #[must_use]
    pub const fn wakes(mut self, whom: Owner) -> Self {
        self.spec.wakes = whom;
        self
    }

    /// The same table, stored for this kind of reading.
    #[must_use]
    pub const fn read_by(mut self, preset: Preset) -> Self {
        self.spec.preset = preset;
        self
    }

    /// The same table, whose decoded rows [`crate::Read::shared`] keeps in memory: for rows that seldom change, by
    /// [`crate::Tx::replace`] or deletion.
    #[must_use]
    pub const fn cached(mut self) -> Self {
        self.spec.cached = true;
        self
    }

    /// The table without its types, for the list of all tables.
    #[must_use]
    pub const fn spec(&self) -> &TableSpec {
        &self.spec
    }
}

/// A row as text: the key's and the value's bytes in a form that a test can compare.
fn show<K: Key, V: Value>(key: &[u8], value: &[u8]) -> String {
    let key = K::decode(key).map_or_else(|| format!("corrupt {key:?}"), |key| format!("{key:?}"));
    let value =
        if V::decode(value).is_some() { String::from_utf8_lossy(value.get(1..).unwrap_or_default()) } else { "corrupt".into() };
    format!("{key} {value:?}")
}
