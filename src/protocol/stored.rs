//! Reading events that this server checked before it stored them: in one pass over their bytes, which are canonical.
//!
//! Grammars and limits are not checked again, but ids are what their types say; bytes of another shape are an error, never a panic.

use std::borrow::Cow;

use ruma::OwnedEventId;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    event::Event,
    hash,
    parse::PduError,
    power_levels::Memo,
    version::{EventIdFormat, RoomVersion},
};

/// The keys of an event, where they lie in its JSON.
#[derive(Deserialize)]
struct Keys<'a> {
    #[serde(borrow)]
    room_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    sender: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    state_key: Option<Cow<'a, str>>,
    origin_server_ts: u64,
    depth: u64,
    #[serde(borrow)]
    prev_events: &'a RawValue,
    #[serde(borrow)]
    auth_events: &'a RawValue,
    #[serde(borrow, default)]
    redacts: Option<&'a RawValue>,
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct Redaction<'a> {
    #[serde(borrow, default)]
    redacts: Option<&'a RawValue>,
}

/// Reads an event from the canonical bytes that it was stored as, with the id that it was stored under.
///
/// # Errors
/// [`PduError`]: the bytes are not what was stored.
pub fn event(id: OwnedEventId, json: &str, version: &RoomVersion) -> Result<Event, PduError> {
    let keys: Keys<'_> = serde_json::from_str(json).map_err(|_| PduError::Malformed("JSON"))?;
    let room_id = match keys.room_id {
        Some(room_id) => room_id.as_ref().try_into().map_err(|_| PduError::Malformed("room_id"))?,
        None => hash::room_id_of_create(&id).ok_or(PduError::Malformed("room_id"))?,
    };
    let redacts = if keys.kind == "m.room.redaction" { redacts(keys.redacts, keys.content, version) } else { None };
    Ok(Event {
        id,
        room_id,
        sender: keys.sender.as_ref().try_into().map_err(|_| PduError::Malformed("sender"))?,
        kind: keys.kind.into_owned(),
        state_key: keys.state_key.map(Cow::into_owned),
        origin_server_ts: keys.origin_server_ts,
        depth: keys.depth,
        prev_events: references(keys.prev_events, version).ok_or(PduError::Malformed("prev_events"))?,
        auth_events: references(keys.auth_events, version).ok_or(PduError::Malformed("auth_events"))?,
        redacts,
        content: keys.content.to_owned(),
        json: json.into(),
        levels: Memo::default(),
    })
}

fn redacts(of_event: Option<&RawValue>, content: &RawValue, version: &RoomVersion) -> Option<OwnedEventId> {
    let of_content = || serde_json::from_str::<Redaction<'_>>(content.get()).ok()?.redacts;
    let id = if version.version_11 { of_content() } else { of_event }?;
    crate::ids::event_id(&serde_json::from_str::<Cow<'_, str>>(id.get()).ok()?, version).ok()
}

fn references(list: &RawValue, version: &RoomVersion) -> Option<Vec<OwnedEventId>> {
    if version.event_ids == EventIdFormat::Chosen {
        let pairs: Vec<(OwnedEventId, IgnoredAny)> = serde_json::from_str(list.get()).ok()?;
        return Some(pairs.into_iter().map(|(id, _)| id).collect());
    }
    serde_json::from_str(list.get()).ok()
}
