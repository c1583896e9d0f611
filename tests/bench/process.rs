//! The server as a process: what it costs, and starting and stopping it.
//!
//! CPU time is read from the process's clock, which counts nanoseconds and includes threads that have ended; `/proc/PID/stat`
//! would count in steps of 10 ms. Memory is read from `/proc/PID/status`.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::connection::Address;
use crate::failure::Failure;
use crate::matrix;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a starting server is asked whether it answers: the resolution of the measured time.
const PROBE_INTERVAL: Duration = Duration::from_millis(2);
/// Symbolic links are not followed, so this depth is only reached by a mistake.
const MAX_DEPTH: usize = 64;

/// The server that is measured.
#[derive(Debug)]
pub enum Server {
    /// Somebody else's process, perhaps on another machine.
    External(Option<Pid>),
    /// Our own process.
    Ours {
        /// What a shell executes.
        command: String,
        /// Runs between start and stop.
        child: Option<Child>,
    },
}

impl Server {
    /// A server that runs already. Without a process id only times can be measured.
    pub fn external(pid: Option<u32>) -> Result<Self, Failure> {
        let pid = pid.map(process_id).transpose()?;
        if let Some(pid) = pid {
            cpu_of(pid).map_err(|error| Failure::Process(format!("cannot read the CPU time of {pid}: {error}")))?;
        }
        Ok(Self::External(pid))
    }

    /// A server to start by a command.
    pub fn ours(command: String) -> Self {
        Self::Ours { command, child: None }
    }

    /// Starts our server and returns how long it took until it answered. An external server is only asked whether it answers.
    pub async fn start(&mut self, address: &Address) -> Result<Duration, Failure> {
        let started = Instant::now();
        let Self::Ours { command, child } = self else {
            matrix::versions(address).await?;
            return Ok(started.elapsed());
        };
        if matrix::versions(address).await.is_ok() {
            return Err(Failure::Process("another server answers at --base already".to_owned()));
        }
        let started = Instant::now();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("exec {command}")).kill_on_drop(true);
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let running = child.insert(shell.spawn().map_err(process_failure)?);
        while matrix::versions(address).await.is_err() {
            if let Some(status) = running.try_wait().map_err(process_failure)? {
                return Err(Failure::Process(format!("it ended while starting, {status}")));
            }
            if started.elapsed() > PATIENCE {
                return Err(Failure::Process(format!("it does not answer {PATIENCE:?} after its start")));
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
        Ok(started.elapsed())
    }

    /// Asks our server to end by SIGTERM, and returns how long it took.
    pub async fn stop(&mut self) -> Result<Duration, Failure> {
        let started = Instant::now();
        let pid = self.pid();
        let Self::Ours { child, .. } = self else { return Ok(Duration::ZERO) };
        if let (Some(mut child), Some(pid)) = (child.take(), pid) {
            kill(pid, Signal::SIGTERM).map_err(|error| Failure::Process(error.to_string()))?;
            let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
            ended.map_err(|_| Failure::Process(format!("it runs {PATIENCE:?} after SIGTERM")))?.map_err(process_failure)?;
        }
        Ok(started.elapsed())
    }

    /// CPU time of all threads since the process began, where it can be measured.
    pub fn cpu(&self) -> Option<Duration> {
        self.pid().and_then(|pid| cpu_of(pid).ok())
    }

    /// Resident memory in bytes, where it can be measured.
    pub fn resident(&self) -> Option<u64> {
        resident_bytes(&fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?)
    }

    fn pid(&self) -> Option<Pid> {
        match self {
            Self::External(pid) => *pid,
            Self::Ours { child, .. } => child.as_ref()?.id().and_then(|pid| process_id(pid).ok()),
        }
    }
}

/// The generator's own CPU time.
pub fn own_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// The length of all files below a folder, in bytes. Files that vanish meanwhile count as nothing.
pub fn disk_bytes(folder: &Path) -> u64 {
    folder_bytes(folder, MAX_DEPTH)
}

fn folder_bytes(folder: &Path, depth: usize) -> u64 {
    let (Ok(entries), Some(below)) = (fs::read_dir(folder), depth.checked_sub(1)) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path(), below),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

fn cpu_of(pid: Pid) -> nix::Result<Duration> {
    clock_getcpuclockid(pid).and_then(clock_gettime).map(Duration::from)
}

fn process_id(pid: u32) -> Result<Pid, Failure> {
    i32::try_from(pid).map(Pid::from_raw).map_err(|_| Failure::Usage(format!("{pid} is not a process id")))
}

fn process_failure(error: std::io::Error) -> Failure {
    Failure::Process(error.to_string())
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn resident_memory_is_read_from_status() {
        assert_eq!(resident_bytes("Name:\tx\nVmHWM:\t  99 kB\nVmRSS:\t    2048 kB\nRssAnon:\t 1 kB\n"), Some(2 << 20));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_can_be_measured() {
        let server = Server::external(Some(std::process::id())).unwrap();
        assert!(server.cpu().unwrap() > Duration::ZERO);
        assert!(server.resident().unwrap() > 100_000);
        assert!(own_cpu() > Duration::ZERO);
    }

    #[test]
    fn folders_are_measured_with_what_is_below() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), [0; 10]).unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("below/b"), [0; 5]).unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
        assert_eq!(disk_bytes(folder.path()), 15);
    }
}
