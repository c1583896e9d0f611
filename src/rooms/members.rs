//! Who is in which room: derived from member events in the commit that appends them.

use protocol::event::Event;
use ruma::{ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Lead, Owner, Preset, Range, Read, RoomNo, Table, Tx, UserNo};
use users::{directory, numbers as user_numbers};

use crate::{
    EventNo, Pos, Result,
    events::{self, StoredEvent},
    head::OpenRoom,
    servers,
    state::{self, Root},
};

pub(crate) static MEMBERS: Table<(RoomNo, UserNo), Membership> =
    Table::new("members", "The joined and the invited users of a room.").owned_by(Owner::Room).read_by(Preset::Scan);
pub(crate) static USER_ROOMS: Table<(UserNo, RoomNo), UserRoom> =
    Table::new("user_rooms", "Every room that a user has to do with, but those forgotten. Written under the room's lock.")
        .wakes(Owner::User)
        .read_by(Preset::Scan);

/// A membership of a room ("m.room.member").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Membership {
    /// In the room.
    Join,
    /// Asked in.
    Invite,
    /// Was in it, declined, or was removed.
    Leave,
    /// Banned from it.
    Ban,
    /// Asking to be let in.
    Knock,
}

impl Membership {
    /// The word in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Leave => "leave",
            Self::Ban => "ban",
            Self::Knock => "knock",
        }
    }

    /// The membership that a member event says; `Leave` where it says none that is known.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        #[derive(Deserialize)]
        struct Content {
            membership: Membership,
        }
        serde_json::from_str::<Content>(event.content.get()).map_or(Self::Leave, |content| content.membership)
    }
}

/// The membership that a member event took the place of; `Leave` where there was none.
///
/// # Errors
/// As the database says.
pub fn replaced_by(db: &impl Read, room: RoomNo, stored: &StoredEvent) -> Result<Membership> {
    let replaced = stored.header.replaces.map(|no| events::event(db, room, no)).transpose()?;
    Ok(replaced.map_or(Membership::Leave, |replaced| Membership::of(&replaced.event)))
}

/// What a user has to do with a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRoom {
    /// The membership.
    pub membership: Membership,
    /// The member event.
    pub event: EventNo,
    /// Its place in the timeline.
    pub pos: Pos,
    /// Where the user last became joined.
    pub joined_from: Option<Pos>,
    /// Where the user last stopped being joined.
    pub joined_until: Option<Pos>,
    /// Whether the user who left asked to hear no more of it.
    pub forgotten: bool,
}

/// What a user has to do with a room, if anything.
///
/// # Errors
/// As the database says.
pub fn user_room(db: &impl Read, user: UserNo, room: RoomNo) -> Result<Option<UserRoom>> {
    Ok(db.get(&USER_ROOMS, &(user, room))?)
}

/// Whether a user is joined to a room.
///
/// # Errors
/// As the database says.
pub fn is_joined(db: &impl Read, user: UserNo, room: RoomNo) -> Result<bool> {
    Ok(db.get(&MEMBERS, &(room, user))? == Some(Membership::Join))
}

/// All rooms that a user has to do with.
///
/// # Errors
/// As the database says.
pub fn user_rooms(db: &impl Read, user: UserNo) -> Result<Vec<(RoomNo, UserRoom)>> {
    let rows = db.range(&USER_ROOMS, Range::of(&Lead((user,))))?;
    Ok(rows.map(|row| row.map(|((_, room), of)| (room, of))).collect::<store::Result<_>>()?)
}

/// Whether a user has to do with any room.
///
/// # Errors
/// As the database says.
pub fn has_rooms(db: &impl Read, user: UserNo) -> Result<bool> {
    Ok(db.first(&USER_ROOMS, Range::of(&Lead((user,))))?.is_some())
}

/// The rooms that a user is joined to.
///
/// # Errors
/// As the database says.
pub fn joined_rooms(db: &impl Read, user: UserNo) -> Result<Vec<RoomNo>> {
    joined_rooms_at(db, user, Pos(i64::MAX))
}

/// Those of them that the user entered at this place or before.
///
/// # Errors
/// As the database says.
pub fn joined_rooms_at(db: &impl Read, user: UserNo, pos: Pos) -> Result<Vec<RoomNo>> {
    let is_in = |of: &UserRoom| of.membership == Membership::Join && of.joined_from.is_none_or(|from| from <= pos);
    Ok(user_rooms(db, user)?.into_iter().filter(|(_, of)| is_in(of)).map(|(room, _)| room).collect())
}

/// The users of a room who are joined or invited, as they are asked for.
///
/// # Errors
/// As the database says.
pub fn members(db: &impl Read, room: RoomNo) -> Result<impl Iterator<Item = Result<(UserNo, Membership)>> + '_> {
    let rows = db.range(&MEMBERS, Range::of(&Lead((room,))))?;
    Ok(rows.map(|row| row.map(|((_, user), membership)| (user, membership)).map_err(Into::into)))
}

