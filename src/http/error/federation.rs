//! Errors of other servers. What one said never reaches a client as if this server said it.

use federation::Refusal;
use http::StatusCode;

use super::Error;

impl From<federation::Error> for Error {
    fn from(error: federation::Error) -> Self {
        use federation::Error as E;
        match error {
            E::Disabled => Self::federation_disabled(),
            E::Itself => Self::not_found("This server has no such thing"),
            E::Unreachable(_) | E::BackedOff { .. } | E::KeysLate(_) => Self::bad_gateway("The other server cannot be reached"),
            E::TimedOut => Self::new(StatusCode::GATEWAY_TIMEOUT, "M_UNKNOWN", "The other server did not answer in time"),
            E::BadAnswer(_) => Self::bad_gateway("The other server's answer cannot be used"),
            E::Refused(refusal) => refused(&refusal),
            E::NoServer => Self::not_found("No server is known that is in the room"),
            E::BadRequest(what) => Self::invalid_param(what),
            E::TooMuch => Self::too_large(error.to_string()),
            E::IncompatibleVersion(version) => {
                let status = StatusCode::BAD_REQUEST;
                Self::new(status, "M_INCOMPATIBLE_ROOM_VERSION", error.to_string()).with("room_version", version)
            }
            E::UnknownVersion => {
                Self::new(StatusCode::BAD_REQUEST, "M_INCOMPATIBLE_ROOM_VERSION", "The room's version is not known here")
            }
            E::Refuses(reason) => Self::forbidden(reason),
            E::Policy(refusal) => policy(refusal),
            E::Rooms(error) => error.into(),
            E::Users(error) => error.into(),
            E::Media(error) => error.into(),
            E::Store(error) => error.into(),
            E::Internal(message) => Self::internal(message),
        }
    }
}

/// What a room's policy server says is told as it says it ("Validating Policy Server signatures").
fn policy(refusal: Refusal) -> Error {
    const KNOWN: [(StatusCode, &str); 5] = [
        (StatusCode::BAD_REQUEST, "M_FORBIDDEN"),
        (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
        (StatusCode::FORBIDDEN, "M_FORBIDDEN"),
        (StatusCode::NOT_FOUND, "M_NOT_FOUND"),
        (StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED"),
    ];
    let Refusal { status, errcode, message, retry_after_ms } = refusal;
    match KNOWN.iter().find(|(known, code)| *known == status && *code == errcode) {
        Some((status, errcode)) => {
            let error = Error::new(*status, errcode, message);
            if let Some(retry_after_ms) = retry_after_ms { error.with("retry_after_ms", retry_after_ms) } else { error }
        }
        None => Error::bad_gateway(format!("The room's policy server refused with {errcode}: {message}")),
    }
}

/// Of a refusal those codes reach the client that it can act on.
fn refused(refusal: &Refusal) -> Error {
    const KNOWN: [(StatusCode, &str); 8] = [
        (StatusCode::NOT_FOUND, "M_NOT_FOUND"),
        (StatusCode::FORBIDDEN, "M_FORBIDDEN"),
        (StatusCode::BAD_REQUEST, "M_INCOMPATIBLE_ROOM_VERSION"),
        (StatusCode::BAD_REQUEST, "M_UNABLE_TO_AUTHORISE_JOIN"),
        (StatusCode::BAD_REQUEST, "M_UNABLE_TO_GRANT_JOIN"),
        (StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
        (StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
        (StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED"),
    ];
    let told = |errcode: &str| format!("The other server refused with {errcode}: {}", refusal.message);
    match KNOWN.iter().find(|(status, errcode)| *status == refusal.status && *errcode == refusal.errcode) {
        Some((status, errcode)) => Error::new(*status, errcode, told(errcode)),
        None => Error::bad_gateway(told(&refusal.errcode)),
    }
}
