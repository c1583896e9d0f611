//! Flags over environment over file, and what is refused.

use std::fs;

use serde_json::{Value, json};

use crate::process::Place;

fn with_file(text: &str) -> Place {
    let place = Place::new();
    fs::write(place.folder.path().join("hearth.toml"), text).unwrap();
    place
}

#[test]
fn flags_come_before_the_environment_and_that_before_the_file() {
    let place = with_file("server_name = 'file.test'\nmemory = '64MiB'\n[registration]\nmode = 'open'");
    let server = place.serve_with(&["--config", "hearth.toml", "--data", "flag"], |command| {
        command.env("HEARTH_SERVER_NAME", "env.test").env("HEARTH_DATA", "env").env("HEARTH_HTTP__GRACE", "2s");
        // What Kubernetes sets beside a service called `hearth`.
        command.env("HEARTH_PORT", "tcp://10.0.0.1:8008");
    });
    let log = fs::read_to_string(&server.log).unwrap();
    assert!(log.contains("server_name=env.test data=flag"), "{log}");
    assert!(log.contains("HEARTH_PORT"), "what means nothing is told: {log}");
    let (status, _) = server.ask("POST", "/_matrix/client/v3/register", "", &json!({}));
    assert_eq!(status, 401, "the file opened the registration");
    server.stop();
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    for (text, said) in [
        ("memry = '64MiB'", "memry is not a key of the configuration in the file"),
        ("[http]\ngrease = '1s'", "http.grease is not a key"),
        ("memory = 'much'", "memory is not a key"),
        ("[log]\nformat = 'xml'", "log.format"),
        ("[log]\nfilter = 'room=loudly'", "log.filter"),
        ("rooms.default_version = '99'", "99 is no room version"),
        ("[http.listeners]]", "TOML"),
    ] {
        let place = with_file(text);
        for command in ["check-config", "serve"] {
            let refused = place.fails(&[command, "--config", "hearth.toml"]);
            assert!(refused.contains(said), "{text}: {refused}");
        }
        assert!(!place.folder.path().join("data").exists(), "nothing was begun");
    }
    let absent = Place::new().fails(&["check-config", "--config", "nowhere.toml"]);
    assert!(absent.contains("nowhere.toml"), "{absent}");
}

#[test]
fn a_right_configuration_is_praised() {
    let place = with_file("server_name = 'example.org'");
    let said = place.ok(&["check-config", "--config", "hearth.toml"]);
    assert!(said.ends_with("The configuration is valid.\n") && !said.contains("server_name"), "{said}");
}

#[test]
fn the_log_can_be_json() {
    let place = with_file("[log]\nformat = 'json'\n[[http.listeners]]\naddress = '127.0.0.1:0'");
    let log = place.folder.path().join("log");
    let mut command = place.command(&["serve", "--config", "hearth.toml"]);
    let mut child = command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let began = std::time::Instant::now();
    while !fs::read_to_string(&log).unwrap().contains("point clients here") {
        assert!(child.try_wait().unwrap().is_none() && began.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["level"].is_string() && line["message"].is_string()), "{text}");
}

#[test]
fn rooms_have_the_version_that_the_operator_chose() {
    let place = with_file("rooms.default_version = '10'");
    let server = place.serve(&["--config", "hearth.toml", "--registration", "open"]);
    let (status, alice) = server.ask(
        "POST",
        "/_matrix/client/v3/register",
        "",
        &json!({ "username": "alice", "password": "a long password", "auth": { "type": "m.login.dummy" } }),
    );
    assert_eq!(status, 200, "{alice}");
    let token = alice["access_token"].as_str().unwrap();
    let version = |asked: Value| {
        let (_, room) = server.ask("POST", "/_matrix/client/v3/createRoom", token, &asked);
        let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.create", room["room_id"].as_str().unwrap());
        server.ask("GET", &path, token, &Value::Null).1["room_version"].clone()
    };
    assert_eq!(version(json!({})), "10");
    assert_eq!(version(json!({ "room_version": "11" })), "11");
    let (_, told) = server.ask("GET", "/_matrix/client/v3/capabilities", token, &Value::Null);
    assert_eq!(told["capabilities"]["m.room_versions"]["default"], "10");
    server.stop();
}
