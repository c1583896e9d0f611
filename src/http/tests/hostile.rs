//! Every endpoint with every kind of bad input: a refusal with a specified errcode, never a failure of ours, and a refused
//! request changes nothing.
//!
//! The list of endpoints is the server's own table, so a new endpoint is tried too; [`body`] should know a valid body of it,
//! so that each of its fields is tried with values of every other type.

use std::collections::BTreeSet;

use http::Method;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    Route,
    config::Kind,
    federation::SERVER,
    router::routes,
    testing::{Answer, Hearth, Person, tables},
};

/// The errcodes of the client-server API.
const ERRCODES: &str = "M_FORBIDDEN M_UNKNOWN_TOKEN M_MISSING_TOKEN M_USER_LOCKED M_USER_SUSPENDED M_BAD_JSON M_NOT_JSON \
    M_NOT_FOUND M_LIMIT_EXCEEDED M_UNRECOGNIZED M_UNKNOWN M_UNAUTHORIZED M_USER_DEACTIVATED M_USER_IN_USE M_INVALID_USERNAME \
    M_ROOM_IN_USE M_INVALID_ROOM_STATE M_UNSUPPORTED_ROOM_VERSION M_INCOMPATIBLE_ROOM_VERSION M_BAD_STATE \
    M_GUEST_ACCESS_FORBIDDEN M_MISSING_PARAM M_INVALID_PARAM M_TOO_LARGE M_EXCLUSIVE M_BAD_ALIAS M_WEAK_PASSWORD \
    M_DUPLICATE_ANNOTATION M_CANNOT_OVERWRITE_MEDIA M_WRONG_ROOM_KEYS_VERSION M_INVALID_SIGNATURE M_KEY_TOO_LARGE \
    M_PROFILE_TOO_LARGE M_UNABLE_TO_AUTHORISE_JOIN M_UNABLE_TO_GRANT_JOIN";

/// A server with two people in a room, and something of everything for paths to name.
struct World {
    hearth: Hearth,
    alice: Person,
    room: String,
    event: String,
    media: String,
}

impl World {
    async fn new() -> Self {
        let hearth = Hearth::start();
        let alice = hearth.register("alice").await;
        users::accounts::set_admin(&hearth.server.store, alice.user, true).unwrap().durable().await.unwrap();
        let client = "/_matrix/client/v3";
        let room = alice.post(&format!("{client}/createRoom"), json!({ "preset": "public_chat" })).await.ok();
        let room = room["room_id"].as_str().unwrap().to_owned();
        let path = format!("{client}/rooms/{room}/send/m.room.message/before");
        let event = alice.put(&path, json!({ "msgtype": "m.text", "body": "hello" })).await.ok();
        alice.put(&format!("{client}/directory/room/%23hall:hearth.test"), json!({ "room_id": room })).await.ok();
        alice.post(&format!("{client}/user/{}/filter", alice.user_id), json!({})).await.ok();
        let backup = json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": { "public_key": "k" } });
        alice.post(&format!("{client}/room_keys/version"), backup).await.ok();
        let media = alice.ask(Method::POST, "/_matrix/media/v3/upload").body("bytes").await.ok();
        let media = media["content_uri"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        Self { event: event["event_id"].as_str().unwrap().to_owned(), hearth, alice, room, media }
    }

    /// All that is stored.
    fn dump(&self) -> String {
        self.hearth.server.store.dump(&tables()).unwrap()
    }

    /// A value of a path's variable that names something.
    fn value(&self, variable: &str) -> String {
        match variable {
            "room_id" | "room_id_or_alias" => self.room.clone(),
            "event_id" => self.event.clone(),
            "user_id" => self.alice.user_id.clone(),
            "device_id" => self.alice.device_id.clone(),
            "room_alias" => "%23hall:hearth.test".into(),
            "event_type" => "m.room.message".into(),
            "receipt_type" => "m.read".into(),
            "kind" => "override".into(),
            "rule_id" => ".m.rule.master".into(),
            "filter_id" | "version" => "1".into(),
            "media_id" => self.media.clone(),
            "server_name" => "hearth.test".into(),
            "field" => "displayname".into(),
            "rel_type" => "m.annotation".into(),
            other => other.replace('_', "-"),
        }
    }

    /// The path of a template, with one variable, if any, of this text.
    fn path(&self, template: &str, odd: Option<(usize, &str)>) -> String {
        let mut number = 0;
        let segments = template.split('/').map(|segment| {
            let Some(variable) = segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}')) else {
                return segment.to_owned();
            };
            number += 1;
            match odd {
                Some((which, text)) if which + 1 == number => text.to_owned(),
                _ => self.value(variable),
            }
        });
        let path = segments.collect::<Vec<_>>().join("/");
        if path.contains("/room_keys/keys") { format!("{path}?version=1") } else { path }
    }
}

