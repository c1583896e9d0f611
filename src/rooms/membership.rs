//! Joining, leaving, inviting and the like: member events, with what must hold beside the rules of the room.

use std::collections::BTreeMap;

use protocol::{
    json::Object,
    power_levels::{Power, PowerLevels},
};
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde::Deserialize;
use store::{Lock, Pending, RoomNo, Store};
use users::{numbers as user_numbers, profiles::SHOWN};

use crate::{
    Error, NewEvent, Result,
    head::OpenRoom,
    members::{self, Membership, UserRoom},
    numbers,
    send::{Identity, Sender, send_recommended},
    servers, upgrade,
};

/// The most joined users who are looked at for one who may let another in.
const AUTHORISERS_MAX: usize = 1000;

/// A change of a user's membership.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whose.
    pub target: OwnedUserId,
    /// What it becomes.
    pub to: Action,
    /// More of the event's content: the target's display name and avatar, a reason, `is_direct`.
    pub content: Object,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The sender joins.
    Join,
    /// The sender asks to be let in.
    Knock,
    /// The sender leaves, declines or takes back a knock.
    Leave,
    /// The target is asked in.
    Invite,
    /// The target is removed.
    Kick,
    /// The target is banned.
    Ban,
    /// The target is no longer banned.
    Unban,
}

impl Action {
    fn membership(self) -> Membership {
        match self {
            Self::Join => Membership::Join,
            Self::Knock => Membership::Knock,
            Self::Leave | Self::Kick | Self::Unban => Membership::Leave,
            Self::Invite => Membership::Invite,
            Self::Ban => Membership::Ban,
        }
    }
}

/// Changes a membership of a room that this server is in.
///
/// # Errors
/// [`Error::UnknownRoom`], [`Error::Denied`], [`Error::Forbidden`], [`Error::AlreadyJoined`].
pub fn change(
    store: &Store,
    identity: &Identity,
    sender: &Sender,
    room: RoomNo,
    change: Change,
    now_ms: u64,
) -> Result<Pending<()>> {
    let locks = [Lock::Room(room), Lock::User(sender.no)];
    let entering = change.to == Action::Join;
    // What a user has set for a room is theirs: only who enters one may have something to take along.
    store.transact(if entering { &locks } else { &locks[..1] }, |tx| {
        let target = user_numbers::intern(tx, &change.target)?;
        let mut open = OpenRoom::new(tx, room)?;
        let standing = members::user_room(open.tx, target, room)?;
        if !check(change.to, standing.as_ref())? {
            return Ok(());
        }
        let Change { target, to, mut content } = change;
        if to == Action::Join
            && let Some(by) = authoriser(&open, identity, sender, standing.as_ref())?
        {
            content.insert("join_authorised_via_users_server".to_owned(), by.as_str().into());
        }
        send_recommended(&mut open, identity, sender, NewEvent::member(&target, to.membership(), content), None, now_ms)?;
        open.save()?;
        if entering { upgrade::succeed(tx, sender, room) } else { Ok(()) }
    })
}

/// Whether there is anything to do, and that it makes sense.
fn check(action: Action, standing: Option<&UserRoom>) -> Result<bool> {
    let membership = standing.map(|standing| standing.membership);
    match (action, membership) {
        (Action::Join, Some(Membership::Join)) | (Action::Leave, Some(Membership::Leave)) => Ok(false),
        (Action::Leave, None) => Err(Error::UnknownRoom),
        (Action::Invite, Some(Membership::Join)) => Err(Error::AlreadyJoined),
        (Action::Kick, None | Some(Membership::Leave | Membership::Ban)) => Err(Error::Forbidden("The user is not in the room")),
        (Action::Unban, None | Some(Membership::Join | Membership::Invite | Membership::Leave | Membership::Knock)) => {
            Err(Error::Forbidden("The user is not banned"))
        }
        _ => Ok(true),
    }
}

