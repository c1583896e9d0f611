//! The news of each room, in the sections of the response.

use std::{collections::BTreeSet, sync::Arc};

use rooms::{
    EventNo, Pos,
    events::{self, StoredEvent},
    format::{self, Format},
    members::{Membership, UserRoom},
    partial, remote,
    state::{self, Root},
    timeline,
    visibility::Viewer,
};
use ruma::{OwnedUserId, RoomId, api::client::filter::EventFormat};
use serde_json::value::RawValue;
use store::{RoomNo, Seq, Snapshot};
use users::account_data;

use super::{
    News, Request,
    response::{Events, History, Invited, Joined, Knocked, Left, Rooms as Section, Timeline},
};
use crate::{
    Memory, Result,
    filter::{self, Redundant},
    stripped,
    sync::{
        affected::{Affected, Part, last_left},
        device_lists::Moved,
        ephemeral,
        excerpt::{Excerpt, excerpt},
        members::{Summary, cited_members, summary},
        state::{Members, Target, update},
        unread::{Counter, Unread},
    },
    token::Point,
};

/// Events of a timeline where the filter says nothing.
const TIMELINE_DEFAULT: usize = 10;

/// What is told of a room beside what an excerpt says.
struct Telling<'a> {
    /// The state that the device knows, or is taken to know none of where it asks for all.
    base: Root,
    /// Whom the room is called after.
    heroes: &'a [OwnedUserId],
    /// The user's own member event, where it came after all that they saw.
    own: Option<&'a UserRoom>,
    /// Whether the device is told all state, whatever it knows.
    anew: bool,
}

/// Builds the section of all rooms.
pub(super) struct Rooms<'a> {
    db: &'a Snapshot,
    memory: &'a Memory,
    request: &'a Request,
    news: &'a News,
    format: Format<'a>,
    counter: Counter<'a>,
    section: Section,
    /// How rooms moved, for the device lists.
    moved: Vec<Moved>,
}

impl<'a> Rooms<'a> {
    pub fn new(db: &'a Snapshot, memory: &'a Memory, request: &'a Request, news: &'a News, now_ms: u64) -> Self {
        let device = Some(request.who.device_id.as_str());
        let format = Format {
            user: request.who.user,
            device,
            with_room_id: false,
            now_ms,
            until: Pos(i64::MAX),
            ignored: Arc::clone(&news.ignored_nos),
        };
        let counter = Counter::new(db, memory, &request.who, &news.ignored);
        Self { db, memory, request, news, format, counter, section: Section::default(), moved: Vec::new() }
    }

    pub fn finish(self) -> (Section, Vec<Moved>) {
        (self.section, self.moved)
    }

    /// Adds a room with news.
    pub fn add(&mut self, found: &Affected) -> Result<()> {
        let room = rooms::numbers::room(self.db, found.room)?;
        let wanted = filter::wants_room(&self.request.filter.room, &room.id);
        match found.part {
            // Who wants to know all members is told of a room once they are known.
            Part::Join { .. } if !self.is_lazy() && partial::is_partial(self.db, found.room)? => {}
            Part::Join { after } => self.joined(found, &room.id, after, wanted)?,
            Part::Leave { seen } => self.left(found, &room.id, seen, wanted)?,
            Part::Invite if wanted && !self.is_ignored(found)? => {
                let invite_state = self.stripped(found)?;
                self.section.invite.insert(room.id.clone(), Invited { invite_state });
            }
            Part::Knock if wanted => {
                let knock_state = self.stripped(found)?;
                self.section.knock.insert(room.id.clone(), Knocked { knock_state });
            }
            Part::Invite | Part::Knock => {}
        }
        Ok(())
    }

    fn stripped(&self, found: &Affected) -> Result<Events> {
        Ok(stripped::state(self.db, found.room, &self.request.who.user_id, &found.standing)?.into())
    }

    /// Whether the member event is by a user whom the reader ignores: invitations by them are not delivered.
    fn is_ignored(&self, found: &Affected) -> Result<bool> {
        let event = remote::member_event(self.db, self.request.who.user, found.room, &found.standing)?;
        Ok(self.news.ignored.contains(&event.event.sender))
    }

    /// Whether the device is told of members as it needs them.
    fn is_lazy(&self) -> bool {
        filter::lazy_members(&self.request.filter.room.state).is_some()
    }

