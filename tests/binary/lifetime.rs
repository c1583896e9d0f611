//! Starting, stopping, crashing, starting again.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::{Value, json};

use crate::process::{Place, Running};

const WHO_AM_I: &str = "/_matrix/client/v3/account/whoami";

/// Registers a user, and gives the access token.
fn register(server: &Running, username: &str) -> String {
    let body = json!({ "username": username, "password": "correct horse", "auth": { "type": "m.login.dummy" } });
    let (status, answer) = server.ask("POST", "/_matrix/client/v3/register", "", &body);
    assert_eq!(status, 200, "{answer}");
    answer["access_token"].as_str().unwrap().to_owned()
}

fn assert_is(server: &Running, token: &str, user: &str) {
    let (status, answer) = server.ask("GET", WHO_AM_I, token, &Value::Null);
    assert_eq!((status, answer["user_id"].as_str()), (200, Some(user)), "{answer}");
}

#[test]
fn it_serves_without_any_configuration_and_keeps_all_over_a_restart() {
    let place = Place::new();
    let server = place.serve(&["--registration", "open"]);
    let (status, versions) = server.ask("GET", "/_matrix/client/versions", "", &Value::Null);
    assert_eq!(status, 200);
    assert!(versions["versions"].as_array().unwrap().contains(&"v1.11".into()), "{versions}");
    let token = register(&server, "alice");
    server.stop();
    let server = place.serve(&[]);
    assert_is(&server, &token, "@alice:localhost");
    let log = fs::read_to_string(&server.log).unwrap();
    assert!(log.contains("registration.mode") && log.contains("no configuration file"), "it tells its defaults: {log}");
    server.stop();
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let place = Place::new();
    let server = place.serve(&["--registration", "open", "--rate-limits", "off"]);
    let tokens: Vec<_> = (0..5).map(|n| register(&server, &format!("user{n}"))).collect();
    assert!(!server.end("KILL").success());
    let server = place.serve(&[]);
    for (n, token) in tokens.iter().enumerate() {
        assert_is(&server, token, &format!("@user{n}:localhost"));
    }
    server.stop();
}

#[test]
fn a_stop_answers_those_who_wait() {
    let place = Place::new();
    let server = place.serve(&["--registration", "open"]);
    let token = register(&server, "alice");
    let (_, first) = server.ask("GET", "/_matrix/client/v3/sync", &token, &Value::Null);
    let path = format!("/_matrix/client/v3/sync?timeout=30000&since={}", first["next_batch"].as_str().unwrap());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.ask("GET", &path, &token, &Value::Null));
        std::thread::sleep(std::time::Duration::from_millis(300));
        let began = std::time::Instant::now();
        server.signal("TERM");
        assert_eq!(waiting.join().unwrap().0, 200);
        assert!(began.elapsed().as_secs() < 10, "at once, not at the end of its timeout");
    });
    assert!(server.wait().success());
}

#[test]
fn secrets_are_for_their_owner_only() {
    let place = Place::new();
    let server = place.serve(&[]);
    let mode = |name: &str| fs::metadata(place.folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("data"), mode("data/signing.key"), mode("data/admin.sock")), (0o700, 0o600, 0o600));
    server.stop();
    assert!(!place.folder.path().join("data/admin.sock").exists());
}

#[test]
fn a_folder_is_used_by_one_server_of_one_name_with_one_key() {
    let place = Place::new();
    let server = place.serve(&["--server-name", "example.org"]);
    let second = place.fails(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(second.contains("in use by another process"), "{second}");
    server.stop();
    let other = place.fails(&["serve", "--listen", "127.0.0.1:0", "--server-name", "example.com"]);
    assert!(other.contains("belongs to the server example.org"), "{other}");
    let server = place.serve(&[]);
    assert!(fs::read_to_string(&server.log).unwrap().contains("server_name=example.org"), "it goes on under its name");
    server.stop();
    fs::remove_file(place.folder.path().join("data/signing.key")).unwrap();
    let lost = place.fails(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(lost.contains("Restore it from a backup"), "{lost}");
    assert!(place.ok(&["generate-signing-key"]).contains("ed25519:a_"));
    place.serve(&[]).stop();
}

#[test]
fn a_foreign_folder_is_left_alone() {
    let place = Place::new();
    fs::create_dir_all(place.folder.path().join("data/db")).unwrap();
    fs::write(place.folder.path().join("data/db/letters.txt"), "dear").unwrap();
    let refused = place.fails(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(refused.contains("not Hearth's"), "{refused}");
}

#[test]
fn a_socket_that_a_crash_left_is_no_hindrance() {
    let place = Place::new();
    let server = place.serve(&[]);
    server.end("KILL");
    assert!(place.folder.path().join("data/admin.sock").exists());
    assert_eq!(place.ok(&["user", "list"]), "", "the commands find that nobody listens");
    let server = place.serve(&[]);
    assert_eq!(place.ok(&["user", "list"]), "");
    server.stop();
}

#[test]
fn the_service_manager_is_told_how_it_fares() {
    let place = Place::new();
    let path = place.folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let hear = || {
        let mut state = [0; 64];
        let length = manager.recv(&mut state).unwrap();
        String::from_utf8(state[..length].to_vec()).unwrap()
    };
    let server = place.serve_with(&[], |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000");
    });
    assert_eq!((hear(), hear(), hear()), ("READY=1".into(), "WATCHDOG=1".into(), "WATCHDOG=1".into()));
    server.signal("TERM");
    let told = (0..100).map(|_| hear()).find(|state| state != "WATCHDOG=1");
    assert_eq!(told.as_deref(), Some("STOPPING=1"));
    assert!(server.wait().success());
}

#[test]
fn a_port_in_use_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = Place::new().fails(&["serve", "--listen", &address]);
    assert!(refused.contains(&address), "{refused}");
}