/// The first path of each endpoint, with its method.
fn endpoints() -> Vec<(Route, &'static str)> {
    let served = routes(Kind::Client).into_iter();
    let named = served.map(|route| {
        let path = route.place.paths.iter().map(|(_, name)| *name).find(|path| path.contains("/v3/") || path.contains("/v1/"));
        let path = path.unwrap_or(route.place.paths[0].1);
        (route, path)
    });
    named.collect()
}

fn has_body(route: &Route) -> bool {
    matches!(route.place.method, Method::POST | Method::PUT) && route.body_max != usize::MAX
}

/// A valid body of an endpoint, by the end of its path and its method.
fn body(method: &Method, path: &str) -> Option<Value> {
    let (user, keys) = ("@alice:hearth.test", json!({ "ed25519:D": "k" }));
    let identifier = json!({ "type": "m.id.user", "user": "alice" });
    let rule = json!({ "actions": ["notify"], "conditions": [{ "kind": "event_match", "key": "type", "pattern": "a" }], "pattern": "a" });
    let session = json!({ "first_message_index": 1, "forwarded_count": 1, "is_verified": true, "session_data": { "a": "b" } });
    let put = *method == Method::PUT;
    Some(match path.trim_start_matches("/_matrix/client/v3").trim_start_matches("/_matrix/client/v1") {
        "/login" => {
            json!({ "type": "m.login.password", "identifier": identifier, "password": "p", "device_id": "D", "initial_device_display_name": "n", "refresh_token": true })
        }
        "/register" => {
            json!({ "username": "bob", "password": "correct horse", "device_id": "D", "initial_device_display_name": "n", "inhibit_login": true, "refresh_token": true, "auth": { "type": "m.login.dummy", "session": "s" } })
        }
        "/refresh" => json!({ "refresh_token": "t" }),
        "/account/password" => {
            json!({ "new_password": "correct horse", "logout_devices": true, "auth": { "type": "m.login.password" } })
        }
        "/account/deactivate" => json!({ "erase": true, "auth": { "type": "m.login.password" } }),
        "/createRoom" => json!({
            "name": "n", "topic": "t", "visibility": "public", "preset": "public_chat", "room_version": "12", "is_direct": true,
            "room_alias_name": "new", "invite": [user], "creation_content": { "m.federate": false },
            "initial_state": [{ "type": "m.room.topic", "state_key": "", "content": {} }],
            "power_level_content_override": { "users_default": 1 },
        }),
        "/delete_devices" => json!({ "devices": ["D"], "auth": { "type": "m.login.password" } }),
        "/devices/{device_id}" if put => json!({ "display_name": "n" }),
        "/directory/list/room/{room_id}" if put => json!({ "visibility": "public" }),
        "/directory/room/{room_alias}" if put => json!({ "room_id": "!r:hearth.test" }),
        "/join/{room_id_or_alias}" | "/rooms/{room_id}/join" | "/knock/{room_id_or_alias}" => json!({ "reason": "r" }),
        "/keys/claim" => json!({ "one_time_keys": { user: { "D": "signed_curve25519" } }, "timeout": 10 }),
        "/keys/query" => json!({ "device_keys": { user: ["D"] }, "timeout": 10 }),
        "/keys/upload" => json!({
            "device_keys": { "user_id": user, "device_id": "D", "algorithms": ["a"], "keys": keys, "signatures": { user: keys } },
            "one_time_keys": { "signed_curve25519:A": { "key": "k", "signatures": { user: keys } } },
            "fallback_keys": { "signed_curve25519:B": { "key": "k", "fallback": true, "signatures": { user: keys } } },
        }),
        "/keys/signatures/upload" => {
            json!({ user: { "D": { "user_id": user, "device_id": "D", "signatures": { user: keys } } } })
        }
        "/keys/device_signing/upload" => {
            let key =
                |usage| json!({ "user_id": user, "usage": [usage], "keys": { "ed25519:k": "k" }, "signatures": { user: keys } });
            json!({ "master_key": key("master"), "self_signing_key": key("self_signing"), "user_signing_key": key("user_signing") })
        }
        "/profile/{user_id}/{field}" => json!({ "displayname": "n" }),
        "/publicRooms" => {
            json!({ "limit": 1, "since": "s", "filter": { "generic_search_term": "a", "room_types": [null] }, "include_all_networks": true, "third_party_instance_id": "i" })
        }
        "/pushrules/global/{kind}/{rule_id}" => rule,
        "/pushrules/global/{kind}/{rule_id}/actions" => json!({ "actions": ["notify"] }),
        "/pushrules/global/{kind}/{rule_id}/enabled" => json!({ "enabled": true }),
        "/room_keys/keys" => json!({ "rooms": { "!r:hearth.test": { "sessions": { "s": session } } } }),
        "/room_keys/keys/{room_id}" => json!({ "sessions": { "s": session } }),
        "/room_keys/keys/{room_id}/{session_id}" => session,
        "/room_keys/version" | "/room_keys/version/{version}" => json!({ "algorithm": "a", "auth_data": { "k": "v" } }),
        "/rooms/{room_id}/ban" | "/rooms/{room_id}/kick" | "/rooms/{room_id}/unban" | "/rooms/{room_id}/invite" => {
            json!({ "user_id": user, "reason": "r" })
        }
        "/rooms/{room_id}/leave" => json!({ "reason": "r" }),
        "/rooms/{room_id}/read_markers" => json!({ "m.fully_read": "$a", "m.read": "$a", "m.read.private": "$a" }),
        "/rooms/{room_id}/receipt/{receipt_type}/{event_id}" => json!({ "thread_id": "main" }),
        "/rooms/{room_id}/redact/{event_id}/{txn_id}" => json!({ "reason": "r" }),
        "/rooms/{room_id}/typing/{user_id}" => json!({ "typing": true, "timeout": 1000 }),
        "/rooms/{room_id}/upgrade" => json!({ "new_version": "12" }),
        "/sendToDevice/{event_type}/{txn_id}" => json!({ "messages": { user: { "*": { "a": "b" } } } }),
        "/user/{user_id}/filter" => json!({
            "event_fields": ["type"], "event_format": "client", "presence": { "limit": 1, "types": ["a"] },
            "room": { "rooms": ["!r:hearth.test"], "include_leave": true, "timeline": { "limit": 1, "senders": [user] } },
        }),
        "/user/{user_id}/rooms/{room_id}/tags/{tag}" => json!({ "order": 0.5 }),
        _ => return None,
    })
}

