//! A user who asks for something all the time, remembers what was acknowledged, and finds it again after a crash.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};

use super::Wire;

const PASSWORD: &str = "correct horse";
const CLIENT: &str = "/_matrix/client/v3";
/// How many of a round's requests are made once more after the crash, to see that they are known.
const REPEATED_MAX: usize = 5;

/// Whom messages to devices are for.
#[derive(Clone)]
pub struct Member {
    pub user_id: String,
    pub device_id: String,
}

/// Something to ask for. Each can be asked for again where no answer came.
#[derive(Clone)]
enum Wish {
    Message { room: String, body: String },
    State { room: String, value: u64 },
    Receipt { room: String, event: String },
    FullyRead { room: String, event: String },
    ToDevice { to: Member, body: String },
    Upload { bytes: Vec<u8> },
    Alias { room: String, alias: String },
    AccountData { value: u64 },
    Register { name: String },
    Create { name: String },
    Refresh,
}

/// A message that was acknowledged.
pub struct Sent {
    pub room: String,
    pub event_id: String,
    pub body: String,
}

/// What the server said yes to since the last check; the maps hold what replaces what was before.
#[derive(Default)]
pub struct Acknowledged {
    pub messages: Vec<Sent>,
    pub states: HashMap<String, (u64, String)>,
    pub receipts: HashMap<String, String>,
    pub fully_read: HashMap<String, String>,
    /// The recipient and the body, in the order of sending.
    pub to_device: Vec<(String, String)>,
    pub uploads: Vec<(String, Vec<u8>)>,
    pub aliases: Vec<(String, String)>,
    pub account_data: Option<u64>,
    pub registered: Vec<(String, String)>,
    pub created: Vec<(String, String)>,
}

pub struct Worker {
    number: usize,
    wire: Wire,
    pub user_id: String,
    refresh_token: String,
    rooms: Vec<String>,
    members: Vec<Member>,
    rng: StdRng,
    /// Wishes so far: what makes names, bodies and transaction ids unique.
    count: u64,
    /// The last event sent to each room.
    last: HashMap<String, String>,
    in_doubt: Option<Wish>,
    pub acknowledged: Acknowledged,
}

impl Wire {
    pub fn to(address: &str) -> Self {
        Self { address: address.to_owned(), token: String::new() }
    }
}

/// Registers a user with a token that expires.
pub fn register(wire: &Wire, name: &str) -> Option<Value> {
    let auth = json!({ "type": "m.login.dummy" });
    let body = json!({ "username": name, "password": PASSWORD, "refresh_token": true, "auth": auth });
    let (status, answer) = wire.ask("POST", &format!("{CLIENT}/register"), body.to_string().as_bytes())?;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert!(status == 200 || answer["errcode"] == "M_USER_IN_USE", "{answer}");
    Some(answer)
}

/// Logs in with another device.
pub fn login(wire: &Wire, name: &str) -> Value {
    let identifier = json!({ "type": "m.id.user", "user": name });
    let body = json!({ "type": "m.login.password", "identifier": identifier, "password": PASSWORD });
    wire.ok("POST", &format!("{CLIENT}/login"), &body)
}

impl Worker {
    pub fn new(number: usize, wire: Wire, person: &Value, rooms: Vec<String>, members: Vec<Member>, rng: StdRng) -> Self {
        let text = |key: &str| person[key].as_str().unwrap().to_owned();
        let (user_id, refresh_token) = (text("user_id"), text("refresh_token"));
        let (last, acknowledged) = (HashMap::new(), Acknowledged::default());
        Self { number, wire, user_id, refresh_token, rooms, members, rng, count: 0, last, in_doubt: None, acknowledged }
    }

    /// Asks for one thing after the other until there is no answer, and gives the number of answers.
    pub fn work(&mut self, address: &str, killed: &AtomicBool) -> usize {
        self.wire.address = address.to_owned();
        let mut done = 0;
        loop {
            let wish = self.next();
            if self.fulfil(&wish).is_none() {
                assert!(killed.load(Ordering::SeqCst), "no answer from a server that lives");
                self.in_doubt = Some(wish);
                return done;
            }
            done += 1;
        }
    }