    fn joined(&mut self, found: &Affected, id: &RoomId, after: Option<Pos>, wanted: bool) -> Result<()> {
        let until = Pos::last_of(self.db.seq());
        let after = match after {
            // Who was not told of it while it was not whole does not know it.
            Some(after) if found.completed && !self.is_lazy() && partial::was_partial(self.db, found.room, after)? => None,
            after => after,
        };
        let excerpt = self.excerpt(found.room, id, (after, until), wanted)?;
        let before = if found.completed { Root::default() } else { excerpt.known };
        self.moved.push(Moved { room: found.room, joined: true, before, after: excerpt.at_end });
        if !wanted {
            return Ok(());
        }
        let anew = self.request.full_state || found.completed;
        let base = if anew { Root::default() } else { excerpt.known };
        let summary = summary(self.db, &self.request.who, found.room, base, &excerpt)?;
        let heroes = summary.as_ref().and_then(|summary| summary.heroes.as_deref()).unwrap_or_default();
        let mut history = self.history(found.room, id, &excerpt, &Telling { base, heroes, own: None, anew })?;
        // One who was not in it before may know older events: there is a gap.
        history.timeline.limited |= after.is_none() && self.request.since.is_some();
        let account_data = self.account_data(found.room, id, after)?;
        let ephemeral = self.ephemeral(found.room, id, after)?;
        let mut joined = Joined { summary, history, unread: Unread::default(), ephemeral, account_data };
        let whole = after.is_none() || anew || has_news(&joined);
        if whole || self.counter.may_differ(found.room, self.since().unwrap_or_default())? {
            let by_thread = self.request.filter.room.timeline.unread_thread_notifications;
            joined.unread = self.counter.count(found.room, by_thread)?;
            self.section.join.insert(id.to_owned(), joined);
        }
        Ok(())
    }

    fn left(&mut self, found: &Affected, id: &RoomId, seen: Option<(Option<Pos>, Pos)>, wanted: bool) -> Result<()> {
        let own_pos = found.standing.pos;
        let excerpt = match seen {
            Some(window) => self.excerpt(found.room, id, window, wanted)?,
            None => Excerpt::nothing(Point::before(own_pos)),
        };
        if seen.is_some() {
            self.moved.push(Moved { room: found.room, joined: false, before: excerpt.known, after: excerpt.at_end });
        }
        if !wanted {
            return Ok(());
        }
        // A ban, say, after the user was gone: of what came after that they are told their own member event alone.
        let own = seen.is_none_or(|(_, until)| until != own_pos).then_some(&found.standing);
        let anew = self.request.full_state;
        let base = if anew { Root::default() } else { excerpt.known };
        let history = self.history(found.room, id, &excerpt, &Telling { base, heroes: &[], own, anew })?;
        let account_data = self.account_data(found.room, id, seen.and_then(|(after, _)| after))?;
        self.section.leave.insert(id.to_owned(), Left { history, account_data });
        Ok(())
    }

    /// The state that a device may know of a room of which it is told anew.
    fn left_at(&self, room: RoomNo, telling: &Telling<'_>) -> Result<Root> {
        let Some(since) = self.since().filter(|_| telling.base == Root::default() && !telling.anew) else {
            return Ok(Root::default());
        };
        let left = last_left(self.db, &self.request.who, room, since)?;
        Ok(left.map(|left| timeline::state_at(self.db, room, left)).transpose()?.unwrap_or_default())
    }

    fn excerpt(&self, room: RoomNo, id: &RoomId, window: (Option<Pos>, Pos), wanted: bool) -> Result<Excerpt> {
        let filter = &self.request.filter.room.timeline;
        let wanted = wanted && filter::wants_events_of(filter, id) && filter.types.as_ref().is_none_or(|types| !types.is_empty());
        if !wanted {
            return Excerpt::without_events(self.db, room, window);
        }
        let limit = filter::limit(filter, TIMELINE_DEFAULT);
        let mut viewer = Viewer::new(self.db, room, &self.request.who.user_id, self.request.who.user)?;
        excerpt(self.db, room, &mut viewer, window, limit, |stored| {
            let is_ignored = stored.event.state_key.is_none() && self.news.ignored.contains(&stored.event.sender);
            !is_ignored && filter::wants(filter, &stored.event)
        })
    }

    fn history(&self, room: RoomNo, id: &RoomId, excerpt: &Excerpt, telling: &Telling<'_>) -> Result<History> {
        let mut events = Vec::with_capacity(excerpt.events.len() + 1);
        for shown in &excerpt.events {
            let membership = shown.membership.unwrap_or(Membership::Leave);
            events.push(self.written(room, &shown.placed.stored, Some(membership))?);
        }
        if let Some(own) = telling.own {
            let own = remote::member_event(self.db, self.request.who.user, room, own)?;
            events.push(self.written(room, &own, Some(Membership::of(&own.event)))?);
        }
        let timeline = Timeline { events, limited: excerpt.limited, prev_batch: excerpt.start.to_string() };
        let mut history = History { timeline, ..History::default() };
        let section = self.state(room, id, excerpt, telling)?;
        match self.request.target {
            Target::Start => history.state = Some(section),
            Target::End => history.state_after = Some(section),
            Target::UnstableEnd => history.unstable_state_after = Some(section),
        }
        Ok(history)
    }

