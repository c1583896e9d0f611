//! What a room's members see of each other beside events: typing notifications and receipts.
//!
//! Specification: client-server API, "Typing Notifications" and "Receipts".

use std::collections::BTreeSet;

use rooms::{receipts, typing};
use ruma::OwnedUserId;
use serde::Serialize;
use serde_json::value::RawValue;
use store::{RoomNo, Seq, Snapshot};

use crate::{Result, json, sync::Who};

/// The type of typing notifications.
pub const TYPING: &str = "m.typing";
/// The type of receipts.
pub const RECEIPT: &str = "m.receipt";

#[derive(Serialize)]
struct Typing {
    user_ids: Vec<OwnedUserId>,
}

/// Who is typing in a room, if that changed after `since`; to one who knows nothing, if anybody is.
///
/// # Errors
/// As the database says.
pub fn typing(
    db: &Snapshot,
    room: RoomNo,
    since: Option<Seq>,
    ignored: &BTreeSet<OwnedUserId>,
    now_ms: u64,
) -> Result<Option<Box<RawValue>>> {
    if let Some(since) = since
        && !typing::changed(db, room, since, db.seq())?
    {
        return Ok(None);
    }
    let mut user_ids = typing::users(db, room, now_ms)?;
    user_ids.retain(|user| !ignored.contains(user));
    let is_news = since.is_some() || !user_ids.is_empty();
    is_news.then(|| json::event(TYPING, Typing { user_ids })).transpose()
}

/// The receipts of a room that moved after `since`: all, for one who knows none.
///
/// # Errors
/// As the database says.
pub fn receipts(db: &Snapshot, who: &Who, room: RoomNo, since: Option<Seq>) -> Result<Vec<Box<RawValue>>> {
    let contents = receipts::contents(db, room, who.user, since, db.seq())?;
    contents.into_iter().map(|content| json::event(RECEIPT, content)).collect()
}