/// What is wrong with an answer to bad input, if anything.
fn fault(world: &World, before: &str, answer: &Answer) -> Option<&'static str> {
    if answer.status.as_u16() >= 500 && !is_of_another(answer) {
        return Some("a failure of ours");
    }
    if answer.status.is_success() || is_of_another(answer) {
        return None;
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let errcode = body["errcode"].as_str().unwrap_or_default();
    if body["flows"].is_null() && !ERRCODES.split_whitespace().any(|known| known == errcode) {
        return Some("no specified errcode");
    }
    if body["flows"].is_null() && !body["error"].is_string() {
        return Some("no words");
    }
    (world.dump() != before).then_some("a refused request changed something")
}

/// Whether another server was asked, and did not answer: that is remembered, so that it is not asked all the time.
fn is_of_another(answer: &Answer) -> bool {
    matches!(answer.status.as_u16(), 502 | 504)
}

/// Sends requests one by one to a world that is new after each that was let through, and lists what was answered wrongly.
struct Trial {
    world: World,
    before: String,
    faults: Vec<String>,
}

/// What must be answered.
enum Expected {
    /// Whatever is no fault.
    Anything,
    /// Any refusal.
    Refusal,
    /// This status.
    Status(u16),
    /// This error.
    Error(u16, &'static str),
}
use Expected::{Anything, Error, Refusal, Status};

impl Trial {
    async fn new() -> Self {
        let world = World::new().await;
        let before = world.dump();
        Self { world, before, faults: Vec::new() }
    }

