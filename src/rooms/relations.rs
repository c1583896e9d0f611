//! Relations between events (`m.relates_to`): an index from the parent to its children.
//!
//! Specification: client-server API, "Forming relationships between events".

use protocol::event::Event;
use ruma::OwnedEventId;
use serde::{Deserialize, Serialize};
use store::{Lead, Owner, Preset, Range, Read, RoomNo, Table, UserNo};

use crate::{
    Error, EventNo, NewEvent, Pos, Result, Sender,
    events::{self, Header},
    head::OpenRoom,
};

pub(crate) static RELATIONS: Table<(RoomNo, EventNo, Pos), (EventNo, String)> =
    Table::new("relations", "The events that relate to an event, in timeline order, and how.")
        .owned_by(Owner::Room)
        .read_by(Preset::Scan);

pub(crate) static SUMMARIES: Table<(RoomNo, EventNo), Summary> =
    Table::new("relation_summaries", "What is told of an event's relations with the event: its last edit, its thread.")
        .owned_by(Owner::Room);
pub(crate) static PARTICIPANTS: Table<(RoomNo, EventNo, UserNo), u32> =
    Table::new("thread_participants", "How many events of a thread each user sent.").owned_by(Owner::Room);

/// The relation of reactions.
const ANNOTATION: &str = "m.annotation";

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

/// What is told of an event's relations with the event ("Aggregations of child events").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The last edit that counts: by the same user, of the same type.
    pub edit: Option<EventNo>,
    /// The last event of its thread.
    pub latest_reply: Option<EventNo>,
    /// How many events its thread has.
    pub replies: u32,
}

/// What is told of the relations of an event, if it has such.
///
/// # Errors
/// As the database says.
pub fn summary(db: &impl Read, room: RoomNo, parent: EventNo) -> Result<Option<Summary>> {
    Ok(db.get(&SUMMARIES, &(room, parent))?)
}

/// Whether a user sent an event of a thread, or its root.
///
/// # Errors
/// As the database says.
pub fn participates(db: &impl Read, room: RoomNo, root: (EventNo, &Header), user: UserNo) -> Result<bool> {
    Ok(root.1.sender == user || db.get(&PARTICIPANTS, &(room, root.0, user))?.is_some_and(|sent| sent > 0))
}

/// The most children of an event that are looked at for a reaction that is there already.
const ANNOTATIONS_MAX: usize = 10_000;

/// Refuses a second reaction of the same user with the same key to the same event ("Event annotations and reactions").
pub(crate) fn check_annotation(room: &OpenRoom<'_, '_>, sender: &Sender, new: &NewEvent) -> Result<()> {
    let relation =
        new.content.get("m.relates_to").cloned().and_then(|relation| serde_json::from_value::<RelatesTo>(relation).ok());
    let Some(relation) = relation.filter(|relation| relation.rel_type == ANNOTATION) else { return Ok(()) };
    let Some((parent, _)) = events::by_id(room.tx, room.no, &relation.event_id)? else { return Ok(()) };
    for child in children(room.tx, room.no, parent)?.take(ANNOTATIONS_MAX) {
        let child = child?;
        if child.rel_type != ANNOTATION {
            continue;
        }
        let stored = events::event(room.tx, room.no, child.no)?;
        let same = stored.event.sender == sender.id && stored.event.kind == new.kind;
        if same && of(&stored.event).is_some_and(|other| other.key == relation.key) {
            return Err(Error::DuplicateAnnotation);
        }
    }
    Ok(())
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
pub(crate) fn apply(room: &mut OpenRoom<'_, '_>, event: &Event, no: EventNo, pos: Pos, sender: UserNo) -> Result<()> {
    let Some(relation) = of(event) else { return Ok(()) };
    let Some((parent_no, parent)) = events::by_id(room.tx, room.no, &relation.event_id)? else { return Ok(()) };
    let mut summary = summary(room.tx, room.no, parent_no)?.unwrap_or_default();
    let before = summary.clone();
    match relation.rel_type.as_str() {
        "m.replace" if edits(event, &parent.event) => summary.edit = Some(no),
        "m.thread" => {
            summary.latest_reply = Some(no);
            summary.replies += 1;
            participate(room, parent_no, sender, 1)?;
        }
        _ => {}
    }
    if summary != before {
        room.tx.put(&SUMMARIES, &(room.no, parent_no), &summary)?;
    }
    room.tx.put(&RELATIONS, &(room.no, parent_no, pos), &(no, relation.rel_type))?;
    Ok(())
}

/// Whether an event may replace another's content ("Validity of replacement events").
fn edits(edit: &Event, original: &Event) -> bool {
    edit.sender == original.sender
        && edit.kind == original.kind
        && edit.state_key.is_none()
        && original.state_key.is_none()
        && of(original).is_none_or(|relation| relation.rel_type != "m.replace")
}

fn participate(room: &mut OpenRoom<'_, '_>, root: EventNo, user: UserNo, by: i32) -> Result<()> {
    let sent = room.tx.get(&PARTICIPANTS, &(room.no, root, user))?.unwrap_or(0);
    room.tx.put(&PARTICIPANTS, &(room.no, root, user), &sent.saturating_add_signed(by))?;
    Ok(())
}

/// Removes the relation of an event that is about to be redacted.
pub(crate) fn forget(room: &mut OpenRoom<'_, '_>, event: &Event, header: &Header) -> Result<()> {
    let (Some(relation), Some(pos)) = (of(event), header.pos) else { return Ok(()) };
    let Some((parent_no, parent)) = events::by_id(room.tx, room.no, &relation.event_id)? else { return Ok(()) };
    room.tx.delete(&RELATIONS, &(room.no, parent_no, pos))?;
    let Some(mut summary) = summary(room.tx, room.no, parent_no)? else { return Ok(()) };
    match relation.rel_type.as_str() {
        "m.replace" => summary.edit = last_child(room, parent_no, "m.replace", |edit| edits(edit, &parent.event))?,
        "m.thread" => {
            summary.latest_reply = last_child(room, parent_no, "m.thread", |_| true)?;
            summary.replies = summary.replies.saturating_sub(1);
            participate(room, parent_no, header.sender, -1)?;
        }
        _ => return Ok(()),
    }
    room.tx.put(&SUMMARIES, &(room.no, parent_no), &summary)?;
    Ok(())
}

/// The last child of this type that counts.
fn last_child(
    room: &OpenRoom<'_, '_>,
    parent: EventNo,
    rel_type: &str,
    counts: impl Fn(&Event) -> bool,
) -> Result<Option<EventNo>> {
    for row in room.tx.range(&RELATIONS, Range::of(&Lead((room.no, parent))).reversed())? {
        let (_, (no, of_type)) = row?;
        if of_type == rel_type && counts(&events::event(room.tx, room.no, no)?.event) {
            return Ok(Some(no));
        }
    }
    Ok(None)
}
