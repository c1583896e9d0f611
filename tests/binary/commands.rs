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
fn the_version_is_told() {
    assert_eq!(Place::new().ok(&["version"]), concat!("hearth ", env!("CARGO_PKG_VERSION"), "\n"));
}
