//! Redactions: what they name is stored anew in the form that the room version leaves of it.

use protocol::{
    auth::redaction_applies,
    event::Event,
    power_levels::{Power, PowerLevels},
    redact,
};
use ruma::UserId;

use crate::{
    EventNo, Result, events,
    expected::{self, Deed},
    head::OpenRoom,
    relations, state,
};

/// The step of appending that applies a redaction to the event it names, where its sender may redact that, or lets it wait for that event.
///
/// From room version 3 on the rules allow any redaction and the right is checked here ("Handling redactions"): the
/// sender redacts an event of a user of the same server, or has the power to redact in the state before the redaction.
pub(crate) fn apply(room: &mut OpenRoom<'_, '_>, event: &Event, no: EventNo) -> Result<()> {
    if event.kind != "m.room.redaction" {
        return Ok(());
    }
    let Some(redacts) = &event.redacts else { return Ok(()) };
    let Some((target_no, target)) = events::by_id(room.tx, room.no, redacts)? else {
        return expected::wait(room, redacts, Deed::Redacts, no);
    };
    if target.header.redacted_by.is_some() || target.event.kind == "m.room.create" {
        return Ok(());
    }
    if !applies(room, event, no, &target.event)? {
        return Ok(());
    }
    let Ok(redacted) = redact::redacted(&target.event, room.version) else { return Ok(()) };
    relations::forget(room, &target.event, &target.header)?;
    events::redact(room.tx, room.no, target_no, no, redacted)
}

/// Whether a redaction that is part of the room takes effect on an event.
fn applies(room: &OpenRoom<'_, '_>, redaction: &Event, no: EventNo, target: &Event) -> Result<bool> {
    let before = events::event(room.tx, room.no, no)?.header.before;
    let of = |kind: &str| state::event(room.tx, room.no, before, kind, "");
    let (create, levels) = (of("m.room.create")?, of("m.room.power_levels")?);
    let (create, levels) = (create.as_ref().map(|stored| &*stored.event), levels.as_ref().map(|stored| &*stored.event));
    let levels = PowerLevels::new(room.version, create, levels);
    Ok(levels.is_ok_and(|levels| redaction_applies(room.version, &levels, redaction, target)))
}

/// Whether a user may redact the events of others.
pub(crate) fn may_redact(room: &OpenRoom<'_, '_>, user: &UserId) -> Result<bool> {
    let create = room.state_event("m.room.create", "")?;
    let levels = room.state_event("m.room.power_levels", "")?;
    let Ok(levels) = PowerLevels::new(room.version, create.as_deref(), levels.as_deref()) else { return Ok(false) };
    let (Ok(power), Ok(needed)) = (levels.user(user), levels.redact()) else { return Ok(false) };
    Ok(power >= Power::Level(needed))
}
