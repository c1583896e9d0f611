//! The rooms of this server that anyone may find, and what is told of a room to who is not in it.
//!
//! Specification: client-server API, "Published room directory".

use rooms::{
    directory,
    members::{self, Membership},
    numbers, state, visibility,
};
use ruma::{
    OwnedRoomId, RoomId, UInt,
    directory::{Filter, PublicRoomsChunk, PublicRoomsChunkInit},
    room::{JoinRuleKind, RoomType},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use store::{RoomNo, Snapshot, UserNo};

use crate::Result;

/// The most published rooms that a search looks at.
const SEARCHED_MAX: usize = 100_000;

/// Part of the directory.
pub struct Page {
    /// The rooms, those with most members first.
    pub rooms: Vec<PublicRoomsChunk>,
    /// How many there are in all.
    pub total: usize,
}

/// The published rooms that a filter lets through, from the `skip`th on.
///
/// # Errors
/// As the database says.
pub fn page(db: &Snapshot, filter: &Filter, skip: usize, limit: usize) -> Result<Page> {
    let term = filter.generic_search_term.as_deref().map(str::to_lowercase);
    let mut found = Vec::new();
    for room in directory::published(db)?.take(SEARCHED_MAX) {
        let shown = summary(db, room?)?;
        if wanted(&shown, term.as_deref(), filter) {
            found.push(shown);
        }
    }
    found.sort_by(|a, b| b.num_joined_members.cmp(&a.num_joined_members).then_with(|| a.room_id.cmp(&b.room_id)));
    let total = found.len();
    Ok(Page { rooms: found.into_iter().skip(skip).take(limit).collect(), total })
}

fn wanted(room: &PublicRoomsChunk, term: Option<&str>, filter: &Filter) -> bool {
    let kind = room.room_type.as_ref().map(RoomType::as_str);
    let of_kind = filter.room_types.is_empty() || filter.room_types.iter().any(|wanted| wanted.as_str() == kind);
    of_kind
        && term.is_none_or(|term| {
            let alias = room.canonical_alias.as_ref().map(|alias| alias.as_str());
            let texts = [room.name.as_deref(), room.topic.as_deref(), alias];
            texts.into_iter().flatten().any(|text| text.to_lowercase().contains(term))
        })
}

/// Whether a room's summary is told to a user, or to anybody: those who may join or knock, who are in it or invited, and where
/// the room is readable by the world, all.
///
/// # Errors
/// As the database says.
pub fn is_told(db: &Snapshot, room: RoomNo, user: Option<UserNo>) -> Result<bool> {
    #[derive(Default, Deserialize)]
    struct Rules {
        join_rule: String,
        #[serde(default)]
        allow: Vec<Allow>,
    }
    let root = rooms::head(db, room)?.state;
    let rules: Rules = state::content(db, room, root, "m.room.join_rules", "")?.unwrap_or_default();
    if matches!(rules.join_rule.as_str(), "public" | "knock" | "knock_restricted")
        || visibility::history_visibility(db, room, root)? == visibility::HistoryVisibility::WorldReadable
    {
        return Ok(true);
    }
    let Some(user) = user else { return Ok(false) };
    let allowing = rules.allow.iter().filter(|_| rules.join_rule == "restricted").filter_map(|allow| allow.room_id.as_deref());
    is_let_in(db, Some(room), user, allowing)
}

/// Whether a user is in a room, invited or knocking, or in one of those whose members may join it.
fn is_let_in<'a>(
    db: &Snapshot,
    room: Option<RoomNo>,
    user: UserNo,
    allowing: impl IntoIterator<Item = &'a RoomId>,
) -> Result<bool> {
    if let Some(room) = room
        && let Some(standing) = members::user_room(db, user, room)?
        && matches!(standing.membership, Membership::Join | Membership::Invite | Membership::Knock)
    {
        return Ok(true);
    }
    for allowing in allowing {
        if let Some(allowing) = numbers::number(db, allowing)?
            && members::is_joined(db, user, allowing)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Who may join a restricted room ("Restricted rooms").
#[derive(Deserialize)]
struct Allow {
    room_id: Option<OwnedRoomId>,
}

/// The rooms whose members may join this one, where it is restricted to them.
///
/// # Errors
/// As the database says.
pub(crate) fn allowing_rooms(db: &Snapshot, room: RoomNo) -> Result<Vec<OwnedRoomId>> {
    let root = rooms::head(db, room)?.state;
    let rule: Option<String> = field(db, room, root, "m.room.join_rules", "join_rule")?;
    if !matches!(rule.as_deref(), Some("restricted" | "knock_restricted")) {
        return Ok(Vec::new());
    }
    let allow: Option<Vec<Allow>> = field(db, room, root, "m.room.join_rules", "allow")?;
    Ok(allow.unwrap_or_default().into_iter().filter_map(|allow| allow.room_id).collect())
}

/// What is told of a single room.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    #[serde(flatten)]
    room: PublicRoomsChunk,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allowed_room_ids: Vec<OwnedRoomId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption: Option<String>,
    /// Servers of old do not tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    room_version: Option<String>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    membership: Option<Membership>,
}

impl Summary {
    /// The room.
    #[must_use]
    pub fn id(&self) -> &RoomId {
        &self.room.room_id
    }

    /// Whether the room is a space.
    #[must_use]
    pub fn is_space(&self) -> bool {
        self.room.room_type == Some(RoomType::Space)
    }

    /// Whether what another server told of a room is told to a user, as [`is_told`] says of those that this server is in.
    ///
    /// # Errors
    /// As the database says.
    pub fn is_for(&self, db: &Snapshot, user: UserNo) -> Result<bool> {
        let is_open = matches!(self.room.join_rule, JoinRuleKind::Public | JoinRuleKind::Knock | JoinRuleKind::KnockRestricted);
        if is_open || self.room.world_readable {
            return Ok(true);
        }
        let allowing = self.allowed_room_ids.iter().filter(|_| self.room.join_rule == JoinRuleKind::Restricted);
        is_let_in(db, numbers::number(db, self.id())?, user, allowing.map(|allowing| &**allowing))
    }
}

/// The summary of a room ("GET room_summary"), with what a user has to do with it.
///
/// # Errors
/// As the database says.
pub fn detailed(db: &Snapshot, room: RoomNo, user: Option<UserNo>) -> Result<Summary> {
    let root = rooms::head(db, room)?.state;
    let membership = match user {
        Some(user) => Some(members::user_room(db, user, room)?.map_or(Membership::Leave, |standing| standing.membership)),
        None => None,
    };
    let allow: Option<Vec<Allow>> = field(db, room, root, "m.room.join_rules", "allow")?;
    Ok(Summary {
        room: summary(db, room)?,
        allowed_room_ids: allow.unwrap_or_default().into_iter().filter_map(|allow| allow.room_id).collect(),
        encryption: field(db, room, root, "m.room.encryption", "algorithm")?,
        room_version: Some(numbers::room(db, room)?.version()?.id.to_owned()),
        membership,
    })
}

/// What is told of a room in lists.
///
/// # Errors
/// As the database says.
pub fn summary(db: &Snapshot, room: RoomNo) -> Result<PublicRoomsChunk> {
    #[derive(Deserialize)]
    struct Create {
        #[serde(rename = "type")]
        kind: Option<RoomType>,
    }
    let head = rooms::head(db, room)?;
    let text = |kind: &str, key: &str| field::<String>(db, room, head.state, kind, key);
    let mut shown = PublicRoomsChunk::from(PublicRoomsChunkInit {
        num_joined_members: UInt::from(head.joined),
        room_id: rooms::numbers::room(db, room)?.id.clone(),
        world_readable: visibility::history_visibility(db, room, head.state)? == visibility::HistoryVisibility::WorldReadable,
        guest_can_join: text("m.room.guest_access", "guest_access")?.as_deref() == Some("can_join"),
    });
    shown.name = text("m.room.name", "name")?.filter(|name| !name.is_empty());
    shown.topic = text("m.room.topic", "topic")?;
    shown.canonical_alias = field(db, room, head.state, "m.room.canonical_alias", "alias")?;
    shown.avatar_url = text("m.room.avatar", "url")?.filter(|url| !url.is_empty()).map(Into::into);
    shown.join_rule = text("m.room.join_rules", "join_rule")?.map_or(JoinRuleKind::Invite, |rule| rule.as_str().into());
    shown.room_type = state::content::<Create>(db, room, head.state, "m.room.create", "")?.and_then(|create| create.kind);
    Ok(shown)
}

/// A key of the content of a state event with an empty state key, if it has the type asked for.
fn field<T: DeserializeOwned>(db: &Snapshot, room: RoomNo, root: state::Root, kind: &str, key: &str) -> Result<Option<T>> {
    let content: Option<protocol::json::Object> = state::content(db, room, root, kind, "")?;
    Ok(content.and_then(|mut content| content.remove(key)).and_then(|value| serde_json::from_value(value).ok()))
}
