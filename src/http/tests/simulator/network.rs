//! The network between the servers, which loses, doubles, delays and reorders, and falls apart.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use federation::{Carrying, Transport, TransportError};
use futures_util::stream;
use http::{Request, Response};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use ruma::ServerName;
use tokio::{task::JoinSet, time::sleep};

use super::world::{NAMES, World};

/// How bad the network is.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// How many of a hundred requests, and answers, are lost.
    loss: u32,
    /// How many of a hundred requests arrive twice.
    twice: u32,
    /// The longest way of a message, in milliseconds: what is sent later may arrive sooner.
    slow_ms: u64,
    /// From whom nothing reaches whom.
    cut: BTreeSet<(usize, usize)>,
}

impl Faults {
    fn drawn(rng: &mut StdRng) -> Self {
        let slow_ms = [20, 300, 3_000, 20_000][rng.random_range(0..4)];
        let (loss, twice) = ([0, 2, 10, 30][rng.random_range(0..4)], [0, 5, 30][rng.random_range(0..3)]);
        Self { loss, twice, slow_ms, cut: BTreeSet::new() }
    }
}

/// What becomes of one request.
struct Fate {
    there: Duration,
    back: Duration,
    /// It does not arrive.
    lost: bool,
    /// The answer does not.
    unanswered: bool,
    /// Who asked is not told, and waits.
    silent: bool,
    /// Arrives once more after this.
    again: Option<Duration>,
    /// Who no longer waits hangs up, and the other server notices.
    hangs_up: bool,
}

impl Fate {
    fn drawn(faults: &Faults, rng: &mut StdRng) -> Self {
        let way = |rng: &mut StdRng| Duration::from_millis(1 + rng.random_range(0..=faults.slow_ms));
        let (there, back) = (way(rng), way(rng));
        let mut of_hundred = |share: u32| rng.random_range(0..100) < share;
        let (lost, unanswered, silent) = (of_hundred(faults.loss), of_hundred(faults.loss), of_hundred(50));
        let (twice, hangs_up) = (of_hundred(faults.twice), of_hundred(50));
        let again = twice.then(|| way(rng) * 2);
        Self { there, back, lost, unanswered, silent, again, hangs_up }
    }
}

/// What carries the requests of one server.
pub(super) struct Line {
    pub(super) world: Weak<World>,
    pub(super) from: usize,
}

impl Line {
    async fn ask(&self, to: &ServerName, request: Request<Bytes>) -> Result<Response<federation::Body>, TransportError> {
        let unknown = || TransportError::NoAddress(to.to_string());
        let world = self.world.upgrade().ok_or_else(unknown)?;
        let to = NAMES.iter().position(|name| *name == to).ok_or_else(unknown)?;
        let about = format!("{} -> {}: {} {}", NAMES[self.from], NAMES[to], request.method(), request.uri());
        let faults = world.faults.lock().clone();
        let fate = world.draw(|rng| Fate::drawn(&faults, rng));
        sleep(fate.there).await;
        if fate.lost || is_cut(&world, self.from, to) {
            world.note(format!("{about}: does not arrive"));
            return gone(fate.silent).await;
        }
        if let Some(again) = fate.again {
            world.spawn_at(to, again, copy(&request), |_| ());
        }
        let Some((status, body)) = world.serve(to, request, fate.hangs_up).await else {
            world.note(format!("{about}: the server is down"));
            return gone(fate.silent).await;
        };
        if status.as_u16() == 500 {
            world.violated(format!("{about}: {status} {}", String::from_utf8_lossy(&body)));
        }
        sleep(fate.back).await;
        if fate.unanswered || is_cut(&world, to, self.from) {
            world.note(format!("{about}: {status}, but the answer does not arrive"));
            return gone(fate.silent).await;
        }
        world.note(format!("{about}: {status}{}", told(status, &body)));
        let body = stream::iter([Ok(body)]);
        Ok(Response::builder().status(status).body(Box::pin(body) as federation::Body).unwrap())
    }
}

