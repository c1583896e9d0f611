//! Errors of media ("Content repository"). That the disk is full or broken is ours to mend and ours to know.

use std::time::Duration;

use http::StatusCode;

use super::Error;

impl From<media::Error> for Error {
    fn from(error: media::Error) -> Self {
        use media::Error as E;
        match error {
            E::NotFound => Self::not_found("There is no such media"),
            E::NotYetUploaded => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED", "The media has not been uploaded yet")
            }
            E::AlreadyUploaded => Self::new(StatusCode::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA", "The media was already uploaded"),
            E::NotOwner => Self::forbidden("The media id was created by another user"),
            E::OverQuota { limit } => Self::forbidden(format!("Your uploads may take {limit} bytes together, and do")),
            E::TooLarge { limit } => Self::too_large(format!("A file may have at most {limit} bytes")),
            E::TooManyPending { retry_after_ms } => Self::limit_exceeded(Duration::from_millis(retry_after_ms)),
            E::BrokenOff => Self::broken_off(),
            E::NotAnImage(_) => Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "This content has no thumbnail"),
            E::ImageTooLarge => Self::too_large("The image is too large for a thumbnail"),
            E::NoSize => Self::invalid_param("A thumbnail has a width and a height of at least 1"),
            E::OutOfRange { size } => {
                Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "M_UNKNOWN", format!("The file has {size} bytes"))
            }
            E::Unwritable(_) => Self::unwritable(error),
            E::Unreadable(_) => Self::internal(error),
            E::Store(error) => error.into(),
        }
    }
}