    async fn ask(
        &mut self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: Option<Vec<u8>>,
        expected: Expected,
    ) -> Answer {
        let ask = self.world.hearth.ask(method.clone(), path);
        let ask = match token {
            Some(token) => ask.token(token),
            None => ask,
        };
        let about: String = format!("{method} {path} {}", String::from_utf8_lossy(body.as_deref().unwrap_or_default()));
        let answer = ask.body(body.unwrap_or_default()).await;
        let status = answer.status.as_u16();
        let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let unexpected = match expected {
            Anything => None,
            Refusal => (status < 400).then(|| "let through".to_owned()),
            Status(wanted) => (status != wanted).then(|| format!("not {wanted}")),
            Error(wanted, errcode) => (status != wanted || told["errcode"] != errcode).then(|| format!("not {wanted} {errcode}")),
        };
        if let Some(fault) = fault(&self.world, &self.before, &answer).map(str::to_owned).or(unexpected) {
            let about: String = about.chars().take(300).collect();
            let told: String = told.to_string().chars().take(200).collect();
            self.faults.push(format!("{fault}: {about}: {status} {told}"));
        }
        let looked = answer.status.is_success() && *method == Method::GET;
        if looked || is_of_another(&answer) {
            // It may have noted what nobody waits for: that somebody looked, or that a server does not answer.
            self.world.hearth.settle().await;
            self.before = self.world.dump();
        } else if answer.status.is_success() {
            *self = Self { faults: std::mem::take(&mut self.faults), ..Self::new().await };
        }
        answer
    }

    async fn ask_as_alice(&mut self, method: &Method, path: &str, body: Option<Vec<u8>>, expected: Expected) -> Answer {
        let token = self.world.alice.token.clone();
        self.ask(method, path, Some(&token), body, expected).await
    }

