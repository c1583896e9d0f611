//! Errors of accounts, sessions and end-to-end keys.

use http::StatusCode;
use users::KeyError;

use super::Error;

impl From<users::Error> for Error {
    fn from(error: users::Error) -> Self {
        let refused = |status, errcode| Self::new(status, errcode, error.to_string());
        match error {
            users::Error::Store(error) => error.into(),
            users::Error::Internal(_) => Self::internal(error),
            users::Error::UserInUse => refused(StatusCode::BAD_REQUEST, "M_USER_IN_USE"),
            users::Error::InvalidUsername(_) => refused(StatusCode::BAD_REQUEST, "M_INVALID_USERNAME"),
            users::Error::WeakPassword(_) => refused(StatusCode::BAD_REQUEST, "M_WEAK_PASSWORD"),
            users::Error::WrongCredentials | users::Error::Forbidden(_) => refused(StatusCode::FORBIDDEN, "M_FORBIDDEN"),
            users::Error::UnknownToken { soft_logout } => Self::unknown_token(soft_logout),
            users::Error::Deactivated => refused(StatusCode::FORBIDDEN, "M_USER_DEACTIVATED"),
            users::Error::Locked => Self::user_locked(),
            users::Error::Exclusive => refused(StatusCode::BAD_REQUEST, "M_EXCLUSIVE"),
            users::Error::UnknownDevice => refused(StatusCode::BAD_REQUEST, "M_UNKNOWN_DEVICE"),
            users::Error::InvalidRegistrationToken => refused(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED"),
            users::Error::NotFound(_) => refused(StatusCode::NOT_FOUND, "M_NOT_FOUND"),
            users::Error::InvalidParam(_) => refused(StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
            users::Error::BadJson(_) => refused(StatusCode::BAD_REQUEST, "M_BAD_JSON"),
            users::Error::ServerControlled => refused(StatusCode::METHOD_NOT_ALLOWED, "M_BAD_JSON"),
            users::Error::TooLarge { .. } => refused(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
            users::Error::KeyTooLarge => refused(StatusCode::BAD_REQUEST, "M_KEY_TOO_LARGE"),
            users::Error::ProfileTooLarge => refused(StatusCode::BAD_REQUEST, "M_PROFILE_TOO_LARGE"),
        }
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        let refused = |status, errcode| Self::new(status, errcode, error.to_string());
        match error {
            KeyError::Store(error) => error.into(),
            KeyError::Malformed(_) => refused(StatusCode::BAD_REQUEST, "M_BAD_JSON"),
            KeyError::Invalid(_) | KeyError::OneTimeKeyExists(_) => refused(StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
            KeyError::NoMasterKey => refused(StatusCode::BAD_REQUEST, "M_MISSING_PARAM"),
            KeyError::KeyIdInUse => refused(StatusCode::FORBIDDEN, "M_FORBIDDEN"),
            KeyError::Signature(_) => refused(StatusCode::BAD_REQUEST, "M_INVALID_SIGNATURE"),
            KeyError::NotFound(_) => refused(StatusCode::NOT_FOUND, "M_NOT_FOUND"),
            // The handler offers the flows; that it did not is a bug of ours.
            KeyError::NeedsAuthentication => Self::internal(error),
            KeyError::TooLarge { .. } => refused(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
            KeyError::WrongBackupVersion { ref current } => {
                refused(StatusCode::FORBIDDEN, "M_WRONG_ROOM_KEYS_VERSION").with("current_version", current.as_str())
            }
        }
    }
}
