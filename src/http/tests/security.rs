//! The classes of security holes that other homeservers had, by their numbers, tried over HTTP. Those that a lower layer can
//! show alone are tried there, under the same numbers (`grep -rn 'fn t[0-9]' src`).

use http::Method;
use serde_json::{Value, json};

use crate::testing::{Answer, Hearth, Person};

const CLIENT: &str = "/_matrix/client/v3";
/// The types of the events that tests look for.
const MESSAGE: &str = "m.room.message";

async fn room(who: &Person, about: Value) -> String {
    who.post(&format!("{CLIENT}/createRoom"), about).await.ok()["room_id"].as_str().unwrap().to_owned()
}

async fn join(who: &Person, room: &str) {
    who.post(&format!("{CLIENT}/join/{room}"), json!({})).await.ok();
}

async fn say(who: &Person, room: &str, body: &str) -> String {
    let path = format!("{CLIENT}/rooms/{room}/send/{MESSAGE}/{body}");
    who.put(&path, json!({ "msgtype": "m.text", "body": body })).await.ok()["event_id"].as_str().unwrap().to_owned()
}

async fn see(who: &Person, room: &str, visibility: &str) {
    let path = format!("{CLIENT}/rooms/{room}/state/m.room.history_visibility/");
    who.put(&path, json!({ "history_visibility": visibility })).await.ok();
}

async fn kick(who: &Person, room: &str, target: &Person) {
    who.post(&format!("{CLIENT}/rooms/{room}/kick"), json!({ "user_id": target.user_id })).await.ok();
}

fn bodies(events: &Value) -> Vec<String> {
    let bodies = events.as_array().into_iter().flatten().filter_map(|event| event["content"]["body"].as_str());
    bodies.map(str::to_owned).collect()
}

/// All that somebody can page back to.
async fn history(who: &Person, room: &str) -> Vec<String> {
    let page = who.get(&format!("{CLIENT}/rooms/{room}/messages?dir=b&limit=1000")).await.ok();
    let mut all = bodies(&page["chunk"]);
    all.reverse();
    all
}

async fn sync(who: &Person, since: &str) -> Value {
    who.get(&format!("{CLIENT}/sync?timeout=0&since={since}")).await.ok()
}

async fn since(who: &Person) -> String {
    who.get(&format!("{CLIENT}/sync")).await.ok()["next_batch"].as_str().unwrap().to_owned()
}

fn refused(answer: &Answer) {
    let body = answer.json();
    assert!(matches!(answer.status.as_u16(), 403 | 404), "{} {body}", answer.status);
    assert!(matches!(body["errcode"].as_str(), Some("M_FORBIDDEN" | "M_NOT_FOUND")), "{body}");
}

#[tokio::test]
async fn t16_who_was_kicked_is_told_so_and_nothing_more() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &room).await;
    let token = since(&bob).await;
    say(&alice, &room, "before").await;
    kick(&alice, &room, &bob).await;
    let after = say(&alice, &room, "after").await;
    alice.put(&format!("{CLIENT}/rooms/{room}/state/m.room.topic/"), json!({ "topic": "after" })).await.ok();
    alice.put(&format!("{CLIENT}/rooms/{room}/typing/{}", alice.user_id), json!({ "typing": true, "timeout": 9000 })).await.ok();
    alice.post(&format!("{CLIENT}/rooms/{room}/receipt/m.read/{after}"), json!({})).await.ok();

    let answer = sync(&bob, &token).await;
    let left = &answer["rooms"]["leave"][&room];
    assert_eq!(bodies(&left["timeline"]["events"]), ["before"]);
    assert!(answer["rooms"]["join"].is_null() && !answer.to_string().contains("after"), "{answer}");
    let next = sync(&bob, answer["next_batch"].as_str().unwrap()).await;
    assert!(next["rooms"].is_null(), "{next}");
    say(&alice, &room, "later").await;
    let (whole, archived) = (sync(&bob, "s0").await, json!({ "room": { "include_leave": true } }));
    let archived = archived.to_string().replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
    let archived = bob.get(&format!("{CLIENT}/sync?filter={archived}")).await.ok();
    for told in [&whole, &archived] {
        assert!(!told.to_string().contains("after") && !told.to_string().contains("later"), "{told}");
    }
    assert_eq!(history(&bob, &room).await, ["before"]);
    refused(&bob.get(&format!("{CLIENT}/rooms/{room}/event/{after}")).await);
    refused(&bob.get(&format!("{CLIENT}/rooms/{room}/context/{after}")).await);
    let topic = bob.get(&format!("{CLIENT}/rooms/{room}/state/m.room.topic/")).await;
    assert!(!String::from_utf8_lossy(&topic.body).contains("after"), "state as it was when he left");
    refused(&bob.put(&format!("{CLIENT}/rooms/{room}/send/{MESSAGE}/x"), json!({ "body": "x" })).await);
}

