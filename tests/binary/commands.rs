//! The operator's commands, on a running server and on a stopped one.

use std::{io::Write as _, process::Stdio};

use serde_json::{Value, json};

use crate::process::{Place, Running};

fn login(server: &Running, user: &str, password: &str) -> (u16, Value) {
    let identifier = json!({ "type": "m.id.user", "user": user });
    let body = json!({ "type": "m.login.password", "identifier": identifier, "password": password });
    server.ask("POST", "/_matrix/client/v3/login", "", &body)
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Runs a command that reads its password from standard input.
fn with_password(place: &Place, args: &[&str], password: &str) -> String {
    let mut command = place.command(args);
    let mut child = command.arg("--password-stdin").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn users_are_made_while_the_server_runs() {
    let place = Place::new();
    let server = place.serve(&["--rate-limits", "off"]);
    let made = json_of(&place.ok(&["user", "create", "alice", "--admin", "--json"]));
    assert_eq!(made["user_id"], "@alice:localhost");
    let (status, session) = login(&server, "alice", made["password"].as_str().unwrap());
    assert_eq!(status, 200, "{session}");
    assert_eq!(with_password(&place, &["user", "create", "bob"], "correct horse\n"), "@bob:localhost was made.\n");
    assert_eq!(login(&server, "bob", "correct horse").0, 200);
    let taken = place.fails(&["user", "create", "alice"]);
    assert!(taken.contains("taken"), "{taken}");

    let reset = json_of(&place.ok(&["user", "reset-password", "alice", "--json"]));
    let token = session["access_token"].as_str().unwrap();
    assert_eq!(server.ask("GET", "/_matrix/client/v3/account/whoami", token, &Value::Null).0, 401, "her sessions ended");
    assert_eq!(login(&server, "alice", reset["password"].as_str().unwrap()).0, 200);

    place.ok(&["user", "deactivate", "bob"]);
    assert_eq!(login(&server, "bob", "correct horse").0, 403);
    let list = place.ok(&["user", "list"]);
    let lines: Vec<_> = list.lines().collect();
    assert!(lines[0].starts_with("@alice:localhost") && lines[0].ends_with("admin"), "{list}");
    assert!(lines[1].starts_with("@bob:localhost") && lines[1].ends_with("deactivated"), "{list}");
    server.stop();
}

#[test]
fn users_are_made_while_the_server_is_stopped() {
    let place = Place::new();
    let before = place.fails(&["user", "create", "alice"]);
    assert!(before.contains("there is no server in ./data"), "{before}");
    place.serve(&["--server-name", "example.org"]).stop();
    let made = json_of(&place.ok(&["user", "create", "alice", "--json"]));
    assert_eq!(made["user_id"], "@alice:example.org", "under the name that the folder has");
    place.ok(&["user", "admin", "alice"]);
    place.ok(&["user", "admin", "@alice:example.org", "off"]);
    let users = place.ok(&["user", "list", "--json"]);
    assert_eq!(json_of(users.trim())["admin"], false);
    let server = place.serve(&[]);
    assert_eq!(login(&server, "alice", made["password"].as_str().unwrap()).0, 200);
    server.stop();
}

#[test]
fn registration_tokens_let_people_in() {
    let place = Place::new();
    let server = place.serve(&["--registration", "token", "--rate-limits", "off"]);
    let token = json_of(&place.ok(&["registration-token", "create", "--uses", "1", "--json"]));
    let register = |name: &str| {
        let body = json!({ "username": name, "password": "correct horse" });
        let (_, flows) = server.ask("POST", "/_matrix/client/v3/register", "", &body);
        let auth = json!({ "type": "m.login.registration_token", "token": token["token"], "session": flows["session"] });
        let body = json!({ "username": name, "password": "correct horse", "auth": auth });
        server.ask("POST", "/_matrix/client/v3/register", "", &body).0
    };
    assert_eq!((register("alice"), register("bob")), (200, 401));
    assert!(place.ok(&["registration-token", "list"]).contains("used 1 of 1"));
    place.ok(&["registration-token", "delete", token["token"].as_str().unwrap()]);
    assert_eq!(place.ok(&["registration-token", "list"]), "");
    server.stop();
}

#[test]
fn a_room_is_explained_drawn_checked_and_purged() {
    let place = Place::new();
    let server = place.serve(&["--rate-limits", "off"]);
    let password = |name: &str| json_of(&place.ok(&["user", "create", name, "--json"]))["password"].as_str().unwrap().to_owned();
    let (_, alice) = login(&server, "alice", &password("alice"));
    let (_, bob) = login(&server, "bob", &password("bob"));
    let (alice, bob) = (alice["access_token"].as_str().unwrap(), bob["access_token"].as_str().unwrap());
    let (_, made) = server.ask("POST", "/_matrix/client/v3/createRoom", alice, &json!({ "preset": "public_chat" }));
    let room = made["room_id"].as_str().unwrap();
    let post = |token: &str, what: &str, body: Value| {
        let (status, answer) = server.ask("POST", &format!("/_matrix/client/v3/rooms/{room}/{what}"), token, &body);
        assert_eq!(status, 200, "{answer}");
    };
    post(bob, "join", json!({}));
    post(alice, "ban", json!({ "user_id": "@bob:localhost" }));

    let why = place.ok(&["room", "why", room, "@bob:localhost"]);
    assert!(why.starts_with("@bob:localhost: membership ban ($"), "{why}");
    assert!(why.contains("joins\n    allowed by rule 5.3.6: the join rule is public"), "{why}");
    assert!(why.contains("is banned by @alice:localhost  <- stands\n    allowed by rule 5.6.2: "), "{why}");
    let why = json_of(&place.ok(&["room", "why", room, "@alice:localhost", "--json"]));
    assert_eq!((&why["now"]["power"], &why["steps"][0]["what"]), (&json!("infinite"), &json!("makes the room")));
    let drawn = place.ok(&["room", "graph", room, "--last", "3"]);
    assert!(drawn.starts_with("<svg ") && drawn.matches("<title>").count() == 3, "{drawn}");
    assert!(place.fails(&["room", "graph", "!nowhere:localhost"]).contains("there is no room"));
    assert_eq!(place.ok(&["check", room]).lines().count(), 1, "all keys are known");
    assert!(place.fails(&["room", "purge", room]).contains("a user of this server is in the room"));
    let since = server.ask("GET", "/_matrix/client/v3/sync", bob, &Value::Null).1["next_batch"].as_str().unwrap().to_owned();
    post(alice, "leave", json!({}));
    assert_eq!(place.ok(&["room", "purge", room]), format!("{room} is gone.\n"));
    assert!(place.fails(&["room", "purge", room]).contains("there is no room"));
    for since in [String::new(), format!("?since={since}")] {
        let (status, synced) = server.ask("GET", &format!("/_matrix/client/v3/sync{since}"), bob, &Value::Null);
        assert!(status == 200 && synced["rooms"]["leave"][room].is_null(), "{synced}");
    }
    let messages = format!("/_matrix/client/v3/rooms/{room}/messages?dir=b");
    assert!([403, 404].contains(&server.ask("GET", &messages, bob, &Value::Null).0));
    server.stop();

    assert!(place.ok(&["check"]).starts_with("All is well with 0 events of 0 rooms."));
    assert!(place.fails(&["room", "why", room, "@bob:localhost"]).contains("there is no room"));
}

#[test]
fn the_version_is_told() {
    assert_eq!(Place::new().ok(&["version"]), concat!("hearth ", env!("CARGO_PKG_VERSION"), "\n"));
}
