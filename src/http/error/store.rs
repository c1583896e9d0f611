//! Errors of the store: all are failures of Hearth or its disk, none of the client.

use super::Error;

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Closed => Self::unavailable("The server is stopping"),
            store::Error::Unwritable(_) => Self::unwritable(error),
            store::Error::Corrupt { .. }
            | store::Error::Unencodable { .. }
            | store::Error::Locked(_)
            | store::Error::OtherServer { .. }
            | store::Error::Foreign(_)
            | store::Error::Newer { .. }
            | store::Error::Nested
            | store::Error::Unlocked(_)
            | store::Error::Database(_) => Self::internal(error),
        }
    }
}
