//! Why a user is, or is not, a member of a room, and has the power that they have: the events that led to it and the rules that
//! allowed or refused them. For `hearth room why`.

use std::sync::Arc;

use protocol::{
    auth,
    event::Event,
    power_levels::{Power, PowerLevels, is_creator},
    version::RoomVersion,
};
use ruma::{OwnedEventId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use store::{Read, RoomNo};

use crate::{
    EventNo, Result,
    events::{self, Standing, StoredEvent},
    head,
    members::Membership,
    numbers,
    state::{self, Root},
};

/// What a user is to a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standpoint {
    /// The room's version, by which rules are numbered.
    pub room_version: String,
    /// The user's membership; none where the room has no member event of theirs.
    pub membership: Option<Membership>,
    /// The member event that stands.
    pub member_event: Option<OwnedEventId>,
    /// The user's power level: a number, or `infinite` of a creator.
    pub power: String,
    /// The power levels that stand.
    pub power_levels: Option<OwnedEventId>,
}

/// What a user is to a room now.
///
/// # Errors
/// [`crate::Error::UnknownRoom`].
pub fn now(db: &impl Read, room: RoomNo, user: &UserId) -> Result<Standpoint> {
    let version = numbers::room(db, room)?.version()?;
    let root = head(db, room)?.state;
    let member = state::event(db, room, root, "m.room.member", user.as_str())?;
    let levels = state::event(db, room, root, "m.room.power_levels", "")?;
    Ok(Standpoint {
        room_version: version.id.to_owned(),
        membership: member.as_ref().map(|stored| Membership::of(&stored.event)),
        member_event: member.map(|stored| stored.header.id.clone()),
        power: power_in(db, room, version, root, user)?,
        power_levels: levels.map(|stored| stored.header.id.clone()),
    })
}

/// Something that happened to a user in a room, or was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The event.
    pub event: OwnedEventId,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// When, as its server claims (ms).
    pub origin_server_ts: u64,
    /// What it does to the user, in words.
    pub what: String,
    /// What the rules said.
    pub verdict: Verdict,
    /// Whether the room's current state had it once it was here. Where the room has forked, another event may have prevailed.
    pub prevailed: bool,
    /// The state events by which it was allowed, as its server has it.
    pub auth_events: Vec<Cited>,
}

/// What the rules said of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// A rule allows it.
    Allowed {
        /// The rule's number in the specification of the room's version.
        rule: String,
        /// The rule in words.
        reason: String,
    },
    /// A rule rejects it: it changes nothing.
    Rejected {
        /// The rule's number.
        rule: String,
        /// Why.
        reason: String,
    },
    /// Allowed where it was sent, but not by what this server knew by then: it is not shown, and counts only if others build on it.
    SoftFailed {
        /// The rule's number.
        rule: String,
        /// Why.
        reason: String,
    },
    /// Known only because other events cite it: where it stands in the room is not known here.
    Outlier,
}

/// A state event that another cites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cited {
    /// The event.
    pub event: OwnedEventId,
    /// Its type; empty where it is not here.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its state key.
    pub state_key: String,
}

/// What a part of a room's events has to say of a user.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    /// In the order in which they came.
    pub steps: Vec<Step>,
    /// The last event that was looked at, where there are more.
    pub more_after: Option<EventNo>,
}

/// Looks through the events of a room after this one, `limit` at most, for what concerns a user: their member events, changes of
/// their power level, and what they sent and was refused.
///
/// # Errors
/// [`crate::Error::UnknownRoom`].
pub fn steps(db: &impl Read, room: RoomNo, user: &UserId, after: EventNo, limit: u32) -> Result<Steps> {
    let version = numbers::room(db, room)?.version()?;
    let last = EventNo(head(db, room)?.events);
    let until = EventNo(after.0.saturating_add(limit)).min(last);
    let mut steps = Steps { steps: Vec::new(), more_after: (until < last).then_some(until) };
    let asked = Asked { db, room, version, user };
    for no in (after.0 + 1..=until.0).map(EventNo) {
        let stored = events::event(db, room, no)?;
        if let Some(what) = asked.what(&stored)? {
            steps.steps.push(asked.step(no, &stored, what)?);
        }
    }
    Ok(steps)
}

/// Whom an explanation is about, and where.
struct Asked<'a, R> {
    db: &'a R,
    room: RoomNo,
    version: &'static RoomVersion,
    user: &'a UserId,
}

