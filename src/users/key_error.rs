//! What can be wrong with keys, their signatures, key backups and messages to devices.

/// Why a request about end-to-end keys is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KeyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A field is missing or has the wrong type.
    #[error("{0}")]
    Malformed(&'static str),
    /// A field has the right type but a value that cannot be.
    #[error("{0}")]
    Invalid(&'static str),
    /// A required signature is missing or wrong.
    #[error("{0}")]
    Signature(&'static str),
    /// What is named does not exist.
    #[error("{0}")]
    NotFound(&'static str),
    /// A self-signing or user-signing key came without a master key, and none is stored.
    #[error("no master signing key is available")]
    NoMasterKey,
    /// A cross-signing public key is the id of one of the user's devices.
    #[error("key id in use")]
    KeyIdInUse,
    /// The request replaces cross-signing keys, which needs user-interactive authentication.
    #[error("new cross-signing keys need authentication")]
    NeedsAuthentication,
    /// A one-time key of this id is stored with other content.
    #[error("one-time key {0} already exists with other content")]
    OneTimeKeyExists(String),
    /// More bytes or items than a named limit allows.
    #[error("{what}: more than {max}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The most that is taken.
        max: usize,
    },
    /// Keys were sent for another version of the backup than the current one.
    #[error("wrong backup version")]
    WrongBackupVersion {
        /// The current version.
        current: String,
    },
}

impl KeyError {
    /// Refuses more than `max` of something.
    pub(crate) fn limit(what: &'static str, length: usize, max: usize) -> Result<(), Self> {
        if length > max { Err(Self::TooLarge { what, max }) } else { Ok(()) }
    }
}
