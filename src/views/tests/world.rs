//! What the tests of this layer have in common.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use protocol::{json::Object, keys::SigningKey, version::RoomVersion};
use rooms::{
    Identity, NewEvent, Sender,
    create::{self, NewRoom, Preset},
    membership,
    membership::{Action, Change},
    send, state,
};
use ruma::{OwnedUserId, api::client::filter::FilterDefinition, server_name};
use serde_json::{Value, json};
use store::{RoomNo, Store, TableSpec};
use users::devices::DeviceNo;

use crate::{
    Memory,
    sync::{Who, state::Target, v3},
};

pub struct World {
    pub store: Store,
    pub memory: Memory,
    identity: Identity,
}

impl World {
    pub fn new() -> Self {
        let tables: Vec<&'static TableSpec> = users::TABLES.iter().chain(rooms::TABLES).copied().collect();
        let identity =
            Identity { server_name: server_name!("localhost").to_owned(), key: SigningKey::from_seed("1", &[7; 32]).unwrap() };
        let store = Store::in_memory("localhost", &tables).unwrap();
        Self { memory: Memory::new(store.spare_memory()), store, identity }
    }

    pub fn user(&self, name: &str) -> Sender {
        let id = OwnedUserId::try_from(format!("@{name}:localhost")).unwrap();
        Sender { no: users::numbers::ensure(&self.store, &id).unwrap(), id }
    }

    pub fn room(&self, creator: &Sender, preset: Preset) -> RoomNo {
        let new = NewRoom {
            version: RoomVersion::named("12").unwrap(),
            preset,
            creation_content: Object::new(),
            initial_state: Vec::new(),
            name: None,
            topic: None,
            invite: Vec::new(),
            is_direct: false,
            power_levels: Object::new(),
            alias: None,
            public: false,
            profile: Object::new(),
            opaque_id: "opaque".into(),
        };
        // Rooms of version 12 are told apart by their create event, thus by their time.
        let now_ms = self.store.snapshot().seq().0;
        let id = create::create(&self.store, &self.identity, creator, new, now_ms).unwrap().wait().unwrap();
        rooms::numbers::number(&self.store.snapshot(), &id).unwrap().unwrap()
    }

    pub fn send(&self, who: &Sender, room: RoomNo, new: NewEvent) -> rooms::Result<String> {
        let id = send::send(&self.store, &self.identity, who, room, new, None, self.store.snapshot().seq().0)?;
        Ok(id.wait()?.to_string())
    }

    pub fn say(&self, who: &Sender, room: RoomNo, body: &str) -> rooms::Result<String> {
        let content = object(json!({ "msgtype": "m.text", "body": body }));
        self.send(who, room, NewEvent { kind: "m.room.message".into(), content, ..NewEvent::default() })
    }

    pub fn set(&self, who: &Sender, room: RoomNo, kind: &str, key: &str, content: Value) -> rooms::Result<String> {
        self.send(who, room, NewEvent::state(kind, key, object(content)))
    }

    pub fn change(&self, who: &Sender, room: RoomNo, target: &Sender, to: Action) -> rooms::Result<()> {
        let change = Change { target: target.id.clone(), to, content: Object::new() };
        let now_ms = self.store.snapshot().seq().0;
        Ok(membership::change(&self.store, &self.identity, who, room, change, now_ms)?.wait()?)
    }

    /// The ids of the room's state, by type and key.
    pub fn state(&self, room: RoomNo) -> BTreeMap<(String, String), String> {
        let db = self.store.snapshot();
        let root = rooms::head(&db, room).unwrap().state;
        let events = state::all(&db, room, root).unwrap().into_iter().map(|no| rooms::events::event(&db, room, no).unwrap());
        let pair = |event: &protocol::event::Event| (event.kind.clone(), event.state_key.clone().unwrap());
        events.map(|stored| (pair(&stored.event), stored.event.id.to_string())).collect()
    }

    pub fn id(&self, room: RoomNo) -> String {
        rooms::numbers::room(&self.store.snapshot(), room).unwrap().id.to_string()
    }
}

pub fn object(value: Value) -> Object {
    value.as_object().unwrap().clone()
}

/// A client that keeps what it is told.
pub struct Client {
    pub who: Who,
    pub filter: FilterDefinition,
    pub target: Target,
    pub since: Option<String>,
    pub rooms: BTreeMap<String, Known>,
}

/// What a client knows of a room.
#[derive(Default, Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// `join`, `invite`, `knock` or `leave`.
    pub section: String,
    pub state: BTreeMap<(String, String), String>,
    /// Ids of the timeline since its last gap.
    pub timeline: Vec<String>,
    /// Who sent them.
    pub senders: BTreeSet<String>,
}

impl Client {
    pub fn new(user: &Sender, filter: Value, target: Target) -> Self {
        let who = Who { user: user.no, user_id: user.id.clone(), device: DeviceNo(1), device_id: "PHONE".into() };
        Self { who, filter: serde_json::from_value(filter).unwrap(), target, since: None, rooms: BTreeMap::new() }
    }

    /// A client that asks for everything.
    pub fn plain(user: &Sender) -> Self {
        Self::new(user, json!({ "room": { "timeline": { "limit": 1000 } } }), Target::Start)
    }

    /// One request, whose answer is kept and returned.
    pub fn sync(&mut self, world: &World) -> Value {
        let answer = self.ask(world, false);
        self.keep(&answer);
        answer
    }

    pub fn ask(&self, world: &World, full_state: bool) -> Value {
        let db = world.store.snapshot();
        let request = v3::Request {
            who: self.who.clone(),
            since: self.since.as_deref().map(|since| since.parse().unwrap()),
            filter: self.filter.clone(),
            full_state,
            target: self.target,
        };
        serde_json::to_value(v3::sync(&db, &world.memory, None, &request, 5000).unwrap()).unwrap()
    }

    pub fn keep(&mut self, answer: &Value) {
        self.since = Some(answer["next_batch"].as_str().unwrap().to_owned());
        for section in ["join", "invite", "knock", "leave"] {
            for (id, room) in answer["rooms"][section].as_object().into_iter().flatten() {
                let known = self.rooms.entry(id.clone()).or_default();
                known.section = section.to_owned();
                if section == "join" || section == "leave" {
                    known.update(room, self.target);
                }
            }
        }
    }
}

impl Known {
    fn update(&mut self, room: &Value, target: Target) {
        let (named, absent) = match target {
            Target::Start => ("state", "state_after"),
            Target::End => ("state_after", "state"),
            Target::UnstableEnd => ("org.matrix.msc4222.state_after", "state"),
        };
        assert!(room[absent].is_null() && room[named].is_object(), "one state section: {room}");
        let timeline = events(&room["timeline"]);
        let of_timeline = if target == Target::Start { timeline.as_slice() } else { &[] };
        for event in events(&room[named]).iter().chain(of_timeline) {
            if let Some(key) = event["state_key"].as_str() {
                let pair = (event["type"].as_str().unwrap().to_owned(), key.to_owned());
                self.state.insert(pair, event["event_id"].as_str().unwrap().to_owned());
            }
        }
        if room["timeline"]["limited"] == true {
            self.timeline.clear();
        }
        let ids = timeline.iter().map(|event| event["event_id"].as_str().unwrap().to_owned());
        self.timeline.extend(ids);
        self.senders.extend(timeline.iter().map(|event| event["sender"].as_str().unwrap().to_owned()));
    }
}

pub fn events(section: &Value) -> Vec<Value> {
    section["events"].as_array().cloned().unwrap_or_default()
}
