//! What the users do: whatever may be done in rooms, by whom it may and by whom it may not.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use super::people::{Person, via};
use crate::tests::federation::enc;

const VERSIONS: [&str; 10] = ["1", "2", "3", "5", "6", "8", "9", "10", "11", "12"];
/// The most rooms of a run.
const ROOMS_MAX: usize = 3;
/// How often a client asks again where its server was gone.
const TRIES: usize = 200;

/// Users and their rooms.
pub(super) struct Stage {
    pub(super) people: Vec<Arc<Person>>,
    pub(super) rooms: Mutex<Vec<String>>,
}

/// One thing that somebody does.
enum Deed {
    Create(Value),
    Join(String),
    Leave,
    /// `invite`, `kick`, `ban` or `unban`, and whom.
    Member(&'static str, String),
    Levels(String, i64),
    State(&'static str, String, Value),
    Redact(String),
    Say,
}

/// Has the users do one thing after another, and some at the same time.
pub(super) async fn play(stage: Arc<Stage>, mut rng: StdRng) {
    let mut acting = JoinSet::new();
    let deeds = rng.random_range(15..45);
    let pause_ms = [200, 2_000, 10_000][rng.random_range(0..3)];
    for number in 0..deeds {
        let person = Arc::clone(&stage.people[rng.random_range(0..stage.people.len())]);
        let (room, deed) = stage.choose(&person, &mut rng);
        acting.spawn(Arc::clone(&stage).perform(person, room, deed, number));
        sleep(Duration::from_millis(rng.random_range(0..pause_ms))).await;
    }
    while acting.join_next().await.is_some() {}
}

impl Stage {
    fn choose(&self, person: &Person, rng: &mut StdRng) -> (String, Deed) {
        let (joined, rooms) = (person.joined(), self.rooms.lock().clone());
        let roll = rng.random_range(0..100);
        if rooms.is_empty() || (roll < 3 && rooms.len() < ROOMS_MAX) {
            return (String::new(), Deed::Create(self.new_room(person, rng)));
        }
        let strange: Vec<&String> = rooms.iter().filter(|room| !joined.contains(room)).collect();
        if !strange.is_empty() && (roll < 15 || joined.is_empty()) {
            return (strange[rng.random_range(0..strange.len())].clone(), Deed::Join(via(rng)));
        }
        let room = joined[rng.random_range(0..joined.len())].clone();
        let other = self.people[rng.random_range(0..self.people.len())].user_id.clone();
        let deed = match roll {
            0..=21 => Deed::Member("invite", other),
            22..=25 => Deed::Leave,
            26..=30 => Deed::Member("kick", other),
            31..=35 => Deed::Member("ban", other),
            36..=40 => Deed::Member("unban", other),
            41..=47 => Deed::Levels(other, [0, 25, 50, 100][rng.random_range(0..4)]),
            48..=58 => state(rng),
            59..=64 => redaction(person, &room, rng),
            _ => Deed::Say,
        };
        (room, deed)
    }

    fn new_room(&self, person: &Person, rng: &mut StdRng) -> Value {
        let version = VERSIONS[rng.random_range(0..VERSIONS.len())];
        let others: Vec<&str> =
            self.people.iter().map(|other| other.user_id.as_str()).filter(|other| *other != person.user_id).collect();
        let mut levels: serde_json::Map<String, Value> = serde_json::Map::new();
        for other in &others {
            let level = [0, 0, 50, 100][rng.random_range(0..4)];
            levels.insert((*other).to_owned(), level.into());
        }
        if version != "12" {
            levels.insert(person.user_id.clone(), 100.into());
        }
        let preset = ["public_chat", "public_chat", "private_chat"][rng.random_range(0..3)];
        let invited = &others[..rng.random_range(0..others.len())];
        json!({
            "room_version": version, "preset": preset, "invite": invited, "power_level_content_override": { "users": levels }
        })
    }

    async fn perform(self: Arc<Self>, person: Arc<Person>, room: String, deed: Deed, number: usize) {
        let base = format!("/_matrix/client/v3/rooms/{}", enc(&room));
        if let Deed::Redact(event) = &deed
            && says_levels(&person, &base, event).await
        {
            return;
        }
        let (what, method, path, body, again) = match deed {
            Deed::Create(body) => return self.create(&person, &body).await,
            Deed::Levels(other, level) => return level_of(&person, &base, &other, level).await,
            Deed::Join(via) => {
                let path = format!("/_matrix/client/v3/join/{}?{via}", enc(&room));
                (format!("joins {room}"), Method::POST, path, json!({}), false)
            }
            Deed::Leave => (format!("leaves {room}"), Method::POST, format!("{base}/leave"), json!({}), false),
            Deed::Member(how, other) => {
                let what = format!("wants to {how} {other} in {room}");
                (what, Method::POST, format!("{base}/{how}"), json!({ "user_id": other }), false)
            }
            Deed::State(kind, key, content) => {
                let path = format!("{base}/state/{kind}/{key}");
                (format!("sets {kind} {key} of {room} to {content}"), Method::PUT, path, content, false)
            }
            Deed::Redact(event) => {
                let path = format!("{base}/redact/{}/{number}", enc(&event));
                (format!("redacts {event} in {room}"), Method::PUT, path, json!({}), true)
            }
            Deed::Say => {
                let path = format!("{base}/send/m.room.message/{number}");
                let body = json!({ "msgtype": "m.text", "body": format!("{number}") });
                (format!("says {number} in {room}"), Method::PUT, path, body, true)
            }
        };
        // What has a transaction id is sent until it is answered.
        for _ in 0..if again { TRIES } else { 1 } {
            if person.act(&what, method.clone(), &path, Some(&body)).await.is_some() {
                return;
            }
            sleep(Duration::from_millis(700)).await;
        }
    }

    async fn create(&self, person: &Person, body: &Value) {
        let created = person.act(&format!("creates {body}"), Method::POST, "/_matrix/client/v3/createRoom", Some(body)).await;
        if let Some((StatusCode::OK, answer)) = created {
            self.rooms.lock().push(answer["room_id"].as_str().unwrap().to_owned());
        }
    }
}

fn state(rng: &mut StdRng) -> Deed {
    let value = rng.random_range(0..1000);
    let pick = rng.random_range(0..8);
    match pick {
        0 => {
            let rule = ["public", "invite"][value % 2];
            Deed::State("m.room.join_rules", String::new(), json!({ "join_rule": rule }))
        }
        1 => {
            let visibility = ["shared", "joined", "invited"][value % 3];
            Deed::State("m.room.history_visibility", String::new(), json!({ "history_visibility": visibility }))
        }
        2..=4 => Deed::State("m.room.topic", String::new(), json!({ "topic": format!("{value}") })),
        _ => Deed::State("org.example.fact", format!("{}", value % 3), json!({ "value": value })),
    }
}

fn redaction(person: &Person, room: &str, rng: &mut StdRng) -> Deed {
    let view = person.view.lock();
    let seen = &view.rooms[room].seen;
    let Some(event) = seen.iter().nth(rng.random_range(0..seen.len().max(1))) else { return Deed::Say };
    Deed::Redact(event.clone())
}

/// Whether an event says power levels. Before room version 11 redaction takes the level of invitations from it: who has not heard of it judges otherwise,
/// which no server can help.
async fn says_levels(person: &Person, base: &str, event: &str) -> bool {
    let answer = person.ask(Method::GET, &format!("{base}/event/{}", enc(event)), None).await;
    answer.is_none_or(|(_, event)| event["type"] == "m.room.power_levels")
}

/// Gives somebody another power level.
async fn level_of(person: &Person, base: &str, other: &str, level: i64) {
    let path = format!("{base}/state/m.room.power_levels/");
    let Some((StatusCode::OK, mut levels)) = person.ask(Method::GET, &path, None).await else { return };
    let Some(users) = levels["users"].as_object_mut() else { return };
    users.insert(other.to_owned(), level.into());
    person.act(&format!("gives {other} level {level} ({base})"), Method::PUT, &path, Some(&levels)).await;
}

/// The generator of one part of a run.
pub(super) fn part(seed: u64, number: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number << 32)
}
