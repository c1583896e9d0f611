//! `m.room.member`: rule 5, one function a membership.

mod third_party;

use ruma::UserId;

use super::rules::{Grant, Rule};
use super::{Denied, Membership, Room, State};
use crate::content::{field, text_field};
use crate::power_levels::{Malformed, PowerLevels, is_creator};

pub(super) fn authorize<S: State>(room: &Room<'_, S>) -> Result<Grant, Denied> {
    let shape = |reason| room.denied(Rule::MemberShape, reason);
    // Rule 5.1. Of a target that is no user id nothing else could be said.
    let target = room.event.state_key.as_deref().ok_or_else(|| shape("no state key"))?;
    let target = <&UserId>::try_from(target).map_err(|_| shape("the state key is no user id"))?;
    let membership = text_field(&room.event.content, "membership").ok_or_else(|| shape("no membership"))?;
    match Membership::named(&membership) {
        // Rules 5.3 to 5.7; rule 5.2, a signature, is part of verification.
        Membership::Join => join(room, target),
        Membership::Invite => invite(room, target),
        Membership::Leave => leave(room, target),
        Membership::Ban => ban(room, target),
        Membership::Knock if room.version.knocking => knock(room, target),
        // Rule 5.8.
        Membership::Knock | Membership::Unknown => Err(room.denied(Rule::MembershipUnknown, "unknown membership")),
    }
}

/// Rule 5.3.
fn join<S: State>(room: &Room<'_, S>, target: &UserId) -> Result<Grant, Denied> {
    // Rule 5.3.1.
    if room.event.prev_events == [&*room.create.id] && creates(room, target) {
        return Ok(Grant::FirstJoin);
    }
    // Rule 5.3.2.
    if room.event.sender != target {
        return Err(room.denied(Rule::JoinSender, "nobody joins for another user"));
    }
    // Rule 5.3.3.
    let membership = room.membership(target.as_str());
    if membership == Membership::Ban {
        return Err(room.denied(Rule::JoinBanned, "the sender is banned"));
    }
    let invited = matches!(membership, Membership::Invite | Membership::Join);
    match JoinRule::of(room) {
        // Rule 5.3.4.
        JoinRule::Invite | JoinRule::Knock if invited => Ok(Grant::JoinInvited),
        // Rule 5.3.5.
        JoinRule::Restricted | JoinRule::KnockRestricted if invited => Ok(Grant::JoinInvitedRestricted),
        JoinRule::Restricted | JoinRule::KnockRestricted => join_restricted(room),
        // Rule 5.3.6.
        JoinRule::Public => Ok(Grant::JoinPublic),
        // Rule 5.3.7.
        _ => Err(room.denied(Rule::JoinOtherwise, "the join rule does not allow it")),
    }
}

/// Whether the target may join first: the room's creator, but none of the additional ones.
fn creates<S>(room: &Room<'_, S>, target: &UserId) -> bool {
    if room.version.version_11 { room.create.sender == target } else { is_creator(room.version, room.create, target) }
}

/// Rules 5.3.5.2 and 5.3.5.3.
fn join_restricted<S: State>(room: &Room<'_, S>) -> Result<Grant, Denied> {
    let denied = |reason| room.denied(Rule::JoinRestricted, reason);
    let authoriser = text_field(&room.event.content, "join_authorised_via_users_server")
        .ok_or_else(|| denied("neither invited nor authorised by a member"))?;
    let authoriser = <&UserId>::try_from(authoriser.as_ref()).map_err(|_| denied("the authoriser is no user id"))?;
    if room.membership(authoriser.as_str()) != Membership::Join {
        return Err(denied("the authoriser is not joined"));
    }
    room.with_power(Rule::JoinRestricted, |levels| Ok(levels.user(authoriser)? >= levels.invite()?))?
        .then_some(Grant::JoinAuthorised)
        .ok_or_else(|| denied("the authoriser may not invite"))
}

/// Rule 5.4.
fn invite<S: State>(room: &Room<'_, S>, target: &UserId) -> Result<Grant, Denied> {
    // Rule 5.4.1.
    if let Some(invite) = field(&room.event.content, "third_party_invite") {
        return third_party::invite(room, target, invite);
    }
    // Rule 5.4.2.
    if room.membership(room.event.sender.as_str()) != Membership::Join {
        return Err(room.denied(Rule::InviteSender, "the sender is not joined"));
    }
    // Rule 5.4.3.
    if matches!(room.membership(target.as_str()), Membership::Join | Membership::Ban) {
        return Err(room.denied(Rule::InviteTarget, "the target is joined or banned"));
    }
    // Rules 5.4.4 and 5.4.5.
    room.with_power(Rule::InvitePower, |levels| Ok(levels.user(&room.event.sender)? >= levels.invite()?))?
        .then_some(Grant::Invite)
        .ok_or_else(|| room.denied(Rule::InvitePower, "the sender may not invite"))
}

