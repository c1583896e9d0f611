//! `m.room.create`: rule 1.

use ruma::{RoomId, UserId};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Denied;
use super::rules::{Grant, Rule};
use crate::content::{Text, field, text};
use crate::event::Event;
use crate::version::RoomVersion;

/// The room version of a create event that names none.
const UNNAMED_VERSION: &str = "1";

pub(super) fn authorize(version: &RoomVersion, event: &Event) -> Result<Grant, Denied> {
    // Rule 1.1.
    if !event.prev_events.is_empty() {
        return Err(Rule::CreatePrevEvents.denies(version, "a create event has no previous events"));
    }
    // Rule 1.2.
    if version.version_12 {
        if has_room_id(event) || !is_room_of_create(&event.room_id, event) {
            return Err(Rule::CreateRoomId.denies(version, "the room id of a create event is its hash"));
        }
    } else if event.room_id.server_name() != Some(event.sender.server_name()) {
        return Err(Rule::CreateRoomId.denies(version, "the room id is not of the sender's server"));
    }
    // Rule 1.3. The event is judged as of `version`, so that is the only one to recognise.
    let named = match field(&event.content, "room_version") {
        Some(named) => text(named),
        None => Some(UNNAMED_VERSION.into()),
    };
    if named.is_none_or(|named| named != version.id) {
        return Err(Rule::CreateVersion.denies(version, "another room version"));
    }
    // Rule 1.4, until version 10.
    if !version.version_11 && field(&event.content, "creator").is_none() {
        return Err(Rule::CreateCreator.denies(version, "no creator"));
    }
    // Rule 1.4, from version 12 on.
    if version.version_12 && !additional_creators_are_users(event) {
        return Err(Rule::CreateCreator.denies(version, "additional_creators must be user ids"));
    }
    // Rule 1.5.
    Ok(Grant::Create)
}

/// Whether this create event is that of the other event's room.
pub(super) fn is_of_room(version: &RoomVersion, create: &Event, event: &Event) -> bool {
    create.room_id == event.room_id && (!version.version_12 || is_room_of_create(&event.room_id, create))
}

/// Version 12: the room id is the create event's id with `!` instead of `$`.
fn is_room_of_create(room: &RoomId, create: &Event) -> bool {
    room.as_str().strip_prefix('!') == create.id.as_str().strip_prefix('$')
}

/// Whether the event itself has a `room_id`. What cannot be read counts as having one.
fn has_room_id(event: &Event) -> bool {
    #[derive(Deserialize)]
    struct WithRoomId {
        room_id: Option<IgnoredAny>,
    }
    serde_json::from_str::<WithRoomId>(&event.json).map_or(true, |event| event.room_id.is_some())
}

fn additional_creators_are_users(event: &Event) -> bool {
    let Some(creators) = field(&event.content, "additional_creators") else { return true };
    serde_json::from_str::<Vec<Text<'_>>>(creators.get())
        .is_ok_and(|creators| creators.iter().all(|creator| UserId::parse(&creator.0).is_ok()))
}