    fn end(self) {
        assert!(self.faults.is_empty(), "{} faults: {:#?}", self.faults.len(), &self.faults[..self.faults.len().min(80)]);
    }
}

#[tokio::test]
async fn t41_no_endpoint_takes_a_token_that_is_none() {
    let mut trial = Trial::new().await;
    let world = &trial.world;
    let gone = world.hearth.register("gone").await;
    users::accounts::deactivate(&world.hearth.server.store, gone.user, false, &[]).unwrap().durable().await.unwrap();
    let locked = world.hearth.register("locked").await;
    users::accounts::set_locked(&world.hearth.server.store, locked.user, true).unwrap().durable().await.unwrap();
    trial.before = trial.world.dump();
    for (route, template) in endpoints() {
        if !matches!(route.auth, "user" | "user-or-guest" | "even-locked" | "admin") {
            continue;
        }
        let (method, path) = (&route.place.method, trial.world.path(template, None));
        let body = has_body(&route).then(|| body(method, template).unwrap_or_else(|| json!({})).to_string().into_bytes());
        trial.ask(method, &path, None, body.clone(), Error(401, "M_MISSING_TOKEN")).await;
        for token in ["", " "] {
            trial.ask(method, &path, Some(token), body.clone(), Error(401, "M_MISSING_TOKEN")).await;
        }
        for token in ["unknown", gone.token.as_str(), "a b"] {
            trial.ask(method, &path, Some(token), body.clone(), Error(401, "M_UNKNOWN_TOKEN")).await;
        }
        if route.auth != "even-locked" {
            trial.ask(method, &path, Some(&locked.token), body.clone(), Error(401, "M_USER_LOCKED")).await;
        }
    }
    trial.end();
}

#[tokio::test]
async fn no_endpoint_takes_a_body_that_is_no_json_object() {
    let mut trial = Trial::new().await;
    let deep = [b"{\"a\":".repeat(10_000), b"1".to_vec(), b"}".repeat(10_000)].concat();
    let listed = [b"{\"a\":".to_vec(), b"[".repeat(10_000), b"]".repeat(10_000), b"}".to_vec()].concat();
    for (route, template) in endpoints() {
        // Who proves to be no server is refused before anybody looks at the body.
        if !has_body(&route) || route.auth == SERVER {
            continue;
        }
        let (method, path) = (&route.place.method, trial.world.path(template, None));
        for (bytes, errcode) in [
            (b"{".as_slice(), "M_NOT_JSON"),
            (b"{\"a\":1,}", "M_NOT_JSON"),
            (b"{\"a\":\"\xff\"}", "M_NOT_JSON"),
            (b"{\"a\":\"\x00\"}", "M_NOT_JSON"),
            (b"{} {}", "M_NOT_JSON"),
            (b"\xef\xbb\xbf{}", "M_NOT_JSON"),
            (b"nonsense", "M_NOT_JSON"),
            (b"[]", "M_BAD_JSON"),
            (b"\"text\"", "M_BAD_JSON"),
            (b"null", "M_BAD_JSON"),
        ] {
            trial.ask_as_alice(method, &path, Some(bytes.to_vec()), Error(400, errcode)).await;
        }
        for nested in [&deep, &listed].into_iter().filter(|nested| nested.len() <= route.body_max) {
            trial.ask_as_alice(method, &path, Some(nested.clone()), Error(400, "M_BAD_JSON")).await;
        }
        let large = [b"{\"a\":\"".to_vec(), vec![b'a'; route.body_max], b"\"}".to_vec()].concat();
        trial.ask_as_alice(method, &path, Some(large), Error(413, "M_TOO_LARGE")).await;
    }
    trial.end();
}

#[tokio::test]
async fn paths_that_name_nothing_are_refused() {
    let mut trial = Trial::new().await;
    let long = "a".repeat(2_000);
    for (route, template) in endpoints() {
        let method = &route.place.method;
        let variables: Vec<_> = template.split('/').filter(|segment| segment.starts_with('{')).map(str::to_owned).collect();
        for (number, variable) in variables.iter().enumerate() {
            let body = has_body(&route).then(|| body(method, template).unwrap_or_else(|| json!({})).to_string().into_bytes());
            for wrong in ["%FF", "%C3%28", "%zz", "%"] {
                let path = trial.world.path(template, Some((number, wrong)));
                trial.ask_as_alice(method, &path, body.clone(), Status(400)).await;
            }
            for odd in [
                "%00",
                "..",
                "%2E%2E%2F%2E%2E",
                "@",
                "%23",
                "!",
                "$",
                "@a",
                "!:",
                "-1",
                "99999999999999999999",
                "%0A",
                "%F0%9F%92%A9",
                long.as_str(),
            ] {
                let path = trial.world.path(template, Some((number, odd)));
                let is_id =
                    matches!(variable.as_str(), "{room_id}" | "{event_id}" | "{user_id}" | "{room_alias}" | "{room_id_or_alias}");
                trial
                    .ask_as_alice(
                        method,
                        &path,
                        body.clone(),
                        if is_id && (*method == Method::PUT || !template.contains("/room_keys/")) { Refusal } else { Anything },
                    )
                    .await;
            }
        }
    }
    trial.end();
}

#[tokio::test]
async fn queries_that_say_nothing_are_refused_or_ignored() {
    let mut trial = Trial::new().await;
    let values =
        ["", "garbage", "-1", "1.5", "99999999999999999999999", "s999999999", "t-9999999999999999999999", "%00", "%7B", "true"];
    let names = "since from to at limit dir timeout full_state filter set_presence width height method not_membership membership kind \
         username version token before after server via set_account_recover recurse use_state_after access_token timeout_ms";
    for (route, template) in endpoints() {
        let (method, path) = (&route.place.method, trial.world.path(template, None));
        if *method != Method::GET {
            continue;
        }
        let sign = if path.contains('?') { '&' } else { '?' };
        for name in names.split_whitespace() {
            for value in values {
                // A long poll that is meant so is none of this test's business.
                if name != "timeout" || value.starts_with('-') || value.is_empty() {
                    trial.ask_as_alice(method, &format!("{path}{sign}{name}={value}"), None, Anything).await;
                }
            }
        }
        trial.ask_as_alice(method, &format!("{path}{sign}%FF=%FF"), None, Error(400, "M_INVALID_PARAM")).await;
    }
    let messages = format!("/_matrix/client/v3/rooms/{}/messages", trial.world.room);
    for query in [
        "dir=b&from=garbage",
        "dir=b&from=s",
        "dir=b&limit=-1",
        "dir=sideways",
        "dir=b&limit=1.5",
        "dir=b&to=x",
        "dir=b&filter=%7B",
    ] {
        trial.ask_as_alice(&Method::GET, &format!("{messages}?{query}"), None, Error(400, "M_INVALID_PARAM")).await;
    }
    for query in ["since=garbage", "since=s-1", "timeout=-1", "timeout=x", "full_state=maybe", "filter=%7B"] {
        trial.ask_as_alice(&Method::GET, &format!("/_matrix/client/v3/sync?{query}"), None, Status(400)).await;
    }
    // The future is that of a server that was restored from a backup.
    trial.ask_as_alice(&Method::GET, "/_matrix/client/v3/sync?since=s999999999&timeout=0", None, Status(200)).await;
    trial.end();
}

/// Values of every type but that of `valid`.
fn others(valid: &Value) -> Vec<Value> {
    let all = [
        json!(null),
        json!(true),
        json!(7),
        json!(-1),
        json!(1.5),
        json!("text"),
        json!("\u{0}"),
        json!([]),
        json!([[]]),
        json!({}),
    ];
    let kind = |value: &Value| match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    };
    all.into_iter().filter(|other| kind(other) != kind(valid)).collect()
}

