//! Servers that come and go, on one thread and in virtual time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use ruma::OwnedServerName;
use store::{Clock, Store};
use tokio::{
    sync::oneshot,
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tower::ServiceExt as _;

use super::network::{Faults, Line};
use crate::{Config, Server, Setup, config, limits, router, testing};

/// The names of the servers.
pub(super) const NAMES: [&str; 3] = ["a.test", "b.test", "c.test"];
/// When every run begins: in the year 2026.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// The most lines of a journal: a run that has more goes round in circles.
const JOURNAL_MAX: usize = 300_000;

/// All servers of a run, and what is between them.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) machines: Vec<Machine>,
    pub(super) faults: Mutex<Faults>,
    /// Draws what happens between servers.
    rng: Mutex<StdRng>,
    journal: Mutex<Vec<String>>,
    violations: Mutex<Vec<String>>,
    began: Instant,
}

/// A server, be it running or not.
pub(super) struct Machine {
    pub(super) name: OwnedServerName,
    /// What a crash leaves: what was written, for the store publishes each write at once.
    pub(super) store: Arc<Store>,
    media: Arc<media::Media>,
    clock: Arc<SkewedClock>,
    starts: AtomicU64,
    running: Mutex<Option<Running>>,
    _folder: tempfile::TempDir,
}

struct Running {
    router: Router,
    /// All that goes on in the server: it ends with it.
    tasks: JoinSet<()>,
}

/// Virtual time, as a server sees it whose clock is wrong.
#[derive(Debug)]
pub(super) struct SkewedClock {
    began: Instant,
    skew_ms: AtomicI64,
}

impl Machine {
    fn new(name: &str, store: Arc<Store>, began: Instant) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            name: name.try_into().unwrap(),
            store,
            media: Arc::new(media::Media::open(folder.path(), media::Config::default()).unwrap()),
            clock: Arc::new(SkewedClock { began, skew_ms: AtomicI64::new(0) }),
            starts: AtomicU64::new(0),
            running: Mutex::new(None),
            _folder: folder,
        }
    }
}

impl SkewedClock {
    pub(super) fn set(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }
}

