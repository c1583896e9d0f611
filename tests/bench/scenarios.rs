//! The list of scenarios, and what they share: users, rooms, and a window in which cost is measured.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use crate::connection::Address;
use crate::failure::Failure;
use crate::matrix::{Room, Session};
use crate::process::{Server, disk_bytes, own_cpu};
use crate::summary::{Run, milliseconds};

mod history;
mod lifecycle;
mod send;
mod state;
mod sync;
mod wake;

/// The password of all simulated users.
const PASSWORD: &str = "correct horse battery staple";
/// How many bytes a mebibyte has.
const MEBIBYTE: f64 = (1 << 20) as f64;

/// What can be measured. Each runs at a size N and at 10 N.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// One user sends one message at a time.
    SendLone,
    /// Eight users send to one room at the same time.
    SendContended,
    /// Sixteen users send to many rooms at the same time.
    SendManyRooms,
    /// Many syncs wait in one room for a message.
    Wake,
    /// Incremental syncs of a user in many rooms without anything new.
    IdleSync,
    /// First syncs of a user in many rooms.
    InitialSync,
    /// A room's history is read backwards.
    Messages,
    /// State events in a room with many members.
    State,
    /// The server starts on a database with many messages.
    ColdStart,
    /// Memory when idle and after many messages.
    Memory,
}

impl Scenario {
    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What its size counts, and the size N at scale 1.
    pub fn size(self) -> (&'static str, usize) {
        match self {
            Self::SendLone | Self::SendContended | Self::ColdStart | Self::Memory => ("messages", 500),
            Self::SendManyRooms => ("rooms", 50),
            Self::Wake => ("waiting syncs", 20),
            Self::IdleSync => ("rooms", 10),
            Self::InitialSync => ("rooms", 20),
            Self::Messages => ("messages", 1_000),
            Self::State => ("members", 10),
        }
    }

    /// Whether it stops and starts the server.
    pub fn restarts_server(self) -> bool {
        matches!(self, Self::ColdStart | Self::Memory)
    }

    /// Runs it at one size.
    pub async fn run(self, bench: &mut Bench, size: usize) -> Result<Run, Failure> {
        let before = bench.resident_mib();
        let mut run = match self {
            Self::SendLone => send::lone(bench, size).await,
            Self::SendContended => send::contended(bench, size).await,
            Self::SendManyRooms => send::many_rooms(bench, size).await,
            Self::Wake => wake::wake(bench, size).await,
            Self::IdleSync => sync::idle(bench, size).await,
            Self::InitialSync => sync::initial(bench, size).await,
            Self::Messages => history::messages(bench, size).await,
            Self::State => state::state(bench, size).await,
            Self::ColdStart => lifecycle::cold_start(bench, size).await,
            Self::Memory => lifecycle::memory(bench, size).await,
        }?;
        if !self.restarts_server() {
            run.metric_if("resident_before_mib", before);
            run.metric_if("resident_after_mib", bench.resident_mib());
        }
        Ok(run)
    }
}

/// The server under test and what is needed to load it.
#[derive(Debug)]
pub struct Bench {
    address: Address,
    /// The server's process.
    pub server: Server,
    data: Option<PathBuf>,
    secret: Option<String>,
    /// Begins all user names, so that runs on one database do not meet.
    prefix: String,
    users: usize,
    progress: ProgressBar,
}

/// Cost is counted from here.
#[derive(Debug)]
struct Window {
    since: Instant,
    cpu: Option<Duration>,
    own_cpu: Duration,
    disk: Option<u64>,
}

/// What a window cost.
#[derive(Debug)]
struct Spent {
    elapsed: Duration,
    cpu: Option<Duration>,
    own_cpu: Duration,
    /// Bytes by which the data directory grew; a compaction may shrink it.
    disk: Option<f64>,
}

impl Bench {
    /// A bench for one server. `prefix` must be new to it, and consist of what a user name may have.
    pub fn new(address: Address, server: Server, data: Option<PathBuf>, secret: Option<String>, prefix: String) -> Self {
        // Draws on stderr, and nothing if that is not a terminal.
        let progress = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template("{prefix}: {msg} {human_pos}/{human_len}") {
            progress.set_style(style);
        }
        Self { address, server, data, secret, prefix, users: 0, progress }
    }

