//! Typed tables on RocksDB, snapshots, one write door, one sequence, wake-ups.
//!
//! All durable change goes through [`Store::transact`]: one call, one batch, one [`Seq`]. What it acknowledges is synced
//! to disk, and readers see only what is. Only this layer knows RocksDB.

mod cache;
mod clock;
mod commit;
mod error;
mod key;
mod lock;
mod open;
mod read;
mod table;
#[cfg(test)]
mod tests;
mod tx;
mod value;
mod watch;

pub use clock::{Clock, SystemClock};
pub use commit::{Pending, Store, Work};
pub use error::{Error, Result};
pub use key::{AsKey, Key, KeyPart, KeyTail, Lead, Prefix, Range, RoomNo, Seq, UserNo};
pub use lock::Lock;
pub use open::{Config, Migration};
pub use read::{Read, Snapshot};
pub use table::{Owner, Preset, Table, TableSpec};
pub use tx::Tx;
pub use value::{Json, Value};
pub use watch::{Topic, Watch};
