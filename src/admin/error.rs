//! What an administrator can act on.

/// Why an operation was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no operation of this name.
    #[error("this version of Hearth has no such operation")]
    UnknownOperation,
    /// The input is not what the operation takes.
    #[error("the input is wrong: {0}")]
    BadInput(String),
    /// No user of this server has this name.
    #[error("there is no user {0} on this server")]
    NoSuchUser(String),
    /// No room of this id is known here.
    #[error("there is no room {0} on this server")]
    NoSuchRoom(String),
    /// Only a running server can tell.
    #[error("the server is not running")]
    NotRunning,
    /// The users' layer says why.
    #[error(transparent)]
    Users(#[from] users::Error),
    /// The rooms' layer says why.
    #[error(transparent)]
    Rooms(#[from] rooms::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A bug of Hearth.
    #[error("internal error: {0}")]
    Internal(String),
}

/// The result of an operation.
pub type Result<T> = std::result::Result<T, Error>;
