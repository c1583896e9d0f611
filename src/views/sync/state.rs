//! Which state events tell a reader how a room's state changed.

use std::collections::{BTreeMap, BTreeSet};

use rooms::{
    EventNo,
    state::{self, Root},
};
use ruma::OwnedUserId;
use store::{RoomNo, Snapshot};

use crate::{Result, sync::excerpt::Excerpt};

const MEMBER: &str = "m.room.member";

/// To which place of a timeline a state section leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// Its start: the reader applies the timeline's state events too. `state`.
    #[default]
    Start,
    /// Its end: the reader takes no state from the timeline. `state_after`.
    End,
    /// [`Target::End`] under the name that it had before it was specified (MSC4222).
    UnstableEnd,
}

/// Which members a reader is told of.
pub enum Members<'a> {
    /// All that changed.
    All,
    /// Those needed; beside them all that changed, but for a reader who knew nothing.
    Lazy {
        /// What a reader who is taken to know nothing may know from before: they had left.
        left: Root,
        /// Who is needed.
        needed: BTreeSet<OwnedUserId>,
        /// Whether the reader has a member event.
        has: &'a dyn Fn(EventNo) -> bool,
    },
}

/// The state events that lead from `base`, what the reader knows, to the start or end of an excerpt.
///
/// # Errors
/// As the database says.
pub fn update(
    db: &Snapshot,
    room: RoomNo,
    excerpt: &Excerpt,
    base: Root,
    target: Target,
    members: &Members<'_>,
) -> Result<Vec<EventNo>> {
    let to = if target == Target::Start { excerpt.at_start } else { excerpt.at_end };
    let mut events = news(state::difference_but(db, room, base, to, MEMBER)?);
    let known = match members {
        Members::Lazy { left, .. } if base == Root::default() => (*left != base).then_some(*left),
        _ => Some(base),
    };
    if let Some(known) = known {
        events.extend(news(state::difference_of(db, room, known, to, MEMBER)?));
    }
    if let Members::Lazy { needed, has, .. } = members {
        let told: BTreeSet<EventNo> = events.iter().copied().collect();
        for user in needed {
            let member = state::entry(db, room, to, MEMBER, user.as_str())?;
            events.extend(member.filter(|member| !told.contains(member) && !has(*member)));
        }
    }
    if target == Target::Start {
        supersede(db, room, excerpt, &mut events)?;
    }
    Ok(events)
}

fn news(changes: Vec<state::Change>) -> Vec<EventNo> {
    changes.into_iter().filter_map(|(_, new)| new).collect()
}

/// Changes between the start and the end of the timeline that no event of it tells (because it is filtered, or because
/// they came of resolving a fork) go into the section in place of what was before.
fn supersede(db: &Snapshot, room: RoomNo, excerpt: &Excerpt, events: &mut Vec<EventNo>) -> Result<()> {
    if excerpt.at_start == excerpt.at_end {
        return Ok(());
    }
    let told: BTreeSet<EventNo> = excerpt.events.iter().map(|shown| shown.placed.no).collect();
    let changes = state::difference(db, room, excerpt.at_start, excerpt.at_end)?;
    let untold = changes.into_iter().filter_map(|(old, new)| new.filter(|new| !told.contains(new)).map(|new| (old, new)));
    let (replaced, added): (Vec<_>, Vec<_>) = untold.partition(|(old, _)| old.is_some());
    let mut replaced: BTreeMap<EventNo, EventNo> = replaced.into_iter().filter_map(|(old, new)| old.zip(Some(new))).collect();
    for event in events.iter_mut() {
        if let Some(new) = replaced.remove(event) {
            *event = new;
        }
    }
    events.extend(replaced.into_values().chain(added.into_iter().map(|(_, new)| new)));
    Ok(())
}
