//! The events that relate to an event, in pages.
//!
//! Specification: client-server API, "Relationships API".

use std::collections::BTreeMap;

use rooms::{
    EventNo, Pos,
    events::{self, StoredEvent},
    relations,
    timeline::Direction,
};
use ruma::EventId;
use serde_json::value::RawValue;

use crate::{Result, history::Reader, token::Point};

/// The most children that are looked at for one page, over all depths.
const SCANNED_MAX: usize = 5_000;

/// How deep a recursive page goes: to reactions to replies in threads, and their edits.
pub const DEPTH_MAX: u32 = 3;

/// Which relations are asked for.
pub struct Ask<'a> {
    /// Only of this type.
    pub rel_type: Option<&'a str>,
    /// Only events of this type.
    pub event_type: Option<&'a str>,
    /// Whether those that relate to what relates count as well.
    pub recurse: bool,
    /// Which way.
    pub direction: Direction,
    /// From where.
    pub from: Option<Point>,
    /// Where to stop.
    pub to: Option<Point>,
    /// The most events.
    pub limit: usize,
}

/// A page of events.
pub struct Page {
    /// The events in the order of reading.
    pub chunk: Vec<Box<RawValue>>,
    /// Where to go on; `None` where nothing is left.
    pub next: Option<Point>,
}

/// A page of what relates to an event that the reader sees.
///
/// # Errors
/// [`rooms::Error::NotFound`] where they do not see it.
pub fn page(reader: &mut Reader<'_>, parent: &EventId, ask: &Ask<'_>) -> Result<Page> {
    let (_, _, _) = reader.event(parent)?;
    let found = children(reader, parent, ask)?;
    let inside = |pos: &Pos| {
        let (after, until) = match ask.direction {
            Direction::Forward => (ask.from, ask.to),
            Direction::Backward => (ask.to, ask.from),
        };
        after.is_none_or(|after| *pos > after.0) && until.is_none_or(|until| *pos <= until.0)
    };
    let ordered: Vec<_> = match ask.direction {
        Direction::Forward => found.into_iter().filter(|(pos, _)| inside(pos)).collect(),
        Direction::Backward => found.into_iter().rev().filter(|(pos, _)| inside(pos)).collect(),
    };
    let mut page = Page { chunk: Vec::new(), next: None };
    let mut last = None;
    for (pos, no) in ordered {
        if page.chunk.len() >= ask.limit {
            page.next = last;
            break;
        }
        last = Some(match ask.direction {
            Direction::Forward => Point(pos),
            Direction::Backward => Point::before(pos),
        });
        let stored = events::event(reader.db(), reader.room(), no)?;
        if ask.event_type.is_none_or(|wanted| stored.event.kind == wanted)
            && let Some(written) = reader.visible(&stored)?
        {
            page.chunk.push(written);
        }
    }
    Ok(page)
}

/// The children by their places, of the type asked for at the first level.
fn children(reader: &Reader<'_>, parent: &EventId, ask: &Ask<'_>) -> Result<BTreeMap<Pos, EventNo>> {
    let mut found = BTreeMap::new();
    let Some((parent, _)) = events::by_id(reader.db(), reader.room(), parent)? else { return Ok(found) };
    let mut level = vec![parent];
    for _ in 0..if ask.recurse { DEPTH_MAX } else { 1 } {
        let mut next = Vec::new();
        for parent in level {
            for child in relations::children(reader.db(), reader.room(), parent)? {
                let child = child?;
                next.push(child.no);
                if ask.rel_type.is_none_or(|wanted| child.rel_type == wanted) {
                    found.insert(child.pos, child.no);
                }
                if found.len() >= SCANNED_MAX || next.len() >= SCANNED_MAX {
                    return Ok(found);
                }
            }
        }
        level = next;
    }
    Ok(found)
}

impl Reader<'_> {
    /// An event as the user sees it, if they may.
    fn visible(&mut self, stored: &StoredEvent) -> Result<Option<Box<RawValue>>> {
        if self.sees(stored)? { self.write(stored).map(Some) } else { Ok(None) }
    }
}
