//! A room's past: pages of its timeline, an event with what surrounds it, its state and members at a place.
//!
//! Specification: client-server API, "Getting events for a room". Whatever is returned went through
//! [`rooms::visibility::Viewer`].

use std::collections::BTreeSet;

use rooms::{
    Error as Rooms, EventNo, Pos,
    events::{self, StoredEvent},
    format::{Format, client_event},
    members::Membership,
    state::{self, Root},
    timeline::{self, Direction, Placed},
    times,
    visibility::{HistoryVisibility, Viewer, history_visibility},
};
use ruma::{EventId, OwnedEventId, UserId, api::client::filter::RoomEventFilter};
use serde_json::value::RawValue;
use store::{RoomNo, Snapshot};

use crate::{Result, filter, token::Point};

/// The most events that one page looks at: with a filter that few events pass it ends early, with a token to go on.
const SCANNED_MAX: usize = 5_000;

/// A user who looks at a room's past, and how events are written for them.
pub struct Reader<'a> {
    db: &'a Snapshot,
    room: RoomNo,
    viewer: Viewer<'a>,
    format: Format<'a>,
    /// The last place that the user may know of: their leave, or the newest.
    end: Pos,
    /// The state of the room as the user may know it: now, or when they left.
    root: Root,
}

impl<'a> Reader<'a> {
    /// A user who is or was in the room, or anyone where the room is readable by the world.
    ///
    /// # Errors
    /// [`Rooms::Forbidden`] for anyone else, [`Rooms::UnknownRoom`].
    pub fn new(db: &'a Snapshot, room: RoomNo, user: &'a UserId, format: Format<'a>) -> Result<Self> {
        let viewer = Viewer::new(db, room, user, format.user)?;
        let newest = Pos::last_of(db.seq());
        let standing = viewer.standing().filter(|standing| !standing.forgotten);
        let end = match standing {
            Some(standing) if standing.membership == Membership::Join => newest,
            _ if history_visibility(db, room, rooms::head(db, room)?.state)? == HistoryVisibility::WorldReadable => newest,
            Some(standing) if standing.joined_until.is_some() => standing.joined_until.unwrap_or(newest),
            _ => return Err(Rooms::Forbidden("You are not in this room").into()),
        };
        let root = if end == newest { rooms::head(db, room)?.state } else { timeline::state_at(db, room, end)? };
        let format = Format { until: end.min(format.until), ..format };
        Ok(Self { db, room, viewer, format, end, root })
    }