    /// Starts our server, or asks an external one whether it answers.
    pub async fn start(&mut self) -> Result<Duration, Failure> {
        self.server.start(&self.address).await
    }

    /// Names on the progress line what runs.
    pub fn announce(&self, scenario: Scenario, size: usize) {
        self.progress.set_prefix(format!("{} {size}", scenario.name()));
    }

    /// Takes the progress line away, so that results can be printed.
    pub fn quiet(&self) {
        self.progress.finish_and_clear();
        self.progress.reset();
    }

    fn phase(&self, name: &'static str, steps: usize) {
        self.progress.set_length(steps as u64);
        self.progress.set_position(0);
        self.progress.set_message(name);
    }

    fn resident_mib(&self) -> Option<f64> {
        self.server.resident().map(|bytes| bytes as f64 / MEBIBYTE)
    }

    /// Registers a new user. All scenarios use new ones, so that no user is in rooms of another scenario.
    async fn user(&mut self) -> Result<Session, Failure> {
        self.users += 1;
        let name = format!("{}-{}", self.prefix, self.users);
        match &self.secret {
            Some(secret) => Session::register_with_secret(&self.address, &name, PASSWORD, secret).await,
            None => Session::register(&self.address, &name, PASSWORD).await,
        }
    }

    async fn users(&mut self, count: usize) -> Result<Vec<Session>, Failure> {
        self.phase("registering", count);
        let mut users = Vec::with_capacity(count);
        for _ in 0..count {
            users.push(self.user().await?);
            self.progress.inc(1);
        }
        Ok(users)
    }

    /// A room of the first of these users that the others have joined.
    async fn room_of(&self, members: &mut [Session]) -> Result<Room, Failure> {
        self.phase("joining", members.len());
        let Some((creator, others)) = members.split_first_mut() else {
            return Err(Failure::Usage("a room needs a member".to_owned()));
        };
        let room = creator.create_room().await?;
        for member in others {
            member.join(&room).await?;
            self.progress.inc(1);
        }
        Ok(room)
    }

    /// Rooms of one user that another has joined.
    async fn rooms_of_two(&self, creator: &mut Session, member: &mut Session, count: usize) -> Result<Vec<Room>, Failure> {
        self.phase("making rooms", count);
        let mut rooms = Vec::with_capacity(count);
        for _ in 0..count {
            let room = creator.create_room().await?;
            member.join(&room).await?;
            rooms.push(room);
            self.progress.inc(1);
        }
        Ok(rooms)
    }

    fn open_window(&self) -> Window {
        let disk = self.data.as_deref().map(disk_bytes);
        Window { disk, cpu: self.server.cpu(), own_cpu: own_cpu(), since: Instant::now() }
    }

    fn close_window(&self, window: &Window) -> Spent {
        let elapsed = window.since.elapsed();
        let cpu = self.server.cpu().zip(window.cpu).map(|(now, then)| now.saturating_sub(then));
        let own_cpu = own_cpu().saturating_sub(window.own_cpu);
        let disk = self.data.as_deref().map(disk_bytes).zip(window.disk).map(|(now, then)| now as f64 - then as f64);
        Spent { elapsed, cpu, own_cpu, disk }
    }
}

impl Spent {
    /// Adds how many of something were done in a second, and what one of them cost the server and the generator.
    fn per(&self, run: &mut Run, prefix: &str, unit: &str, count: usize) {
        run.metric(format!("{prefix}{unit}s_per_second"), count as f64 / self.elapsed.as_secs_f64());
        self.cpu_per(run, prefix, unit, count);
    }

    /// Adds what one of them cost the server and the generator.
    fn cpu_per(&self, run: &mut Run, prefix: &str, unit: &str, count: usize) {
        let each = |cpu: Duration| milliseconds(cpu) / count.max(1) as f64;
        run.metric_if(format!("{prefix}cpu_ms_per_{unit}"), self.cpu.map(each));
        run.metric(format!("{prefix}generator_cpu_ms_per_{unit}"), each(self.own_cpu));
    }

    /// Adds by how much each of these events made the data directory grow.
    fn disk_per_event(&self, run: &mut Run, events: usize) {
        run.metric_if("disk_bytes_per_event", self.disk.map(|bytes| bytes / events.max(1) as f64));
    }
}
