//! Making rooms: the create event, then the events that the request implies, in one commit.
//!
//! Specification: client-server API, "POST createRoom".

use std::sync::Arc;

use protocol::{
    draft::{self, Draft},
    event::Event,
    json::Object,
    version::{self, EventIdFormat, RoomVersion},
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};
use store::{Lock, Pending, Store, Tx};

use crate::{
    Error, NewEvent, Result, aliases,
    append::{Accepted, Place, append},
    directory,
    head::OpenRoom,
    members::Membership,
    numbers,
    send::{Identity, Sender, send_in},
    state::Root,
    upgrade,
};

/// The most events that a request may ask for in a new room.
const INITIAL_EVENTS_MAX: usize = 1000;

/// What an operator chooses of new rooms.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The version of rooms whose creators name none.
    #[serde(deserialize_with = "known_version")]
    pub default_version: &'static RoomVersion,
}

impl Default for Config {
    fn default() -> Self {
        Self { default_version: version::DEFAULT }
    }
}

fn known_version<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<&'static RoomVersion, D::Error> {
    let id = String::deserialize(from)?;
    RoomVersion::named(&id).ok_or_else(|| D::Error::custom(format!("{id} is no room version that Hearth knows")))
}

/// Settings that a new room begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// By invitation.
    PrivateChat,
    /// By invitation, and those invited are as powerful as the creator.
    TrustedPrivateChat,
    /// Open to all.
    PublicChat,
}

impl Preset {
    fn join_rule(self) -> &'static str {
        if self == Self::PublicChat { "public" } else { "invite" }
    }

    /// Whether guests may join. Where no event says so they may not, so that none need say that.
    fn lets_guests_in(self) -> bool {
        self != Self::PublicChat
    }
}

/// A room to be made.
#[derive(Clone, Debug)]
pub struct NewRoom {
    /// What its version demands.
    pub version: &'static RoomVersion,
    /// Its settings.
    pub preset: Preset,
    /// More of the create event's content.
    pub creation_content: Object,
    /// State events that go before those of the preset.
    pub initial_state: Vec<NewEvent>,
    /// Its name.
    pub name: Option<String>,
    /// Its topic.
    pub topic: Option<String>,
    /// Who is invited, with the display name and avatar of each. Users of other servers are not invited yet: they only get the power that the
    /// preset gives.
    pub invite: Vec<(OwnedUserId, Object)>,
    /// Whether it is a direct chat with them.
    pub is_direct: bool,
    /// Keys of the power levels that replace the default ones.
    pub power_levels: Object,
    /// The local part of its alias.
    pub alias: Option<String>,
    /// Whether it is in the directory.
    pub public: bool,
    /// The display name and avatar of the creator.
    pub profile: Object,
    /// A local part for its id, unique on this server, where the version does not derive the id.
    pub opaque_id: String,
}

/// How many rooms alike one user makes in one millisecond.
const ALIKE_MAX: usize = 100;

/// Makes a room.
///
/// # Errors
/// [`Error::Denied`] where what it is to hold breaks its own rules, [`Error::AliasInUse`], [`Error::Invalid`].
pub fn create(store: &Store, identity: &Identity, creator: &Sender, new: NewRoom, now_ms: u64) -> Result<Pending<OwnedRoomId>> {
    if new.initial_state.len() + new.invite.len() > INITIAL_EVENTS_MAX {
        return Err(Error::Invalid("too many initial events and invitations"));
    }
    store.transact(&[Lock::User(creator.no)], |tx| {
        let mut create = create_event(identity, creator, &new, now_ms)?;
        // Rooms alike that one user makes in one moment would have one id where it is a hash: each has its own moment.
        for at_ms in (now_ms + 1..).take(ALIKE_MAX) {
            if !numbers::is_taken(tx, &create.room_id)? || !new.version.version_12 {
                break;
            }
            create = create_event(identity, creator, &new, at_ms)?;
        }
        make(tx, identity, creator, new, create, now_ms)
    })
}

pub(crate) fn make(
    tx: &mut Tx<'_>,
    identity: &Identity,
    creator: &Sender,
    new: NewRoom,
    create: Arc<Event>,
    now_ms: u64,
) -> Result<OwnedRoomId> {
    let id = create.room_id.clone();
    let no = numbers::add(tx, &id, new.version)?;
    if let Some(alias) = &new.alias {
        aliases::add(tx, &aliases::local(alias, &identity.server_name)?, no, creator.no)?;
    }
    for event in new.initial_state.iter().filter(|event| event.kind == aliases::CANONICAL) {
        aliases::check_canonical(tx, no, &event.content, &Object::new())?;
    }
    let mut room = OpenRoom::created(tx, no)?;
    let first = Place { parents: Vec::new(), before: Root::default() };
    append(&mut room, Accepted::at(first, create, None))?;
    let events = implied_events(identity, creator, &new)?;
    for event in events {
        send_in(&mut room, identity, creator, event, None, now_ms)?;
    }
    room.save()?;
    upgrade::succeed(tx, creator, no)?;
    if new.public {
        directory::publish(tx, no)?;
    }
    Ok(id)
}

