//! `hearth room`: looking into a room, and removing one.

use admin::{graph, purge, why};
use clap::{Subcommand, ValueEnum};
use indicatif::ProgressBar;
use rooms::why::{Standpoint, Step, Verdict};
use ruma::{OwnedRoomId, OwnedUserId};

use super::{Place, Result, operator::Operator, say, time};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Draw the newest events of a room as the graph that they are.
    Graph {
        /// The room, by its id.
        room: OwnedRoomId,
        /// How many events.
        #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=5000))]
        last: u16,
        /// A drawing, or text for Graphviz.
        #[arg(long, default_value = "svg")]
        format: Format,
        #[command(flatten)]
        place: Place,
    },
    /// Tell why a user is, or is not, in a room and has the power that they have: which events led to it, and by which rules.
    Why {
        /// The room, by its id.
        room: OwnedRoomId,
        /// The user, of any server.
        user: OwnedUserId,
        /// Tell it as one object, for scripts.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Remove a room with all that is stored of it, for good. Nobody of this server may be in it.
    Purge {
        /// The room, by its id.
        room: OwnedRoomId,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Format {
    Svg,
    Dot,
}

pub(super) fn run(command: Command) -> Result<()> {
    match command {
        Command::Graph { room, last, format, place } => {
            let graph = Operator::find(&place)?.ask(graph::Graph { room: room.clone(), last: last.into() })?;
            let drawn = match format {
                Format::Svg => graph::svg(&graph, room.as_str()),
                Format::Dot => graph::dot(&graph, room.as_str()),
            };
            say(drawn.trim_end())
        }
        Command::Why { room, user, json, place } => explain(&room, &user, json, &place),
        Command::Purge { room, place } => remove(&room, &place),
    }
}

fn explain(room: &OwnedRoomId, user: &OwnedUserId, json: bool, place: &Place) -> Result<()> {
    let mut operator = Operator::find(place)?;
    let ask = |after| why::Why { room: room.clone(), user: user.clone(), after };
    let mut all = operator.ask(ask(Default::default()))?;
    while let Some(after) = all.next {
        let part = operator.ask(ask(after))?;
        all.steps.extend(part.steps);
        (all.now, all.next) = (part.now, part.next);
    }
    if json {
        return say(&serde_json::to_string(&all)?);
    }
    say(&standing(user, &all.now))?;
    for step in &all.steps {
        tell(step, &all.now)?;
    }
    Ok(())
}

/// What the user is now.
fn standing(user: &OwnedUserId, now: &Standpoint) -> String {
    let of = |event: Option<&str>| event.map(|event| format!(" ({event})")).unwrap_or_default();
    let membership = now.membership.map_or("none", |membership| membership.as_str());
    let membership = format!("{membership}{}", of(now.member_event.as_deref().map(ruma::EventId::as_str)));
    let power = format!("{}{}", now.power, of(now.power_levels.as_deref().map(ruma::EventId::as_str)));
    let user = graph::plain(user.as_str());
    format!("{user}: membership {membership}, power {power}. Rules are those of room version {}.", now.room_version)
}

fn tell(step: &Step, now: &Standpoint) -> Result<()> {
    let stands = [&now.member_event, &now.power_levels].into_iter().flatten().any(|event| *event == step.event);
    let stands = if stands { "  <- stands" } else { "" };
    say(&format!("{}  {}  {}{stands}", time::utc(step.origin_server_ts), step.event, graph::plain(&step.what)))?;
    let verdict = match &step.verdict {
        Verdict::Allowed { rule, reason } if step.prevailed => format!("allowed by rule {rule}: {reason}"),
        Verdict::Allowed { rule, reason } => format!("allowed by rule {rule}: {reason}; but another event prevailed"),
        Verdict::Rejected { rule, reason } => format!("REJECTED by rule {rule}: {reason}"),
        Verdict::SoftFailed { rule, reason } => format!("SOFT-FAILED by rule {rule}: {reason}"),
        Verdict::Outlier => "known only because other events cite it".to_owned(),
    };
    say(&format!("    {}", graph::plain(&verdict)))?;
    for cited in &step.auth_events {
        let kind = if cited.kind.is_empty() { "not here" } else { &cited.kind };
        say(&format!("    cites {}  {}", cited.event, graph::plain(format!("{kind} {}", cited.state_key).trim_end())))?;
    }
    Ok(())
}

fn remove(room: &OwnedRoomId, place: &Place) -> Result<()> {
    let mut operator = Operator::find(place)?;
    // Shown on a terminal only.
    let progress = ProgressBar::new_spinner();
    let mut removed = 0;
    loop {
        let part = operator.ask(purge::Purge { room: room.clone() })?;
        removed += part.removed;
        progress.set_message(format!("{removed} rows of users and events removed"));
        progress.tick();
        if part.done {
            progress.finish_and_clear();
            return say(&format!("{room} is gone."));
        }
    }
}
