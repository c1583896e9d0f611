//! Relations between events (`m.relates_to`): an index from the parent to its children.
//!
//! Specification: client-server API, "Forming relationships between events".

use std::sync::Arc;

use protocol::{event::Event, json::Object};
use ruma::{EventId, OwnedEventId};
use serde::{Deserialize, Serialize};
use store::{Lead, Owner, Preset, Range, Read, RoomNo, Table, UserNo};

use crate::{
    Error, EventNo, NewEvent, Pos, Result, Sender,
    events::{self, Header, StoredEvent},
    expected::{self, Deed},
    format::Format,
    head::OpenRoom,
    threads,
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

/// The relation of edits.
const REPLACE: &str = "m.replace";
/// The relation of the events of a thread to its root.
pub(crate) const THREAD: &str = "m.thread";
/// The relation that means nothing but itself.
const REFERENCE: &str = "m.reference";

/// The most references that are told with an event. Who wants all asks for its relations.
const REFERENCES_MAX: usize = 100;

/// The most events of a thread that are passed over for one whom its reader does not ignore, and that came before the reader left.
const SKIPPED_MAX: usize = 1_000;
/// The most ignored users whose events are taken off the number of events in a thread.
const IGNORED_MAX: usize = 100;

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
    /// The most recent edit that is valid.
    pub edit: Option<EventNo>,
    /// The last event of its thread, and its place.
    pub latest_reply: Option<(EventNo, Pos)>,
    /// How many events its thread has.
    pub replies: u32,
    /// The last events that refer to it, oldest first.
    pub references: Vec<EventNo>,
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

/// The most children of an event that are looked at for a reaction that is there already, or for what takes the place of a
/// redacted one.
const CHILDREN_MAX: usize = 10_000;

/// Refuses what a client should not send: a second reaction of the same user with the same key to the same event ("Event
/// annotations and reactions"), a thread that begins at an event which itself relates to another ("Validation of `m.thread`
/// relationships").
pub(crate) fn check(room: &OpenRoom<'_, '_>, sender: &Sender, new: &NewEvent) -> Result<()> {
    let relation =
        new.content.get("m.relates_to").cloned().and_then(|relation| serde_json::from_value::<RelatesTo>(relation).ok());
    let Some(relation) = relation else { return Ok(()) };
    let Some((no, parent)) = events::by_id(room.tx, room.no, &relation.event_id)? else { return Ok(()) };
    match relation.rel_type.as_str() {
        ANNOTATION => check_annotation(room, sender, new, no, &relation),
        THREAD if of(&parent.event).is_some() => Err(Error::BadThread),
        _ => Ok(()),
    }
}

fn check_annotation(
    room: &OpenRoom<'_, '_>,
    sender: &Sender,
    new: &NewEvent,
    parent: EventNo,
    relation: &RelatesTo,
) -> Result<()> {
    for child in children(room.tx, room.no, parent)?.take(CHILDREN_MAX) {
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

/// The step of appending that indexes the relation of an event, or lets it wait for the one that it relates to.
pub(crate) fn apply(room: &mut OpenRoom<'_, '_>, event: &Event, no: EventNo, pos: Pos, sender: UserNo) -> Result<()> {
    let Some(relation) = of(event) else { return Ok(()) };
    let Some((parent_no, parent)) = events::by_id(room.tx, room.no, &relation.event_id)? else {
        return expected::wait(room, &relation.event_id, Deed::Relates, no);
    };
    let mut summary = summary(room.tx, room.no, parent_no)?.unwrap_or_default();
    let before = summary.clone();
    match relation.rel_type.as_str() {
        REPLACE if edits(event, &parent.event) && is_newest_edit(room, event, summary.edit)? => summary.edit = Some(no),
        THREAD => {
            let latest = summary.latest_reply.map(|(_, pos)| pos);
            if latest.is_none_or(|latest| latest < pos) {
                threads::apply(room, parent_no, latest, Some(pos))?;
                summary.latest_reply = Some((no, pos));
            }
            summary.replies += 1;
            participate(room, parent_no, sender, 1)?;
        }
        REFERENCE => {
            let later = later_than(room, &summary.references, pos)?;
            summary.references.insert(summary.references.len() - later, no);
            let surplus = summary.references.len().saturating_sub(REFERENCES_MAX);
            summary.references.drain(..surplus);
        }
        _ => {}
    }
    if summary != before {
        room.tx.put(&SUMMARIES, &(room.no, parent_no), &summary)?;
    }
    room.tx.put(&RELATIONS, &(room.no, parent_no, pos), &(no, relation.rel_type))?;
    Ok(())
}

/// How many of these events, which are in the order of the timeline, come after a place in it.
fn later_than(room: &OpenRoom<'_, '_>, events: &[EventNo], pos: Pos) -> Result<usize> {
    let mut later = 0;
    for no in events.iter().rev() {
        if events::event(room.tx, room.no, *no)?.header.pos < Some(pos) {
            break;
        }
        later += 1;
    }
    Ok(later)
}

/// Whether an event may replace another's content ("Validity of replacement events").
fn edits(edit: &Event, original: &Event) -> bool {
    edit.sender == original.sender
        && edit.kind == original.kind
        && edit.state_key.is_none()
        && original.state_key.is_none()
        && of(original).is_none_or(|relation| relation.rel_type != REPLACE)
        && (edit.kind == ENCRYPTED || has_new_content(edit))
}

/// The type of events whose new content, if they are edits, only clients see.
const ENCRYPTED: &str = "m.room.encrypted";

fn has_new_content(edit: &Event) -> bool {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.new_content")]
        _new: Object,
    }
    serde_json::from_str::<Content>(edit.content.get()).is_ok()
}

/// Whether an edit is more recent than the one that is ("Server-side aggregation of `m.replace` relationships").
fn is_newest_edit(room: &OpenRoom<'_, '_>, edit: &Event, newest: Option<EventNo>) -> Result<bool> {
    let Some(newest) = newest else { return Ok(true) };
    let newest = events::event(room.tx, room.no, newest)?;
    Ok(recency(edit) > recency(&newest.event))
}

fn recency(edit: &Event) -> (u64, &EventId) {
    (edit.origin_server_ts, &edit.id)
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
        REPLACE => summary.edit = newest_edit(room, parent_no, &parent.event)?,
        THREAD => {
            let latest = last_first(room.tx, room.no, parent_no)?.find(|child| is_of(child, THREAD)).transpose()?;
            let latest = latest.map(|child| (child.no, child.pos));
            let place = |reply: Option<(EventNo, Pos)>| reply.map(|(_, pos)| pos);
            threads::apply(room, parent_no, place(summary.latest_reply), place(latest))?;
            summary.latest_reply = latest;
            summary.replies = summary.replies.saturating_sub(1);
            participate(room, parent_no, header.sender, -1)?;
        }
        REFERENCE => {
            let Some((no, _)) = events::by_id(room.tx, room.no, &header.id)? else { return Ok(()) };
            summary.references.retain(|reference| *reference != no);
        }
        _ => return Ok(()),
    }
    room.tx.put(&SUMMARIES, &(room.no, parent_no), &summary)?;
    Ok(())
}

/// The most recent of the valid edits of an event.
fn newest_edit(room: &OpenRoom<'_, '_>, parent: EventNo, original: &Event) -> Result<Option<EventNo>> {
    let mut newest: Option<(EventNo, Arc<StoredEvent>)> = None;
    for child in last_first(room.tx, room.no, parent)?.filter(|child| is_of(child, REPLACE)).take(CHILDREN_MAX) {
        let child = child?;
        let edit = events::event(room.tx, room.no, child.no)?;
        let is_newer = newest.as_ref().is_none_or(|(_, newest)| recency(&edit.event) > recency(&newest.event));
        if is_newer && edits(&edit.event, original) {
            newest = Some((child.no, edit));
        }
    }
    Ok(newest.map(|(no, _)| no))
}

/// Whether a child is of a type, or could not be read.
fn is_of(child: &Result<Child>, rel_type: &str) -> bool {
    child.as_ref().map_or(true, |child| child.rel_type == rel_type)
}

/// The newest event of a thread that a reader may know of, with how many there are.
///
/// # Errors
/// As the database says.
pub fn thread(
    db: &impl Read,
    room: RoomNo,
    root: EventNo,
    summary: &Summary,
    reader: &Format<'_>,
) -> Result<Option<(EventNo, u32)>> {
    let mut replies = summary.replies;
    for ignored in reader.ignored.iter().take(IGNORED_MAX) {
        replies = replies.saturating_sub(db.get(&PARTICIPANTS, &(room, root, *ignored))?.unwrap_or(0));
    }
    for child in last_first(db, room, root)?.filter(|child| is_of(child, THREAD)).take(SKIPPED_MAX) {
        let child = child?;
        if !reader.ignored.is_empty() && reader.ignored.contains(&events::event(db, room, child.no)?.header.sender) {
            continue;
        }
        if child.pos <= reader.until {
            return Ok(Some((child.no, replies)));
        }
        replies = replies.saturating_sub(1);
    }
    Ok(None)
}

/// The children of an event, newest first.
fn last_first(db: &impl Read, room: RoomNo, parent: EventNo) -> Result<impl Iterator<Item = Result<Child>> + '_> {
    let rows = db.range(&RELATIONS, Range::of(&Lead((room, parent))).reversed())?;
    Ok(rows.map(|row| row.map(|((_, _, pos), (no, rel_type))| Child { pos, no, rel_type }).map_err(Into::into)))
}