/// A local user whose power lets the sender into a restricted room, where a rule of the room allows it.
///
/// Specification: "Restricted rooms".
pub(crate) fn authoriser(
    room: &OpenRoom<'_, '_>,
    identity: &Identity,
    sender: &Sender,
    standing: Option<&UserRoom>,
) -> Result<Option<OwnedUserId>> {
    #[derive(Deserialize)]
    struct JoinRules {
        join_rule: String,
        #[serde(default)]
        allow: Vec<Allow>,
    }
    #[derive(Deserialize)]
    struct Allow {
        #[serde(rename = "type")]
        kind: String,
        room_id: Option<OwnedRoomId>,
    }
    let rules = room.state_event("m.room.join_rules", "")?;
    let Some(rules) = rules.and_then(|rules| serde_json::from_str::<JoinRules>(rules.content.get()).ok()) else {
        return Ok(None);
    };
    let restricted = matches!(rules.join_rule.as_str(), "restricted" | "knock_restricted");
    if !restricted || standing.is_some_and(|standing| standing.membership == Membership::Invite) {
        return Ok(None);
    }
    let rooms = rules.allow.into_iter().filter(|allow| allow.kind == "m.room_membership").filter_map(|allow| allow.room_id);
    let (mut allowed, mut all_known) = (false, true);
    for allowing in rooms {
        match numbers::number(room.tx, &allowing)? {
            Some(allowing) if servers::is_in(room.tx, allowing, &identity.server_name)? => {
                allowed |= members::is_joined(room.tx, sender.no, allowing)?;
            }
            _ => all_known = false,
        }
    }
    match (allowed, all_known) {
        (true, _) => may_invite(room, identity)?.map(Some).ok_or(Error::UnableToGrantJoin),
        (false, true) => Err(Error::Forbidden("You are in none of the rooms whose members may join this one")),
        (false, false) => Err(Error::UnableToAuthoriseJoin),
    }
}

/// A joined local user who may invite: of those the power levels name, else of all.
fn may_invite(room: &OpenRoom<'_, '_>, identity: &Identity) -> Result<Option<OwnedUserId>> {
    let create = room.state_event("m.room.create", "")?;
    let event = room.state_event("m.room.power_levels", "")?;
    let Ok(levels) = PowerLevels::new(room.version, create.as_deref(), event.as_deref()) else { return Ok(None) };
    let Ok(needed) = levels.invite().map(Power::Level) else { return Ok(None) };
    let fits = |user: &UserId| user.server_name() == identity.server_name && levels.user(user).is_ok_and(|power| power >= needed);
    let named: BTreeMap<_, _> = levels.users().unwrap_or_default();
    let named = named.keys().filter_map(|user| OwnedUserId::try_from(*user).ok());
    for user in named.chain(create.iter().map(|create| create.sender.clone())) {
        if fits(&user)
            && let Some(no) = user_numbers::number(room.tx, &user)?
            && members::is_joined(room.tx, no, room.no)?
        {
            return Ok(Some(user));
        }
    }
    for member in members::members(room.tx, room.no)?.take(AUTHORISERS_MAX) {
        let (no, membership) = member?;
        let user = user_numbers::user_id(room.tx, no)?;
        if membership == Membership::Join && fits(&user) {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

/// Sends a joined user's member event anew with another display name and avatar, if they are not the same.
///
/// # Errors
/// [`Error::Denied`] where the room no longer lets the user say so.
pub fn show_profile(
    store: &Store,
    identity: &Identity,
    user: &Sender,
    room: RoomNo,
    profile: Object,
    now_ms: u64,
) -> Result<Pending<()>> {
    store.transact(&[Lock::Room(room)], |tx| {
        let mut open = OpenRoom::new(tx, room)?;
        let Some(standing) = open.state_event("m.room.member", user.id.as_str())? else { return Ok(()) };
        if Membership::of(&standing) != Membership::Join {
            return Ok(());
        }
        let mut content: Object = serde_json::from_str(standing.content.get()).unwrap_or_default();
        if SHOWN.into_iter().all(|key| content.get(key) == profile.get(key)) {
            return Ok(());
        }
        content.retain(|key, _| !SHOWN.contains(&key.as_str()));
        // Who is in already needs nobody to answer for them.
        content.remove("join_authorised_via_users_server");
        content.extend(profile);
        send_recommended(&mut open, identity, user, NewEvent::member(&user.id, Membership::Join, content), None, now_ms)?;
        open.save()
    })
}

/// Forgets a room that the user left.
///
/// # Errors
/// [`Error::NotLeft`] where the user is still in it or invited.
pub fn forget(store: &Store, sender: &Sender, room: RoomNo) -> Result<Pending<()>> {
    store.transact(&[Lock::Room(room)], |tx| {
        let Some(standing) = members::user_room(tx, sender.no, room)? else { return Ok(()) };
        if !matches!(standing.membership, Membership::Leave | Membership::Ban) {
            return Err(Error::NotLeft);
        }
        let mut open = OpenRoom::new(tx, room)?;
        members::put(&mut open, sender.no, &UserRoom { forgotten: true, ..standing })
    })
}
