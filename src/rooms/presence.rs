//! Whom a change of presence is told to: those who share a room with the user.
//!
//! Specification: client-server API, "Presence".

use store::{Lock, Pending, Store, Topic, UserNo};
use users::presence::{self, Online};

use crate::{Result, head, members};

/// The members of a room who are woken by each change. In a larger room somebody always comes or goes: there a change is told by the next
/// sync that ends for another reason, which with many changes costs much less than to wake everybody for each.
pub const WOKEN_MAX: u32 = 200;

/// Stores how a user is now, where that is not what others see already, and wakes them. `status`: the message to set or unset. It may be
/// lost in a crash, after which everybody is gone.
///
/// # Errors
/// As the database says.
pub fn publish(store: &Store, online: &Online, user: UserNo, status: Option<Option<String>>, now_ms: u64) -> Result<Pending<()>> {
    store.transact(&[Lock::User(user)], |tx| {
        let mut audience = Vec::new();
        for room in members::joined_rooms(tx, user)? {
            if head(tx, room)?.joined <= WOKEN_MAX {
                audience.push(room);
            }
        }
        if presence::put(tx, online, user, status, now_ms)? {
            audience.into_iter().for_each(|room| tx.wake(Topic::Room(room)));
        }
        Ok(())
    })
}

/// Shows as idle or gone whom time made so. Returns how many they were.
///
/// # Errors
/// As the database says.
pub fn refresh(store: &Store, online: &Online, now_ms: u64) -> Result<usize> {
    online.recover(&store.snapshot(), now_ms)?;
    let due = online.due(now_ms);
    for user in &due {
        publish(store, online, *user, None, now_ms)?.soft();
    }
    Ok(due.len())
}
