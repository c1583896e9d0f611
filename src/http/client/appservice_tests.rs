//! Application services over HTTP.
#![allow(clippy::unwrap_used)]

use ruma::server_name;
use serde_json::{Value, json};
use users::appservices::Appservices;

use crate::{
    limits,
    testing::{Ask, Hearth},
};

const REGISTER: &str = "/_matrix/client/v3/register";
const LOGIN: &str = "/_matrix/client/v3/login";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const ALICE: &str = "@_irc_alice:hearth.test";

fn registration(id: &str, rate_limited: bool) -> Value {
    json!({
        "id": id, "url": null, "as_token": format!("{id}-token"), "hs_token": "secret", "sender_localpart": format!("_{id}_bot"),
        "rate_limited": rate_limited,
        "namespaces": {
            "users": [{ "exclusive": true, "regex": format!("@_{id}_.*") }, { "exclusive": false, "regex": "@bridge" }],
            "aliases": [{ "exclusive": true, "regex": format!("#_{id}_.*") }],
        },
    })
}

fn users() -> users::Config {
    let registrations = [registration("irc", true), registration("xmpp", false)];
    let registrations = registrations.map(|registration| serde_json::from_value(registration).unwrap());
    let appservices = Appservices::new(&registrations, server_name!("hearth.test")).unwrap();
    let registration = users::registration::Config { mode: users::registration::Mode::Open, ..Default::default() };
    users::Config { appservices, registration, ..users::Config::default() }
}

fn of_irc(ask: Ask) -> Ask {
    ask.token("irc-token")
}

/// A server where the bridge registered Alice.
async fn bridged() -> Hearth {
    let hearth = Hearth::with_users(users());
    let request = json!({ "type": "m.login.application_service", "username": "_irc_alice", "inhibit_login": true });
    let made = of_irc(hearth.post(REGISTER, request)).await.ok();
    assert_eq!(made, json!({ "user_id": ALICE }));
    hearth
}

#[tokio::test]
async fn it_registers_its_users_and_nobody_elses() {
    let hearth = bridged().await;
    let register = |username: &str| {
        let request = json!({ "type": "m.login.application_service", "username": username });
        hearth.post(REGISTER, request)
    };
    let made = of_irc(register("_irc_bob")).await.ok();
    let whoami = hearth.get(WHOAMI).token(made["access_token"].as_str().unwrap()).await.ok();
    assert_eq!(whoami["device_id"], made["device_id"]);
    of_irc(register("_irc_bob")).await.fails(400, "M_USER_IN_USE");
    of_irc(register("carol")).await.fails(400, "M_EXCLUSIVE");
    of_irc(register("_xmpp_carol")).await.fails(400, "M_EXCLUSIVE");
    of_irc(register("bridge")).await.ok();
    of_irc(hearth.post(REGISTER, json!({ "type": "m.login.application_service" }))).await.fails(400, "M_MISSING_PARAM");
    register("_irc_dora").await.fails(401, "M_MISSING_TOKEN");
    register("_irc_dora").token("guess").await.fails(401, "M_UNKNOWN_TOKEN");

    let person = |name: &str| json!({ "username": name, "password": "correct horse", "auth": { "type": "m.login.dummy" } });
    hearth.post(REGISTER, person("_irc_eve")).await.fails(400, "M_EXCLUSIVE");
    hearth.get(&format!("{REGISTER}/available?username=_irc_eve")).await.fails(400, "M_EXCLUSIVE");
    hearth.post(REGISTER, person("bridge2")).await.ok();
}

