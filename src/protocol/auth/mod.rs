//! Event authorisation: whether a room's state allows an event.
//!
//! Specification: "Authorisation rules" of each room version (`rooms/v*.md`) and "Auth events selection" of the
//! server-server API. One file an event type. Comments cite rules by their numbers in version 12; [`Denied::rule`]
//! gives the number that the room's own version uses. Nothing here panics, whatever the content, and contents
//! are read field by field, since a room's every message passes here several times.
//!
//! Not here, because they are part of verification: signatures, hashes, and rule 5.2 (the signature of the server of
//! `join_authorised_via_users_server`).

mod aliases;
mod create;
mod member;
mod power_levels;
mod redaction;
mod rules;
mod selection;
#[cfg(test)]
mod tests;
mod third_party_invite;

use std::borrow::Cow;
use std::sync::Arc;

pub use redaction::redaction_applies;
pub use selection::{AuthEvent, auth_types, auth_types_of, check_auth_events, may_be_cited};

use crate::content::{field, text_field};
use crate::event::Event;
use crate::power_levels::{Malformed, PowerLevels};
use crate::version::RoomVersion;
use rules::{Grant, Rule};

/// An event is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {rule}: {reason}")]
pub struct Denied {
    /// The number of the rule in the room's version, as `5.3.7`.
    pub rule: &'static str,
    /// Why, for people.
    pub reason: Cow<'static, str>,
}

/// An event is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The number of the rule in the room's version, as `5.3.6`.
    pub rule: &'static str,
    /// Why, for people.
    pub reason: &'static str,
}

/// Checks an event against a state of its room by all rules but those on its `auth_events`, for which there is
/// [`check_auth_events`].
///
/// `state` gives the accepted event of a type and state key. It must give the create event even for versions that do
/// not list it among `auth_events`.
///
/// # Errors
/// [`Denied`] names the first rule that rejects the event.
pub fn authorize(version: &RoomVersion, event: &Event, state: impl Fn(&str, &str) -> Option<Arc<Event>>) -> Result<(), Denied> {
    judge(version, event, state).map(drop)
}

/// [`authorize`] that also tells which rule allows the event.
///
/// # Errors
/// [`Denied`] names the first rule that rejects the event.
pub fn judge(version: &RoomVersion, event: &Event, state: impl Fn(&str, &str) -> Option<Arc<Event>>) -> Result<Allowed, Denied> {
    Ok(grant(version, event, state)?.allows(version))
}

/// Whether all that [`authorize`] looks at in a state event is its room, type and sender, so that what it says of one holds for all that have
/// these in common.
pub(crate) fn is_judged_by_sender(event: &Event) -> bool {
    let special = ["m.room.create", "m.room.aliases", "m.room.member", "m.room.power_levels", "m.room.redaction"];
    let owned = event.state_key.as_deref().is_none_or(|key| key.starts_with('@'));
    !owned && !special.contains(&event.kind.as_str())
}

fn grant(version: &RoomVersion, event: &Event, state: impl Fn(&str, &str) -> Option<Arc<Event>>) -> Result<Grant, Denied> {
    // Rule 1.
    if event.kind == "m.room.create" {
        return create::authorize(version, event);
    }
    // Rule 2. Before version 12 rule 2.4 holds that there is a create event.
    let create = state("m.room.create", "")
        .filter(|create| create::is_of_room(version, create, event))
        .ok_or_else(|| Rule::NoCreate.denies(version, "the room's create event is not known"))?;
    let room = Room { version, event, create: &create, state: &state };
    // Rule 4.
    if event.sender.server_name() != create.sender.server_name() && !federates(&create) {
        return Err(room.denied(Rule::Federate, "the room does not federate"));
    }
    match event.kind.as_str() {
        "m.room.aliases" if version.special_aliases => aliases::authorize(&room),
        // Rule 5.
        "m.room.member" => member::authorize(&room),
        _ => authorize_as_member(&room),
    }
}

/// Rules 6 to 11: what only members of the room may send.
fn authorize_as_member<S: State>(room: &Room<'_, S>) -> Result<Grant, Denied> {
    let event = room.event;
    // Rule 6.
    if room.membership(event.sender.as_str()) != Membership::Join {
        return Err(room.denied(Rule::SenderJoined, "the sender is not joined"));
    }
    let levels_event = room.power_levels_event();
    let levels = room.power_levels(levels_event.as_deref(), Rule::RequiredPower)?;
    // Rule 7.
    if event.kind == "m.room.third_party_invite" {
        return third_party_invite::authorize(room, &levels);
    }
    // Rule 8.
    let malformed = |malformed| room.malformed(Rule::RequiredPower, malformed);
    let power = levels.user(&event.sender).map_err(malformed)?;
    let required = levels.event(&event.kind, event.state_key.is_some()).map_err(malformed)?;
    if power < required {
        return Err(room.denied(Rule::RequiredPower, format!("{} needs power {required}", event.kind)));
    }
    // Rule 9.
    if event.state_key.as_deref().is_some_and(|key| key.starts_with('@') && key != event.sender.as_str()) {
        return Err(room.denied(Rule::StateKeyOwner, "the state key is another user's"));
    }
    match event.kind.as_str() {
        // Rule 10.
        "m.room.power_levels" => power_levels::authorize(room, levels_event.is_some().then_some(&levels), power),
        "m.room.redaction" if !room.version.redactions_checked_on_apply => redaction::authorize(room, &levels, power),
        // Rule 11.
        _ => Ok(Grant::Otherwise),
    }
}

/// What rules look into: [`authorize`]'s closure.
trait State: Fn(&str, &str) -> Option<Arc<Event>> {}

impl<F: Fn(&str, &str) -> Option<Arc<Event>>> State for F {}

/// One event beside the state that has to allow it.
struct Room<'a, S> {
    version: &'a RoomVersion,
    event: &'a Event,
    create: &'a Event,
    state: &'a S,
}

impl<S: State> Room<'_, S> {
    fn denied(&self, rule: Rule, reason: impl Into<Cow<'static, str>>) -> Denied {
        rule.denies(self.version, reason)
    }

    fn malformed(&self, rule: Rule, malformed: Malformed) -> Denied {
        rule.denies(self.version, malformed.to_string())
    }

    fn membership(&self, user: &str) -> Membership {
        (self.state)("m.room.member", user).map_or(Membership::Leave, |member| Membership::of(&member))
    }

    fn power_levels_event(&self) -> Option<Arc<Event>> {
        (self.state)("m.room.power_levels", "")
    }

    /// The levels by this event; `rule` is what rejects if they cannot be read.
    fn power_levels<'b>(&'b self, levels: Option<&'b Event>, rule: Rule) -> Result<PowerLevels<'b>, Denied> {
        PowerLevels::new(self.version, Some(self.create), levels).map_err(|malformed| self.malformed(rule, malformed))
    }
}

/// A user's membership of the room. Who has no member event has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Membership {
    Invite,
    Join,
    Knock,
    Leave,
    Ban,
    Unknown,
}

impl Membership {
    fn of(member: &Event) -> Membership {
        text_field(&member.content, "membership").map_or(Membership::Unknown, |name| Membership::named(&name))
    }

    fn named(name: &str) -> Membership {
        match name {
            "invite" => Membership::Invite,
            "join" => Membership::Join,
            "knock" => Membership::Knock,
            "leave" => Membership::Leave,
            "ban" => Membership::Ban,
            _ => Membership::Unknown,
        }
    }
}

/// `m.federate` of the create event: only `false` forbids.
fn federates(create: &Event) -> bool {
    field(&create.content, "m.federate").is_none_or(|federate| federate.get() != "false")
}
