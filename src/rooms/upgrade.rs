//! Room upgrades: a new room of another version with what matters of the old one's state, and a tombstone in the old,
//! in one commit.
//!
//! Specification: client-server API, "Room Upgrades", server behaviour.

use protocol::{json::Object, version::RoomVersion};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Lock, Pending, Read, RoomNo, Store, Tx};

use crate::{
    Error, Identity, NewEvent, Result, Sender, aliases,
    create::{self, NewRoom, Preset},
    directory, events,
    head::{Head, OpenRoom},
    members::{self, Membership},
    numbers, remote,
    send::send_in,
    state,
};

/// The state events that a new room takes over as they are.
const TRANSFERRED: [&str; 8] = [
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
];
/// The most bans that a new room takes over.
const BANS_MAX: usize = 500;

/// What an upgrade is to make.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// The version of the new room.
    pub version: &'static RoomVersion,
    /// Who else has a creator's power, where the version knows such.
    pub additional_creators: Vec<OwnedUserId>,
    /// The display name and avatar of who upgrades.
    pub profile: Object,
    /// A local part for the new room's id, where the version does not derive it.
    pub opaque_id: String,
}

/// Replaces a room. Returns the new one's id.
///
/// # Errors
/// [`Error::Denied`] where the sender may not send a tombstone.
pub fn upgrade(
    store: &Store,
    identity: &Identity,
    sender: &Sender,
    room: RoomNo,
    upgrade: Upgrade,
    now_ms: u64,
) -> Result<Pending<OwnedRoomId>> {
    store.transact(&[Lock::Room(room), Lock::User(sender.no)], |tx| {
        let head = crate::head(tx, room)?;
        let new = new_room(tx, room, &head, sender, upgrade)?;
        let create = create::create_event(identity, sender, &new, now_ms)?;
        let replacement = create::make(tx, identity, sender, new, create, now_ms)?;
        close(tx, identity, sender, room, &replacement, now_ms)?;
        hand_over(tx, identity, sender, (room, head.state), &replacement, now_ms)?;
        Ok(replacement)
    })
}

/// The new room as the old one's state has it.
fn new_room(db: &impl Read, room: RoomNo, head: &Head, sender: &Sender, upgrade: Upgrade) -> Result<NewRoom> {
    let old = numbers::room(db, room)?;
    let content = |kind: &str| state::content::<Object>(db, room, head.state, kind, "");
    let mut creation_content = content("m.room.create")?.unwrap_or_default();
    for own in ["room_version", "creator", "predecessor", "additional_creators"] {
        creation_content.remove(own);
    }
    let mut predecessor = json!({ "room_id": old.id });
    if !upgrade.version.version_12
        && let Some(last) = head.extremities.last()
    {
        predecessor["event_id"] = events::event(db, room, *last)?.header.id.as_str().into();
    }
    creation_content.insert("predecessor".to_owned(), predecessor);
    if upgrade.version.version_12 && !upgrade.additional_creators.is_empty() {
        let creators: Vec<Value> = upgrade.additional_creators.iter().map(|user| user.as_str().into()).collect();
        creation_content.insert("additional_creators".to_owned(), creators.into());
    }
    let mut initial_state = Vec::new();
    for kind in TRANSFERRED {
        if let Some(content) = content(kind)? {
            initial_state.push(NewEvent::state(kind, "", content));
        }
    }
    initial_state.extend(bans(db, room, head)?);
    Ok(NewRoom {
        version: upgrade.version,
        preset: Preset::PrivateChat,
        creation_content,
        initial_state,
        name: None,
        topic: None,
        invite: Vec::new(),
        is_direct: false,
        power_levels: power_levels(content("m.room.power_levels")?.unwrap_or_default(), sender, &upgrade),
        alias: None,
        public: false,
        profile: upgrade.profile,
        opaque_id: upgrade.opaque_id,
    })
}

fn bans(db: &impl Read, room: RoomNo, head: &Head) -> Result<Vec<NewEvent>> {
    let mut bans = Vec::new();
    for no in state::of_type(db, room, head.state, "m.room.member")? {
        let stored = events::event(db, room, no)?;
        if Membership::of(&stored.event) == Membership::Ban
            && let Some(user) = &stored.event.state_key
        {
            let content = Object::from_iter([("membership".to_owned(), "ban".into())]);
            bans.push(NewEvent::state("m.room.member", user, content));
        }
        if bans.len() >= BANS_MAX {
            break;
        }
    }
    Ok(bans)
}

