//! The rooms of this server that anyone may find, and what is told of a room to who is not in it.
//!
//! Specification: client-server API, "Published room directory".

use rooms::{directory, state, visibility};
use ruma::{
    UInt,
    directory::{Filter, PublicRoomsChunk, PublicRoomsChunkInit},
    room::{JoinRuleKind, RoomType},
};
use serde::{Deserialize, de::DeserializeOwned};
use store::{RoomNo, Snapshot};

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

/// What is told of a room.
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
