//! Purging: a room goes with all that is stored of it, in bounded writes that are taken up again where they were cut off.
//!
//! First the rows of this server's users go, so that no sync finds a room there that is not. Then the room is closed: from that commit
//! on it is not known, and nothing is written to it. Then go the rows of the other users and those that its events are found by, and at
//! last, at the cost of one row each, all tables that rooms own.

use ruma::{OwnedRoomId, RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use store::{Lead, Lock, Owner, Range, Read, RoomNo, Snapshot, Store, Table, Tx, UserNo};
use users::{account_data, numbers as user_numbers};

use crate::{
    Error, EventNo, Result, TABLES, aliases, directory,
    events::{self, EVENTS, StoredEvent},
    head::HEADS,
    members::{self, MEMBERS, Membership, USER_ROOMS},
    numbers::{self, ROOM_NOS, ROOMS},
    outgoing, receipts, remote, send, state, typing, unread,
};

pub(crate) static PURGES: Table<RoomNo, Stage> =
    Table::new("purges", "The rooms that are being purged, and how far that has come.").owned_by(Owner::Room);

/// The most users or events whose rows one step removes.
const STEP_MAX: usize = 1_000;

/// How far a purge has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// The rows of this server's users up to this one are gone.
    Local(String),
    /// The room is closed, and the rows of all users up to this one are gone.
    Users { room: OwnedRoomId, after: String },
    /// So are the rows that the events up to this one are found by.
    Events { room: OwnedRoomId, after: EventNo },
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do; so many users or events were dealt with.
    More(usize),
    /// The room is gone.
    Done,
}

/// Begins to purge a room, or takes up a purge that was begun. [`step`] does the rest.
///
/// # Errors
/// [`Error::UnknownRoom`], [`Error::Forbidden`] while a user of this server is in the room or invited.
pub fn begin(store: &Store, server: &ServerName, room: &RoomId) -> Result<RoomNo> {
    let no = numbers::number(&store.snapshot(), room)?.ok_or(Error::UnknownRoom)?;
    let begin = |tx: &mut Tx<'_>| -> Result<()> {
        if tx.contains(&PURGES, &no)? {
            return Ok(());
        }
        numbers::room(tx, no)?;
        refuse_local_members(tx, server, no)?;
        Ok(tx.put(&PURGES, &no, &Stage::Local(String::new()))?)
    };
    store.transact(&[Lock::Room(no)], begin)?.wait()?;
    Ok(no)
}

/// The rooms whose purge was begun and has not come to its end.
///
/// # Errors
/// As the database says.
pub fn begun(db: &impl Read) -> Result<Vec<RoomNo>> {
    Ok(db.range(&PURGES, Range::of(&()))?.map(|row| row.map(|(room, _)| room)).collect::<store::Result<_>>()?)
}

/// Goes on with a purge, with one write.
///
/// # Errors
/// [`Error::Forbidden`] where a user of this server came into the room meanwhile: the purge is given up then.
pub fn step(store: &Store, server: &ServerName, room: RoomNo) -> Result<Step> {
    let db = store.snapshot();
    match db.get(&PURGES, &room)? {
        None => Ok(Step::Done),
        Some(Stage::Local(after)) => {
            let users = users_after(&db, room, &after, |user| user.server_name() == server)?;
            match users.last() {
                Some((last, _)) => forget_users(store, room, &users, Stage::Local(last.clone())),
                None => close(store, server, room),
            }
        }
        Some(Stage::Users { room: id, after }) => {
            let users = users_after(&db, room, &after, |_| true)?;
            let reached = match users.last() {
                Some((last, _)) => Stage::Users { room: id, after: last.clone() },
                None => Stage::Events { room: id, after: EventNo(0) },
            };
            forget_users(store, room, &users, reached)
        }
        Some(Stage::Events { room: id, after }) => {
            let rows = db.range(&EVENTS, Range::of(&Lead((room,))).after(&(room, after)))?.take(STEP_MAX);
            let events: Vec<((RoomNo, EventNo), StoredEvent)> = rows.collect::<store::Result<_>>()?;
            match events.last() {
                Some(((_, last), _)) => forget_events(store, room, &events, Stage::Events { room: id, after: *last }),
                None => finish(store, room, &id),
            }
        }
    }
}

/// Those of the wanted users who ever were a member of the room in any way, in order of their ids.
fn users_after(db: &Snapshot, room: RoomNo, after: &str, wanted: impl Fn(&UserId) -> bool) -> Result<Vec<(String, UserNo)>> {
    let mut users = Vec::new();
    for id in state::keys_after(db, room, "m.room.member", after)? {
        let id = id?;
        if let Ok(user) = <&UserId>::try_from(id.as_str())
            && wanted(user)
            && let Some(no) = user_numbers::number(db, user)?
        {
            users.push((id, no));
        }
        if users.len() == STEP_MAX {
            break;
        }
    }
    Ok(users)
}

