//! What a room's timeline and state gained between two places: the newest events that a user may see and wants, and the
//! states around them.

use std::collections::BTreeSet;

use rooms::{
    Pos,
    events::StoredEvent,
    members::Membership,
    state::Root,
    timeline::{self, Direction, Placed},
    visibility::Viewer,
};
use store::{RoomNo, Snapshot};

use crate::{Result, token::Point};

/// The most events that are looked at for one excerpt, so that a filter that wants few of many cannot read a whole room.
pub const SCANNED_MAX: usize = 2_000;

/// A part of a room's timeline, with the states that the reader needs to make sense of it.
#[derive(Debug)]
pub struct Excerpt {
    /// The events, oldest first.
    pub events: Vec<Shown>,
    /// Whether older ones are left out.
    pub limited: bool,
    /// Where the excerpt begins: what is older is read from here.
    pub start: Point,
    /// The state that the reader knows already: that at the place to read from.
    pub known: Root,
    /// The state before the first event.
    pub at_start: Root,
    /// The state after the last place.
    pub at_end: Root,
}

impl Excerpt {
    /// Neither events nor state.
    #[must_use]
    pub fn nothing(start: Point) -> Self {
        let root = Root::default();
        Self { events: Vec::new(), limited: false, start, known: root, at_start: root, at_end: root }
    }

    /// The states around a part of a timeline of which no event is wanted.
    ///
    /// # Errors
    /// As the database says.
    pub fn without_events(db: &Snapshot, room: RoomNo, (after, until): (Option<Pos>, Pos)) -> Result<Self> {
        let known = after.map(|after| timeline::state_at(db, room, after)).transpose()?.unwrap_or_default();
        let at_end = timeline::state_at(db, room, until)?;
        Ok(Self { events: Vec::new(), limited: false, start: Point(until), known, at_start: at_end, at_end })
    }
}

/// An event that is shown.
#[derive(Debug)]
pub struct Shown {
    /// The event in its place.
    pub placed: Placed,
    /// The reader's membership at it.
    pub membership: Option<Membership>,
}

/// Reads the newest events after `after` (of all, where it is `None`) and up to `until`: those that the viewer sees and
/// `wants`, at most `limit`.
///
/// A state event that is not shown must not be hidden by an older one of its type and key that is, because a reader takes
/// its state from what is shown last. The excerpt begins after such an older one.
///
/// # Errors
/// As the database says.
pub fn excerpt(
    db: &Snapshot,
    room: RoomNo,
    viewer: &mut Viewer<'_>,
    (after, until): (Option<Pos>, Pos),
    limit: usize,
    wants: impl Fn(&StoredEvent) -> bool,
) -> Result<Excerpt> {
    let mut scan = Scan::default();
    // What other servers sent before it is not here: the reader has to ask for that, and fetches it thereby.
    let gap = timeline::gap(db, room, until)?.map(|(pos, _)| pos);
    for (scanned, placed) in timeline::read(db, room, Direction::Backward, until, None)?.enumerate() {
        let placed = placed?;
        if after.is_some_and(|after| placed.pos <= after) {
            scan.known = Some(placed.stored.header.current);
            break;
        }
        scan.at_end.get_or_insert(placed.stored.header.current);
        let is_shown = wants(&placed.stored) && viewer.sees(db, &placed.stored)?;
        if scanned == SCANNED_MAX || (is_shown && (scan.events.len() == limit || scan.is_hidden(&placed))) {
            scan.limited = true;
            break;
        }
        let pos = placed.pos;
        if is_shown {
            let membership = viewer.membership_at(db, &placed.stored)?;
            scan.events.push(Shown { placed, membership });
        } else {
            scan.hide(&placed);
        }
        if gap == Some(pos) {
            scan.limited = true;
            break;
        }
    }
    scan.finish(db, room, (after, until))
}

/// What reading backward found so far.
#[derive(Default)]
struct Scan {
    /// Newest first.
    events: Vec<Shown>,
    limited: bool,
    /// Whether events between those shown are not.
    has_holes: bool,
    /// Types and keys of state events that are not shown.
    hidden: BTreeSet<(String, String)>,
    known: Option<Root>,
    at_end: Option<Root>,
}

impl Scan {
    fn hide(&mut self, placed: &Placed) {
        self.has_holes = true;
        if let Some((kind, key)) = placed.stored.event.state_pair() {
            self.hidden.insert((kind.to_owned(), key.to_owned()));
        }
    }

    fn is_hidden(&self, placed: &Placed) -> bool {
        !self.hidden.is_empty()
            && placed
                .stored
                .event
                .state_pair()
                .is_some_and(|(kind, key)| self.hidden.contains(&(kind.to_owned(), key.to_owned())))
    }

    fn finish(mut self, db: &Snapshot, room: RoomNo, (after, until): (Option<Pos>, Pos)) -> Result<Excerpt> {
        self.events.reverse();
        let known = match (self.known, after) {
            (Some(known), _) => known,
            (None, Some(after)) => timeline::state_at(db, room, after)?,
            (None, None) => Root::default(),
        };
        let at_end = self.at_end.unwrap_or(known);
        let (start, at_start) = match self.events.first() {
            None => (Point(if self.limited { until } else { after.unwrap_or(until) }), at_end),
            Some(first) => {
                let start = Point::before(first.placed.pos);
                let whole = !self.limited && !self.has_holes;
                (start, if whole { known } else { timeline::state_at(db, room, start.0)? })
            }
        };
        Ok(Excerpt { events: self.events, limited: self.limited, start, known, at_start, at_end })
    }
}
