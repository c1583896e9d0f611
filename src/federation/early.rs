//! Events of rooms that a user is just entering. The servers of a room count this one among them from when they have the join, and tell it what
//! follows; this one has no room to put it into before it has read the answer. Nobody would tell it again.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use protocol::parse::RawPdu;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde_json::value::RawValue;

use crate::staged::{STAGED_MAX, STAGED_OF_ONE_MAX};

/// An event that came.
struct Sent {
    origin: OwnedServerName,
    depth: u64,
    pdu: Box<RawValue>,
}

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
    pub(crate) fn keep(&self, origin: &ServerName, room: &RoomId, pdus: &[(RawPdu, Box<RawValue>)]) -> bool {
        let mut rooms = self.0.lock();
        let Some(kept) = rooms.get_mut(room) else { return false };
        for (raw, pdu) in pdus {
            // Of many the last lead to those before them.
            if kept.iter().filter(|sent| sent.origin == origin).count() >= STAGED_OF_ONE_MAX
                && let Some(oldest) = kept.iter().position(|sent| sent.origin == origin)
            {
                kept.remove(oldest);
            }
            if kept.len() < STAGED_MAX {
                kept.push(Sent { origin: origin.to_owned(), depth: raw.depth().unwrap_or(0), pdu: pdu.clone() });
            }
        }
        true
    }
}

impl Arriving<'_> {
    /// What came meanwhile of what follows a join of this depth, each event with the server that sent it. What is no deeper is from before the join: who reads
    /// the room's history finds it there, in its place. Nothing is kept any more, for what comes now finds the room.
    pub(crate) fn end(self, depth: u64) -> impl Iterator<Item = (OwnedServerName, Box<RawValue>)> {
        let kept = self.early.0.lock().remove(&self.room).unwrap_or_default();
        kept.into_iter().filter(move |sent| sent.depth > depth).map(|sent| (sent.origin, sent.pdu))
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

    fn event(text: &str) -> (RawPdu, Box<RawValue>) {
        (RawPdu::from_bytes(text.as_bytes()).unwrap(), RawValue::from_string(text.to_owned()).unwrap())
    }

    #[test]
    fn of_many_events_of_one_server_the_last_are_kept_while_the_room_is_entered() {
        let (early, room) = (Early::default(), <&RoomId>::try_from("!room:one.test").unwrap());
        let events: Vec<_> = (0..STAGED_MAX).map(|depth| event(&format!(r#"{{"depth":{depth}}}"#))).collect();
        let keep = |server: &str| early.keep(server.try_into().unwrap(), room, &events);
        assert!(!keep("evil.test"));
        let arriving = early.begin(room);
        for number in 0..10 {
            assert!(keep(&format!("evil{number}.test")));
        }
        let kept: Vec<_> = arriving.end(0).collect();
        assert_eq!(kept.len(), STAGED_MAX);
        let last: Vec<&str> = kept.iter().filter(|(server, _)| server == "evil0.test").map(|(_, event)| event.get()).collect();
        assert_eq!(
            (last.len(), last.first(), last.last()),
            (STAGED_OF_ONE_MAX, Some(&r#"{"depth":80}"#), Some(&r#"{"depth":99}"#))
        );
        assert!(!keep("evil.test"));
    }

    #[test]
    fn what_is_from_before_the_join_is_left_to_the_history() {
        let (early, room) = (Early::default(), <&RoomId>::try_from("!room:one.test").unwrap());
        let arriving = early.begin(room);
        for text in [r#"{"depth":7}"#, r#"{"depth":8}"#, r#"{"depth":9}"#, r#"{"depth":-1}"#, "{}"] {
            early.keep("one.test".try_into().unwrap(), room, &[event(text)]);
        }
        let kept: Vec<String> = arriving.end(8).map(|(_, event)| event.get().to_owned()).collect();
        assert_eq!(kept, [r#"{"depth":9}"#]);
    }
}
