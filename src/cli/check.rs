//! `hearth check`: whether what is stored holds together.

use admin::check::{Check, Part};
use clap::Args;
use indicatif::ProgressBar;
use ruma::OwnedRoomId;

use super::{Failure, Place, Result, operator::Operator, say};

#[derive(Args)]
pub(super) struct Options {
    /// Only this room, by its id.
    room: Option<OwnedRoomId>,
    /// Tell each fault as a line of JSON, for scripts.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(options: Options) -> Result<()> {
    let Options { room, json, place } = options;
    let mut operator = Operator::find(&place)?;
    // Shown on a terminal only.
    let progress = ProgressBar::new_spinner();
    let (mut events, mut rooms, mut faults, mut unknown_keys) = (0, 0, 0, 0);
    let mut after = None;
    loop {
        let part: Part = operator.ask(Check { room: room.clone(), after })?;
        events += part.events;
        faults += part.faults.len();
        unknown_keys += part.unknown_keys;
        for fault in &part.faults {
            let event = fault.event.as_deref().map(|event| format!(" {event}")).unwrap_or_default();
            let line = if json { serde_json::to_string(fault)? } else { format!("{}{event}: {}", fault.room, fault.what) };
            progress.suspend(|| say(&line))?;
        }
        if part.room.is_some() && part.next.is_none_or(|next| next.ends_a_room()) {
            rooms += 1;
        }
        progress.set_message(format!("{events} events of {rooms} rooms checked"));
        progress.tick();
        after = part.next;
        if part.room.is_none() || after.is_none() {
            break;
        }
    }
    progress.finish_and_clear();
    if faults > 0 {
        return Err(Failure(format!(
            "{faults} faults in {events} events of {rooms} rooms. Restore a backup from before them, and please report them with the lines above"
        )));
    }
    if json {
        return Ok(());
    }
    if unknown_keys > 0 {
        say(&format!(
            "{unknown_keys} events are signed with keys that are not known here: nobody can tell whether they are right."
        ))?;
    }
    say(&format!("All is well with {events} events of {rooms} rooms."))
}
