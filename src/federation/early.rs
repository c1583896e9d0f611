//! Events of rooms that a user is just entering. The servers of a room count this one among them from when they have the join, and tell it what
//! follows; this one has no room to put it into before it has read the answer. Nobody would tell it again.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde_json::value::RawValue;

use crate::staged::{STAGED_MAX, STAGED_OF_ONE_MAX};

/// The server that sent an event, and the event.
type Sent = (OwnedServerName, Box<RawValue>);

/// What came of the rooms that are being entered.
#[derive(Default)]
pub(crate) struct Early(Mutex<BTreeMap<OwnedRoomId, Vec<Sent>>>);

/// A room that is being entered: what comes of it is kept for as long as this lives.
pub(crate) struct Arriving<'a> {
    early: &'a Early,
    room: OwnedRoomId,
}

impl Early {
    /// A room is being entered from now on. One user does so at a time.
    pub(crate) fn begin(&self, room: &RoomId) -> Arriving<'_> {
        self.0.lock().insert(room.to_owned(), Vec::new());
        Arriving { early: self, room: room.to_owned() }
    }

    /// Keeps events of a room that is being entered. Returns whether it is.
    pub(crate) fn keep<'p>(&self, origin: &ServerName, room: &RoomId, pdus: impl IntoIterator<Item = &'p RawValue>) -> bool {
        let mut rooms = self.0.lock();
        let Some(kept) = rooms.get_mut(room) else { return false };
        for pdu in pdus {
            // Of many the last lead to those before them.
            if kept.iter().filter(|(sender, _)| sender == origin).count() >= STAGED_OF_ONE_MAX
                && let Some(oldest) = kept.iter().position(|(sender, _)| sender == origin)
            {
                kept.remove(oldest);
            }
            if kept.len() < STAGED_MAX {
                kept.push((origin.to_owned(), pdu.to_owned()));
            }
        }
        true
    }
}

impl Arriving<'_> {
    /// What came meanwhile. Nothing is kept any more: what comes now finds the room.
    pub(crate) fn end(self) -> Vec<Sent> {
        let kept = self.early.0.lock().remove(&self.room);
        kept.unwrap_or_default()
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.early.0.lock().remove(&self.room);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn of_many_events_of_one_server_the_last_are_kept_while_the_room_is_entered() {
        let (early, room) = (Early::default(), <&RoomId>::try_from("!room:one.test").unwrap());
        let events: Vec<Box<RawValue>> =
            (0..STAGED_MAX).map(|number| RawValue::from_string(number.to_string()).unwrap()).collect();
        let keep = |server: &str| early.keep(server.try_into().unwrap(), room, events.iter().map(|event| &**event));
        assert!(!keep("evil.test"));
        let arriving = early.begin(room);
        for number in 0..10 {
            assert!(keep(&format!("evil{number}.test")));
        }
        let kept = arriving.end();
        assert_eq!(kept.len(), STAGED_MAX);
        let last: Vec<&str> = kept.iter().filter(|(server, _)| server == "evil0.test").map(|(_, event)| event.get()).collect();
        assert_eq!((last.len(), last.first(), last.last()), (STAGED_OF_ONE_MAX, Some(&"80"), Some(&"99")));
        assert!(!keep("evil.test"));
    }
}