fn forget_users(store: &Store, room: RoomNo, users: &[(String, UserNo)], reached: Stage) -> Result<Step> {
    let locks: Vec<Lock> = std::iter::once(Lock::Room(room)).chain(users.iter().map(|(_, user)| Lock::User(*user))).collect();
    let is_closed = !matches!(reached, Stage::Local(_));
    let forget = |tx: &mut Tx<'_>| -> Result<()> {
        for (_, user) in users {
            // Who came into the room since will end the purge.
            if is_closed || !tx.contains(&MEMBERS, &(room, *user))? {
                forget_user(tx, room, *user)?;
            }
        }
        Ok(tx.put(&PURGES, &room, &reached)?)
    };
    store.transact(&locks, forget)?.wait()?;
    Ok(Step::More(users.len()))
}

fn forget_user(tx: &mut Tx<'_>, room: RoomNo, user: UserNo) -> Result<()> {
    tx.delete(&USER_ROOMS, &(user, room))?;
    tx.delete(&remote::REMOTE, &(user, room))?;
    tx.delete(&unread::TALLIES, &(user, room))?;
    receipts::forget(tx, room, user)?;
    Ok(account_data::forget_room(tx, user, room)?)
}

/// Makes the room unknown, unless a user has come meanwhile.
fn close(store: &Store, server: &ServerName, room: RoomNo) -> Result<Step> {
    let close = |tx: &mut Tx<'_>| -> Result<bool> {
        if let Err(refused) = refuse_local_members(tx, server, room) {
            tx.delete(&PURGES, &room)?;
            return if matches!(refused, Error::Forbidden(_)) { Ok(false) } else { Err(refused) };
        }
        if came_meanwhile(tx, server, room)? {
            tx.put(&PURGES, &room, &Stage::Local(String::new()))?;
            return Ok(true);
        }
        aliases::forget(tx, room)?;
        directory::withdraw(tx, room)?;
        typing::forget(tx, room)?;
        let id = numbers::room(tx, room)?.id.clone();
        tx.delete(&ROOMS, &room)?;
        tx.delete(&HEADS, &room)?;
        tx.put(&PURGES, &room, &Stage::Users { room: id, after: String::new() })?;
        Ok(true)
    };
    match store.transact(&[Lock::Room(room)], close)?.wait()? {
        true => Ok(Step::More(0)),
        false => Err(LOCAL_MEMBERS),
    }
}

/// Whether a user of this server was in the room since their rows were removed, and left it again.
fn came_meanwhile(db: &impl Read, server: &ServerName, room: RoomNo) -> Result<bool> {
    for id in state::keys_after(db, room, "m.room.member", "")? {
        if let Ok(user) = <&UserId>::try_from(id?.as_str())
            && user.server_name() == server
            && let Some(no) = user_numbers::number(db, user)?
            && db.contains(&USER_ROOMS, &(no, room))?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

const LOCAL_MEMBERS: Error = Error::Forbidden("a user of this server is in the room or invited");

fn refuse_local_members(db: &impl Read, server: &ServerName, room: RoomNo) -> Result<()> {
    for member in members::members(db, room)? {
        let (user, membership) = member?;
        let is_in = matches!(membership, Membership::Join | Membership::Invite);
        if is_in && user_numbers::user_id(db, user)?.server_name() == server {
            return Err(LOCAL_MEMBERS);
        }
    }
    Ok(())
}

fn forget_events(store: &Store, room: RoomNo, events: &[((RoomNo, EventNo), StoredEvent)], reached: Stage) -> Result<Step> {
    let forget = |tx: &mut Tx<'_>| -> Result<()> {
        for ((_, no), stored) in events {
            if events::find(tx, &stored.header.id)? == Some((room, *no)) {
                tx.delete(&events::EVENT_NOS, &stored.header.id.as_str())?;
            }
            if let Some(pos) = stored.header.pos {
                tx.delete(&outgoing::OUTGOING, &(pos, room))?;
            }
            send::forget(tx, room, &stored.header)?;
            members::forget_name(tx, &stored.event)?;
        }
        Ok(tx.put(&PURGES, &room, &reached)?)
    };
    store.transact(&[Lock::Room(room)], forget)?.wait()?;
    Ok(Step::More(events.len()))
}

fn finish(store: &Store, room: RoomNo, id: &RoomId) -> Result<Step> {
    let owned = || TABLES.iter().filter(|table| table.owner == Owner::Room);
    let erase = |tx: &mut Tx<'_>| -> store::Result<()> {
        owned().try_for_each(|table| tx.erase(table, room))?;
        tx.delete(&ROOM_NOS, &id.as_str())
    };
    store.transact(&[Lock::Room(room)], erase)?.wait()?;
    store.compact(room, TABLES)?;
    Ok(Step::Done)
}