/// The rooms that two users are joined to, as they are asked for.
///
/// # Errors
/// As the database says.
pub fn common_rooms<'a>(db: &'a impl Read, one: UserNo, other: UserNo) -> Result<impl Iterator<Item = Result<RoomNo>> + 'a> {
    let is_common = move |room| Ok(is_joined(db, other, room)?.then_some(room));
    Ok(joined_rooms(db, one)?.into_iter().filter_map(move |room| is_common(room).transpose()))
}

/// Whether two users are joined to a common room.
///
/// # Errors
/// As the database says.
pub fn share_a_room(db: &impl Read, one: UserNo, other: UserNo) -> Result<bool> {
    Ok(common_rooms(db, one, other)?.next().transpose()?.is_some())
}

/// Since when a user of another server has shared a room with this server without a break: what the other server tells all who share a room with the user,
/// this one was told since then. `None` where they share none. A break counts though another room was shared meanwhile, if that room is shared no more.
///
/// # Errors
/// As the database says.
pub fn shared_since(db: &impl Read, own: &ServerName, user: UserNo) -> Result<Option<Pos>> {
    let mut since: Option<Pos> = None;
    for (room, of) in user_rooms(db, user)? {
        let Some(joined) = of.joined_from.filter(|_| of.membership == Membership::Join) else { continue };
        if let Some(entered) = servers::since(db, room, own)? {
            let both = joined.max(entered);
            since = Some(since.map_or(both, |since| since.min(both)));
        }
    }
    Ok(since)
}

/// Marks a room that a user left as forgotten, or as known again.
pub(crate) fn put(room: &mut OpenRoom<'_, '_>, user: UserNo, of: &UserRoom) -> Result<()> {
    room.tx.put(&USER_ROOMS, &(user, room.no), of)?;
    Ok(())
}

/// The step of appending that keeps memberships: rows of both directions and the counts, as the current state became another.
pub(crate) fn apply(room: &mut OpenRoom<'_, '_>, old: Root, pos: Pos) -> Result<()> {
    for (was, is) in state::difference_of(room.tx, room.no, old, room.head.state, "m.room.member")? {
        let Some(no) = is.or(was) else { continue };
        let stored = events::event(room.tx, room.no, no)?;
        // Who is no longer in the state, because it was resolved so, is not in the room.
        let membership = if is.is_some() { Membership::of(&stored.event) } else { Membership::Leave };
        set(room, &stored.event, membership, no, pos)?;
    }
    Ok(())
}

fn set(room: &mut OpenRoom<'_, '_>, event: &Event, membership: Membership, no: EventNo, pos: Pos) -> Result<()> {
    let Some(("m.room.member", target)) = event.state_pair() else { return Ok(()) };
    let Ok(target) = <&UserId>::try_from(target) else { return Ok(()) };
    let user = user_numbers::intern(room.tx, target)?;
    let old = user_room(room.tx, user, room.no)?;
    // Not what a user was told from elsewhere of a room that this server was not in.
    let key = (room.no, user);
    let was = room.tx.get(&MEMBERS, &key)?;
    let left = was == Some(Membership::Join) && membership != Membership::Join;
    let entered = was != Some(Membership::Join) && membership == Membership::Join;
    let joined_from = if entered { Some(pos) } else { old.as_ref().and_then(|old| old.joined_from) };
    let joined_until = if left { Some(pos) } else { old.and_then(|old| old.joined_until) };
    put(room, user, &UserRoom { membership, event: no, pos, joined_from, joined_until, forgotten: false })?;
    if entered || left {
        servers::count(room, target.server_name(), pos, entered)?;
    }
    if membership == Membership::Join {
        directory::meet(room.tx, user, target, displayname(event).as_deref())?;
    }
    count(room, was, -1);
    count(room, Some(membership), 1);
    match membership {
        Membership::Join | Membership::Invite => room.tx.put(&MEMBERS, &key, &membership)?,
        _ => room.tx.delete(&MEMBERS, &key)?,
    }
    Ok(())
}

/// What a member event says that its user is called.
fn displayname(event: &Event) -> Option<String> {
    let content: Value = serde_json::from_str(event.content.get()).ok()?;
    content.get("displayname").and_then(Value::as_str).map(str::to_owned)
}

/// Forgets the name that a member event says, where its user has to do with no room any more.
pub(crate) fn forget_name(tx: &mut Tx<'_>, event: &Event) -> Result<()> {
    let target = event.state_pair().filter(|(kind, _)| *kind == "m.room.member");
    let Some(target) = target.and_then(|(_, target)| <&UserId>::try_from(target).ok()) else { return Ok(()) };
    if let Some(user) = user_numbers::number(tx, target)?
        && !has_rooms(tx, user)?
    {
        directory::part(tx, user, target, displayname(event).as_deref())?;
    }
    Ok(())
}

fn count(room: &mut OpenRoom<'_, '_>, membership: Option<Membership>, by: i32) {
    let counter = match membership {
        Some(Membership::Join) => &mut room.head.joined,
        Some(Membership::Invite) => &mut room.head.invited,
        _ => return,
    };
    *counter = counter.saturating_add_signed(by);
}
