//! What can go wrong between Hearth and its disk.

use std::path::PathBuf;

/// A failure of the store. None of them changes what was acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Bytes that are no row of this table.
    #[error("table {table} is corrupt at key {key}: restore a backup, or run `hearth check`")]
    Corrupt {
        /// The table's name.
        table: &'static str,
        /// The key in hexadecimal.
        key: String,
    },
    /// A value that the codec cannot write: a bug of Hearth.
    #[error("a value for table {table} cannot be encoded")]
    Unencodable {
        /// The table's name.
        table: &'static str,
    },
    /// The disk is full, read-only or broken. Reads go on; writes are refused until a restart.
    #[error(
        "the data folder cannot be written ({0}): free some space, let Hearth's user write there, or mend \
             the disk; then start Hearth again"
    )]
    Unwritable(String),
    /// Another process has the folder open.
    #[error("the data folder {0} is in use by another process: stop it first")]
    Locked(PathBuf),
    /// The folder belongs to a server of another name.
    #[error("the data folder belongs to the server {stored}, not {wanted}: set server_name, or choose another folder")]
    OtherServer {
        /// The name in the folder.
        stored: String,
        /// The name in the configuration.
        wanted: String,
    },
    /// The folder holds something that is not Hearth's.
    #[error("the folder {0} holds files that are not Hearth's: choose an empty folder")]
    Foreign(PathBuf),
    /// A newer Hearth wrote the folder.
    #[error("the data folder has schema {stored}, this Hearth knows {known}: run the newer version")]
    Newer {
        /// The folder's schema.
        stored: u32,
        /// This binary's schema.
        known: u32,
    },
    /// A write began within a write, which would wait for itself: a bug of Hearth.
    #[error("a write transaction began within another")]
    Nested,
    /// A row was written without the lock of its owner: a bug of Hearth.
    #[error("table {0} was written without its owner's lock")]
    Unlocked(&'static str),
    /// The store was closed while this waited.
    #[error("the store is closed")]
    Closed,
    /// Anything else that the database says.
    #[error("database: {0}")]
    Database(String),
}

impl From<rocksdb::Error> for Error {
    fn from(error: rocksdb::Error) -> Self {
        match error.kind() {
            rocksdb::ErrorKind::IOError => Self::Unwritable(error.into_string()),
            _ => Self::Database(error.into_string()),
        }
    }
}

/// The result of a store operation.
pub type Result<T> = std::result::Result<T, Error>;