#[tokio::test]
async fn t17_a_private_room_tells_strangers_nothing() {
    let hearth = Hearth::start();
    let (alice, eve) = (hearth.register("alice").await, hearth.register("eve").await);
    let (room, own) = (room(&alice, json!({ "name": "secret" })).await, room(&eve, json!({})).await);
    let event = say(&alice, &room, "secret").await;
    for path in [
        "members",
        "joined_members",
        "state",
        "state/m.room.name/",
        "state/m.room.member/@alice:hearth.test",
        "aliases",
        "messages?dir=b",
        &format!("event/{event}"),
        &format!("context/{event}"),
    ] {
        refused(&eve.get(&format!("{CLIENT}/rooms/{room}/{path}")).await);
    }
    refused(&eve.get(&format!("/_matrix/client/v1/rooms/{room}/relations/{event}")).await);
    for (method, path, body) in [
        (Method::POST, format!("receipt/m.read/{event}"), json!({})),
        (Method::PUT, format!("typing/{}", eve.user_id), json!({ "typing": true, "timeout": 1000 })),
        (Method::PUT, format!("redact/{event}/t"), json!({})),
        (Method::PUT, format!("send/{MESSAGE}/t"), json!({ "body": "x" })),
        (Method::PUT, "state/m.room.topic/".into(), json!({ "topic": "x" })),
        (Method::POST, "invite".into(), json!({ "user_id": eve.user_id })),
        (Method::POST, "join".into(), json!({})),
    ] {
        refused(&eve.ask(method, &format!("{CLIENT}/rooms/{room}/{path}")).json(&body).await);
    }
    // By way of a room of one's own: as an event that does not exist.
    let nothing = format!("$nothing{}", &event[8..]);
    for place in ["event", "context"] {
        let through = |id: &str| format!("{CLIENT}/rooms/{own}/{place}/{id}");
        let (there, missing) = (eve.get(&through(&event)).await, eve.get(&through(&nothing)).await);
        assert_eq!((there.status, &there.body), (missing.status, &missing.body), "{place}");
        refused(&there);
    }
    let listed = eve.post(&format!("{CLIENT}/publicRooms"), json!({})).await.ok();
    assert!(!listed.to_string().contains("secret"), "{listed}");
    eve.get(&format!("{CLIENT}/profile/@nobody:hearth.test")).await.fails(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn t18_history_is_visible_as_it_was_when_it_was_made() {
    let hearth = Hearth::start();
    let (alice, bob, carol) = (hearth.register("alice").await, hearth.register("bob").await, hearth.register("carol").await);
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    say(&alice, &room, "shared").await;
    see(&alice, &room, "joined").await;
    let joined = say(&alice, &room, "joined").await;
    see(&alice, &room, "invited").await;
    say(&alice, &room, "uninvited").await;
    alice.post(&format!("{CLIENT}/rooms/{room}/invite"), json!({ "user_id": bob.user_id })).await.ok();
    say(&alice, &room, "invited").await;
    see(&alice, &room, "world_readable").await;
    say(&alice, &room, "world").await;
    see(&alice, &room, "joined").await;
    say(&alice, &room, "closed").await;
    let seen_by_bob = ["shared", "invited", "world"];
    join(&bob, &room).await;
    assert_eq!(history(&bob, &room).await, seen_by_bob);
    refused(&bob.get(&format!("{CLIENT}/rooms/{room}/event/{joined}")).await);
    refused(&bob.get(&format!("{CLIENT}/rooms/{room}/context/{joined}")).await);
    say(&alice, &room, "together").await;
    kick(&alice, &room, &bob).await;
    say(&alice, &room, "alone").await;
    see(&alice, &room, "shared").await;
    say(&alice, &room, "again").await;
    assert_eq!(history(&bob, &room).await, ["shared", "invited", "world", "together"], "of those who left, until they left");
    join(&carol, &room).await;
    assert_eq!(history(&carol, &room).await, ["shared", "world", "again"]);
    let told = carol.get(&format!("{CLIENT}/sync")).await.ok();
    let timeline = bodies(&told["rooms"]["join"][&room]["timeline"]["events"]);
    assert!(timeline.iter().all(|body| ["shared", "world", "again"].contains(&body.as_str())), "{timeline:?}");
    assert!(!told.to_string().contains("together"), "{told}");
}

#[tokio::test]
async fn t19_a_transaction_id_is_told_to_the_device_that_chose_it() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &room).await;
    let (mine, theirs) = (since(&alice).await, since(&bob).await);
    let event = say(&alice, &room, "chosen").await;
    let path = format!("{CLIENT}/rooms/{room}/event/{event}");
    assert_eq!(alice.get(&path).await.ok()["unsigned"]["transaction_id"], "chosen");
    assert!(bob.get(&path).await.ok()["unsigned"]["transaction_id"].is_null());
    for (who, since, told) in [(&alice, mine, json!("chosen")), (&bob, theirs, Value::Null)] {
        let answer = sync(who, &since).await;
        let events = &answer["rooms"]["join"][&room]["timeline"]["events"];
        assert_eq!(events[0]["unsigned"]["transaction_id"], told);
    }
    for paged in ["messages?dir=b".to_owned(), format!("context/{event}")] {
        let answer = bob.get(&format!("{CLIENT}/rooms/{room}/{paged}")).await.ok();
        assert!(!answer.to_string().contains("transaction_id"), "{answer}");
    }
}

