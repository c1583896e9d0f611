//! The locks of rooms and users. A transaction takes all of its locks at once, in one fixed order, so that no two wait
//! for each other.

use parking_lot::{Mutex, MutexGuard};

use crate::{RoomNo, UserNo};

/// What a transaction may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lock {
    /// The rows of a user.
    User(UserNo),
    /// The rows of a room.
    Room(RoomNo),
}

/// Locks are striped: numbers that share a stripe wait for each other, and memory stays bounded.
const STRIPES: usize = 1024;

/// All locks of a store.
pub(crate) struct Locks {
    stripes: Vec<Mutex<()>>,
}

impl Locks {
    pub(crate) fn new() -> Self {
        Self { stripes: (0..2 * STRIPES).map(|_| Mutex::new(())).collect() }
    }

    /// Waits for all of `wanted`.
    pub(crate) fn acquire(&self, wanted: &[Lock]) -> Vec<MutexGuard<'_, ()>> {
        let mut stripes: Vec<usize> = wanted.iter().map(|lock| stripe(*lock)).collect();
        stripes.sort_unstable();
        stripes.dedup();
        stripes.into_iter().map(|stripe| self.stripes[stripe].lock()).collect()
    }
}

fn stripe(lock: Lock) -> usize {
    match lock {
        Lock::User(user) => user.0 as usize % STRIPES,
        Lock::Room(room) => STRIPES + room.0 as usize % STRIPES,
    }
}
