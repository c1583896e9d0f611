//! What a caller of the account side can act on.

/// Why a request about an account, a session or its data is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The user id is taken, or was once.
    #[error("this user name is taken")]
    UserInUse,
    /// The user id cannot be given to a new account ("User Identifiers").
    #[error("{0}")]
    InvalidUsername(&'static str),
    /// The password breaks the policy.
    #[error("{0}")]
    WeakPassword(String),
    /// No such user, or not this password: which of the two is not told.
    #[error("wrong user name or password")]
    WrongCredentials,
    /// The access, refresh or login token is unknown, revoked or expired.
    #[error("the token is unknown or has expired")]
    UnknownToken {
        /// The client keeps its device and asks for a new token.
        soft_logout: bool,
    },
    /// The account was deactivated.
    #[error("this account has been deactivated")]
    Deactivated,
    /// An administrator locked the account.
    #[error("this account is locked")]
    Locked,
    /// The user id or alias is an application service's own, or is not the one's that asks for it.
    #[error("this name is reserved for another application service")]
    Exclusive,
    /// The user has no such device.
    #[error("the user has no such device")]
    UnknownDevice,
    /// The registration token is unknown, used up or expired.
    #[error("the registration token is not valid")]
    InvalidRegistrationToken,
    /// Not allowed, and why.
    #[error("{0}")]
    Forbidden(&'static str),
    /// What is named does not exist.
    #[error("{0}")]
    NotFound(&'static str),
    /// A parameter has a value that it cannot have.
    #[error("{0}")]
    InvalidParam(&'static str),
    /// The JSON has the wrong shape.
    #[error("{0}")]
    BadJson(&'static str),
    /// The server alone writes account data of this type.
    #[error("account data of this type is controlled by the server")]
    ServerControlled,
    /// More than a named limit allows.
    #[error("{what}: more than {max}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The most that is taken.
        max: usize,
    },
    /// The name of a profile field is longer than the specification allows.
    #[error("the name of a profile field is longer than 255 bytes")]
    KeyTooLarge,
    /// The profile would be larger than the specification allows.
    #[error("the profile would be larger than 64 KiB")]
    ProfileTooLarge,
    /// A value that this layer made could not be encoded: a bug of Hearth.
    #[error("could not be computed: {0}")]
    Internal(&'static str),
}

impl Error {
    /// Refuses more than `max` of something.
    pub(crate) fn limit(what: &'static str, length: usize, max: usize) -> Result<()> {
        if length > max { Err(Self::TooLarge { what, max }) } else { Ok(()) }
    }
}

/// The result of a request about an account.
pub type Result<T> = std::result::Result<T, Error>;
