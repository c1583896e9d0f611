//! Relations between events (`m.relates_to`): an index from the parent to its children.
//!
//! Specification: client-server API, "Forming relationships between events".

use protocol::event::Event;
use ruma::OwnedEventId;
use serde::Deserialize;
use store::{Lead, Owner, Preset, Range, Read, RoomNo, Table};

use crate::{
    EventNo, Pos, Result,
    events::{self, Header},
    head::OpenRoom,
};

pub(crate) static RELATIONS: Table<(RoomNo, EventNo, Pos), (EventNo, String)> =
    Table::new("relations", "The events that relate to an event, in timeline order, and how.")
        .owned_by(Owner::Room)
        .read_by(Preset::Scan);

/// The longest relation type that is indexed, in bytes.
const REL_TYPE_MAX: usize = 255;

/// What an event says it relates to.
#[derive(Clone, Debug, Deserialize)]
pub struct RelatesTo {
    /// How, as `m.thread`.
    pub rel_type: String,
    /// To what.
    pub event_id: OwnedEventId,
    /// The reaction, of annotations.
    #[serde(default)]
    pub key: Option<String>,
}

/// The relation that an event has, if any. State events have none but by their `rel_type`.
#[must_use]
pub fn of(event: &Event) -> Option<RelatesTo> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relates_to: RelatesTo,
    }
    if !event.content.get().contains("m.relates_to") {
        return None;
    }
    let relation = serde_json::from_str::<Content>(event.content.get()).ok()?.relates_to;
    (relation.rel_type.len() <= REL_TYPE_MAX).then_some(relation)
}

/// A child of an event.
#[derive(Clone, Debug)]
pub struct Child {
    /// Its place.
    pub pos: Pos,
    /// Its number.
    pub no: EventNo,
    /// How it relates.
    pub rel_type: String,
}

/// The events that relate to an event, oldest first, read as they are asked for.
///
/// # Errors
/// As the database says.
pub fn children(db: &impl Read, room: RoomNo, parent: EventNo) -> Result<impl Iterator<Item = Result<Child>> + '_> {
    let rows = db.range(&RELATIONS, Range::of(&Lead((room, parent))))?;
    Ok(rows.map(|row| row.map(|((_, _, pos), (no, rel_type))| Child { pos, no, rel_type }).map_err(Into::into)))
}

/// The step of appending that indexes the relation of an event.
pub(crate) fn apply(room: &mut OpenRoom<'_, '_>, event: &Event, no: EventNo, pos: Pos) -> Result<()> {
    let Some(relation) = of(event) else { return Ok(()) };
    let Some((parent, _)) = events::by_id(room.tx, room.no, &relation.event_id)? else { return Ok(()) };
    room.tx.put(&RELATIONS, &(room.no, parent, pos), &(no, relation.rel_type))?;
    Ok(())
}

/// Removes the relation of an event that is about to be redacted.
pub(crate) fn forget(room: &mut OpenRoom<'_, '_>, event: &Event, header: &Header) -> Result<()> {
    let (Some(relation), Some(pos)) = (of(event), header.pos) else { return Ok(()) };
    if let Some((parent, _)) = events::by_id(room.tx, room.no, &relation.event_id)? {
        room.tx.delete(&RELATIONS, &(room.no, parent, pos))?;
    }
    Ok(())
}
