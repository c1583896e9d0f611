//! `m.room.redaction`: rule 11 of versions 1 and 2, and "Handling redactions" of the later ones, which judge a
//! redaction when it is applied.

use super::rules::{Grant, Rule};
use super::{Denied, Room, State};
use crate::event::Event;
use crate::power_levels::{Power, PowerLevels};
use crate::version::RoomVersion;

/// Whether an accepted redaction takes effect on an accepted event that it names, by the power levels of the state
/// before the redaction. Versions 1 and 2 have judged that already when they accepted it.
#[must_use]
pub fn redaction_applies(version: &RoomVersion, levels: &PowerLevels<'_>, redaction: &Event, redacted: &Event) -> bool {
    let by_power = || {
        let (power, needed) = (levels.user(&redaction.sender), levels.redact());
        matches!((power, needed), (Ok(power), Ok(needed)) if power >= needed)
    };
    redaction.room_id == redacted.room_id
        && (!version.redactions_checked_on_apply || redaction.sender.server_name() == redacted.sender.server_name() || by_power())
}

pub(super) fn authorize<S: State>(room: &Room<'_, S>, levels: &PowerLevels<'_>, power: Power) -> Result<Grant, Denied> {
    // Rule 11.1.
    if power >= levels.redact().map_err(|malformed| room.malformed(Rule::Redaction, malformed))? {
        return Ok(Grant::RedactionPower);
    }
    // One that was redacted itself names no event any more, and changes nothing. Who has it whole has accepted it.
    let Some(redacted) = &room.event.redacts else { return Ok(Grant::RedactionServer) };
    // Rule 11.2.
    let redacted_server = redacted.server_name();
    if redacted_server.is_some() && redacted_server == room.event.id.server_name() {
        return Ok(Grant::RedactionServer);
    }
    // Rule 11.3.
    Err(room.denied(Rule::Redaction, "the sender may not redact events of other servers"))
}
