//! What can go wrong with an answer.

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token is none that this server gave.
    #[error("this is not a token of this server")]
    BadToken,
    /// A room could not be read, or may not be.
    #[error(transparent)]
    Rooms(#[from] rooms::Error),
    /// The users' layer failed.
    #[error(transparent)]
    Users(#[from] users::Error),
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// The result of a view.
pub type Result<T> = std::result::Result<T, Error>;
