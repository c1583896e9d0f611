//! Errors of the views.

use super::Error;

impl From<views::Error> for Error {
    fn from(error: views::Error) -> Self {
        match error {
            views::Error::BadToken => Self::invalid_param("The token is none of this server's"),
            views::Error::Rooms(error) => error.into(),
            views::Error::Users(error) => error.into(),
            views::Error::Store(error) => error.into(),
        }
    }
}
