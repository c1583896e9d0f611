//! How those are with whom the user shares a room.
//!
//! Specification: client-server API, "Presence".

use std::collections::BTreeSet;

use rooms::members::{Membership, UserRoom};
use ruma::{OwnedUserId, api::client::filter::Filter};
use serde::Serialize;
use serde_json::value::RawValue;
use store::{RoomNo, Seq, Snapshot, Topic, UserNo};
use users::{
    numbers,
    presence::{self, Online, Presence, Shown, State},
};

use crate::{Memory, Result, filter, json::raw_of, sync::Who};

/// The type of presence events.
const KIND: &str = "m.presence";
/// The users who changed last that one response looks at. Who changed before them is told when they change again.
const CHANGES_MAX: usize = 5_000;
/// The events of one response, where the filter does not ask for fewer.
const EVENTS_MAX: usize = 1_000;

#[derive(Serialize)]
struct Event {
    #[serde(rename = "type")]
    kind: &'static str,
    sender: OwnedUserId,
    content: Shown,
}

/// What the answers are made of.
pub(super) struct Asked<'a> {
    pub db: &'a Snapshot,
    pub memory: &'a Memory,
    pub online: &'a Online,
    pub who: &'a Who,
    pub rooms: &'a [(RoomNo, UserRoom)],
    pub filter: &'a Filter,
    pub ignored: &'a BTreeSet<OwnedUserId>,
    pub now_ms: u64,
}

impl Asked<'_> {
    /// The presence of those whose own changed after `since`, and of those who share a room only since then. Who knows nothing is told of
    /// all who are not simply offline, and of themselves: later changes of their own are no news to them.
    pub fn events(&self, since: Option<Seq>, met: &BTreeSet<OwnedUserId>) -> Result<Vec<Box<RawValue>>> {
        let mut events = Vec::new();
        let limit = self.filter.limit.map_or(EVENTS_MAX, |limit| usize::try_from(u64::from(limit)).unwrap_or(EVENTS_MAX));
        let limit = limit.min(EVENTS_MAX);
        let changed = since.is_none_or(|since| !self.db.changed_since(since, [Topic::Presence]).is_empty());
        if limit == 0 || (!changed && met.is_empty()) || !filter::wants_global(self.filter, KIND, None) {
            return Ok(events);
        }
        if since.is_none() {
            events.extend(self.event(self.who.user, presence::presence(self.db, self.who.user)?)?);
        }
        let mut told = BTreeSet::from([self.who.user]);
        let changed =
            if changed { presence::changed_since(self.db, since.unwrap_or_default(), CHANGES_MAX)? } else { Vec::new() };
        for user in changed {
            if events.len() >= limit {
                return Ok(events);
            }
            let presence = presence::presence(self.db, user)?;
            if (since.is_some() || is_worth_telling(&presence)) && told.insert(user) && self.shares_a_room(user)? {
                events.extend(self.event(user, presence)?);
            }
        }
        for user in met {
            let Some(user) = numbers::number(self.db, user)? else { continue };
            let presence = presence::presence(self.db, user)?;
            if events.len() < limit && is_worth_telling(&presence) && told.insert(user) {
                events.extend(self.event(user, presence)?);
            }
        }
        Ok(events)
    }

    fn event(&self, user: UserNo, presence: Presence) -> Result<Option<Box<RawValue>>> {
        let sender = numbers::user_id(self.db, user)?;
        if self.ignored.contains(&sender) || !filter::wants_global(self.filter, KIND, Some(&sender)) {
            return Ok(None);
        }
        let content = self.online.shown(user, presence, self.now_ms);
        Ok(Some(raw_of(&Event { kind: KIND, sender, content })?))
    }

    fn shares_a_room(&self, user: UserNo) -> Result<bool> {
        let theirs = self.memory.rooms(self.db, user)?;
        Ok(have_a_common_room(self.rooms, &theirs))
    }
}

fn is_worth_telling(presence: &Presence) -> bool {
    presence.state != State::Offline || presence.status_msg.is_some()
}

/// Both are in order of their rooms.
fn have_a_common_room(one: &[(RoomNo, UserRoom)], other: &[(RoomNo, UserRoom)]) -> bool {
    let is_joined = |(_, of): &&(RoomNo, UserRoom)| of.membership == Membership::Join;
    let mut other = other.iter().filter(is_joined).peekable();
    one.iter().filter(is_joined).any(|(room, _)| {
        while other.next_if(|(theirs, _)| theirs < room).is_some() {}
        other.peek().is_some_and(|(theirs, _)| theirs == room)
    })
}