#[tokio::test]
async fn t30_a_packed_body_is_not_unpacked() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let packed = [0x1f_u8, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3].to_vec();
    for encoding in ["gzip", "zstd", "br", "deflate"] {
        let ask = alice.ask(Method::POST, &format!("{CLIENT}/createRoom")).header("content-encoding", encoding);
        ask.body(packed.clone()).await.fails(400, "M_NOT_JSON");
    }
}

#[tokio::test]
async fn t38_quarantined_media_is_served_to_nobody_by_no_path() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(8, 8).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let upload = alice.ask(Method::POST, "/_matrix/media/v3/upload").header("content-type", "image/png");
    let uri = upload.body(png.into_inner()).await.ok()["content_uri"].as_str().unwrap().to_owned();
    let name = uri.strip_prefix("mxc://").unwrap();
    let thumbnail = format!("thumbnail/{name}?width=4&height=4");
    let paths = [format!("download/{name}"), format!("download/{name}/a.png"), thumbnail];
    for path in &paths {
        assert_eq!(alice.get(&format!("/_matrix/client/v1/media/{path}")).await.status, 200);
    }
    let id = media::MediaId::parse(name.split('/').nth(1).unwrap()).unwrap();
    media::quarantine(&hearth.server.store, &id, true).unwrap().durable().await.unwrap();
    for path in &paths {
        alice.get(&format!("/_matrix/client/v1/media/{path}")).await.fails(404, "M_NOT_FOUND");
        hearth.get(&format!("/_matrix/media/v3/{path}")).await.fails(404, "M_NOT_FOUND");
        hearth.get(&format!("/_matrix/media/r0/{path}")).await.fails(404, "M_NOT_FOUND");
    }
}

fn password(user: &str, password: &str) -> Value {
    let identifier = json!({ "type": "m.id.user", "user": user });
    json!({ "type": "m.login.password", "identifier": identifier, "password": password, "refresh_token": true })
}

/// A user with a password, logged in.
async fn with_password(hearth: &Hearth, name: &str) -> Value {
    let auth = json!({ "type": "m.login.dummy" });
    let body = json!({ "username": name, "password": "correct horse", "refresh_token": true, "auth": auth });
    hearth.post(&format!("{CLIENT}/register"), body).await.ok()
}

