//! What the endpoints of rooms have in common.

use std::{sync::Arc, time::Duration};

use protocol::json::{self, Object};
use rooms::{Pos, Sender, events::Txn, format::Format};
use ruma::{RoomId, RoomOrAliasId, UserId, serde::Raw};
use store::{Read, RoomNo};
use users::{account_data, numbers as user_numbers};

use crate::{Call, Error, Result, auth::Session};

/// The largest content that is read. An event is smaller, but a request may write it less tightly.
const CONTENT_MAX: usize = crate::route::BODY_MAX;

/// The caller as the sender of events.
pub(crate) fn sender(session: &Session) -> Sender {
    Sender { no: session.user, id: session.user_id.clone() }
}

/// The caller's transaction.
pub(crate) fn txn(session: &Session, id: &str) -> Txn {
    Txn { device: session.device_id.to_string(), id: id.to_owned() }
}

/// How events are written for the caller.
pub(crate) fn format<'a>(call: &'a Call<Session>, db: &impl Read) -> Result<Format<'a>> {
    let device = Some(call.session.device_id.as_str());
    let ignored = account_data::ignored_users(db, call.session.user)?;
    let ignored = Arc::new(user_numbers::known(db, ignored.iter().map(AsRef::as_ref))?);
    Ok(Format { user: call.session.user, device, with_room_id: true, now_ms: call.now_ms(), until: Pos(i64::MAX), ignored })
}

/// The number of a room in which the caller does or reads something. One that is not known here is one that they are not in: the
/// two are not told apart.
pub(crate) fn room(db: &impl Read, id: &RoomId) -> Result<RoomNo> {
    rooms::numbers::number(db, id)?.ok_or(rooms::Error::Forbidden("You are not in this room")).map_err(Into::into)
}

/// The number of a room of which it may be told whether it is known here.
pub(crate) fn known_room(db: &impl Read, id: &RoomId) -> Result<RoomNo> {
    rooms::numbers::number(db, id)?.ok_or(rooms::Error::UnknownRoom).map_err(Into::into)
}

/// The number of a room that is known here, by its id or alias.
pub(crate) fn room_or_alias(db: &impl Read, name: &RoomOrAliasId) -> Result<RoomNo> {
    match <&RoomId>::try_from(name) {
        Ok(id) => known_room(db, id),
        Err(alias) => match rooms::aliases::resolve(db, alias)? {
            Some((room, _)) => Ok(room),
            None => Err(Error::not_found("The alias names no room")),
        },
    }
}

/// How long a request waits for all members of a room to be known.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);

/// Waits until all members of a room are known, where this server entered it without.
///
/// # Errors
/// 503 where that takes too long.
pub(crate) async fn whole(call: &Call<Session>, room: RoomNo) -> Result<()> {
    let server = &call.server;
    let is_whole = tokio::select! {
        is_whole = server.federation.whole_within(room, WHOLE_WITHIN) => is_whole?,
        () = server.stopping() => false,
    };
    if is_whole { Ok(()) } else { Err(Error::unavailable("Not all members of this room are known yet: try again later")) }
}

/// A content as the client wrote it.
pub(crate) fn content<T>(raw: &Raw<T>) -> Result<Object> {
    json::parse_object(raw.json().get().as_bytes(), CONTENT_MAX).map_err(|error| Error::bad_json(error.to_string()))
}

/// The display name and avatar of a user of this server, as member events carry them.
pub(crate) fn profile(db: &impl Read, user: &UserId) -> Result<Object> {
    let Some(no) = user_numbers::number(db, user)? else { return Ok(Object::new()) };
    Ok(users::profiles::shown(db, no)?)
}

/// A content of a member event: a profile and a reason.
pub(crate) fn member_content(mut profile: Object, reason: Option<String>) -> Object {
    if let Some(reason) = reason {
        profile.insert("reason".to_owned(), reason.into());
    }
    profile
}
