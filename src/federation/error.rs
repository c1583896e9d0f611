//! What can go wrong between this server and another.

use http::StatusCode;
use ruma::OwnedServerName;

use crate::TransportError;

/// Why another server gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator switched federation off.
    #[error("federation is switched off")]
    Disabled,
    /// This server was about to ask itself: what is local is looked up, not asked for.
    #[error("this server does not ask itself")]
    Itself,
    /// The server was not reached.
    #[error("the other server cannot be reached: {0}")]
    Unreachable(#[from] TransportError),
    /// It took too long.
    #[error("the other server did not answer in time")]
    TimedOut,
    /// It failed before, and is not asked again yet.
    #[error("the other server did not answer before, and is not asked yet")]
    BackedOff {
        /// When it is asked again, in milliseconds since 1970.
        until_ms: u64,
    },
    /// It refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It answered something else than the specification says.
    #[error("the other server's answer is wrong: {0}")]
    BadAnswer(String),
    /// This server's keys are needed to believe what another told, and could not be had yet.
    #[error("the keys of {0} could not be had yet")]
    KeysLate(OwnedServerName),
    /// No server is known that could be asked.
    #[error("no server is known that is in the room")]
    NoServer,
    /// Another server asks for something that cannot be.
    #[error("{0}")]
    BadRequest(String),
    /// Another server sends more than a transaction may hold.
    #[error("a transaction has at most {} events and {} other messages", crate::inbound::PDUS_MAX, crate::inbound::EDUS_MAX)]
    TooMuch,
    /// The other server does not know the room's version.
    #[error("the room has version {0}")]
    IncompatibleVersion(&'static str),
    /// This server does not know the room's version.
    #[error("the room version is not known here")]
    UnknownVersion,
    /// The rules of the room refuse the event.
    #[error("{0}")]
    Refuses(String),
    /// The room's policy server does not recommend what a user wants to send.
    #[error("the policy server refuses: {0}")]
    Policy(Refusal),
    /// The rules of rooms.
    #[error(transparent)]
    Rooms(#[from] rooms::Error),
    /// The layer of users.
    #[error(transparent)]
    Users(#[from] users::Error),
    /// The layer of media.
    #[error(transparent)]
    Media(#[from] media::Error),
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A failure of Hearth.
    #[error("{0}")]
    Internal(String),
}

impl From<views::Error> for Error {
    fn from(error: views::Error) -> Self {
        match error {
            views::Error::BadToken => Self::BadRequest(error.to_string()),
            views::Error::Rooms(error) => error.into(),
            views::Error::Users(error) => error.into(),
            views::Error::Store(error) => error.into(),
        }
    }
}

/// A standard error of another server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other server refused: {status} {errcode} {message}")]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// The errcode; `M_UNKNOWN` where it gave none.
    pub errcode: String,
    /// What it says of it, cut to 500 characters.
    pub message: String,
    /// After which time it wants to be asked again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Error {
    /// Whether the other server is the reason, so that a third one may be asked the same.
    #[must_use]
    pub fn is_theirs(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_)
                | Self::TimedOut
                | Self::BackedOff { .. }
                | Self::Refused(_)
                | Self::BadAnswer(_)
                | Self::KeysLate(_)
                | Self::Itself
                | Self::NoServer
        )
    }
}

impl Error {
    /// Of two servers' errors the one that tells a user more: a refusal more than silence.
    pub(crate) fn or_more_telling(self, later: Self) -> Self {
        let tells = |error: &Self| matches!(error, Self::Refused(_) | Self::Refuses(_));
        if tells(&self) && !tells(&later) { self } else { later }
    }
}

/// The result of asking another server.
pub type Result<T> = std::result::Result<T, Error>;