    fn next(&mut self) -> Wish {
        self.count += 1;
        let name = format!("w{}-{}", self.number, self.count);
        let room = self.rooms[self.rng.random_range(0..self.rooms.len())].clone();
        let event = self.last.get(&room).cloned();
        match (self.rng.random_range(0..100), event) {
            (40..48, _) => Wish::State { room, value: self.count },
            (48..58, Some(event)) => Wish::Receipt { room, event },
            (58..66, Some(event)) => Wish::FullyRead { room, event },
            (66..78, _) => {
                let to = self.members[self.rng.random_range(0..self.members.len())].clone();
                Wish::ToDevice { to, body: name }
            }
            (78..83, _) => {
                let size = self.rng.random_range(1..200_000);
                Wish::Upload { bytes: (0..size).map(|_| self.rng.random()).collect() }
            }
            (83..87, _) => Wish::Alias { room, alias: format!("%23{name}:localhost") },
            (87..93, _) => Wish::AccountData { value: self.count },
            (93..95, _) => Wish::Register { name },
            (95..96, _) => Wish::Create { name },
            (96..100, _) => Wish::Refresh,
            _ => Wish::Message { room, body: name },
        }
    }

    /// Method, path and body of a wish. The same wish is always the same request.
    fn request(&self, wish: &Wish) -> (&'static str, String, Vec<u8>) {
        let user = &self.user_id;
        let json = |method, path: String, body: Value| (method, path, body.to_string().into_bytes());
        match wish {
            Wish::Message { room, body } => {
                let content = json!({ "msgtype": "m.text", "body": body });
                json("PUT", format!("{CLIENT}/rooms/{room}/send/m.room.message/{body}"), content)
            }
            Wish::State { room, value } => {
                json("PUT", format!("{CLIENT}/rooms/{room}/state/test.state/{}", self.number), json!({ "value": value }))
            }
            Wish::Receipt { room, event } => json("POST", format!("{CLIENT}/rooms/{room}/receipt/m.read/{event}"), json!({})),
            Wish::FullyRead { room, event } => {
                json("POST", format!("{CLIENT}/rooms/{room}/read_markers"), json!({ "m.fully_read": event }))
            }
            Wish::ToDevice { to, body } => {
                let messages = json!({ &to.user_id: { &to.device_id: { "body": body } } });
                json("PUT", format!("{CLIENT}/sendToDevice/test.message/{body}"), json!({ "messages": messages }))
            }
            Wish::Upload { bytes } => ("POST", "/_matrix/media/v3/upload".to_owned(), bytes.clone()),
            Wish::Alias { room, alias } => json("PUT", format!("{CLIENT}/directory/room/{alias}"), json!({ "room_id": room })),
            Wish::AccountData { value } => {
                json("PUT", format!("{CLIENT}/user/{user}/account_data/test.data"), json!({ "value": value }))
            }
            Wish::Create { name } => json("POST", format!("{CLIENT}/createRoom"), json!({ "name": name })),
            Wish::Refresh => json("POST", format!("{CLIENT}/refresh"), json!({ "refresh_token": self.refresh_token })),
            Wish::Register { .. } => unreachable!("has its own function"),
        }
    }

    /// Asks, and notes a yes. `None`: no answer came.
    fn fulfil(&mut self, wish: &Wish) -> Option<()> {
        if let Wish::Register { name } = wish {
            let anybody = Wire::to(&self.wire.address);
            let answer = register(&anybody, name)?;
            let answer = if answer["access_token"].is_string() { answer } else { login(&anybody, name) };
            let token = answer["access_token"].as_str().unwrap().to_owned();
            self.acknowledged.registered.push((name.clone(), token));
            return Some(());
        }
        let (method, path, body) = self.request(wish);
        let (status, answer) = self.wire.ask(method, &path, &body)?;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        // Of an alias in doubt; a later look tells whose it is.
        let known = matches!(wish, Wish::Alias { .. }) && answer["errcode"] == "M_UNKNOWN" && status == 409;
        assert!(status == 200 || known, "{method} {path}: {status} {answer}");
        self.note(wish.clone(), &answer);
        Some(())
    }

    fn note(&mut self, wish: Wish, answer: &Value) {
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        let yes = &mut self.acknowledged;
        match wish {
            Wish::Message { room, body } => {
                self.last.insert(room.clone(), text("event_id"));
                yes.messages.push(Sent { room, event_id: text("event_id"), body });
            }
            Wish::State { room, value } => drop(yes.states.insert(room, (value, text("event_id")))),
            Wish::Receipt { room, event } => drop(yes.receipts.insert(room, event)),
            Wish::FullyRead { room, event } => drop(yes.fully_read.insert(room, event)),
            Wish::ToDevice { to, body } => yes.to_device.push((to.user_id, body)),
            Wish::Upload { bytes } => yes.uploads.push((text("content_uri"), bytes)),
            Wish::Alias { room, alias } => yes.aliases.push((room, alias)),
            Wish::AccountData { value } => yes.account_data = Some(value),
            Wish::Create { name } => yes.created.push((text("room_id"), name)),
            Wish::Refresh => {
                self.wire.token = text("access_token");
                self.refresh_token = text("refresh_token");
            }
            Wish::Register { .. } => {}
        }
    }