/// Rule 5.5: leaving, rejecting an invite, retracting a knock; kicking, retracting an invite, unbanning.
fn leave<S: State>(room: &Room<'_, S>, target: &UserId) -> Result<Grant, Denied> {
    let sender = &room.event.sender;
    // Rule 5.5.1.
    if *sender == target {
        return match room.membership(target.as_str()) {
            Membership::Invite | Membership::Join => Ok(Grant::LeaveOwn),
            Membership::Knock if room.version.knocking => Ok(Grant::LeaveOwn),
            _ => Err(room.denied(Rule::LeaveOwn, "the sender is neither joined, invited nor knocking")),
        };
    }
    // Rule 5.5.2.
    if room.membership(sender.as_str()) != Membership::Join {
        return Err(room.denied(Rule::LeaveSender, "the sender is not joined"));
    }
    // Rule 5.5.3.
    let banned = room.membership(target.as_str()) == Membership::Ban;
    if banned && room.with_power(Rule::LeaveBanned, |levels| Ok(levels.user(sender)? < levels.ban()?))? {
        return Err(room.denied(Rule::LeaveBanned, "the sender may not unban"));
    }
    // Rules 5.5.4 and 5.5.5.
    room.with_power(Rule::LeavePower, |levels| {
        let power = levels.user(sender)?;
        Ok(power >= levels.kick()? && levels.user(target)? < power)
    })?
    .then_some(Grant::Leave)
    .ok_or_else(|| room.denied(Rule::LeavePower, "the sender may not kick the target"))
}

/// Rule 5.6.
fn ban<S: State>(room: &Room<'_, S>, target: &UserId) -> Result<Grant, Denied> {
    let sender = &room.event.sender;
    // Rule 5.6.1.
    if room.membership(sender.as_str()) != Membership::Join {
        return Err(room.denied(Rule::BanSender, "the sender is not joined"));
    }
    // Rules 5.6.2 and 5.6.3.
    room.with_power(Rule::BanPower, |levels| {
        let power = levels.user(sender)?;
        Ok(power >= levels.ban()? && levels.user(target)? < power)
    })?
    .then_some(Grant::Ban)
    .ok_or_else(|| room.denied(Rule::BanPower, "the sender may not ban the target"))
}

/// Rule 5.7.
fn knock<S: State>(room: &Room<'_, S>, target: &UserId) -> Result<Grant, Denied> {
    // Rule 5.7.1.
    if !matches!(JoinRule::of(room), JoinRule::Knock | JoinRule::KnockRestricted) {
        return Err(room.denied(Rule::KnockForbidden, "the join rule does not allow knocking"));
    }
    // Rule 5.7.2.
    if room.event.sender != target {
        return Err(room.denied(Rule::KnockSender, "nobody knocks for another user"));
    }
    // Rules 5.7.3 and 5.7.4.
    if matches!(room.membership(target.as_str()), Membership::Ban | Membership::Invite | Membership::Join) {
        return Err(room.denied(Rule::KnockMembership, "the sender is banned, invited or joined"));
    }
    Ok(Grant::Knock)
}

impl<S: State> Room<'_, S> {
    /// What the question finds in the room's power levels; `rule` is what rejects if they cannot be read.
    fn with_power(&self, rule: Rule, question: impl FnOnce(&PowerLevels<'_>) -> Result<bool, Malformed>) -> Result<bool, Denied> {
        let levels = self.power_levels_event();
        let levels = self.power_levels(levels.as_deref(), rule)?;
        question(&levels).map_err(|malformed| self.malformed(rule, malformed))
    }
}

/// The join rules that the room's version knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum JoinRule {
    Invite,
    Public,
    Knock,
    Restricted,
    KnockRestricted,
    Unknown,
}

impl JoinRule {
    /// The current join rule: `invite` in a room without `m.room.join_rules`.
    fn of<S: State>(room: &Room<'_, S>) -> JoinRule {
        let Some(event) = (room.state)("m.room.join_rules", "") else { return JoinRule::Invite };
        match text_field(&event.content, "join_rule").as_deref() {
            Some("invite") => JoinRule::Invite,
            Some("public") => JoinRule::Public,
            Some("knock") if room.version.knocking => JoinRule::Knock,
            Some("restricted") if room.version.restricted_joins => JoinRule::Restricted,
            Some("knock_restricted") if room.version.knock_restricted => JoinRule::KnockRestricted,
            _ => JoinRule::Unknown,
        }
    }
}