impl<R: Read> Asked<'_, R> {
    /// What an event does to the user, if anything.
    fn what(&self, stored: &StoredEvent) -> Result<Option<String>> {
        let event = &*stored.event;
        let refused = matches!(stored.header.standing, Standing::Rejected(_) | Standing::SoftFailed(_));
        Ok(match event.state_pair() {
            Some(("m.room.create", "")) if is_creator(self.version, event, self.user) => Some("makes the room".to_owned()),
            Some(("m.room.member", key)) if key == self.user.as_str() => Some(self.membership(event)),
            Some(("m.room.power_levels", "")) => self.power_change(stored)?,
            _ => None,
        }
        .or_else(|| (refused && event.sender == *self.user).then(|| format!("sends {}", event.kind))))
    }

    fn membership(&self, event: &Event) -> String {
        let own = event.sender == *self.user;
        match Membership::of(event) {
            Membership::Join => "joins".to_owned(),
            Membership::Knock => "knocks".to_owned(),
            Membership::Leave if own => "leaves".to_owned(),
            Membership::Leave => format!("is removed or unbanned by {}", event.sender),
            Membership::Invite => format!("is invited by {}", event.sender),
            Membership::Ban => format!("is banned by {}", event.sender),
        }
    }

    fn power_change(&self, stored: &StoredEvent) -> Result<Option<String>> {
        let before = power_in(self.db, self.room, self.version, stored.header.before, self.user)?;
        let create = state::event(self.db, self.room, stored.header.before, "m.room.create", "")?;
        let create = create.as_ref().map(|stored| &*stored.event);
        let after = power(self.version, create, Some(&*stored.event), self.user);
        Ok((before != after).then(|| format!("gets power {after} in place of {before}")))
    }

    fn step(&self, no: EventNo, stored: &StoredEvent, what: String) -> Result<Step> {
        let event = &stored.event;
        let prevailed = match event.state_pair() {
            Some((kind, key)) => state::entry(self.db, self.room, stored.header.current, kind, key)? == Some(no),
            None => stored.header.standing == Standing::Accepted,
        };
        Ok(Step {
            event: event.id.clone(),
            kind: event.kind.clone(),
            sender: event.sender.clone(),
            origin_server_ts: event.origin_server_ts,
            what,
            verdict: self.verdict(stored)?,
            prevailed,
            auth_events: event.auth_events.iter().map(|id| self.cited(id)).collect::<Result<_>>()?,
        })
    }

    fn verdict(&self, stored: &StoredEvent) -> Result<Verdict> {
        Ok(match &stored.header.standing {
            Standing::Outlier => Verdict::Outlier,
            Standing::Rejected(denied) => {
                let (rule, reason) = parts(denied);
                Verdict::Rejected { rule, reason }
            }
            Standing::SoftFailed(denied) => {
                let (rule, reason) = parts(denied);
                Verdict::SoftFailed { rule, reason }
            }
            Standing::Accepted => match self.judge(stored)? {
                Ok(allowed) => Verdict::Allowed { rule: allowed.rule.to_owned(), reason: allowed.reason.to_owned() },
                Err(denied) => Verdict::Rejected { rule: denied.rule.to_owned(), reason: denied.reason.into_owned() },
            },
        })
    }

    fn judge(&self, stored: &StoredEvent) -> Result<std::result::Result<auth::Allowed, auth::Denied>> {
        state::with_events(self.db, self.room, stored.header.before, |state| auth::judge(self.version, &stored.event, state))
    }

    fn cited(&self, id: &OwnedEventId) -> Result<Cited> {
        let stored = events::by_id(self.db, self.room, id)?.map(|(_, stored)| stored);
        let (kind, state_key) = stored.as_ref().and_then(|stored| stored.event.state_pair()).unwrap_or_default();
        Ok(Cited { event: id.clone(), kind: kind.to_owned(), state_key: state_key.to_owned() })
    }
}

/// The rule and the reason of a refusal as it was stored.
fn parts(denied: &str) -> (String, String) {
    let parts = denied.strip_prefix("rule ").and_then(|text| text.split_once(": "));
    let (rule, reason) = parts.unwrap_or(("", denied));
    (rule.to_owned(), reason.to_owned())
}

fn power_in(db: &impl Read, room: RoomNo, version: &RoomVersion, root: Root, user: &UserId) -> Result<String> {
    let of = |kind: &str| Ok::<_, crate::Error>(state::event(db, room, root, kind, "")?.map(|stored| Arc::clone(&stored.event)));
    let (create, levels) = (of("m.room.create")?, of("m.room.power_levels")?);
    Ok(power(version, create.as_deref(), levels.as_deref(), user))
}

fn power(version: &RoomVersion, create: Option<&Event>, levels: Option<&Event>, user: &UserId) -> String {
    match PowerLevels::new(version, create, levels).and_then(|levels| levels.user(user)) {
        Ok(Power::Level(level)) => level.to_string(),
        Ok(Power::Infinite) => "infinite".to_owned(),
        Err(malformed) => format!("unreadable ({malformed})"),
    }
}