#[tokio::test]
async fn it_acts_as_its_own_user_or_as_one_of_its_namespace() {
    let hearth = bridged().await;
    assert_eq!(of_irc(hearth.get(WHOAMI)).await.ok(), json!({ "user_id": "@_irc_bot:hearth.test" }));
    let whoami = |query: &str| of_irc(hearth.get(&format!("{WHOAMI}?{query}")));
    assert_eq!(whoami("user_id=%40_irc_alice%3Ahearth.test").await.ok(), json!({ "user_id": ALICE }));
    whoami("user_id=@_irc_nobody:hearth.test").await.fails(403, "M_FORBIDDEN");
    hearth.register("carol").await;
    whoami("user_id=@carol:hearth.test").await.fails(403, "M_FORBIDDEN");
    whoami("user_id=@_xmpp_bot:hearth.test").await.fails(403, "M_FORBIDDEN");
    whoami("user_id=@_irc_alice:elsewhere.test").await.fails(403, "M_FORBIDDEN");
    whoami("user_id=nobody").await.fails(400, "M_INVALID_PARAM");
    whoami(&format!("user_id={ALICE}&device_id=PHONE")).await.fails(400, "M_UNKNOWN_DEVICE");

    let (alice, _) = users::accounts::find(&hearth.server.snapshot(), ALICE.try_into().unwrap()).unwrap().unwrap();
    users::accounts::set_locked(&hearth.server.store, alice, true).unwrap().durable().await.unwrap();
    whoami(&format!("user_id={ALICE}")).await.fails(401, "M_USER_LOCKED");
    users::accounts::deactivate(&hearth.server.store, alice, false, &[]).unwrap().durable().await.unwrap();
    whoami(&format!("user_id={ALICE}")).await.fails(403, "M_USER_DEACTIVATED");
}

#[tokio::test]
async fn its_users_have_devices_without_logging_in() {
    let hearth = bridged().await;
    let path = |path: &str, query: &str| format!("/_matrix/client/v3/{path}?user_id={ALICE}{query}");
    let put =
        |name: &str| of_irc(hearth.ask(http::Method::PUT, &path("devices/BRIDGE", ""))).json(&json!({ "display_name": name }));
    assert_eq!(put("first").await.status, 201);
    assert_eq!(put("second").await.status, 200);
    let whoami = of_irc(hearth.get(&path("account/whoami", "&device_id=BRIDGE"))).await.ok();
    assert_eq!(whoami, json!({ "user_id": ALICE, "device_id": "BRIDGE" }));
    let devices = of_irc(hearth.get(&path("devices", ""))).await.ok();
    assert_eq!(devices["devices"], json!([{ "device_id": "BRIDGE", "display_name": "second" }]));
    of_irc(hearth.post(&path("keys/upload", ""), json!({}))).await.fails(400, "M_MISSING_PARAM");
    of_irc(hearth.post(&path("keys/upload", "&device_id=BRIDGE"), json!({}))).await.ok();
    of_irc(hearth.get(&path("sync", ""))).await.ok();
    of_irc(hearth.ask(http::Method::DELETE, &path("devices/BRIDGE", ""))).json(&json!({})).await.ok();
    assert_eq!(of_irc(hearth.get(&path("devices", ""))).await.ok()["devices"], json!([]));
    assert_eq!(
        of_irc(hearth.post(&path("account/deactivate", ""), json!({}))).await.status,
        401,
        "accounts are not its to manage"
    );
}

#[tokio::test]
async fn it_logs_in_as_its_users() {
    let hearth = bridged().await;
    let login = |user: &str| {
        let identifier = json!({ "type": "m.id.user", "user": user });
        hearth.post(LOGIN, json!({ "type": "m.login.application_service", "identifier": identifier }))
    };
    let session = of_irc(login("_irc_alice")).await.ok();
    assert_eq!(hearth.get(WHOAMI).token(session["access_token"].as_str().unwrap()).await.ok()["user_id"], ALICE);
    of_irc(login(ALICE)).await.ok();
    hearth.register("carol").await;
    of_irc(login("carol")).await.fails(400, "M_EXCLUSIVE");
    of_irc(login("_irc_nobody")).await.fails(403, "M_FORBIDDEN");
    login("_irc_alice").await.fails(401, "M_MISSING_TOKEN");
    login("_irc_alice").token(session["access_token"].as_str().unwrap()).await.fails(401, "M_UNKNOWN_TOKEN");
    let flows = hearth.get(LOGIN).await.ok();
    assert!(flows["flows"].as_array().unwrap().contains(&json!({ "type": "m.login.application_service" })));
}