/// Of a refusal, what it says; of a transaction, what was refused.
fn told(status: http::StatusCode, body: &Bytes) -> String {
    let text = String::from_utf8_lossy(body);
    if !status.is_success() || text.contains("\"error\"") { format!(" {text}") } else { String::new() }
}

fn is_cut(world: &World, from: usize, to: usize) -> bool {
    world.faults.lock().cut.contains(&(from, to))
}

async fn gone<T>(silent: bool) -> Result<T, TransportError> {
    if silent {
        std::future::pending::<()>().await;
    }
    Err(TransportError::BrokenOff("a fault".to_owned()))
}

fn copy(request: &Request<Bytes>) -> Request<Bytes> {
    let mut copy = Request::new(request.body().clone());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

impl Transport for Line {
    fn carry<'a>(&'a self, destination: &'a ServerName, request: Request<Bytes>) -> Carrying<'a> {
        Box::pin(self.ask(destination, request))
    }

    fn fetch<'a>(&'a self, url: &'a str) -> Carrying<'a> {
        Box::pin(async move { Err(TransportError::NoAddress(url.to_owned())) })
    }
}

/// Lets one thing after another go wrong, and some at the same time, until it is dropped.
pub(super) async fn disturb(world: Arc<World>, mut rng: StdRng) {
    // A few runs are calm: what goes wrong there is nobody else's fault.
    if rng.random_range(0..10) == 0 {
        return std::future::pending().await;
    }
    let mut troubles = JoinSet::new();
    loop {
        sleep(Duration::from_millis(rng.random_range(100..20_000))).await;
        while troubles.try_join_next().is_some() {}
        let trouble = trouble(Arc::clone(&world), StdRng::from_rng(&mut rng));
        troubles.spawn(trouble);
    }
}

async fn trouble(world: Arc<World>, mut rng: StdRng) {
    let (one, other) = (rng.random_range(0..NAMES.len()), rng.random_range(1..NAMES.len()));
    let other = (one + other) % NAMES.len();
    let while_ms = [500, 5_000, 30_000, 120_000][rng.random_range(0..4)];
    let lasts = Duration::from_millis(rng.random_range(0..while_ms));
    match rng.random_range(0..10) {
        0..=1 => cut(&world, lasts, [(one, other), (other, one)]).await,
        2 => cut(&world, lasts, [(one, other)]).await,
        3 => {
            let others = (0..NAMES.len()).filter(|at| *at != one);
            cut(&world, lasts, others.flat_map(|at| [(one, at), (at, one)])).await;
        }
        4..=5 if world.is_running(one) => {
            world.crash(one);
            sleep(lasts.min(Duration::from_secs(30))).await;
            world.start(one);
        }
        6 => world.set_skew(one, rng.random_range(-3_600_000..3_600_000)),
        _ => {
            let new = Faults::drawn(&mut rng);
            let mut faults = world.faults.lock();
            let cut = std::mem::take(&mut faults.cut);
            *faults = Faults { cut, ..new };
            world.note(format!("{faults:?}"));
        }
    }
}

/// Cuts these lines for a while. Of lines that were cut already the first end counts.
async fn cut(world: &World, lasts: Duration, lines: impl IntoIterator<Item = (usize, usize)>) {
    let lines: Vec<_> = lines.into_iter().collect();
    world.note(format!("nothing reaches {lines:?} for {lasts:?}"));
    world.faults.lock().cut.extend(&lines);
    sleep(lasts).await;
    world.faults.lock().cut.retain(|line| !lines.contains(line));
}

/// Everything works again.
pub(super) fn heal(world: &Arc<World>) {
    world.note("the faults end");
    *world.faults.lock() = Faults { slow_ms: 100, ..Faults::default() };
    for at in (0..NAMES.len()).filter(|at| !world.is_running(*at)) {
        world.start(at);
    }
}
