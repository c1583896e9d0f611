//! Who may see which event. Every reader of events goes through [`Viewer`].
//!
//! Specification: client-server API, "Room history visibility": decided by the state of the room at the event.

use std::collections::HashMap;

use ruma::{ServerName, UserId};
use serde::Deserialize;
use store::{Read, RoomNo, UserNo};

use crate::{
    Pos, Result,
    events::{self, StoredEvent},
    members::{self, Membership, UserRoom},
    state::{self, Root},
};

/// From when on a user may see a room's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryVisibility {
    /// From when they joined.
    Joined,
    /// From when they were invited.
    Invited,
    /// All of it once they join.
    #[default]
    Shared,
    /// Anyone, at any time.
    WorldReadable,
}

/// A user who looks at a room.
pub struct Viewer<'a> {
    room: RoomNo,
    user: &'a UserId,
    standing: Option<UserRoom>,
    /// What was found out about states already: most events of a page share theirs.
    known: HashMap<Root, (HistoryVisibility, Option<Membership>)>,
}

impl<'a> Viewer<'a> {
    /// A user and what they have to do with the room.
    ///
    /// # Errors
    /// As the database says.
    pub fn new(db: &impl Read, room: RoomNo, user: &'a UserId, no: UserNo) -> Result<Self> {
        let standing = members::user_room(db, no, room)?;
        Ok(Self { room, user, standing, known: HashMap::new() })
    }

    /// What the user has to do with the room.
    #[must_use]
    pub fn standing(&self) -> Option<&UserRoom> {
        self.standing.as_ref()
    }

    /// Whether the user is in the room now.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.standing.as_ref().is_some_and(|standing| standing.membership == Membership::Join)
    }

    /// The membership that the user had at an event, after it if it is their own.
    ///
    /// # Errors
    /// As the database says.
    pub fn membership_at(&mut self, db: &impl Read, event: &StoredEvent) -> Result<Option<Membership>> {
        Ok(self.facts(db, event.header.after)?.1)
    }

    /// Whether the user may see this event.
    ///
    /// # Errors
    /// As the database says.
    pub fn sees(&mut self, db: &impl Read, event: &StoredEvent) -> Result<bool> {
        let Some(pos) = event.header.pos else { return Ok(false) };
        let (before, was) = self.facts(db, event.header.before)?;
        let (after, is) = self.facts(db, event.header.after)?;
        // A change of visibility is seen by all who see what is before or after it.
        let visibility = before.max(after);
        let own_membership = event.event.state_pair() == Some(("m.room.member", self.user.as_str()));
        let held = |membership| was == Some(membership) || is == Some(membership);
        Ok(match visibility {
            HistoryVisibility::WorldReadable => true,
            _ if held(Membership::Join) || own_membership => true,
            HistoryVisibility::Shared => self.is_joined() || self.left_after(pos),
            HistoryVisibility::Invited => held(Membership::Invite),
            HistoryVisibility::Joined => false,
        })
    }

    /// Whether the user was in the room at some time after this place.
    fn left_after(&self, pos: Pos) -> bool {
        self.standing.as_ref().and_then(|standing| standing.joined_until).is_some_and(|until| until >= pos)
    }

    fn facts(&mut self, db: &impl Read, root: Root) -> Result<(HistoryVisibility, Option<Membership>)> {
        if let Some(known) = self.known.get(&root) {
            return Ok(*known);
        }
        let visibility = history_visibility(db, self.room, root)?;
        let member = state::event(db, self.room, root, "m.room.member", self.user.as_str())?;
        let facts = (visibility, member.map(|member| Membership::of(&member.event)));
        self.known.insert(root, facts);
        Ok(facts)
    }
}

/// The history visibility of a state; `shared` where it says none.
///
/// # Errors
/// As the database says.
pub fn history_visibility(db: &impl Read, room: RoomNo, root: Root) -> Result<HistoryVisibility> {
    #[derive(Deserialize)]
    struct Content {
        history_visibility: HistoryVisibility,
    }
    let content: Option<Content> = state::content(db, room, root, "m.room.history_visibility", "")?;
    Ok(content.map(|content| content.history_visibility).unwrap_or_default())
}

/// A server that asks for a room's events.
pub struct ServerViewer<'a> {
    room: RoomNo,
    server: &'a ServerName,
    known: HashMap<Root, bool>,
}

impl<'a> ServerViewer<'a> {
    /// A server of which the caller knows that it is in the room.
    #[must_use]
    pub fn new(room: RoomNo, server: &'a ServerName) -> Self {
        Self { room, server, known: HashMap::new() }
    }

    /// Whether any user of the server may see this event.
    ///
    /// # Errors
    /// As the database says.
    pub fn sees(&mut self, db: &impl Read, event: &StoredEvent) -> Result<bool> {
        if event.event.sender.server_name() == self.server {
            return Ok(true);
        }
        Ok(self.is_open(db, event.header.before)? || self.is_open(db, event.header.after)?)
    }

    fn is_open(&mut self, db: &impl Read, root: Root) -> Result<bool> {
        if let Some(known) = self.known.get(&root) {
            return Ok(*known);
        }
        let visibility = history_visibility(db, self.room, root)?;
        let open = match visibility {
            HistoryVisibility::WorldReadable | HistoryVisibility::Shared => true,
            HistoryVisibility::Invited | HistoryVisibility::Joined => self.had_a_member(db, root, visibility)?,
        };
        self.known.insert(root, open);
        Ok(open)
    }

    fn had_a_member(&self, db: &impl Read, root: Root, visibility: HistoryVisibility) -> Result<bool> {
        for no in state::of_type(db, self.room, root, "m.room.member")? {
            let member = events::event(db, self.room, no)?;
            let of_server = member.event.state_key.as_deref().and_then(|key| <&UserId>::try_from(key).ok());
            if of_server.is_none_or(|user| user.server_name() != self.server) {
                continue;
            }
            match Membership::of(&member.event) {
                Membership::Join => return Ok(true),
                Membership::Invite if visibility == HistoryVisibility::Invited => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }
}
