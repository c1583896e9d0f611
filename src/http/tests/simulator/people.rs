//! Users and their clients, which sync all the time and keep what they were given.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use parking_lot::Mutex;
use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::world::{NAMES, World};
use crate::{testing, tests::federation::enc};

/// Pages of a room's past that a client asks for where a sync left events out.
const PAGES_MAX: usize = 40;

/// How long a client waits for those to answer who have what it asks for.
const SILENT: Duration = Duration::from_secs(10);

/// A user with one device.
pub(super) struct Person {
    world: Arc<World>,
    /// Their server.
    pub(super) at: usize,
    pub(super) user_id: String,
    token: String,
    pub(super) view: Mutex<View>,
}

/// What their client holds.
#[derive(Default)]
pub(super) struct View {
    since: Option<String>,
    /// How many syncs were answered.
    pub(super) syncs: u32,
    pub(super) rooms: BTreeMap<String, RoomView>,
}

/// A room as a client sees it.
#[derive(Default)]
pub(super) struct RoomView {
    pub(super) membership: String,
    /// The event of each type and state key.
    pub(super) state: BTreeMap<(String, String), String>,
    /// The events that they were given since they last came into the room.
    pub(super) seen: BTreeSet<String>,
    /// Those that they were given before: one who comes back is told anew of the room, from before they left perhaps.
    pub(super) before: BTreeSet<String>,
}

impl RoomView {
    /// Whether they were ever given an event.
    pub(super) fn knows(&self, event: &str) -> bool {
        self.seen.contains(event) || self.before.contains(event)
    }

    /// They came into the room, and are told anew of it.
    fn begin_anew(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        self.before.extend(seen);
    }
}

impl Person {
    pub(super) async fn new(world: &Arc<World>, at: usize, localpart: &str) -> Arc<Self> {
        let machine = &world.machines[at];
        let mut rng = world.draw(rand::SeedableRng::from_rng);
        let new = testing::NewUser { localpart, kind: users::accounts::Kind::Person, admin: false };
        let (user_id, registered) = new.register(&machine.store, machine.name.as_str(), &mut rng, world.now_ms(at)).await;
        let token = registered.session.unwrap().tokens.access_token.into_text();
        Arc::new(Self { world: Arc::clone(world), at, user_id: user_id.into(), token, view: Mutex::default() })
    }