/// The old power levels, in which who upgrades has what a creator needs: by number, or by being one.
fn power_levels(mut levels: Object, sender: &Sender, upgrade: &Upgrade) -> Object {
    let mut users = match levels.remove("users") {
        Some(Value::Object(users)) => users,
        _ => Object::new(),
    };
    if upgrade.version.version_12 {
        users.remove(sender.id.as_str());
        upgrade.additional_creators.iter().for_each(|user| drop(users.remove(user.as_str())));
        if let Some(Value::Object(events)) = levels.get_mut("events") {
            events.insert("m.room.tombstone".to_owned(), 150.into());
        }
    } else {
        let level = users.get(sender.id.as_str()).and_then(Value::as_i64).unwrap_or(0);
        users.insert(sender.id.to_string(), level.max(100).into());
    }
    levels.insert("users".to_owned(), users.into());
    levels
}

/// Says in the old room where to go, and keeps people from talking on where nobody listens.
fn close(
    tx: &mut Tx<'_>,
    identity: &Identity,
    sender: &Sender,
    room: RoomNo,
    replacement: &OwnedRoomId,
    now_ms: u64,
) -> Result<()> {
    let mut open = OpenRoom::new(tx, room)?;
    let content = json!({ "body": "This room has been replaced", "replacement_room": replacement });
    let tombstone = NewEvent::state("m.room.tombstone", "", object(content));
    send_in(&mut open, identity, sender, tombstone, None, now_ms)?;
    if let Some(levels) = open.state_event("m.room.power_levels", "")? {
        let mut levels: Object = serde_json::from_str(levels.content.get()).unwrap_or_default();
        let ordinary = levels.get("users_default").and_then(Value::as_i64).unwrap_or(0);
        for key in ["events_default", "invite"] {
            let level = levels.get(key).and_then(Value::as_i64).unwrap_or(0);
            levels.insert(key.to_owned(), level.max(50).max(ordinary.saturating_add(1)).into());
        }
        match send_in(&mut open, identity, sender, NewEvent::state("m.room.power_levels", "", levels), None, now_ms) {
            // Who may end a room need not be one who may silence it.
            Ok(_) | Err(Error::Denied(_)) => {}
            Err(error) => return Err(error),
        }
    }
    open.save()
}

/// Moves the names of the old room and its place in the directory to the new one.
fn hand_over(
    tx: &mut Tx<'_>,
    identity: &Identity,
    sender: &Sender,
    (room, root): (RoomNo, state::Root),
    replacement: &OwnedRoomId,
    now_ms: u64,
) -> Result<()> {
    let new = numbers::number(tx, replacement)?.ok_or(Error::UnknownRoom)?;
    aliases::move_all(tx, room, new)?;
    if directory::is_published(tx, room)? {
        directory::publish(tx, new)?;
        directory::withdraw(tx, room)?;
    }
    let Some(names) = state::content::<Object>(tx, room, root, "m.room.canonical_alias", "")? else { return Ok(()) };
    for (room, content) in [(room, Object::new()), (new, names)] {
        let mut open = OpenRoom::new(tx, room)?;
        match send_in(&mut open, identity, sender, NewEvent::state("m.room.canonical_alias", "", content), None, now_ms) {
            Ok(_) => open.save()?,
            Err(Error::Denied(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Lets a user who becomes a member of a room keep what they had set for the room that it replaces. That it replaces it says the user, who
/// made it, or the old room: a stranger's word does not suffice. The transaction holds the user's lock.
///
/// Specification: "Room Upgrades", server behaviour.
pub(crate) fn succeed(tx: &mut Tx<'_>, user: &Sender, room: RoomNo) -> Result<()> {
    #[derive(Deserialize)]
    struct Create {
        predecessor: Option<Predecessor>,
    }
    #[derive(Deserialize)]
    struct Predecessor {
        room_id: OwnedRoomId,
    }
    #[derive(Deserialize)]
    struct Tombstone {
        replacement_room: OwnedRoomId,
    }
    let root = crate::head(tx, room)?.state;
    let Some(create) = state::event(tx, room, root, "m.room.create", "")? else { return Ok(()) };
    let content = serde_json::from_str::<Create>(create.event.content.get());
    let Some(Predecessor { room_id: old_id }) = content.ok().and_then(|create| create.predecessor) else { return Ok(()) };
    let Some(old) = numbers::number(tx, &old_id)?.filter(|old| *old != room) else { return Ok(()) };
    if members::user_room(tx, user.no, old)?.is_none_or(|standing| remote::is_remote(&standing)) {
        return Ok(());
    }
    let new = numbers::room(tx, room)?;
    let tombstone: Option<Tombstone> = state::content(tx, old, crate::head(tx, old)?.state, "m.room.tombstone", "")?;
    if create.event.sender != user.id && tombstone.is_none_or(|tombstone| tombstone.replacement_room != new.id) {
        return Ok(());
    }
    Ok(users::succession::succeed(tx, user.no, (old, &old_id), (room, &new.id))?)
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}