/// A body with each of its fields, down to some depth, of each other type.
fn spoiled(valid: &Value, depth: usize) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let parts: Vec<(String, Value)> = match valid {
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (format!("/{}", key.replace('~', "~0").replace('/', "~1")), value.clone())).collect()
        }
        Value::Array(items) => items.iter().enumerate().map(|(number, item)| (format!("/{number}"), item.clone())).collect(),
        _ => Vec::new(),
    };
    for (pointer, part) in parts {
        let mut with = |value: Value, below: &str| {
            let mut whole = valid.clone();
            *whole.pointer_mut(&pointer).unwrap() = value;
            found.push((format!("{pointer}{below}"), whole));
        };
        others(&part).into_iter().for_each(|other| with(other, ""));
        if depth > 0 {
            spoiled(&part, depth - 1).into_iter().for_each(|(below, inner)| with(inner, &below));
        }
    }
    found
}

/// Fields that take any type, or whose wrong types are ignored as the specification or old clients have it.
const LENIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lenient_fields.txt");

#[tokio::test]
async fn fields_of_wrong_types_are_refused() {
    let mut trial = Trial::new().await;
    let mut lenient = BTreeSet::new();
    for (route, template) in endpoints() {
        let method = &route.place.method;
        let Some(valid) = body(method, template).filter(|_| has_body(&route)) else { continue };
        for (pointer, spoiled) in spoiled(&valid, 3) {
            let path = trial.world.path(template, None);
            let answer = trial.ask_as_alice(method, &path, Some(spoiled.to_string().into_bytes()), Anything).await;
            if answer.status.is_success() {
                let at = spoiled.pointer(&pointer).cloned().unwrap_or_default();
                let shown = if at.is_null() { "null" } else { "any" };
                lenient.insert(format!("{method} {template} {pointer} {shown}"));
            }
        }
    }
    let actual: String = lenient.iter().map(|line| format!("{line}\n")).collect();
    if std::env::var("HEARTH_GOLDEN").is_ok_and(|mode| mode == "write") {
        std::fs::write(LENIENT, &actual).unwrap();
    }
    assert_eq!(actual, std::fs::read_to_string(LENIENT).unwrap(), "a field became stricter or laxer");
    trial.end();
}

