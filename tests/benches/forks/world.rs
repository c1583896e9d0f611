//! A store in memory, with rooms of any size.

use protocol::{keys::SigningKey, version::RoomVersion};
use rooms::{
    Identity, NewEvent, Sender,
    create::{self, NewRoom, Preset},
    membership::{self, Action, Change},
    send,
};
use ruma::{OwnedUserId, server_name};
use serde_json::{Map, json};
use store::{RoomNo, Store, TableSpec};

/// What a server has by default (`memory` of the configuration).
const MEMORY_BYTES: usize = 128 << 20;
pub const NOW_MS: u64 = 1_700_000_000_000;

/// A server without HTTP and without a disk.
pub struct World {
    pub store: Store,
    pub identity: Identity,
    rooms: u32,
}

impl World {
    pub fn new() -> Self {
        let key = SigningKey::from_seed("1", &[7; 32]).unwrap();
        let tables: Vec<&'static TableSpec> = users::TABLES.iter().chain(rooms::TABLES).copied().collect();
        let identity = Identity { server_name: server_name!("localhost").to_owned(), key };
        Self { store: Store::in_memory_with("localhost", &tables, MEMORY_BYTES).unwrap(), identity, rooms: 0 }
    }

    pub fn user(&self, name: &str) -> Sender {
        let id = OwnedUserId::try_from(format!("@{name}:localhost")).unwrap();
        Sender { no: users::numbers::ensure(&self.store, &id).unwrap(), id }
    }

    /// A public room of this many members, its creator among them.
    pub fn room(&mut self, creator: &Sender, members: u32) -> RoomNo {
        self.rooms += 1;
        let new = NewRoom {
            version: RoomVersion::named("12").unwrap(),
            preset: Preset::PublicChat,
            creation_content: Map::new(),
            initial_state: Vec::new(),
            name: Some("The room".into()),
            topic: None,
            invite: Vec::new(),
            is_direct: false,
            power_levels: Map::new(),
            alias: None,
            public: false,
            profile: Map::new(),
            opaque_id: format!("room{}", self.rooms),
        };
        let id =
            create::create(&self.store, &self.identity, creator, new, NOW_MS + u64::from(self.rooms)).unwrap().wait().unwrap();
        let room = rooms::numbers::number(&self.store.snapshot(), &id).unwrap().unwrap();
        for member in 1..members {
            let member = self.user(&format!("member{member}"));
            let change = Change { target: member.id.clone(), to: Action::Join, content: Map::new() };
            membership::change(&self.store, &self.identity, &member, room, change, NOW_MS).unwrap().soft();
        }
        room
    }

    pub fn send(&self, sender: &Sender, room: RoomNo, new: NewEvent) {
        send::send(&self.store, &self.identity, sender, room, new, None, NOW_MS).unwrap().soft();
    }

    /// Waits until all that was written is published.
    pub fn settle(&self, sender: &Sender, room: RoomNo) {
        send::send(&self.store, &self.identity, sender, room, message(0), None, NOW_MS).unwrap().wait().unwrap();
    }
}

/// A message.
pub fn message(number: u64) -> NewEvent {
    let content = json!({ "msgtype": "m.text", "body": format!("message {number}") }).as_object().unwrap().clone();
    NewEvent { kind: "m.room.message".into(), content, ..NewEvent::default() }
}