    /// The snapshot that is read.
    pub(crate) fn db(&self) -> &'a Snapshot {
        self.db
    }

    /// The room that is read.
    pub(crate) fn room(&self) -> RoomNo {
        self.room
    }

    /// How events are written for the user.
    pub(crate) fn format(&self) -> &Format<'a> {
        &self.format
    }

    /// Whether the user may see an event.
    pub(crate) fn sees(&mut self, stored: &StoredEvent) -> Result<bool> {
        Ok(self.viewer.sees(self.db, stored)?)
    }

    /// The state that the user may know: now, or when they left.
    #[must_use]
    pub fn root(&self) -> Root {
        self.root
    }

    /// The state at a point, no later than the user may know. Before the first event that is here it is the state in which the room was
    /// entered, or with which it came to be: nobody saw less of it.
    ///
    /// # Errors
    /// As the database says.
    pub fn root_at(&self, point: Point) -> Result<Root> {
        if let Some(last) = timeline::last_until(self.db, self.room, point.0.min(self.end))? {
            return Ok(last.stored.header.current);
        }
        let first = timeline::read(self.db, self.room, Direction::Forward, Pos(i64::MIN), Some(self.end))?.next().transpose()?;
        match first {
            Some(first) if first.stored.header.before != Root::default() => Ok(first.stored.header.before),
            Some(first) => Ok(timeline::state_at(self.db, self.room, Pos::last_of(first.pos.seq()).min(self.end))?),
            None => Ok(self.root),
        }
    }

    /// State events as the user sees them.
    ///
    /// # Errors
    /// As the database says.
    pub fn state(&self, events: impl IntoIterator<Item = EventNo>) -> Result<Vec<Box<RawValue>>> {
        let written = events.into_iter().map(|no| {
            let stored = events::event(self.db, self.room, no)?;
            Ok(client_event(self.db, self.room, &stored, None, &self.format)?)
        });
        written.collect()
    }

    pub(crate) fn write(&mut self, stored: &StoredEvent) -> Result<Box<RawValue>> {
        let membership = self.viewer.membership_at(self.db, stored)?.unwrap_or(Membership::Leave);
        Ok(client_event(self.db, self.room, stored, Some(membership), &self.format)?)
    }

    /// An event that the user may see.
    ///
    /// # Errors
    /// [`Rooms::NotFound`] where there is none, or they may not: the two are not told apart.
    pub fn event(&mut self, id: &EventId) -> Result<(Pos, std::sync::Arc<StoredEvent>, Box<RawValue>)> {
        let missing = || Rooms::NotFound("the event");
        let (_, stored) = events::by_id(self.db, self.room, id)?.ok_or_else(missing)?;
        let pos = stored.header.pos.ok_or_else(missing)?;
        if !self.viewer.sees(self.db, &stored)? {
            return Err(missing().into());
        }
        let written = self.write(&stored)?;
        Ok((pos, stored, written))
    }

    /// The event closest to a time (ms), of those that the user may see and that are from then or later, or from then or earlier:
    /// its id and time.
    ///
    /// # Errors
    /// [`Rooms::NotFound`] where there is none.
    pub fn at_time(&mut self, ts: u64, direction: Direction) -> Result<(OwnedEventId, u64)> {
        for found in times::closest(self.db, self.room, ts, direction)?.take(SCANNED_MAX) {
            let (ts, no) = found?;
            let stored = events::event(self.db, self.room, no)?;
            if self.sees(&stored)? {
                return Ok((stored.header.id.clone(), ts));
            }
        }
        Err(Rooms::NotFound("an event near that time").into())
    }

    /// A page of the timeline from a point on, of at most `limit` events that pass the filter.
    ///
    /// # Errors
    /// As the database says.
    pub fn page(&mut self, ask: &Ask<'_>) -> Result<Page> {
        let start = ask.from.unwrap_or(match ask.direction {
            Direction::Forward => Point(Pos(i64::MIN)),
            Direction::Backward => Point(self.end),
        });
        let from = match ask.direction {
            Direction::Forward => start.0,
            Direction::Backward => start.0.min(self.end),
        };
        let to = match (ask.direction, ask.to) {
            (Direction::Forward, to) => Some(to.map_or(self.end, |to| to.0.min(self.end))),
            (Direction::Backward, to) => to.map(|to| to.0),
        };
        let (senders, root) = (BTreeSet::new(), self.root);
        let mut page = Page { chunk: Vec::new(), start, end: None, senders, first_root: root, last_root: root };
        let placed = timeline::read(self.db, self.room, ask.direction, from, to)?;
        for (scanned, placed) in placed.enumerate() {
            let placed = placed?;
            if page.chunk.len() >= ask.limit || scanned >= SCANNED_MAX {
                return Ok(page);
            }
            page.end = Some(behind(&placed, ask.direction));
            if filter::wants(ask.filter, &placed.stored.event) && self.viewer.sees(self.db, &placed.stored)? {
                page.senders.insert(placed.stored.event.sender.clone());
                page.last_root = placed.stored.header.after;
                if page.chunk.is_empty() {
                    page.first_root = page.last_root;
                }
                let written = self.write(&placed.stored)?;
                page.chunk.push(written);
            }
        }
        // The timeline ended: there is nothing to go on with but, forward, what is yet to come.
        if ask.direction == Direction::Backward || page.chunk.is_empty() {
            page.end = None;
        }
        Ok(page)
    }

    /// The member event of each user in the first of these states that has one.
    ///
    /// # Errors
    /// As the database says.
    pub fn members_of<'u, const N: usize>(
        &self,
        roots: [Root; N],
        users: impl IntoIterator<Item = &'u UserId>,
    ) -> Result<Vec<Box<RawValue>>> {
        let mut found = Vec::new();
        for user in users {
            for root in roots {
                if let Some(member) = state::entry(self.db, self.room, root, "m.room.member", user.as_str())? {
                    found.push(member);
                    break;
                }
            }
        }
        self.state(found)
    }
}

/// The point behind an event, in the direction of reading.
fn behind(placed: &Placed, direction: Direction) -> Point {
    match direction {
        Direction::Forward => Point(placed.pos),
        Direction::Backward => Point::before(placed.pos),
    }
}

/// What is asked of a timeline.
pub struct Ask<'a> {
    /// Which way.
    pub direction: Direction,
    /// From where; from the end that the direction leads away from where it is not said.
    pub from: Option<Point>,
    /// Where to stop.
    pub to: Option<Point>,
    /// The most events.
    pub limit: usize,
    /// Which events.
    pub filter: &'a RoomEventFilter,
}

/// A page of a timeline.
pub struct Page {
    /// The events in the order of reading.
    pub chunk: Vec<Box<RawValue>>,
    /// Where it begins.
    pub start: Point,
    /// Where to go on; `None` where nothing is left.
    pub end: Option<Point>,
    /// Who sent what is in it.
    pub senders: BTreeSet<ruma::OwnedUserId>,
    /// The state of the room after its first event.
    first_root: Root,
    /// The state of the room after its last event.
    pub last_root: Root,
}

impl Page {
    /// The states in which to look for what events of the page are shown with: the one in which it ends comes first, in which who made the
    /// room is not in it yet where it ends with the room's beginning.
    #[must_use]
    pub fn roots(&self) -> [Root; 2] {
        [self.last_root, self.first_root]
    }
}