impl Clock for SkewedClock {
    fn now_ms(&self) -> u64 {
        let now_ms = EPOCH_MS + self.began.elapsed().as_millis() as u64;
        now_ms.saturating_add_signed(self.skew_ms.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Asks a server to stop what it does for somebody who no longer waits.
struct HangUp(Option<AbortHandle>);

impl Drop for HangUp {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// What a server answered.
pub(super) type Answer = (StatusCode, Bytes);

impl World {
    /// All servers run.
    pub(super) fn new(seed: u64, stores: Vec<Arc<Store>>) -> Arc<Self> {
        let began = Instant::now();
        let world = Arc::new(Self {
            seed,
            machines: NAMES.iter().zip(stores).map(|(name, store)| Machine::new(name, store, began)).collect(),
            faults: Mutex::new(Faults::default()),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            journal: Mutex::default(),
            violations: Mutex::default(),
            began,
        });
        (0..NAMES.len()).for_each(|at| world.start(at));
        world
    }

    /// Starts a server on what its store holds.
    pub(super) fn start(self: &Arc<Self>, at: usize) {
        let machine = &self.machines[at];
        let starts = machine.starts.fetch_add(1, Ordering::Relaxed);
        let drawn = Arc::clone(self);
        let server = Server::new(Setup {
            identity: rooms::Identity { server_name: machine.name.clone(), key: testing::signing_key(machine.name.as_str()) },
            config: Config { limits: limits::Config { enabled: false, ..limits::Config::default() }, ..Config::default() },
            users: users::Config { presence: false, ..users::Config::default() },
            rooms: rooms::Config::default(),
            media: Arc::clone(&machine.media),
            store: Arc::clone(&machine.store),
            federation: federation::Config::default(),
            transport: Arc::new(Line { world: Arc::downgrade(self), from: at }),
            clock: Arc::clone(&machine.clock) as Arc<dyn Clock>,
            computing: federation::Computing::Simulated(Arc::new(move || {
                drawn.draw(|rng| Duration::from_millis(rng.random_range(0..20)))
            })),
            rng: StdRng::seed_from_u64(self.seed ^ (at as u64) << 56 ^ starts << 40),
        });
        server.federation.publish_own_key().unwrap();
        let mut tasks = JoinSet::new();
        let (world, telling) = (Arc::clone(self), Arc::clone(&server));
        tasks.spawn(async move {
            if let Err(error) = telling.federation.run(std::future::pending()).await {
                world.violated(format!("{} no longer tells others: {error}", NAMES[at]));
            }
        });
        let router = router(&server, config::Kind::Client);
        *machine.running.lock() = Some(Running { router, tasks });
        self.note(format!("{} starts", machine.name));
    }

    /// A server is gone, and all that it was doing.
    pub(super) fn crash(&self, at: usize) {
        self.note(format!("{} crashes", self.machines[at].name));
        self.machines[at].running.lock().take();
    }

    pub(super) fn is_running(&self, at: usize) -> bool {
        self.machines[at].running.lock().is_some()
    }

    /// Has a server answer a request, for whoever waits and hangs up or does not. There is no answer of one that is down, or goes down meanwhile.
    pub(super) async fn serve(&self, at: usize, request: Request<Bytes>, hangs_up: bool) -> Option<Answer> {
        let (sender, answered) = oneshot::channel();
        let task = self.spawn_at(at, Duration::ZERO, request, move |answer| drop(sender.send(answer)))?;
        let _hanging_up = HangUp(hangs_up.then_some(task));
        answered.await.ok()
    }

    /// A request that arrives at a server later, and whose answer goes to `then`.
    pub(super) fn spawn_at(
        &self,
        at: usize,
        later: Duration,
        request: Request<Bytes>,
        then: impl FnOnce(Answer) + Send + 'static,
    ) -> Option<AbortHandle> {
        let mut running = self.machines[at].running.lock();
        let Running { router, tasks } = running.as_mut()?;
        while tasks.try_join_next().is_some() {}
        let router = router.clone();
        Some(tasks.spawn(async move {
            tokio::time::sleep(later).await;
            let (parts, body) = router.oneshot(request.map(Body::from)).await.unwrap().into_parts();
            then((parts.status, body.collect().await.unwrap().to_bytes()));
        }))
    }

    pub(super) fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.rng.lock())
    }

    pub(super) fn set_skew(&self, at: usize, skew_ms: i64) {
        self.note(format!("{}: the clock is {skew_ms} ms ahead", self.machines[at].name));
        self.machines[at].clock.set(skew_ms);
    }

    /// The time of a server.
    pub(super) fn now_ms(&self, at: usize) -> u64 {
        self.machines[at].clock.now_ms()
    }

    /// A line of what happened.
    pub(super) fn note(&self, what: impl AsRef<str>) {
        let line = format!("{:>9} {}", self.began.elapsed().as_millis(), what.as_ref());
        let mut journal = self.journal.lock();
        assert!(journal.len() < JOURNAL_MAX, "seed {}: a run without an end", self.seed);
        journal.push(line);
    }

    /// Something that must not be.
    pub(super) fn violated(&self, what: String) {
        self.note(format!("WRONG: {what}"));
        self.violations.lock().push(what);
    }

    /// Whether something was that must not be.
    pub(super) fn is_wrong(&self) -> bool {
        !self.violations.lock().is_empty()
    }

    /// What happened, and what of it must not be. All servers are gone then.
    pub(super) fn end(&self) -> (Vec<String>, Vec<String>) {
        (0..NAMES.len()).for_each(|at| drop(self.machines[at].running.lock().take()));
        (std::mem::take(&mut *self.journal.lock()), std::mem::take(&mut *self.violations.lock()))
    }
}
