//! Redactions: what they name is stored anew in the form that the room version leaves of it.

use protocol::{
    event::Event,
    power_levels::{Power, PowerLevels},
    redact,
};
use ruma::UserId;

use crate::{EventNo, Result, events, head::OpenRoom, relations};

/// The step of appending that applies a redaction to the event it names, where its sender may redact that.
///
/// From room version 3 on the rules allow any redaction and the right is checked here ("Handling redactions"): the
/// sender redacts an event of a user of the same server, or has the power to redact.
pub(crate) fn apply(room: &mut OpenRoom<'_, '_>, event: &Event, no: EventNo) -> Result<()> {
    if event.kind != "m.room.redaction" {
        return Ok(());
    }
    let Some(redacts) = &event.redacts else { return Ok(()) };
    let Some((target_no, target)) = events::by_id(room.tx, room.no, redacts)? else { return Ok(()) };
    if target.header.redacted_by.is_some() || target.event.kind == "m.room.create" {
        return Ok(());
    }
    if target.event.sender.server_name() != event.sender.server_name() && !may_redact(room, &event.sender)? {
        return Ok(());
    }
    let Ok(redacted) = redact::redacted(&target.event, room.version) else { return Ok(()) };
    relations::forget(room, &target.event, &target.header)?;
    events::redact(room.tx, room.no, target_no, no, redacted)
}

/// Whether a user may redact the events of others.
pub(crate) fn may_redact(room: &OpenRoom<'_, '_>, user: &UserId) -> Result<bool> {
    let create = room.state_event("m.room.create", "")?;
    let levels = room.state_event("m.room.power_levels", "")?;
    let Ok(levels) = PowerLevels::new(room.version, create.as_deref(), levels.as_deref()) else { return Ok(false) };
    let (Ok(power), Ok(needed)) = (levels.user(user), levels.redact()) else { return Ok(false) };
    Ok(power >= Power::Level(needed))
}