#[tokio::test]
async fn random_requests_are_answered() {
    let mut trial = Trial::new().await;
    let mut rng = StdRng::seed_from_u64(42);
    let mut text = |alphabet: &[u8], max: usize| {
        let length = rng.random_range(0..=max);
        (0..length).map(|_| char::from(alphabet[rng.random_range(0..alphabet.len())])).collect::<String>()
    };
    for (route, template) in endpoints() {
        let method = &route.place.method;
        let count = template.split('/').filter(|segment| segment.starts_with('{')).count();
        for round in 0..6 {
            let odd = text(b"@!$#:ab.0-_%41*~+", 12);
            let query = text(b"&=a%20[]{}\"0-,:since", 30).replace(['"', '{', '}'], "");
            let path = trial.world.path(template, (count > 0).then_some((round % count.max(1), odd.as_str())));
            let path = format!("{path}{}{query}", if path.contains('?') { '&' } else { '?' });
            if path.contains("/sync?") || http::Uri::try_from(&path).is_err() {
                continue;
            }
            let body = text(b"{}[]\",:0123456789.eE-+\\u truefalsnxyz\x01\x7f", 60);
            let body = has_body(&route).then(|| format!("{{\"a\":{body}}}").into_bytes());
            trial.ask_as_alice(method, &path, body, Anything).await;
        }
    }
    trial.end();
}

#[tokio::test]
async fn headers_of_any_bytes_are_read_or_refused() {
    let world = World::new().await;
    let mut rng = StdRng::seed_from_u64(7);
    let media = format!("/_matrix/client/v1/media/download/hearth.test/{}", world.media);
    let names = "authorization content-type content-disposition range accept accept-encoding if-none-match if-modified-since \
                 user-agent content-length origin host x-forwarded-for";
    world.alice.get(&media).await;
    let before = world.dump();
    for name in names.split_whitespace() {
        for round in 0..40 {
            let length = rng.random_range(0..40);
            let words = [
                "bytes=",
                "Bearer ",
                "gzip;q=",
                "image/",
                ",",
                "-",
                "\"",
                "*/*",
                "0",
                "99999999999999999999",
                "[::1]:",
                "1.2.3.4",
            ];
            let value = match round % 2 {
                0 => (0..length).map(|_| rng.random_range(0x20..0x7f_u8)).collect::<Vec<u8>>(),
                _ => (0..length / 8).flat_map(|_| words[rng.random_range(0..words.len())].bytes()).collect(),
            };
            let value = String::from_utf8(value).unwrap();
            let ask = if name == "authorization" { world.hearth.get(&media) } else { world.alice.get(&media) };
            let answer = ask.header(name, &value).await;
            let told = format!("{name}: {value}: {}", answer.status);
            assert!(answer.status.as_u16() < 500, "{told}");
            assert!(name != "authorization" || answer.status == 401, "{told}");
            // What a proxy says of the address is noted with the device.
            assert!(name == "x-forwarded-for" || world.dump() == before, "{told}: something changed");
        }
    }
}
