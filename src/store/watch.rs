//! Who waits for what. Wake-ups derive from the keys of a commit, never from the code that wrote them.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{RoomNo, Seq, UserNo};

/// Something that can change and be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Any row of this room that [`crate::Table::wakes`].
    Room(RoomNo),
    /// Any row of this user that [`crate::Table::wakes`].
    User(UserNo),
    /// Who is online, of all users. Too much to wait for: those who share a room are [woken](crate::Tx::wake) there.
    Presence,
    /// What other servers are to be told.
    Outgoing,
}

/// Topics remembered with the commit that last changed them. Beyond this the oldest knowledge is dropped, and what is
/// not known counts as changed.
const REMEMBERED_MAX: usize = 1 << 20;

/// All waiting, and when each topic last changed.
pub(crate) struct Watches {
    state: Mutex<State>,
}

struct State {
    topics: HashMap<Topic, Entry>,
    /// Topics that are not in the map last changed at or before this.
    floor: Seq,
}

struct Entry {
    changed: Seq,
    waiting: Vec<Arc<Notify>>,
}

impl Watches {
    /// Nothing waits; all may have changed up to `floor`.
    pub(crate) fn new(floor: Seq) -> Self {
        Self { state: Mutex::new(State { topics: HashMap::new(), floor }) }
    }

    /// Notes that these changed. Called before the commit is published, so that nobody reads an unchanged mark beside
    /// a changed row.
    pub(crate) fn mark(&self, topics: &[Topic], seq: Seq) {
        let mut state = self.state.lock();
        for topic in topics {
            let floor = state.floor;
            let entry = state.topics.entry(*topic).or_insert(Entry { changed: floor, waiting: Vec::new() });
            entry.changed = seq;
        }
        if state.topics.len() > REMEMBERED_MAX {
            state.floor = seq;
            state.topics.retain(|_, entry| !entry.waiting.is_empty());
        }
    }

    /// Wakes who waits for these. Called after the commit is published.
    pub(crate) fn wake(&self, topics: &[Topic]) {
        let state = self.state.lock();
        for entry in topics.iter().filter_map(|topic| state.topics.get(topic)) {
            entry.waiting.iter().for_each(|waiter| waiter.notify_one());
        }
    }

    pub(crate) fn changed_since(&self, since: Seq, topics: impl IntoIterator<Item = Topic>) -> Vec<Topic> {
        let state = self.state.lock();
        let changed = |topic: &Topic| state.topics.get(topic).map_or(state.floor, |entry| entry.changed) > since;
        topics.into_iter().filter(changed).collect()
    }
}

/// Waits for a change of any of its topics since it was made.
pub struct Watch {
    notify: Arc<Notify>,
    topics: Vec<Topic>,
    watches: Arc<Watches>,
}

impl Watch {
    pub(crate) fn new(watches: Arc<Watches>, topics: Vec<Topic>) -> Self {
        let notify = Arc::new(Notify::new());
        let mut state = watches.state.lock();
        let floor = state.floor;
        for topic in &topics {
            let entry = state.topics.entry(*topic).or_insert(Entry { changed: floor, waiting: Vec::new() });
            entry.waiting.push(Arc::clone(&notify));
        }
        drop(state);
        Self { notify, topics, watches }
    }

    /// Returns once something changed after the watch was made, or after the last call returned.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.watches.state.lock();
        for topic in &self.topics {
            if let Some(entry) = state.topics.get_mut(topic) {
                entry.waiting.retain(|waiter| !Arc::ptr_eq(waiter, &self.notify));
            }
        }
    }
}
