//! Guests in rooms: they join only where `m.room.guest_access` lets them, and leave where it no longer does.
//!
//! Which users of other servers are guests only those know; each sees to its own.
//!
//! Specification: client-server API, "Guest Access".

use protocol::event::Event;
use serde::Deserialize;
use store::{Lock, Owner, Preset, Range, Read, RoomNo, Store, Table, UserNo};
use users::{
    accounts::{self, Kind},
    numbers as user_numbers,
};

use crate::{
    Error, EventNo, NewEvent, Result, Sender, events,
    head::OpenRoom,
    members::{self, Membership},
    membership::{self, Action, Change},
    send::Identity,
};

pub(crate) static WITHDRAWN: Table<RoomNo, u8> =
    Table::new("guests_withdrawn", "Rooms that no longer let guests in: a job has still to let those leave who are there.")
        .owned_by(Owner::Room)
        .read_by(Preset::Scan);

/// The type of the event that lets guests in.
const KIND: &str = "m.room.guest_access";
/// The rooms that one run of [`expel`] goes through.
const ROOMS_MAX: usize = 100;

fn can_join(event: Option<&Event>) -> bool {
    #[derive(Deserialize)]
    struct Content {
        guest_access: String,
    }
    let content = event.and_then(|event| serde_json::from_str::<Content>(event.content.get()).ok());
    content.is_some_and(|content| content.guest_access == "can_join")
}

fn is_guest(db: &impl Read, user: UserNo) -> Result<bool> {
    Ok(accounts::account(db, user)?.is_some_and(|account| account.kind == Kind::Guest))
}

/// Refuses the join of a guest where the room does not let guests in.
pub(crate) fn check(room: &OpenRoom<'_, '_>, sender: &Sender, new: &NewEvent) -> Result<()> {
    let joins = new.kind == "m.room.member"
        && new.state_key.as_deref() == Some(sender.id.as_str())
        && new.content.get("membership").is_some_and(|membership| membership == Membership::Join.as_str());
    if !joins || !is_guest(room.tx, sender.no)? || can_join(room.state_event(KIND, "")?.as_deref()) {
        return Ok(());
    }
    Err(Error::GuestsForbidden)
}

/// The step of appending that notes where guests may no longer be.
pub(crate) fn apply(room: &mut OpenRoom<'_, '_>, event: &Event, replaces: Option<EventNo>) -> Result<()> {
    if event.state_pair() != Some((KIND, "")) {
        return Ok(());
    }
    let before = replaces.map(|no| events::event(room.tx, room.no, no)).transpose()?;
    if can_join(before.as_ref().map(|stored| &*stored.event)) && !can_join(Some(event)) {
        room.tx.put(&WITHDRAWN, &room.no, &0)?;
    }
    Ok(())
}

/// Lets guests leave the rooms that no longer let them in, one write a guest. Returns how many left. A run that is cut off goes on where
/// it was, for those who left are no longer there.
///
/// # Errors
/// As the database says.
pub fn expel(store: &Store, identity: &Identity, now_ms: u64) -> Result<usize> {
    let rooms = store.snapshot().range(&WITHDRAWN, Range::of(&()))?.take(ROOMS_MAX).collect::<store::Result<Vec<_>>>()?;
    let mut left = 0;
    for (room, _) in rooms {
        left += expel_from(store, identity, room, now_ms)?;
        store.transact::<_, store::Error>(&[Lock::Room(room)], |tx| tx.delete(&WITHDRAWN, &room))?.wait()?;
    }
    Ok(left)
}

fn expel_from(store: &Store, identity: &Identity, room: RoomNo, now_ms: u64) -> Result<usize> {
    let db = store.snapshot();
    let access = crate::state::event(&db, room, crate::head(&db, room)?.state, KIND, "")?;
    if can_join(access.as_ref().map(|stored| &*stored.event)) {
        return Ok(0);
    }
    let mut left = 0;
    for member in members::members(&db, room)? {
        let (user, membership) = member?;
        if membership != Membership::Join || !is_guest(&db, user)? {
            continue;
        }
        let sender = Sender { no: user, id: user_numbers::user_id(&db, user)? };
        let change = Change { target: sender.id.clone(), to: Action::Leave, content: Default::default() };
        match membership::change(store, identity, &sender, room, change, now_ms).and_then(|pending| Ok(pending.wait()?)) {
            Ok(()) => left += 1,
            Err(Error::Store(error)) => return Err(error.into()),
            // No rule keeps a member from leaving; should a room refuse nevertheless, it always would.
            Err(error) => tracing::warn!(user = %sender.id, room = room.0, %error, "a guest could not leave a room"),
        }
    }
    Ok(left)
}