    /// A request to their server, which may be gone or go before it answers.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Option<(StatusCode, Value)> {
        let request = Request::builder().method(method.clone()).uri(path).header(header::CONTENT_TYPE, "application/json");
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        let request = request.body(body.map(|body| Bytes::from(body.to_string())).unwrap_or_default()).unwrap();
        let (status, body) = self.world.serve(self.at, request, false).await?;
        let body: Value = serde_json::from_slice(&body).unwrap();
        if status.as_u16() == 500 {
            self.world.violated(format!("{} {method} {path}: {status} {body}", self.user_id));
        }
        Some((status, body))
    }

    /// [`Person::ask`] with a line in the journal.
    pub(super) async fn act(&self, what: &str, method: Method, path: &str, body: Option<&Value>) -> Option<(StatusCode, Value)> {
        self.world.note(format!("{} {what} ...", self.user_id));
        let answer = self.ask(method, path, body).await;
        match &answer {
            None => self.world.note(format!("{} {what}: no answer", self.user_id)),
            Some((status, body)) => self.world.note(format!("{} {what}: {status} {body}", self.user_id)),
        }
        answer
    }

    pub(super) fn joined(&self) -> Vec<String> {
        let view = self.view.lock();
        view.rooms.iter().filter(|(_, room)| room.membership == "join").map(|(id, _)| id.clone()).collect()
    }

    /// Syncs until it is dropped. Some answers are lost on their way, and asked for again.
    pub(super) async fn sync_for_ever(self: Arc<Self>, mut rng: StdRng) {
        let limit = [1, 3, 10, 50][rng.random_range(0..4)];
        let filter = enc(&json!({ "room": { "timeline": { "limit": limit } } }).to_string());
        loop {
            let since = self.view.lock().since.as_ref().map(|since| format!("&since={since}")).unwrap_or_default();
            let path = format!("/_matrix/client/v3/sync?timeout=30000&use_state_after=true&filter={filter}{since}");
            let answer = self.ask(Method::GET, &path, None).await;
            match answer {
                Some((StatusCode::OK, _)) if rng.random_range(0..20) == 0 => {}
                Some((StatusCode::OK, answer)) => self.take(&answer).await,
                Some((status, body)) => self.world.violated(format!("a sync of {}: {status} {body}", self.user_id)),
                None => {}
            }
            sleep(Duration::from_millis(rng.random_range(5..1_000))).await;
        }
    }

    async fn take(&self, answer: &Value) {
        for (section, membership) in [("join", "join"), ("leave", "leave"), ("invite", "invite"), ("knock", "knock")] {
            for (room, told) in answer["rooms"][section].as_object().into_iter().flatten() {
                self.stands(room, membership, told);
                if told["timeline"]["limited"] == json!(true) {
                    self.walk_back(room, told["timeline"]["prev_batch"].as_str().unwrap()).await;
                }
                self.take_room(room, told);
            }
        }
        let mut view = self.view.lock();
        view.syncs += 1;
        view.since = Some(answer["next_batch"].as_str().unwrap().to_owned());
    }

    fn stands(&self, id: &str, membership: &str, told: &Value) {
        let mut view = self.view.lock();
        let room = view.rooms.entry(id.to_owned()).or_default();
        let was = std::mem::replace(&mut room.membership, membership.to_owned());
        if was != membership {
            self.world.note(format!("{} sees {membership} of {id}", self.user_id));
            room.state.clear();
        }
        let is_news = |event: &Value| !room.knows(event["event_id"].as_str().unwrap());
        let is_news = told["timeline"]["events"].as_array().is_some_and(|events| events.iter().any(is_news));
        // Between two syncs they may have come in and gone, by events of theirs or by a fork that was resolved: then, too, what they are told begins anew.
        if was != "join" && (membership == "join" || membership == "leave" && is_news) {
            room.begin_anew();
        }
    }

    fn take_room(&self, id: &str, told: &Value) {
        let mut view = self.view.lock();
        let room = view.rooms.entry(id.to_owned()).or_default();
        for event in told["state_after"]["events"].as_array().into_iter().flatten() {
            let text = |key: &str| event[key].as_str().unwrap().to_owned();
            room.state.insert((text("type"), text("state_key")), text("event_id"));
        }
        let timeline = told["timeline"]["events"].as_array().cloned().unwrap_or_default();
        for event in &timeline {
            // Who is not in the room may be told again how they left it: when their server enters it, or when a fork is resolved.
            let is_own = room.membership == "leave" && event["state_key"] == json!(self.user_id);
            let event = event["event_id"].as_str().unwrap().to_owned();
            self.world.note(format!("{} is given {event}", self.user_id));
            if !room.seen.insert(event.clone()) && !is_own {
                self.world.violated(format!("{} was given {event} of {id} twice", self.user_id));
            }
        }
    }

    /// What a sync left out, back to what is known.
    async fn walk_back(&self, room: &str, from: &str) {
        let mut from = from.to_owned();
        for _ in 0..PAGES_MAX {
            let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=20&from={from}", enc(room));
            let Some((status, page)) = self.ask(Method::GET, &path, None).await else {
                sleep(Duration::from_secs(1)).await;
                continue;
            };
            if !status.is_success() {
                return self.world.note(format!("{} cannot look back in {room}: {status} {page}", self.user_id));
            }
            if !self.look_back(room, &page) {
                return;
            }
            match page["end"].as_str() {
                // Those who have more do not answer now.
                Some(end) if end == from => sleep(SILENT).await,
                Some(end) => from = end.to_owned(),
                None => return,
            }
        }
    }

    /// Takes a page of what a sync left out. Returns whether all of it is new.
    fn look_back(&self, room: &str, page: &Value) -> bool {
        let mut view = self.view.lock();
        let RoomView { seen, before, .. } = view.rooms.entry(room.to_owned()).or_default();
        for event in page["chunk"].as_array().into_iter().flatten() {
            let event = event["event_id"].as_str().unwrap().to_owned();
            if before.contains(&event) || !seen.insert(event.clone()) {
                return false;
            }
            self.world.note(format!("{} looks back at {event}", self.user_id));
        }
        true
    }
}

/// The servers by which a room may be joined, in an order of someone's own.
pub(super) fn via(rng: &mut StdRng) -> String {
    let first = rng.random_range(0..NAMES.len());
    let names = (0..NAMES.len()).map(|at| format!("via={}", NAMES[(first + at) % NAMES.len()]));
    names.collect::<Vec<_>>().join("&")
}
