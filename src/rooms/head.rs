//! The moving end of a room: forward extremities, current state, counters. One row a room, read once by each write.

use std::sync::Arc;

use protocol::{event::Event, version::RoomVersion};
use serde::{Deserialize, Serialize};
use store::{Lock, Owner, Pending, Read, RoomNo, Store, Table, Tx};

use crate::{Error, EventNo, Pos, Result, numbers, numbers::Room, partial, state, state::Root};

pub(crate) static HEADS: Table<RoomNo, Head> =
    Table::new("heads", "The moving end of a room: extremities, current state, counters.").owned_by(Owner::Room);

/// The moving end of a room.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Head {
    /// The events that no other names as its parent yet.
    pub extremities: Vec<EventNo>,
    /// The greatest depth among them.
    pub depth: u64,
    /// The room's current state: after all of them.
    pub state: Root,
    /// The place of the newest event in the timeline.
    pub last: Pos,
    /// The place of the oldest event in the timeline from before the server joined; 0 where there is none.
    pub(crate) first: Pos,
    /// Users who are joined.
    pub joined: u32,
    /// Users who are invited.
    pub invited: u32,
    /// The last event number drawn.
    pub(crate) events: u32,
    /// The last state node number drawn.
    pub(crate) nodes: u32,
    /// The last number of a type of state drawn.
    pub(crate) types: u32,
    /// The last number of a state key drawn.
    pub(crate) keys: u32,
    /// The last number of a chain of the event DAG drawn.
    pub(crate) dag_chains: u32,
    /// The last number of a chain of auth events drawn.
    pub(crate) auth_chains: u32,
}

/// The moving end of a room.
///
/// # Errors
/// [`Error::UnknownRoom`].
pub fn head(db: &impl Read, room: RoomNo) -> Result<Head> {
    db.get(&HEADS, &room)?.ok_or(Error::UnknownRoom)
}

/// A room within a transaction that holds its lock.
pub(crate) struct OpenRoom<'t, 's> {
    pub tx: &'t mut Tx<'s>,
    pub no: RoomNo,
    pub room: Arc<Room>,
    pub version: &'static RoomVersion,
    pub head: Head,
    /// Whether its states lack members, so that events are believed about those whom they cite.
    pub partial: bool,
    /// Events that this transaction appended.
    appended: u16,
}

impl<'t, 's> OpenRoom<'t, 's> {
    /// Opens a room that exists.
    pub fn new(tx: &'t mut Tx<'s>, no: RoomNo) -> Result<Self> {
        let (room, head) = (numbers::room(tx, no)?, head(tx, no)?);
        Self::with(tx, no, room, head)
    }

    /// Opens a room whose number this transaction drew.
    pub fn created(tx: &'t mut Tx<'s>, no: RoomNo) -> Result<Self> {
        let room = numbers::room(tx, no)?;
        Self::with(tx, no, room, Head::default())
    }

    fn with(tx: &'t mut Tx<'s>, no: RoomNo, room: Arc<Room>, head: Head) -> Result<Self> {
        let version = room.version()?;
        let partial = partial::is_partial(tx, no)?;
        Ok(Self { tx, no, room, version, head, partial, appended: 0 })
    }

    /// The place in the timeline of the next event that this transaction appends.
    pub fn next_pos(&mut self) -> Result<Pos> {
        let pos = Pos::new(self.tx.seq(), self.appended).ok_or(Error::Invalid("too many events at once"))?;
        self.appended += 1;
        Ok(pos)
    }

    /// The event of this type and key in the current state.
    pub fn state_event(&self, kind: &str, key: &str) -> Result<Option<Arc<Event>>> {
        Ok(state::event(self.tx, self.no, self.head.state, kind, key)?.map(|stored| Arc::clone(&stored.event)))
    }

    /// Calls `judge` with a state as the protocol's functions ask for it.
    pub fn with_state<T>(&self, root: Root, judge: impl FnOnce(&dyn Fn(&str, &str) -> Option<Arc<Event>>) -> T) -> Result<T> {
        state::with_events(self.tx, self.no, root, judge)
    }

    /// Stores the moved end.
    pub fn save(self) -> Result<()> {
        self.tx.put(&HEADS, &self.no, &self.head)?;
        Ok(())
    }
}

/// Changes a room that exists in a transaction that holds its lock, and stores its moved end.
pub(crate) fn change<T>(
    store: &Store,
    room: RoomNo,
    change: impl FnOnce(&mut OpenRoom<'_, '_>) -> Result<T>,
) -> Result<Pending<T>> {
    store.transact(&[Lock::Room(room)], |tx| {
        let mut open = OpenRoom::new(tx, room)?;
        let changed = change(&mut open)?;
        open.save()?;
        Ok(changed)
    })
}
