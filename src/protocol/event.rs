//! Events as rooms hold them: parsed once, immutable, with the exact canonical bytes beside the fields.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::value::RawValue;

use crate::json::{JsonError, Object};
use crate::power_levels::Memo;

/// A persistent data unit whose format, size and ids were checked. Shared as `Arc<Event>`, never changed.
///
/// Specification: "PDUs" of the server-server API and "Event format" of the room version.
#[derive(Clone, Debug)]
pub struct Event {
    /// The event's id: chosen by its server in versions 1 and 2, else the reference hash.
    pub id: OwnedEventId,
    /// The room. In version 12 that of a create event is derived from its id.
    pub room_id: OwnedRoomId,
    /// The user who sent it.
    pub sender: OwnedUserId,
    /// The type, as `m.room.message`.
    pub kind: String,
    /// The state key, of state events only.
    pub state_key: Option<String>,
    /// Milliseconds since the epoch as its server claims.
    pub origin_server_ts: u64,
    /// One more than the greatest depth of `prev_events`, at most what the room version allows ([`crate::version::RoomVersion::max_depth`]).
    pub depth: u64,
    /// The forward extremities when it was made: its parents in the event DAG.
    pub prev_events: Vec<OwnedEventId>,
    /// The state events that its server says allow it.
    pub auth_events: Vec<OwnedEventId>,
    /// What a redaction redacts, from the top level or `content`, as the room version has it.
    pub redacts: Option<OwnedEventId>,
    /// The content as canonical JSON.
    pub content: Box<RawValue>,
    /// The whole event in the federation format as canonical JSON, without `unsigned` and, from version 3 on, `event_id`.
    pub json: Box<str>,
    /// Its power levels, if it is an `m.room.power_levels`.
    pub(crate) levels: Memo,
}

impl Event {
    /// The (type, state key) of a state event.
    #[must_use]
    pub fn state_pair(&self) -> Option<(&str, &str)> {
        self.state_key.as_deref().map(|key| (self.kind.as_str(), key))
    }

    /// The whole event in the federation format as an object, read from its JSON.
    ///
    /// # Errors
    /// None for an event that was parsed or built.
    pub fn object(&self) -> Result<Object, JsonError> {
        Ok(serde_json::from_str(&self.json)?)
    }
}
