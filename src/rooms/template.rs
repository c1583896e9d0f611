//! Events that users of other servers are about to send: what the server that makes them needs to know of the room.
//!
//! Specification: server-server API, "GET make_join", "GET make_leave", "GET make_knock".

use std::sync::Arc;

use protocol::{event::Event, json::Object};
use ruma::{OwnedUserId, UserId};
use store::{Lock, Pending, RoomNo, Store, UserNo};
use users::numbers as user_numbers;

use crate::{
    Error, NewEvent, Result,
    head::{self, OpenRoom},
    members::{self, Membership},
    membership,
    send::{self, Identity, Sender},
};

/// The number of a user of whom nothing is known here.
const NOBODY: UserNo = UserNo(0);

/// The event by which a user of another server would change their own membership, without hashes and signatures. The rules of the room
/// must allow it.
///
/// # Errors
/// [`Error::Denied`], [`Error::Forbidden`]; for restricted joins [`Error::UnableToAuthoriseJoin`] and [`Error::UnableToGrantJoin`].
pub fn own_membership(
    store: &Store,
    identity: &Identity,
    room: RoomNo,
    user: &UserId,
    to: Membership,
    now_ms: u64,
) -> Result<Pending<Object>> {
    head::change(store, room, |open| {
        let sender = Sender { no: user_numbers::number(open.tx, user)?.unwrap_or(NOBODY), id: user.to_owned() };
        let standing = members::user_room(open.tx, sender.no, room)?;
        let mut content = Object::new();
        if to == Membership::Join
            && let Some(by) = membership::authoriser(open, identity, &sender, standing.as_ref())?
        {
            content.insert("join_authorised_via_users_server".to_owned(), by.as_str().into());
        }
        let (_, event) = send::prepare(open, identity, &sender, NewEvent::member(user, to, content), now_ms)?;
        let mut template = event.object()?;
        for key in ["hashes", "signatures", "event_id", "unsigned"] {
            template.remove(key);
        }
        Ok(template)
    })
}

/// An event that a local user would send now, which the rules of the room allow, without making it part of the room: an invitation that the
/// invited user's server has to sign first.
///
/// # Errors
/// [`Error::Denied`], [`Error::Forbidden`].
pub fn unsent(
    store: &Store,
    identity: &Identity,
    room: RoomNo,
    sender: &Sender,
    new: NewEvent,
    now_ms: u64,
) -> Result<Pending<Arc<Event>>> {
    head::change(store, room, |open| Ok(send::prepare(open, identity, sender, new, now_ms)?.1))
}

/// Whether a local user may let another one into a restricted room, as a join says ("Restricted rooms"). It must be asked before this server
/// signs the join.
///
/// # Errors
/// As [`own_membership`].
pub fn may_vouch(store: &Store, identity: &Identity, room: RoomNo, user: &UserId, by: &OwnedUserId) -> Result<Pending<bool>> {
    store.transact(&[Lock::Room(room)], |tx| {
        let sender = Sender { no: user_numbers::number(tx, user)?.unwrap_or(NOBODY), id: user.to_owned() };
        let standing = members::user_room(tx, sender.no, room)?;
        let open = OpenRoom::new(tx, room)?;
        if by.server_name() != identity.server_name {
            return Err(Error::Invalid("the user who authorises the join is of another server"));
        }
        Ok(membership::authoriser(&open, identity, &sender, standing.as_ref())?.is_some())
    })
}