/// The create event, which no state allows: it is the first.
pub(crate) fn create_event(identity: &Identity, creator: &Sender, new: &NewRoom, now_ms: u64) -> Result<Arc<Event>> {
    let mut content = new.creation_content.clone();
    if content.get("m.federate").is_some_and(|federate| !federate.is_boolean()) {
        return Err(Error::BadContent("m.federate must be true or false".into()));
    }
    content.insert("room_version".to_owned(), new.version.id.into());
    content.remove("creator");
    if !new.version.version_11 {
        content.insert("creator".to_owned(), creator.id.as_str().into());
    }
    if new.version.version_12 && new.preset == Preset::TrustedPrivateChat {
        let listed = content.get("additional_creators").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut creators: Vec<Value> = listed;
        for (user, _) in &new.invite {
            let user = Value::from(user.as_str());
            if !creators.contains(&user) && user != creator.id.as_str() {
                creators.push(user);
            }
        }
        if !creators.is_empty() {
            content.insert("additional_creators".to_owned(), creators.into());
        }
    }
    let room_id = match new.version.version_12 {
        true => None,
        false => Some(room_id(&new.opaque_id, identity)?),
    };
    let draft = Draft {
        room_id,
        sender: creator.id.clone(),
        kind: "m.room.create".to_owned(),
        state_key: Some(String::new()),
        content,
        redacts: None,
        origin_server_ts: now_ms,
        depth: 1,
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        opaque_id: (new.version.event_ids == EventIdFormat::Chosen).then(|| new.opaque_id.clone()),
    };
    let event = draft::build(new.version, draft, &identity.key, &identity.server_name)?.into_event();
    protocol::auth::authorize(new.version, &event, |_, _| None)?;
    Ok(event)
}

fn room_id(opaque: &str, identity: &Identity) -> Result<OwnedRoomId> {
    RoomId::parse(format!("!{opaque}:{}", identity.server_name)).map_err(|_| Error::Invalid("the room id is malformed"))
}

/// The events behind the create event, in the order that the specification gives.
fn implied_events(identity: &Identity, creator: &Sender, new: &NewRoom) -> Result<Vec<NewEvent>> {
    let single = |kind: &str, key: &str, value: Value| NewEvent::state(kind, "", Object::from_iter([(key.to_owned(), value)]));
    let mut events = vec![
        NewEvent::member(&creator.id, Membership::Join, new.profile.clone()),
        NewEvent::state("m.room.power_levels", "", power_levels(creator, new)),
    ];
    if let Some(alias) = &new.alias {
        let alias = aliases::local(alias, &identity.server_name)?;
        events.push(single("m.room.canonical_alias", "alias", alias.as_str().into()));
    }
    // An initial state event takes the place of the preset's of the same type.
    let mut presets = vec![
        single("m.room.join_rules", "join_rule", new.preset.join_rule().into()),
        single("m.room.history_visibility", "history_visibility", "shared".into()),
    ];
    if new.preset.lets_guests_in() {
        presets.push(single("m.room.guest_access", "guest_access", "can_join".into()));
    }
    let given = |kind: &str| new.initial_state.iter().any(|event| event.kind == kind && event.state_key.as_deref() == Some(""));
    events.extend(presets.into_iter().filter(|preset| !given(&preset.kind)));
    let overridden = |kind: &str| match kind {
        "m.room.name" => new.name.is_some(),
        "m.room.topic" => new.topic.is_some(),
        // The server makes this one itself.
        "m.room.create" => true,
        _ => false,
    };
    events.extend(new.initial_state.iter().filter(|event| !overridden(&event.kind)).cloned());
    if let Some(name) = &new.name {
        events.push(single("m.room.name", "name", name.as_str().into()));
    }
    if let Some(topic) = &new.topic {
        let rich = json!({ "m.text": [{ "body": topic, "mimetype": "text/plain" }] });
        let content = Object::from_iter([("topic".to_owned(), topic.as_str().into()), ("m.topic".to_owned(), rich)]);
        events.push(NewEvent::state("m.room.topic", "", content));
    }
    // Users of other servers are invited by way of those, once the room is there.
    for (user, profile) in new.invite.iter().filter(|(user, _)| user.server_name() == identity.server_name) {
        let mut content = profile.clone();
        if new.is_direct {
            content.insert("is_direct".to_owned(), true.into());
        }
        events.push(NewEvent::member(user, Membership::Invite, content));
    }
    Ok(events)
}

fn power_levels(creator: &Sender, new: &NewRoom) -> Object {
    let mut users = Object::new();
    if !new.version.version_12 {
        users.insert(creator.id.to_string(), 100.into());
        if new.preset == Preset::TrustedPrivateChat {
            users.extend(new.invite.iter().map(|(user, _)| (user.to_string(), 100.into())));
        }
    }
    let tombstone = if new.version.version_12 { 150 } else { 100 };
    let levels = json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": 50, "m.room.power_levels": 100, "m.room.history_visibility": 100, "m.room.canonical_alias": 50,
            "m.room.avatar": 50, "m.room.tombstone": tombstone, "m.room.server_acl": 100, "m.room.encryption": 100,
        },
        "events_default": 0, "state_default": 50, "ban": 50, "kick": 50, "redact": 50,
        "invite": if new.preset == Preset::PublicChat { 50 } else { 0 },
    });
    let mut levels = match levels {
        Value::Object(levels) => levels,
        _ => Object::new(),
    };
    levels.extend(new.power_levels.clone());
    levels
}
