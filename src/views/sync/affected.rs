//! Which rooms have news for a user, and in what respect.

use rooms::{
    Pos,
    members::{Membership, UserRoom},
    partial, state, timeline,
};
use store::{RoomNo, Seq, Snapshot, Topic};

use crate::{Result, sync::Who};

/// A room with news.
#[derive(Clone, Debug)]
pub struct Affected {
    /// The room.
    pub room: RoomNo,
    /// What the user has to do with it now.
    pub standing: UserRoom,
    /// What there is to tell.
    pub part: Part,
    /// Whether the user is in it and it became whole since, so that what the device knows of its state counts for nothing
    /// ([`rooms::partial`]).
    pub completed: bool,
}

/// What there is to tell of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The user is in it. What came after this place; all of it where the user was not in it before.
    Join {
        /// The place.
        after: Option<Pos>,
    },
    /// The user was invited.
    Invite,
    /// The user knocked.
    Knock,
    /// The user left it or was removed, declined, or gave up.
    Leave {
        /// What the user saw of it: after the first place (all where the user was not in it before) up to the second.
        /// `None` for one who was never in it since, who is told of the own member event only.
        seen: Option<(Option<Pos>, Pos)>,
    },
}

/// How much to tell.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// What the device knows already; `None` where it knows nothing.
    pub since: Option<Seq>,
    /// Rooms without news too, for a device that asks for the full state.
    pub all_joined: bool,
    /// Rooms that the user left before `since` too.
    pub archived: bool,
}

/// The rooms with news among all that the user has to do with. Rooms without are found from memory.
///
/// # Errors
/// As the database says.
pub fn affected(db: &Snapshot, who: &Who, rooms: &[(RoomNo, UserRoom)], extent: Extent) -> Result<Vec<Affected>> {
    let mut found = Vec::new();
    let since = extent.since.map(Pos::last_of);
    for room in with_news(db, rooms, extent) {
        let (room, standing) = room;
        let fresh = since.is_none_or(|since| standing.pos > since);
        let part = match standing.membership {
            Membership::Join => Some(Part::Join { after: if fresh { known_part(db, who, *room, since)? } else { since } }),
            Membership::Invite => fresh.then_some(Part::Invite),
            Membership::Knock => fresh.then_some(Part::Knock),
            Membership::Leave | Membership::Ban => left(db, who, *room, standing, extent)?,
        };
        let Some(part) = part else { continue };
        found.push(Affected { room: *room, standing: standing.clone(), part, completed: completed(db, *room, part)? });
    }
    Ok(found)
}

/// Whether a room that the user is in became whole after what the device knows of it.
fn completed(db: &Snapshot, room: RoomNo, part: Part) -> Result<bool> {
    let Part::Join { after: Some(after) } = part else { return Ok(false) };
    Ok(partial::completed_after(db, room, after)?)
}

/// The rooms that may have news. Joined ones that nobody touched have none; of others only the user's own row matters.
fn with_news<'a>(
    db: &Snapshot,
    rooms: &'a [(RoomNo, UserRoom)],
    extent: Extent,
) -> impl Iterator<Item = &'a (RoomNo, UserRoom)> + use<'a> {
    let is_joined = |standing: &UserRoom| standing.membership == Membership::Join;
    let all = extent.since.is_none() || extent.all_joined;
    let joined = rooms.iter().filter(|(_, standing)| is_joined(standing)).map(|(room, _)| Topic::Room(*room));
    let mut touched = match extent.since {
        Some(since) if !all => db.changed_since(since, joined),
        _ => Vec::new(),
    };
    // In order of the rooms already, but that is the store's to change.
    touched.sort_unstable();
    rooms.iter().filter(move |(room, standing)| !is_joined(standing) || all || touched.binary_search(&Topic::Room(*room)).is_ok())
}

/// What a device knows of a room whose member event is newer than `since`: what came before it, where the user was in
/// the room then.
fn known_part(db: &Snapshot, who: &Who, room: RoomNo, since: Option<Pos>) -> Result<Option<Pos>> {
    let Some(since) = since else { return Ok(None) };
    let root = timeline::state_at(db, room, since)?;
    let member = state::event(db, room, root, "m.room.member", who.user_id.as_str())?;
    let was_joined = member.is_some_and(|member| Membership::of(&member.event) == Membership::Join);
    Ok(was_joined.then_some(since))
}

/// The most of a user's own member events that [`last_left`] looks at.
const MEMBERSHIPS_MAX: usize = 100;

/// Where a user who was not in a room at `since` had left it: up to there a device may know it.
///
/// # Errors
/// As the database says.
pub fn last_left(db: &Snapshot, who: &Who, room: RoomNo, since: Seq) -> Result<Option<Pos>> {
    let root = timeline::state_at(db, room, Pos::last_of(since))?;
    let mut member = state::event(db, room, root, "m.room.member", who.user_id.as_str())?;
    for _ in 0..MEMBERSHIPS_MAX {
        let Some(stored) = member else { return Ok(None) };
        let Some(before) = stored.header.replaces else { return Ok(None) };
        let before = rooms::events::event(db, room, before)?;
        if Membership::of(&before.event) == Membership::Join {
            return Ok(stored.header.pos);
        }
        member = Some(before);
    }
    Ok(None)
}

fn left(db: &Snapshot, who: &Who, room: RoomNo, standing: &UserRoom, extent: Extent) -> Result<Option<Part>> {
    let since = extent.since.map(Pos::last_of);
    let news = since.is_some_and(|since| standing.pos > since);
    if !news {
        let shown = extent.archived && !standing.forgotten;
        let until = standing.joined_until.filter(|_| shown);
        return Ok(until.map(|until| Part::Leave { seen: Some((None, until)) }));
    }
    // A room that is forgotten is news all the same: other devices of the user still show it.
    let seen = match standing.joined_until.filter(|until| since.is_some_and(|since| *until > since)) {
        Some(until) => Some((known_part(db, who, room, since)?, until)),
        None => None,
    };
    Ok(Some(Part::Leave { seen }))
}
