//! What can go wrong with rooms.

use protocol::{auth::Denied, draft::BuildError, json::JsonError, parse::PduError};

use crate::policy::Unsent;

/// Why a room operation was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such room here, or the user may not know of it.
    #[error("the room is not known")]
    UnknownRoom,
    /// There is no such event, state or alias, or the user may not see it.
    #[error("{0} was not found")]
    NotFound(&'static str),
    /// The rules of the room refuse the event.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The user may not do or see this.
    #[error("{0}")]
    Forbidden(&'static str),
    /// This server is not in the rooms whose members may join, and cannot tell.
    #[error("this server cannot tell whether you are in a room whose members may join this one")]
    UnableToAuthoriseJoin,
    /// Nobody of this server may let others into the room.
    #[error("nobody of this server can let you into the room")]
    UnableToGrantJoin,
    /// The room does not let guests in.
    #[error("guests may not join this room")]
    GuestsForbidden,
    /// A room cannot be forgotten by who is in it or invited.
    #[error("you must leave the room before you can forget it")]
    NotLeft,
    /// A user who is in the room cannot be invited again.
    #[error("the user is already in the room")]
    AlreadyJoined,
    /// The event is larger than events may be.
    #[error("the {what} is over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit in bytes or entries.
        limit: usize,
    },
    /// The content cannot be in an event.
    #[error("{0}")]
    BadContent(String),
    /// A value of the request makes no sense here.
    #[error("{0}")]
    Invalid(&'static str),
    /// The room version is not known.
    #[error("the room version {0:?} is not supported")]
    UnsupportedVersion(String),
    /// The user reacted so to this event before.
    #[error("you have reacted so already")]
    DuplicateAnnotation,
    /// An event that relates to another cannot be the root of a thread.
    #[error("an event that relates to another cannot be the root of a thread")]
    BadThread,
    /// The alias is taken.
    #[error("the alias is in use")]
    AliasInUse,
    /// The alias is of another server, malformed, or does not point at the room.
    #[error("{0}")]
    BadAlias(&'static str),
    /// The room's states differ in more than can be resolved.
    #[error("the room's states differ in too much to be resolved")]
    TooComplex,
    /// The room's policy server has to sign the event first. It was not sent.
    #[error("the room's policy server has not signed the event")]
    Unsigned(Box<Unsent>),
    /// The users' layer failed.
    #[error(transparent)]
    Users(#[from] users::Error),
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<JsonError> for Error {
    fn from(error: JsonError) -> Self {
        Self::BadContent(error.to_string())
    }
}

impl From<PduError> for Error {
    fn from(error: PduError) -> Self {
        BuildError::from(error).into()
    }
}

impl From<BuildError> for Error {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::TooLarge { what, limit } => Self::TooLarge { what, limit },
            BuildError::Json(error) => Self::BadContent(error.to_string()),
            BuildError::Draft(part) => Self::BadContent(format!("the event's {part} is not valid")),
        }
    }
}

/// The result of a room operation.
pub type Result<T> = std::result::Result<T, Error>;
