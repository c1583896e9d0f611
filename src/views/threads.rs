//! The threads of a room, in pages.
//!
//! Specification: client-server API, "Querying threads in a room".

use std::sync::Arc;

use protocol::redact;
use rooms::{
    EventNo, Pos,
    events::{self, StoredEvent},
    numbers, relations, threads,
};
use serde_json::value::RawValue;

use crate::{Result, history::Reader, token::Point};

/// The most threads that are looked at for one page: with a reader who took part in few of many it ends early, with a token to
/// go on.
const SCANNED_MAX: usize = 1_000;

/// Which threads are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Only those that the reader took part in.
    pub participated: bool,
    /// From where; from the one with the newest event where it is not said.
    pub from: Option<Point>,
    /// The most threads.
    pub limit: usize,
}

/// A page of threads.
pub struct Page {
    /// Their roots, that of the thread with the newest event first.
    pub chunk: Vec<Box<RawValue>>,
    /// Where to go on; `None` where nothing is left.
    pub next: Option<Point>,
}

/// A page of the threads whose roots the reader sees.
///
/// # Errors
/// As the database says.
pub fn page(reader: &mut Reader<'_>, ask: Ask) -> Result<Page> {
    let mut page = Page { chunk: Vec::new(), next: None };
    let from = ask.from.map_or(Pos(i64::MAX), |from| from.0);
    let mut last = None;
    for (scanned, thread) in threads::roots(reader.db(), reader.room(), from)?.enumerate() {
        let (pos, root) = thread?;
        if page.chunk.len() >= ask.limit || scanned >= SCANNED_MAX {
            page.next = last.map(Point::before);
            break;
        }
        last = Some(pos);
        page.chunk.extend(shown(reader, root, ask.participated)?);
    }
    Ok(page)
}

/// The root of a thread as the reader sees it: nothing, if they do not, or know of no event in it.
fn shown(reader: &mut Reader<'_>, root: EventNo, participated: bool) -> Result<Option<Box<RawValue>>> {
    let (db, room, format) = (reader.db(), reader.room(), reader.format().clone());
    let stored = events::event(db, room, root)?;
    if participated && !relations::participates(db, room, (root, &stored.header), format.user)? {
        return Ok(None);
    }
    let summary = relations::summary(db, room, root)?.unwrap_or_default();
    if relations::thread(db, room, root, &summary, &format)?.is_none() || !reader.sees(&stored)? {
        return Ok(None);
    }
    if format.ignored.contains(&stored.header.sender) {
        return reader.write(&redacted(reader, &stored)?).map(Some);
    }
    reader.write(&stored).map(Some)
}

/// What is shown of an event whose sender is ignored, because others answered it.
fn redacted(reader: &Reader<'_>, stored: &StoredEvent) -> Result<StoredEvent> {
    let version = numbers::room(reader.db(), reader.room())?.version()?;
    let event = redact::redacted(&stored.event, version).map_err(rooms::Error::from)?;
    Ok(StoredEvent { header: stored.header.clone(), event: Arc::new(event) })
}
