//! The requests of the client-server API that the scenarios use. Answers are read only as far as needed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha1::Sha1;

use crate::connection::{Address, Connection};
use crate::delivery::EventId;
use crate::failure::Failure;

/// The type of the messages that are sent and looked for.
pub const MESSAGE_TYPE: &str = "m.room.message";
/// The type of the state events that are sent and looked for.
pub const STATE_TYPE: &str = "org.hearth.bench";
/// How long any answer may take, beyond the time a long poll asks for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Everything that has a meaning in a path or a query.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A room, with its id encoded once for all paths.
#[derive(Debug, Clone)]
pub struct Room {
    /// The room id.
    pub id: Arc<str>,
    path: Arc<str>,
}

impl Room {
    /// A room by its id.
    pub fn new(id: &str) -> Self {
        Self { id: id.into(), path: format!("/_matrix/client/v3/rooms/{}", encode(id)).into() }
    }
}

/// A logged-in device with a connection of its own.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    user: Arc<str>,
}

/// An event as far as the generator reads it.
#[derive(Debug, Deserialize)]
pub struct Event<'a> {
    /// Its id.
    #[serde(borrow)]
    pub event_id: Cow<'a, str>,
    /// Its type.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
}

impl Event<'_> {
    /// Whether this is one of the events that scenarios send, rather than those that set a room up.
    pub fn is_tracked(&self) -> bool {
        self.kind == MESSAGE_TYPE || self.kind == STATE_TYPE
    }
}

/// The answer of `/sync`.
#[derive(Debug, Deserialize)]
pub struct Sync<'a> {
    /// The token to go on from.
    pub next_batch: String,
    /// The rooms with something new.
    #[serde(borrow, default)]
    pub rooms: SyncRooms<'a>,
}

/// The rooms of a `/sync` answer.
#[derive(Debug, Default, Deserialize)]
pub struct SyncRooms<'a> {
    /// By room id, those that the user has joined.
    #[serde(borrow, default)]
    pub join: HashMap<Cow<'a, str>, SyncRoom<'a>>,
}

/// One joined room of a `/sync` answer.
#[derive(Debug, Default, Deserialize)]
pub struct SyncRoom<'a> {
    /// What is new.
    #[serde(borrow, default)]
    pub timeline: Timeline<'a>,
}

/// The new events of a room.
#[derive(Debug, Default, Deserialize)]
pub struct Timeline<'a> {
    /// Oldest first.
    #[serde(borrow, default)]
    pub events: Vec<Event<'a>>,
    /// Whether there is a gap before the first.
    #[serde(default)]
    pub limited: bool,
    /// Where `/messages` reads the gap.
    pub prev_batch: Option<String>,
}

/// The answer of `/messages`.
#[derive(Debug, Deserialize)]
pub struct Page<'a> {
    /// Newest first.
    #[serde(borrow)]
    pub chunk: Vec<Event<'a>>,
    /// Where the next page begins; none at the beginning of the room.
    pub end: Option<String>,
}

#[derive(Deserialize)]
struct LoggedIn {
    user_id: String,
    access_token: String,
}

/// Reads an answer that may borrow from its bytes.
pub fn parse<'a, T: Deserialize<'a>>(request: &str, answer: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(answer).map_err(|cause| Failure::Malformed { request: request.to_owned(), cause })
}

/// Whether the server answers `/versions`.
pub async fn versions(address: &Address) -> Result<(), Failure> {
    let mut connection = Connection::new(address.clone());
    connection.call(Method::GET, "/_matrix/client/versions", Bytes::new(), PATIENCE).await.map(drop)
}

impl Session {
    /// Makes an account by open registration, with the dummy stage of user-interactive authentication.
    pub async fn register(address: &Address, name: &str, password: &str) -> Result<Self, Failure> {
        let mut connection = Connection::new(address.clone());
        let path = "/_matrix/client/v3/register";
        let mut body = json!({ "username": name, "password": password, "auth": { "type": "m.login.dummy" } });
        let answer = match call::<LoggedIn>(&mut connection, Method::POST, path, &body).await {
            // The specification lets a server insist on the session that its first answer names.
            Err(Failure::Refused { status: 401, body: first, .. }) => {
                let first: Value = parse(path, first.as_bytes())?;
                body["auth"]["session"] = first["session"].clone();
                call(&mut connection, Method::POST, path, &body).await
            }
            answer => answer,
        }?;
        Self::logged_in(connection, answer)
    }

