//! A room of alice, here, and bob, of another server that has a copy of it.

use protocol::{
    parse::RawPdu,
    verify::{Validity, Verified, VerifyKey},
};
use ruma::{EventId, OwnedEventId, ServerName};

use super::*;
use crate::receive::{self, Outcome};

/// The room on both servers, which tell each other nothing by themselves.
pub(super) struct Shared {
    pub here: World,
    pub there: World,
    /// With her number here.
    pub alice: Sender,
    /// With his number there.
    pub bob: Sender,
    /// The room here.
    pub room: RoomNo,
    /// The copy there.
    pub copy: RoomNo,
    version: &'static RoomVersion,
}

/// The keys of both servers.
pub(super) fn key(server: &ServerName, _: &str) -> Option<VerifyKey> {
    let seed = match server.as_str() {
        "localhost" => 7,
        "other.org" => 9,
        _ => return None,
    };
    let key = SigningKey::from_seed("1", &[seed; 32]).unwrap().public();
    Some(VerifyKey { key, validity: Validity::Until(u64::MAX) })
}

/// An event that a server has, as another gets it.
pub(super) fn verified(by: &World, id: &EventId, version: &'static RoomVersion) -> Verified {
    let db = by.store.snapshot();
    let (room, no) = events::find(&db, id).unwrap().unwrap();
    let json = events::event(&db, room, no).unwrap().event.json.clone();
    RawPdu::from_bytes(json.as_bytes()).unwrap().parse(version).unwrap().verify(key).unwrap()
}

impl Shared {
    pub fn new(version_id: &str) -> Self {
        let (here, there) = (World::new(), World::of("other.org", 9));
        let alice = here.user("alice");
        let (room, _) = here.room(&alice, version_id, Preset::PublicChat);
        let bob = OwnedUserId::try_from("@bob:other.org").unwrap();
        let number = |world: &World| Sender { no: users::numbers::ensure(&world.store, &bob).unwrap(), id: bob.clone() };
        let join = Change { target: bob.clone(), to: Action::Join, content: Object::new() };
        membership::change(&here.store, &there.identity, &number(&here), room, join, 3000).unwrap().wait().unwrap();
        let bob = number(&there);
        let version = RoomVersion::named(version_id).unwrap();
        let mut shared = Self { here, there, alice, bob, room, copy: RoomNo(0), version };
        let ids = shared.ids();
        let create = shared.sent(&shared.here, &ids[0]);
        shared.copy = receive::import(&shared.there.store, create, version).unwrap().wait().unwrap();
        for id in &ids {
            assert!(matches!(shared.give(id), Outcome::Accepted(_)));
        }
        shared
    }

    /// All events of the room here that are shown.
    pub fn ids(&self) -> Vec<OwnedEventId> {
        let db = self.here.store.snapshot();
        let all = timeline::read(&db, self.room, Direction::Forward, Pos(i64::MIN), None).unwrap();
        all.map(|placed| placed.unwrap().stored.header.id.clone()).collect()
    }

    /// An event of a server's copy as the other gets it.
    pub fn sent(&self, by: &World, id: &EventId) -> Verified {
        verified(by, id, self.version)
    }

    /// Gives the other server an event of this one.
    pub fn give(&self, id: &EventId) -> Outcome {
        receive::receive(&self.there.store, self.copy, self.sent(&self.here, id)).unwrap().wait().unwrap()
    }

    /// Gives this server an event of the other.
    pub fn take(&self, id: &EventId) -> Outcome {
        receive::receive(&self.here.store, self.room, self.sent(&self.there, id)).unwrap().wait().unwrap()
    }

    /// Gives the other server an event of this one whose parents it lacks, with the state before it.
    pub fn give_with_state(&self, id: &EventId) -> Outcome {
        let db = self.here.store.snapshot();
        let (_, stored) = events::by_id(&db, self.room, id).unwrap().unwrap();
        let state = state::all(&db, self.room, stored.header.before).unwrap();
        let before: Vec<OwnedEventId> =
            state.into_iter().map(|no| events::event(&db, self.room, no).unwrap().header.id.clone()).collect();
        let sent = self.sent(&self.here, id);
        receive::receive_with_state(&self.there.store, self.copy, sent, &before).unwrap().wait().unwrap()
    }

    /// The other server's copy of an event.
    pub fn copy_of(&self, id: &EventId) -> Arc<events::StoredEvent> {
        events::by_id(&self.there.store.snapshot(), self.copy, id).unwrap().unwrap().1
    }

    /// What bob sends there.
    pub fn bob_sends(&self, new: NewEvent) -> OwnedEventId {
        send::send(&self.there.store, &self.there.identity, &self.bob, self.copy, new, None, 5000).unwrap().wait().unwrap()
    }

    /// What alice sends here.
    pub fn alice_sends(&self, new: NewEvent) -> OwnedEventId {
        send::send(&self.here.store, &self.here.identity, &self.alice, self.room, new, None, 5000).unwrap().wait().unwrap()
    }
}

/// A state event.
pub(super) fn state_event(kind: &str, key: &str, content: serde_json::Value) -> NewEvent {
    NewEvent::state(kind, key, content.as_object().unwrap().clone())
}
