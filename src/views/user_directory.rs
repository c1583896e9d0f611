//! Whom a search in the user directory shows, and as whom ("User Directory").

use std::{cell::OnceCell, collections::BTreeSet};

use rooms::{
    members::{self, Membership},
    state,
};
use serde_json::Value;
use store::{RoomNo, Snapshot, UserNo};
use users::{
    directory::{self, Found, Listed},
    numbers,
};

use crate::Result;

/// The most rooms of a user of another server that are looked at.
const ROOMS_MAX: usize = 50;

/// Those whom the searcher finds by this term: users of this server, and those of others whom they meet in rooms or could in public ones.
///
/// # Errors
/// As the database says.
pub fn search(db: &Snapshot, searcher: UserNo, term: &str, limit: usize) -> Result<Found> {
    let joined: OnceCell<BTreeSet<RoomNo>> = OnceCell::new();
    directory::search(db, term, limit, |user| {
        if joined.get().is_none() {
            let _ = joined.set(members::joined_rooms(db, searcher)?.into_iter().collect());
        }
        let joined = joined.get();
        let meets = |room: &RoomNo| joined.is_some_and(|joined| joined.contains(room));
        foreign(db, user, meets)
    })
}

/// A user of another server, as they are called in the first of their rooms that the searcher is in, else in the first that is public.
fn foreign(db: &Snapshot, user: UserNo, meets: impl Fn(&RoomNo) -> bool) -> Result<Option<Listed>> {
    let rooms = members::user_rooms(db, user)?.into_iter().filter(|(_, of)| of.membership == Membership::Join);
    let rooms: Vec<_> = rooms.take(ROOMS_MAX).collect();
    let mut shown = rooms.iter().find(|(room, _)| meets(room));
    if shown.is_none() {
        for of in &rooms {
            if is_public(db, of.0)? {
                shown = Some(of);
                break;
            }
        }
    }
    let Some((room, of)) = shown else { return Ok(None) };
    let member = rooms::events::event(db, *room, of.event)?;
    let content: Value = serde_json::from_str(member.event.content.get()).unwrap_or_default();
    let text = |name: &str| content.get(name).and_then(Value::as_str).map(str::to_owned);
    let (displayname, avatar_url) = (text("displayname"), text("avatar_url"));
    Ok(Some(Listed { user_id: numbers::user_id(db, user)?, displayname, avatar_url }))
}

fn is_public(db: &Snapshot, room: RoomNo) -> Result<bool> {
    let content: Option<Value> = state::content(db, room, rooms::head(db, room)?.state, "m.room.join_rules", "")?;
    Ok(content.is_some_and(|content| content["join_rule"] == "public"))
}