    fn state(&self, room: RoomNo, id: &RoomId, excerpt: &Excerpt, telling: &Telling<'_>) -> Result<Events> {
        let filter = &self.request.filter.room.state;
        if !filter::wants_events_of(filter, id) {
            return Ok(Events::default());
        }
        let device = (self.request.who.user, self.request.who.device);
        let lazy = filter::lazy_members(filter).map(|redundant| (redundant, self.memory.sent(device, room)));
        let has = |member| match &lazy {
            Some((Redundant::Omit, sent)) => telling.base != Root::default() && sent.contains(member, self.since()),
            _ => false,
        };
        let members = match lazy {
            Some(_) => Members::Lazy { left: self.left_at(room, telling)?, needed: self.needed(excerpt, telling), has: &has },
            None => Members::All,
        };
        let mut events = update(self.db, room, excerpt, telling.base, self.request.target, &members)?;
        if lazy.is_some() && partial::is_partial(self.db, room)? {
            events.extend(cited_members(self.db, room, excerpt, &events)?);
        }
        if let Some(own) = telling.own.filter(|own| self.request.target != Target::Start && !remote::is_remote(own)) {
            let member = (excerpt.at_end, "m.room.member", self.request.who.user_id.as_str());
            let before = state::entry(self.db, room, member.0, member.1, member.2)?;
            events.retain(|event| Some(*event) != before);
            events.push(own.event);
        }
        if let Some((_, sent)) = &lazy {
            sent.note(self.members_told(room, excerpt, &events)?, self.since(), self.db.seq());
        }
        self.state_events(room, &events)
    }

    /// The members that the device needs: who sent what is shown, whom the room is called after, and where the whole state
    /// is told, its own user.
    fn needed(&self, excerpt: &Excerpt, telling: &Telling<'_>) -> BTreeSet<OwnedUserId> {
        let senders = excerpt.events.iter().map(|shown| shown.placed.stored.event.sender.clone());
        let mut needed: BTreeSet<OwnedUserId> = senders.chain(telling.heroes.iter().cloned()).collect();
        if telling.base == Root::default() {
            needed.insert(self.request.who.user_id.clone());
        }
        needed
    }

    /// The member events among those that a device takes its state from.
    fn members_told(&self, room: RoomNo, excerpt: &Excerpt, section: &[EventNo]) -> Result<Vec<EventNo>> {
        let timeline = excerpt.events.iter().map(|shown| shown.placed.no);
        let timeline = timeline.filter(|_| self.request.target == Target::Start);
        let mut told = Vec::new();
        for no in section.iter().copied().chain(timeline) {
            let stored = events::event(self.db, room, no)?;
            if stored.event.kind == "m.room.member" && filter::wants(&self.request.filter.room.state, &stored.event) {
                told.push(no);
            }
        }
        Ok(told)
    }

    fn state_events(&self, room: RoomNo, events: &[EventNo]) -> Result<Events> {
        let mut section = Vec::with_capacity(events.len());
        for no in events {
            let stored = events::event(self.db, room, *no)?;
            if filter::wants(&self.request.filter.room.state, &stored.event) {
                // The reader's membership at each would cost a look into another state for each.
                section.push(self.written(room, &stored, None)?);
            }
        }
        Ok(section.into())
    }

    fn written(&self, room: RoomNo, stored: &StoredEvent, membership: Option<Membership>) -> Result<Box<RawValue>> {
        if self.request.filter.event_format == EventFormat::Federation {
            return Ok(RawValue::from_string(stored.event.json.to_string()).map_err(|_| rooms::Error::NotFound("the event"))?);
        }
        Ok(format::client_event(self.db, room, stored, membership, &self.format)?)
    }

    /// Typing notifications and receipts.
    fn ephemeral(&self, room: RoomNo, id: &RoomId, after: Option<Pos>) -> Result<Events> {
        let filter = &self.request.filter.room.ephemeral;
        let mut events = Vec::new();
        if !filter::wants_events_of(filter, id) {
            return Ok(events.into());
        }
        let since = after.and(self.since());
        if filter::wants_kind(filter, ephemeral::TYPING) {
            events.extend(ephemeral::typing(self.db, room, since, &self.news.ignored, self.format.now_ms)?);
        }
        if filter::wants_kind(filter, ephemeral::RECEIPT) {
            events.extend(ephemeral::receipts(self.db, &self.request.who, room, since)?);
        }
        Ok(events.into())
    }

    fn since(&self) -> Option<Seq> {
        self.request.since.map(|since| since.seq.min(self.db.seq()))
    }

    /// The account data that changed, or all for one who was not in the room before.
    fn account_data(&self, room: RoomNo, id: &RoomId, after: Option<Pos>) -> Result<Events> {
        let filter = &self.request.filter.room.account_data;
        if !filter::wants_events_of(filter, id) {
            return Ok(Events::default());
        }
        let wants = |kind: &str| filter::wants_kind(filter, kind);
        match after {
            None => Events::of_account_data(&account_data::all(self.db, self.request.who.user, Some(room))?, wants),
            Some(_) => self.news.account_data(Some(room), wants),
        }
    }
}

/// Whether there is anything in a room for a device that knows it.
fn has_news(joined: &Joined) -> bool {
    let Joined { summary, history, unread: _, ephemeral, account_data } = joined;
    let History { state, state_after, unstable_state_after, timeline } = history;
    let states = [state, state_after, unstable_state_after];
    summary.as_ref().is_some_and(|summary| *summary != Summary::default())
        || states.into_iter().flatten().any(|events| !events.is_empty())
        || !timeline.events.is_empty()
        || timeline.limited
        || !ephemeral.is_empty()
        || !account_data.is_empty()
}
