//! A disk that is full, and one that is read-only: the server says so, refuses writes, goes on reading, and loses nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::process::{Place, Running, exchange};

const CLIENT: &str = "/_matrix/client/v3";
/// The length of a message, and of an upload.
const BODY_BYTES: usize = 40_000;
/// More messages than fit.
const MESSAGES_MAX: usize = 3_000;

/// A file system of its own, which ends with the test.
struct Mount(PathBuf);

impl Mount {
    /// `None` where this user may not mount; the test then says that it was skipped.
    fn tmpfs(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "hearth-test"]).arg(at).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(at.to_owned()));
        }
        eprintln!("skipped: this user may not mount a file system");
        None
    }

    fn read_only(&self) {
        assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// What was acknowledged before the disk was full.
struct Story {
    token: String,
    room: String,
    /// A device that was never used.
    second: String,
    media: String,
    events: Vec<String>,
}

fn serve(place: &Place, change: impl FnOnce(&mut Command)) -> Running {
    // Little memory, so that more than the log is written.
    let args = ["--registration", "open", "--rate-limits", "off"];
    place.serve_with(&args, |command| change(command.env("HEARTH_MEMORY", "32MiB")))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

impl Story {
    fn begin(server: &Running) -> Self {
        let auth = json!({ "type": "m.login.dummy" });
        let alice = json!({ "username": "alice", "password": "correct horse", "auth": auth });
        let (_, alice) = server.ask("POST", &format!("{CLIENT}/register"), "", &alice);
        let token = text(&alice["access_token"]);
        let (_, room) = server.ask("POST", &format!("{CLIENT}/createRoom"), &token, &json!({}));
        let login = json!({ "type": "m.id.user", "user": "alice" });
        let login = json!({ "type": "m.login.password", "identifier": login, "password": "correct horse" });
        let (_, second) = server.ask("POST", &format!("{CLIENT}/login"), "", &login);
        let message = json!({ "messages": { "@alice:localhost": { &text(&second["device_id"]): { "body": "hello" } } } });
        assert_eq!(server.ask("PUT", &format!("{CLIENT}/sendToDevice/test/1"), &token, &message).0, 200);
        let (status, media) = upload(server, &token);
        assert_eq!(status, 200, "{media}");
        let (room, second, media) = (text(&room["room_id"]), text(&second["access_token"]), text(&media["content_uri"]));
        Self { token, room, second, media, events: Vec::new() }
    }

    fn send(&mut self, server: &Running) -> (u16, Value) {
        let path = format!("{CLIENT}/rooms/{}/send/m.room.message/{}", self.room, self.events.len());
        let body = incompressible(self.events.len() as u64);
        let (status, answer) = server.ask("PUT", &path, &self.token, &json!({ "msgtype": "m.text", "body": body }));
        if status == 200 {
            self.events.push(text(&answer["event_id"]));
        }
        (status, answer)
    }

    fn send_until_refused(&mut self, server: &Running) {
        for _ in 0..MESSAGES_MAX {
            let (status, answer) = self.send(server);
            if status != 200 {
                return assert_refused(status, &answer);
            }
        }
        panic!("the disk does not fill");
    }

    /// All that was acknowledged, once and in order.
    fn assert_kept(&self, server: &Running) {
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let path = format!("{CLIENT}/rooms/{}/messages?dir=f&limit=100{from}", self.room);
            let (_, page) = server.ask("GET", &path, &self.token, &Value::Null);
            let messages = page["chunk"].as_array().unwrap().iter().filter(|event| event["type"] == "m.room.message");
            found.extend(messages.map(|event| text(&event["event_id"])));
            let Some(end) = page["end"].as_str() else { break };
            from = format!("&from={end}");
        }
        // The message that was refused may be there after a restart: its client was not told that it is not.
        assert!(
            found.len() <= self.events.len() + 1 && found.starts_with(&self.events),
            "{} of {}",
            found.len(),
            self.events.len()
        );
        let path = format!("/_matrix/client/v1/media/download/{}", self.media.strip_prefix("mxc://").unwrap());
        let (status, bytes) = exchange(&server.address, "GET", &path, &self.second, &[]).unwrap();
        assert!(status == 200 && bytes == incompressible(7).into_bytes());
    }

    /// With a device that is new, as whatever is noted of it must not stand in the way.
    fn assert_reads_go_on(&self, server: &Running) {
        let (status, first) = server.ask("GET", &format!("{CLIENT}/sync"), &self.second, &Value::Null);
        assert_eq!((status, &first["to_device"]["events"][0]["content"]["body"]), (200, &json!("hello")));
        let since = format!("{CLIENT}/sync?since={}", text(&first["next_batch"]));
        for _ in 0..2 {
            let (status, next) = server.ask("GET", &since, &self.second, &Value::Null);
            assert_eq!((status, &next["to_device"]), (200, &Value::Null), "delivered once");
        }
        self.assert_kept(server);
    }

    fn assert_writes_are_refused(&mut self, server: &Running) {
        let (status, answer) = self.send(server);
        assert_refused(status, &answer);
        let (status, answer) = server.ask("POST", &format!("{CLIENT}/createRoom"), &self.second, &json!({}));
        assert_refused(status, &answer);
        let (status, answer) = upload(server, &self.token);
        assert_refused(status, &answer);
        assert_eq!(server.ask("GET", "/ready", "", &Value::Null).0, 503);
        assert_eq!(server.ask("GET", "/health", "", &Value::Null).0, 200);
    }
}

fn upload(server: &Running, token: &str) -> (u16, Value) {
    let (status, answer) =
        exchange(&server.address, "POST", "/_matrix/media/v3/upload", token, incompressible(7).as_bytes()).unwrap();
    (status, serde_json::from_slice(&answer).unwrap())
}

fn assert_refused(status: u16, answer: &Value) {
    assert_eq!((status, &answer["errcode"]), (503, &json!("M_UNKNOWN")), "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("disk is full"), "{answer}");
}

/// Letters that follow from a number (a multiplicative generator; Knuth's MMIX constants).
fn incompressible(number: u64) -> String {
    let mut state = number;
    (0..BODY_BYTES)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'!' + (state >> 58) as u8).to_ascii_lowercase()
        })
        .map(|letter| if letter == '"' || letter == '\\' { 'x' } else { letter })
        .collect()
}

