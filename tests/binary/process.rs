//! A `hearth serve` of a test, in a folder of its own.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// How long a server may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the server's log calls its client address.
const HOMESERVER: &str = "homeserver=http://";

/// A folder in which servers run one after the other.
pub struct Place {
    pub folder: TempDir,
}

/// A running server.
pub struct Running {
    child: Child,
    pub address: String,
    pub log: PathBuf,
}

/// The binary, deaf to the environment of who runs the tests.
pub fn hearth() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEARTH_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A command in this folder, which names its data folder by default.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = hearth();
        command.args(args).current_dir(self.folder.path());
        command
    }

    /// The output of a command that must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        assert!(status.success(), "{args:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    /// The complaint of a command that must fail.
    pub fn fails(&self, args: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        assert!(!status.success(), "{args:?}: {}", String::from_utf8_lossy(&stdout));
        String::from_utf8(stderr).unwrap()
    }

    /// A server on a port that the system chooses.
    pub fn serve(&self, args: &[&str]) -> Running {
        self.serve_with(args, |_| ())
    }

    pub fn serve_with(&self, args: &[&str], change: impl FnOnce(&mut Command)) -> Running {
        let log = self.folder.path().join("log");
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        change(command.args(args));
        let mut child = command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        let began = Instant::now();
        let address = loop {
            let text = fs::read_to_string(&log).unwrap();
            if let Some((_, rest)) = text.split_once(HOMESERVER).filter(|(_, rest)| rest.contains('\n')) {
                break rest.split_whitespace().next().unwrap().to_owned();
            }
            assert!(child.try_wait().unwrap().is_none() && began.elapsed() < PATIENCE, "it did not start: {text}");
            std::thread::sleep(Duration::from_millis(10));
        };
        Running { child, address, log }
    }
}

impl Running {
    /// Sends a signal, as `TERM`.
    pub fn signal(&self, name: &str) {
        // The shell's own: the program is in a package that a bare machine lacks.
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.child.id())).status().unwrap();
        assert!(sent.success());
    }

    /// Sends a signal and waits for the end.
    pub fn end(self, signal: &str) -> ExitStatus {
        self.signal(signal);
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it did not stop: {}", fs::read_to_string(&self.log).unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks for a graceful stop, which must succeed.
    pub fn stop(self) {
        let log = self.log.clone();
        assert!(self.end("TERM").success(), "{}", fs::read_to_string(log).unwrap());
    }

    /// A request's status and JSON answer.
    pub fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = exchange(&self.address, method, path, token, body.as_bytes()).unwrap();
        let shown = String::from_utf8_lossy(&answer);
        (status, serde_json::from_slice(&answer).unwrap_or_else(|_| panic!("not JSON: {shown}")))
    }
}

/// A request's status and the bytes of its answer. An answer that the server's end cut off is an error.
pub fn exchange(address: &str, method: &str, path: &str, token: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let broken = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let token = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{token}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // A server that refuses a body answers before it has read all of it.
    let sent = stream.write_all(&[head.as_bytes(), body].concat());
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer).and(sent)
        && answer.is_empty()
    {
        return Err(error);
    }
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(broken)?;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let body = answer.split_off(end + 4);
    if length != Some(body.len()) { Err(broken()) } else { Ok((status, body)) }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a failed assertion; otherwise it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