#[tokio::test]
async fn t41_a_deactivated_account_gets_no_token_by_any_path() {
    let hearth = Hearth::start();
    let alice = with_password(&hearth, "alice").await;
    let token = alice["access_token"].as_str().unwrap();
    let proof = password("alice", "correct horse");
    let path = "/_matrix/client/v1/login/get_token";
    let login_token = hearth.post(path, json!({ "auth": proof })).token(token).await.ok();
    hearth.post(&format!("{CLIENT}/account/deactivate"), json!({ "auth": proof })).token(token).await.ok();
    // Its password is gone, so nobody is told that it was right.
    hearth.post(&format!("{CLIENT}/login"), password("alice", "correct horse")).await.fails(403, "M_FORBIDDEN");
    let spent = json!({ "type": "m.login.token", "token": login_token["login_token"] });
    let spent = hearth.post(&format!("{CLIENT}/login"), spent).await;
    assert!(spent.status == 403, "{}", spent.status);
    let refresh = json!({ "refresh_token": alice["refresh_token"] });
    hearth.post(&format!("{CLIENT}/refresh"), refresh).await.fails(401, "M_UNKNOWN_TOKEN");
    hearth.get(&format!("{CLIENT}/account/whoami")).token(token).await.fails(401, "M_UNKNOWN_TOKEN");
    hearth.get(&format!("{CLIENT}/account/whoami?access_token={token}")).await.fails(401, "M_UNKNOWN_TOKEN");
    let again = json!({ "username": "alice", "password": "correct horse", "auth": { "type": "m.login.dummy" } });
    hearth.post(&format!("{CLIENT}/register"), again).await.fails(400, "M_USER_IN_USE");
}

#[tokio::test]
async fn t41_an_expired_token_asks_for_a_refresh_on_every_path() {
    let hearth = Hearth::start();
    let alice = with_password(&hearth, "alice").await;
    let token = alice["access_token"].as_str().unwrap();
    hearth.clock.advance(alice["expires_in_ms"].as_u64().unwrap() + 1);
    for path in ["/account/whoami", "/sync", "/joined_rooms", "/devices"] {
        let told = hearth.get(&format!("{CLIENT}{path}")).token(token).await.fails(401, "M_UNKNOWN_TOKEN");
        assert_eq!(told["soft_logout"], true);
    }
    let upload = hearth.ask(Method::POST, "/_matrix/media/v3/upload").token(token).body("bytes").await;
    upload.fails(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn t43_an_account_without_a_password_has_none_that_fits() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    for sentinel in ["", "*", "!", "null", "undefined", "$argon2id$", "\u{0}"] {
        hearth.post(&format!("{CLIENT}/login"), password("alice", sentinel)).await.fails(403, "M_FORBIDDEN");
        for proof in [password("alice", sentinel), json!({ "type": "m.login.password", "user": "alice", "password": sentinel })] {
            let body = json!({ "auth": proof, "devices": [alice.device_id] });
            let refused = alice.post(&format!("{CLIENT}/delete_devices"), body).await;
            assert_eq!(refused.status, 401, "{}", String::from_utf8_lossy(&refused.body));
        }
    }
    let proof = json!({ "type": "m.login.dummy" });
    let refused = alice.post(&format!("{CLIENT}/delete_devices"), json!({ "auth": proof, "devices": [alice.device_id] })).await;
    assert_eq!(refused.status, 401, "a stage that is not offered");
    alice.get(&format!("{CLIENT}/account/whoami")).await.ok();
}

#[tokio::test]
async fn t43_another_users_proof_is_none() {
    let hearth = Hearth::start();
    let (alice, _) = (with_password(&hearth, "alice").await, with_password(&hearth, "bob").await);
    let body = json!({ "auth": password("bob", "correct horse"), "devices": [alice["device_id"]] });
    let refused = hearth.post(&format!("{CLIENT}/delete_devices"), body).token(alice["access_token"].as_str().unwrap());
    refused.await.fails(403, "M_FORBIDDEN");
    let dump = hearth.server.store.dump(&crate::testing::tables()).unwrap();
    assert!(!dump.contains("correct horse"), "a password is stored nowhere in plain text");
}