/// Takes all space but `left` bytes.
fn fill(filler: &Path, left: u64) {
    let mut file = OpenOptions::new().create(true).append(true).open(filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let length = file.metadata().unwrap().len();
    File::set_len(&file, length.saturating_sub(left)).unwrap();
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let place = Place::new();
    let data = place.folder.path().join("data");
    let Some(_mount) = Mount::tmpfs(&data, "64m") else { return };
    let server = serve(&place, |_| ());
    let mut story = Story::begin(&server);
    fill(&data.join("filler"), 2 << 20);
    story.send_until_refused(&server);
    story.assert_writes_are_refused(&server);
    story.assert_reads_go_on(&server);
    let log = fs::read_to_string(&server.log).unwrap();
    assert!(log.contains("cannot be written") && log.contains("No space left"), "{log}");
    server.stop();

    fill(&data.join("filler"), 0);
    let refused = place.fails(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(refused.contains("No space left") && refused.contains("free some space"), "{refused}");
    fs::remove_file(data.join("filler")).unwrap();
    let server = serve(&place, |_| ());
    story.assert_kept(&server);
    assert_eq!(story.send(&server).0, 200, "there is room again");
    server.stop();
}

#[test]
fn an_upload_that_the_disk_has_no_room_for_is_refused_and_the_next_is_not() {
    let place = Place::new();
    let data = place.folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let Some(_mount) = Mount::tmpfs(&data.join("media"), "1m") else { return };
    let server = serve(&place, |_| ());
    let mut story = Story::begin(&server);
    fill(&data.join("media/filler"), 0);
    let (status, answer) = upload(&server, &story.token);
    assert_refused(status, &answer);
    // What there was of it is removed beside the answer.
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::read_dir(data.join("media/uploads")).unwrap().next().is_some() {
        assert!(Instant::now() < deadline, "nothing is left of it");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(story.send(&server).0, 200, "the database has its own disk");
    fs::remove_file(data.join("media/filler")).unwrap();
    assert_eq!(upload(&server, &story.token).0, 200);
    story.assert_kept(&server);
    server.stop();
}

/// The same without rights: the system refuses to let any file grow beyond a limit.
#[test]
fn files_that_may_not_grow_are_a_full_disk() {
    let place = Place::new();
    let server = serve(&place, |command| {
        let mut limited = Command::new("sh");
        limited
            .args(["-c", r#"trap "" XFSZ; ulimit -f 2048; exec "$0" "$@""#])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        limited.current_dir(place.folder.path());
        *command = limited;
    });
    let mut story = Story::begin(&server);
    story.send_until_refused(&server);
    story.assert_writes_are_refused(&server);
    story.assert_reads_go_on(&server);
    let log = fs::read_to_string(&server.log).unwrap();
    assert!(log.contains("cannot be written") && log.contains("File too large"), "{log}");
    server.end("KILL");
    let server = serve(&place, |_| ());
    story.assert_kept(&server);
    assert_eq!(story.send(&server).0, 200, "files may grow again");
    server.stop();
}

fn assert_told(place: &Place, args: &[&str], because: &str) {
    let refused = place.fails(args);
    assert!(refused.contains(because), "{refused}");
    assert!(refused.contains("let its user do so") || refused.contains("let Hearth's user write there"), "{refused}");
    assert!(!refused.contains("in use"), "{refused}");
}

#[test]
fn a_read_only_folder_is_told_with_what_to_do() {
    let place = Place::new();
    let begin = ["serve", "--listen", "127.0.0.1:0"];
    let elsewhere = ["serve", "--listen", "127.0.0.1:0", "--data", "data/new"];
    let data = place.folder.path().join("data");
    // Permissions do not bind root.
    if fs::metadata(place.folder.path()).unwrap().uid() == 0 {
        let Some(mount) = Mount::tmpfs(&data, "64m") else { return };
        place.serve(&[]).stop();
        mount.read_only();
        assert_told(&place, &begin, "Read-only file system");
        assert_told(&place, &elsewhere, "Read-only file system");
    } else {
        place.serve(&[]).stop();
        for folder in [data.join("db"), data.clone()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o500)).unwrap();
        }
        assert_told(&place, &begin, "Permission denied");
        assert_told(&place, &elsewhere, "Permission denied");
        for folder in [data.clone(), data.join("db")] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
        }
    }
}