    /// After a crash: what was in doubt is asked for again, and what was acknowledged is there.
    pub fn check(&mut self, address: &str) {
        self.wire.address = address.to_owned();
        let who = self.wire.ok("GET", &format!("{CLIENT}/account/whoami"), &Value::Null);
        assert_eq!(who["user_id"], *self.user_id);
        if let Some(wish) = self.in_doubt.take() {
            self.fulfil(&wish).expect("the server answers");
        }
        self.check_events();
        self.check_marks();
        self.check_files();
        self.check_accounts();
    }

    fn get(&self, path: &str) -> Value {
        self.wire.ok("GET", &format!("{CLIENT}{path}"), &Value::Null)
    }

    fn check_events(&self) {
        for Sent { room, event_id, body } in &self.acknowledged.messages {
            let event = self.get(&format!("/rooms/{room}/event/{event_id}"));
            assert_eq!((&event["content"]["body"], &event["sender"]), (&json!(body), &json!(self.user_id)));
        }
        for Sent { room, event_id, body } in self.acknowledged.messages.iter().rev().take(REPEATED_MAX) {
            let (method, path, content) = self.request(&Wish::Message { room: room.clone(), body: body.clone() });
            let again = self.wire.ok(method, &path, &serde_json::from_slice(&content).unwrap());
            assert_eq!(again["event_id"], **event_id, "the transaction id {body} is forgotten");
        }
        for (room, (value, event_id)) in &self.acknowledged.states {
            assert_eq!(self.get(&format!("/rooms/{room}/state/test.state/{}", self.number))["value"], *value);
            assert_eq!(self.get(&format!("/rooms/{room}/event/{event_id}"))["content"]["value"], *value);
        }
    }

    /// Receipts are looked for by the second device, as only a sync shows them.
    fn check_marks(&self) {
        let user = &self.user_id;
        for (room, event) in &self.acknowledged.fully_read {
            let marker = self.get(&format!("/user/{user}/rooms/{room}/account_data/m.fully_read"));
            assert_eq!(marker["event_id"], **event);
        }
        if let Some(value) = self.acknowledged.account_data {
            assert_eq!(self.get(&format!("/user/{user}/account_data/test.data"))["value"], value);
        }
    }

    fn check_files(&mut self) {
        for (uri, bytes) in std::mem::take(&mut self.acknowledged.uploads) {
            let path = format!("/_matrix/client/v1/media/download/{}", uri.strip_prefix("mxc://").unwrap());
            let (status, downloaded) = self.wire.ask("GET", &path, &[]).expect("the server answers");
            assert!(status == 200 && downloaded == bytes, "{uri}: {status}, {} bytes", downloaded.len());
        }
        for (room, alias) in std::mem::take(&mut self.acknowledged.aliases) {
            assert_eq!(self.get(&format!("/directory/room/{alias}"))["room_id"], *room);
        }
    }

    fn check_accounts(&mut self) {
        for (name, token) in std::mem::take(&mut self.acknowledged.registered) {
            let theirs = Wire { token, ..self.wire.clone() };
            let who = theirs.ok("GET", &format!("{CLIENT}/account/whoami"), &Value::Null);
            assert_eq!(who["user_id"], format!("@{name}:localhost"));
            login(&Wire::to(&self.wire.address), &name);
        }
        for (room, name) in std::mem::take(&mut self.acknowledged.created) {
            assert_eq!(self.get(&format!("/rooms/{room}/state/m.room.name"))["name"], *name);
        }
        // Also of a room whose creation was not acknowledged: there is all of it or nothing.
        for room in self.get("/joined_rooms")["joined_rooms"].as_array().unwrap() {
            let room = room.as_str().unwrap();
            for kind in ["m.room.create", "m.room.power_levels", "m.room.name", "m.room.history_visibility"] {
                self.get(&format!("/rooms/{room}/state/{kind}"));
            }
        }
    }
}