    /// Makes an account by Synapse's shared secret, for servers whose registration is closed.
    pub async fn register_with_secret(address: &Address, name: &str, password: &str, secret: &str) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Nonce {
            nonce: String,
        }
        let mut connection = Connection::new(address.clone());
        let path = "/_synapse/admin/v1/register";
        let Nonce { nonce } = parse(path, &connection.call(Method::GET, path, Bytes::new(), PATIENCE).await?)?;
        let mac = registration_mac(secret, &nonce, name, password);
        let body = json!({ "nonce": nonce, "username": name, "password": password, "admin": false, "mac": mac });
        let answer = call(&mut connection, Method::POST, path, &body).await?;
        Self::logged_in(connection, answer)
    }

    fn logged_in(mut connection: Connection, answer: LoggedIn) -> Result<Self, Failure> {
        connection.authorize(&answer.access_token)?;
        Ok(Self { connection, user: answer.user_id.into() })
    }

    /// A session without an access token, for servers that do not ask.
    #[cfg(test)]
    pub fn of(address: &Address, user: &str) -> Self {
        Self { connection: Connection::new(address.clone()), user: user.into() }
    }

    /// The same device on a second connection: one that waits in `/sync` cannot send.
    pub fn another(&self) -> Self {
        Self { connection: self.connection.another(), user: Arc::clone(&self.user) }
    }

    /// A new device of the same user.
    pub async fn log_in(&self, password: &str) -> Result<Self, Failure> {
        let mut connection = self.connection.another();
        let identifier = json!({ "type": "m.id.user", "user": &*self.user });
        let body = json!({ "type": "m.login.password", "identifier": identifier, "password": password });
        let answer = call(&mut connection, Method::POST, "/_matrix/client/v3/login", &body).await?;
        Self::logged_in(connection, answer)
    }

    /// Makes a room that anyone may join.
    pub async fn create_room(&mut self) -> Result<Room, Failure> {
        #[derive(Deserialize)]
        struct Created {
            room_id: String,
        }
        let body = json!({ "preset": "public_chat" });
        let created: Created = call(&mut self.connection, Method::POST, "/_matrix/client/v3/createRoom", &body).await?;
        Ok(Room::new(&created.room_id))
    }

    /// Joins a public room.
    pub async fn join(&mut self, room: &Room) -> Result<(), Failure> {
        let path = format!("{}/join", room.path);
        call::<Value>(&mut self.connection, Method::POST, &path, &json!({})).await.map(drop)
    }

    /// Sends a message. `transaction` must be new for this device.
    pub async fn send(&mut self, room: &Room, transaction: &str, content: Bytes) -> Result<EventId, Failure> {
        self.put_event(format!("{}/send/{MESSAGE_TYPE}/{transaction}", room.path), content).await
    }

    /// Sets the state of [`STATE_TYPE`] under a key of letters and digits.
    pub async fn set_state(&mut self, room: &Room, key: &str, content: Bytes) -> Result<EventId, Failure> {
        self.put_event(format!("{}/state/{STATE_TYPE}/{key}", room.path), content).await
    }

    async fn put_event(&mut self, path: String, content: Bytes) -> Result<EventId, Failure> {
        #[derive(Deserialize)]
        struct Sent<'a> {
            #[serde(borrow)]
            event_id: Cow<'a, str>,
        }
        let answer = self.connection.call(Method::PUT, &path, content, PATIENCE).await?;
        Ok(EventId::from(&*parse::<Sent>(&path, &answer)?.event_id))
    }

    /// Asks what is new since a token, or for everything. The answer is for [`parse`] as [`Sync`].
    /// Members are loaded lazily as most clients do; presence is left out because servers differ in having it.
    pub async fn sync(&mut self, since: Option<&str>, wait: Duration, limit: usize) -> Result<Bytes, Failure> {
        let filter = json!({
            "presence": { "not_types": ["*"] },
            "room": { "timeline": { "limit": limit }, "state": { "lazy_load_members": true } },
        });
        let mut path = format!(
            "/_matrix/client/v3/sync?set_presence=offline&timeout={}&filter={}",
            wait.as_millis(),
            encode(&filter.to_string())
        );
        if let Some(since) = since {
            path.push_str("&since=");
            path.extend(utf8_percent_encode(since, ENCODED));
        }
        self.connection.call(Method::GET, &path, Bytes::new(), wait + PATIENCE).await
    }

    /// A page of a room's history, backwards from a token or from the end. The answer is for [`parse`] as [`Page`].
    pub async fn messages(&mut self, room: &Room, from: Option<&str>, limit: usize) -> Result<Bytes, Failure> {
        let mut path = format!("{}/messages?dir=b&limit={limit}", room.path);
        if let Some(from) = from {
            path.push_str("&from=");
            path.extend(utf8_percent_encode(from, ENCODED));
        }
        self.connection.call(Method::GET, &path, Bytes::new(), PATIENCE).await
    }
}

async fn call<T: DeserializeOwned>(connection: &mut Connection, method: Method, path: &str, body: &Value) -> Result<T, Failure> {
    let answer = connection.call(method, path, body.to_string().into(), PATIENCE).await?;
    parse(path, &answer)
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// HMAC-SHA1 over nonce, name, password and the kind of account, as Synapse's admin API asks for, in hexadecimal.
fn registration_mac(secret: &str, nonce: &str, name: &str, password: &str) -> String {
    // HMAC takes keys of any length; the error type exists for ciphers with fixed keys.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update([nonce, name, password, "notadmin"].join("\0").as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn ids_are_encoded_in_paths() {
        assert_eq!(&*Room::new("!a/b:host:80").path, "/_matrix/client/v3/rooms/%21a%2Fb%3Ahost%3A80");
    }

    #[test]
    fn sync_answers_are_read_with_most_left_out() {
        let answer = br#"{"next_batch":"s1","account_data":{"events":[]},"rooms":{"join":{"!r:h":{"state":{"events":[{"type":"x"}]},
            "timeline":{"limited":true,"prev_batch":"p","events":[{"event_id":"$\u0061","type":"m.room.message","content":{"body":"hi"}}]}},
            "!empty:h":{}},"leave":{}}}"#;
        let sync: Sync = parse("GET /sync", answer).unwrap();
        assert_eq!(sync.next_batch, "s1");
        let timeline = &sync.rooms.join["!r:h"].timeline;
        assert!(timeline.limited && timeline.events[0].is_tracked());
        assert_eq!((&*timeline.events[0].event_id, timeline.prev_batch.as_deref()), ("$a", Some("p")));
        assert!(!sync.rooms.join["!empty:h"].timeline.limited);
        assert!(parse::<Sync>("GET /sync", br#"{"next_batch":"s2"}"#).unwrap().rooms.join.is_empty());
    }

    #[test]
    fn registration_mac_is_hmac_sha1() {
        // printf 'n\0u\0p\0notadmin' | openssl sha1 -hmac key
        assert_eq!(registration_mac("key", "n", "u", "p"), "723d56efdd0e9ba3351f1fb6a593071a292c7dad");
    }
}
