//! Errors of rooms.

use http::StatusCode;

use super::Error;

impl From<rooms::Error> for Error {
    fn from(error: rooms::Error) -> Self {
        use rooms::Error as Rooms;
        match error {
            Rooms::UnknownRoom => Self::not_found("The room is not known here"),
            Rooms::NotFound(what) => Self::not_found(format!("Not found: {what}")),
            Rooms::Denied(denied) => Self::forbidden(denied.to_string()),
            Rooms::Forbidden(reason) => Self::forbidden(reason),
            Rooms::UnableToAuthoriseJoin => {
                Self::new(StatusCode::BAD_REQUEST, "M_UNABLE_TO_AUTHORISE_JOIN", "This server cannot tell whether you may join")
            }
            Rooms::UnableToGrantJoin => {
                Self::new(StatusCode::BAD_REQUEST, "M_UNABLE_TO_GRANT_JOIN", "Nobody of this server can let you into the room")
            }
            Rooms::GuestsForbidden => Self::guests_forbidden(),
            Rooms::NotLeft => Self::unknown("You must leave the room before you can forget it"),
            Rooms::AlreadyJoined => Self::forbidden("The user is already in the room"),
            Rooms::TooLarge { what, limit } => Self::too_large(format!("The {what} is over the limit of {limit}")),
            Rooms::BadContent(reason) => Self::bad_json(reason),
            Rooms::Invalid(reason) => Self::invalid_param(reason),
            Rooms::UnsupportedVersion(version) => Self::new(
                StatusCode::BAD_REQUEST,
                "M_UNSUPPORTED_ROOM_VERSION",
                format!("Room version {version:?} is not supported"),
            ),
            Rooms::DuplicateAnnotation => {
                Self::new(StatusCode::BAD_REQUEST, "M_DUPLICATE_ANNOTATION", "You have reacted so already")
            }
            Rooms::BadThread => {
                Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "An event that relates to another cannot be the root of a thread")
            }
            Rooms::AliasInUse => Self::new(StatusCode::BAD_REQUEST, "M_ROOM_IN_USE", "The alias is in use"),
            Rooms::BadAlias(reason) => Self::new(StatusCode::BAD_REQUEST, "M_BAD_ALIAS", reason),
            Rooms::TooComplex => Self::internal("the states of a room differ in too much to be resolved"),
            Rooms::Unsigned(_) => Self::forbidden("The room's policy server has not signed this"),
            Rooms::Users(error) => error.into(),
            Rooms::Store(error) => error.into(),
        }
    }
}
