//! What tells a reader who is in a room without naming all: counts, and the heroes that an unnamed room is called after.
//!
//! Specification: client-server API, "Calculating the display name for a room".

use std::collections::BTreeSet;

use rooms::{
    EventNo, events, head,
    members::{self, Membership},
    state::{self, Root},
};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use store::{RoomNo, Snapshot, UserNo};
use users::numbers;

use crate::{
    Result,
    sync::{Who, excerpt::Excerpt},
};

/// How many heroes there are at most.
const HEROES: usize = 5;

/// A room's summary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Users to call the room after, where it has no name.
    #[serde(rename = "m.heroes", skip_serializing_if = "Option::is_none")]
    pub heroes: Option<Vec<OwnedUserId>>,
    /// How many are in it.
    #[serde(rename = "m.joined_member_count", skip_serializing_if = "Option::is_none")]
    pub joined: Option<u32>,
    /// How many are invited.
    #[serde(rename = "m.invited_member_count", skip_serializing_if = "Option::is_none")]
    pub invited: Option<u32>,
}

/// The summary of a room, where an excerpt changed it since `base`.
///
/// # Errors
/// As the database says.
pub fn summary(db: &Snapshot, who: &Who, room: RoomNo, base: Root, excerpt: &Excerpt) -> Result<Option<Summary>> {
    let end = excerpt.at_end;
    if base == end || !changes_summary(db, room, base, end)? {
        return Ok(None);
    }
    let head = head(db, room)?;
    let heroes = if is_named(db, room, end)? { None } else { Some(heroes(db, (who.user, &who.user_id), room, end)?) };
    Ok(Some(Summary { heroes, joined: Some(head.joined), invited: Some(head.invited) }))
}

/// The member events of those who sent what an excerpt shows, where a partial state lacks them, as their events cite them; but for those that are `told`.
///
/// # Errors
/// As the database says.
pub fn cited_members(db: &Snapshot, room: RoomNo, excerpt: &Excerpt, told: &[EventNo]) -> Result<BTreeSet<EventNo>> {
    let mut found = BTreeSet::new();
    for event in excerpt.events.iter().map(|shown| &shown.placed.stored.event) {
        let member = ("m.room.member", event.sender.as_str());
        if state::entry(db, room, excerpt.at_end, member.0, member.1)?.is_some() {
            continue;
        }
        for id in &event.auth_events {
            let cited = events::by_id(db, room, id)?.filter(|(_, cited)| cited.event.state_pair() == Some(member));
            found.extend(cited.map(|(no, _)| no).filter(|no| !told.contains(no)));
        }
    }
    Ok(found)
}

fn changes_summary(db: &Snapshot, room: RoomNo, base: Root, end: Root) -> Result<bool> {
    for kind in ["m.room.name", "m.room.canonical_alias"] {
        if state::entry(db, room, base, kind, "")? != state::entry(db, room, end, kind, "")? {
            return Ok(true);
        }
    }
    Ok(base == Root::default() || !state::difference_of(db, room, base, end, "m.room.member")?.is_empty())
}

/// Whether a room is called by something else than those who are in it.
///
/// # Errors
/// As the database says.
pub fn is_named(db: &Snapshot, room: RoomNo, root: Root) -> Result<bool> {
    #[derive(Deserialize)]
    struct Content {
        name: Option<String>,
        alias: Option<String>,
    }
    for kind in ["m.room.name", "m.room.canonical_alias"] {
        let content: Option<Content> = state::content(db, room, root, kind, "")?;
        if content.and_then(|content| content.name.or(content.alias)).is_some_and(|name| !name.is_empty()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The first users who are joined or invited, else those who were, but not the one it is told to.
///
/// # Errors
/// As the database says.
pub fn heroes(db: &Snapshot, (who, who_id): (UserNo, &UserId), room: RoomNo, root: Root) -> Result<Vec<OwnedUserId>> {
    let mut heroes = Vec::with_capacity(HEROES);
    for member in members::members(db, room)?.take(HEROES + 1) {
        let (user, _) = member?;
        if user != who {
            heroes.push(numbers::user_id(db, user)?);
        }
    }
    if heroes.is_empty() {
        for event in state::of_type(db, room, root, "m.room.member")? {
            let stored = rooms::events::event(db, room, event)?;
            let key = stored.event.state_key.as_deref().and_then(|key| OwnedUserId::try_from(key).ok());
            let was_in = Membership::of(&stored.event) != Membership::Knock;
            heroes.extend(key.filter(|user| was_in && *user != *who_id));
            if heroes.len() == HEROES {
                break;
            }
        }
    }
    heroes.truncate(HEROES);
    Ok(heroes)
}
