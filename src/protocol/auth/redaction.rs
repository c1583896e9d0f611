//! `m.room.redaction`: rule 11 of versions 1 and 2. Later versions judge a redaction when it is applied.

use super::rules::Rule;
use super::{Denied, Room, State};
use crate::power_levels::{Power, PowerLevels};

pub(super) fn authorize<S: State>(room: &Room<'_, S>, levels: &PowerLevels<'_>, power: Power) -> Result<(), Denied> {
    // Rule 11.1.
    if power >= levels.redact().map_err(|malformed| room.malformed(Rule::Redaction, malformed))? {
        return Ok(());
    }
    // Rule 11.2.
    let redacted_server = room.event.redacts.as_ref().and_then(|id| id.server_name());
    if redacted_server.is_some() && redacted_server == room.event.id.server_name() {
        return Ok(());
    }
    // Rule 11.3.
    Err(room.denied(Rule::Redaction, "the sender may not redact events of other servers"))
}