#[tokio::test]
async fn its_aliases_are_its_own_and_its_events_have_their_time() {
    let hearth = bridged().await;
    let carol = hearth.register("carol").await;
    let theirs = "/_matrix/client/v3/directory/room/%23_irc_lounge:hearth.test";
    let room = of_irc(hearth.post("/_matrix/client/v3/createRoom", json!({ "room_alias_name": "_irc_main" }))).await.ok();
    let room = room["room_id"].as_str().unwrap();
    of_irc(hearth.ask(http::Method::PUT, theirs)).json(&json!({ "room_id": room })).await.ok();
    let own = carol.post("/_matrix/client/v3/createRoom", json!({ "room_alias_name": "carols" })).await.ok();
    carol.put(theirs, json!({ "room_id": own["room_id"] })).await.fails(400, "M_EXCLUSIVE");
    carol.delete(theirs).await.fails(400, "M_EXCLUSIVE");
    carol.post("/_matrix/client/v3/createRoom", json!({ "room_alias_name": "_irc_x" })).await.fails(400, "M_EXCLUSIVE");
    of_irc(hearth.ask(http::Method::DELETE, theirs)).await.ok();

    let send = |path: &str| {
        of_irc(hearth.ask(http::Method::PUT, &format!("/_matrix/client/v3/rooms/{room}/{path}"))).json(&json!({ "body": "x" }))
    };
    let sent = send("send/m.room.message/1?ts=12345").await.ok();
    let event =
        of_irc(hearth.get(&format!("/_matrix/client/v3/rooms/{room}/event/{}", sent["event_id"].as_str().unwrap()))).await.ok();
    assert_eq!(event["origin_server_ts"], 12345);
    let sent = send("state/org.example.state/?ts=54321").await.ok();
    let event =
        of_irc(hearth.get(&format!("/_matrix/client/v3/rooms/{room}/event/{}", sent["event_id"].as_str().unwrap()))).await.ok();
    assert_eq!(event["origin_server_ts"], 54321);
    send("send/m.room.message/2?ts=-1").await.fails(400, "M_INVALID_PARAM");
    let own = own["room_id"].as_str().unwrap();
    let sent = carol.put(&format!("/_matrix/client/v3/rooms/{own}/send/m.room.message/1?ts=12345"), json!({})).await.ok();
    let event = carol.get(&format!("/_matrix/client/v3/rooms/{own}/event/{}", sent["event_id"].as_str().unwrap())).await.ok();
    assert_eq!(event["origin_server_ts"], hearth.server.now_ms(), "the word of an application service only");
}

#[tokio::test]
async fn its_registration_says_whether_it_is_limited() {
    let strict = limits::Config { read: limits::Rate { per_second: 0.001, burst: 2 }, ..limits::Config::default() };
    let hearth = Hearth::with_both(crate::Config { limits: strict, ..crate::Config::default() }, users());
    for (service, limited) in [("irc", true), ("xmpp", false)] {
        let token = format!("{service}-token");
        let request =
            json!({ "type": "m.login.application_service", "username": format!("_{service}_alice"), "inhibit_login": true });
        hearth.post(REGISTER, request).token(&token).await.ok();
        let ask = |query: String| hearth.get(&format!("{WHOAMI}{query}")).token(&token);
        for _ in 0..5 {
            ask(String::new()).await.ok();
        }
        let mut last = 0;
        for _ in 0..5 {
            last = ask(format!("?user_id=@_{service}_alice:hearth.test")).await.status.as_u16();
        }
        assert_eq!(last == 429, limited, "{service}");
    }
}
