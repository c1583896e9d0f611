//! Rooms that this server is not in, but its users have to do with: they were invited, or knock, or declined. What is known of such a room
//! is what its servers told with the invitation.
//!
//! Specification: server-server API, "Inviting to a room" and "Knocking upon a room".

use std::sync::Arc;

use protocol::{event::Event, stored, version::RoomVersion};
use ruma::{OwnedEventId, OwnedServerName, RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use store::{Lock, Pending, Read, RoomNo, Store, Table, UserNo};
use users::numbers as user_numbers;

use crate::{
    Error, EventNo, Pos, Result,
    events::{self, StoredEvent},
    members::{self, Membership, USER_ROOMS, UserRoom},
    numbers,
};

pub(crate) static REMOTE: Table<(UserNo, RoomNo), Remote> = Table::new(
    "remote_memberships",
    "Memberships of rooms that this server is not in: the member event, and what was told of the room.",
);

/// The most events of a room's stripped state that are kept.
pub const STATE_MAX: usize = 100;

/// What a user who has to do with a room of other servers was told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remote {
    /// The id of the member event.
    event_id: OwnedEventId,
    /// The member event in the federation format.
    event: String,
    /// The stripped state of the room.
    pub state: Vec<String>,
    /// The server that told of it, which is in the room.
    pub via: OwnedServerName,
}

/// What a user was told of a room that this server is not in.
///
/// # Errors
/// As the database says.
pub fn remote(db: &impl Read, user: UserNo, room: RoomNo) -> Result<Option<Remote>> {
    Ok(db.get(&REMOTE, &(user, room))?)
}

/// The member event by which a user has to do with a room, wherever it is known from.
///
/// # Errors
/// As the database says.
pub fn member_event(db: &impl Read, user: UserNo, room: RoomNo, standing: &UserRoom) -> Result<Arc<StoredEvent>> {
    if !is_remote(standing) {
        return events::event(db, room, standing.event);
    }
    let told = remote(db, user, room)?.ok_or(Error::NotFound("the member event"))?;
    let version = numbers::room(db, room)?.version()?;
    let event = Arc::new(stored::event(told.event_id, &told.event, version)?);
    let sender = user_numbers::number(db, &event.sender)?.unwrap_or(user);
    Ok(Arc::new(StoredEvent::outlier(event, version, sender)))
}

/// Whether what a user has to do with a room is known only from other servers.
#[must_use]
pub fn is_remote(standing: &UserRoom) -> bool {
    standing.event == EventNo(0)
}

/// Stores a user's membership of a room that this server is not in. Returns whether it was: where the user is in the room, or the event is here as
/// one of the room's, these tell.
///
/// # Errors
/// [`Error::TooLarge`] for more state than [`STATE_MAX`].
pub fn put(
    store: &Store,
    (room, version): (&RoomId, &'static RoomVersion),
    event: &Arc<Event>,
    stripped: &[Box<RawValue>],
    via: &ServerName,
) -> Result<Pending<bool>> {
    if stripped.len() > STATE_MAX {
        return Err(Error::TooLarge { what: "stripped state", limit: STATE_MAX });
    }
    let Some(("m.room.member", target)) = event.state_pair() else { return Err(Error::Invalid("not a member event")) };
    let target = <&UserId>::try_from(target).map_err(|_| Error::Invalid("the state key is no user"))?;
    let no = store.transact(&[], |tx| numbers::ensure(tx, room, version))?.soft();
    store.transact(&[Lock::Room(no)], |tx| {
        let user = user_numbers::intern(tx, target)?;
        user_numbers::intern(tx, &event.sender)?;
        let old = members::user_room(tx, user, no)?;
        let joined = old.as_ref().is_some_and(|old| old.membership == Membership::Join && !is_remote(old));
        // A request may arrive again, or late: what the room has made of its event since then counts.
        if joined || events::placed(tx, no, &event.id)?.is_some() {
            return Ok(false);
        }
        let pos = Pos::new(tx.seq(), 0).ok_or(Error::Invalid("too many events at once"))?;
        let standing = UserRoom {
            membership: Membership::of(event),
            event: EventNo(0),
            pos,
            joined_from: None,
            joined_until: None,
            forgotten: false,
        };
        tx.put(&USER_ROOMS, &(user, no), &standing)?;
        let state = stripped.iter().map(|event| event.get().to_owned()).collect();
        tx.put(
            &REMOTE,
            &(user, no),
            &Remote { event_id: event.id.clone(), event: event.json.to_string(), state, via: via.to_owned() },
        )?;
        Ok(true)
    })
}
