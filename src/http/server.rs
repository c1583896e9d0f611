//! What every handler is given: the store, the clock, randomness, limits, metrics. No process globals: two servers in one
//! process know nothing of each other.

use std::{sync::Arc, time::Duration};

use federation::{Computing, Federation, Transport};
use parking_lot::Mutex;
use rand::{SeedableRng, rngs::StdRng};
use ruma::OwnedServerName;
use store::{Clock, Snapshot, Store};
use tokio::sync::{Semaphore, watch};
use users::{presence::Online, shared_secret::Nonces, uiaa};

use crate::{
    config::Config,
    error::{Error, Result},
    limits::Limits,
    metrics::Metrics,
};

/// What a server is made of. The root builds it, and the tests.
pub struct Setup {
    /// Who the server is: its name in identifiers, and its signing key.
    pub identity: rooms::Identity,
    /// This layer's configuration.
    pub config: Config,
    /// The configuration of accounts.
    pub users: users::Config,
    /// The configuration of rooms.
    pub rooms: rooms::Config,
    /// Uploaded files, and what is allowed of them.
    pub media: Arc<media::Media>,
    /// The store, open with the tables of all layers.
    pub store: Arc<Store>,
    /// What is allowed between this server and others.
    pub federation: federation::Config,
    /// What carries requests to other servers.
    pub transport: Arc<dyn Transport>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where work runs that computes long.
    pub computing: Computing,
    /// Where all randomness comes from: `rand::make_rng()`, or a seed in tests.
    pub rng: StdRng,
}

/// One homeserver, as its handlers see it.
pub struct Server {
    /// The server's name in identifiers.
    pub name: OwnedServerName,
    /// Who the server is to rooms: its name and its signing key.
    pub identity: Arc<rooms::Identity>,
    /// This layer's configuration.
    pub config: Config,
    /// The configuration of accounts.
    pub users: users::Config,
    /// The configuration of rooms.
    pub rooms: rooms::Config,
    /// Uploaded files.
    pub media: Arc<media::Media>,
    /// All that is stored.
    pub store: Arc<Store>,
    /// What is asked of other servers.
    pub federation: Arc<Federation>,
    /// What views remember between requests.
    pub memory: views::Memory,
    /// Counters, and the registry to which other layers add theirs.
    pub metrics: Metrics,
    /// Who is connected.
    pub online: Arc<Online>,
    pub(crate) limits: Limits,
    /// Interactive authentications that are under way.
    pub(crate) interactive: uiaa::Sessions,
    /// Nonces of scripts that register accounts.
    pub(crate) nonces: Nonces,
    clock: Arc<dyn Clock>,
    computing: Computing,
    rng: Mutex<StdRng>,
    blocking: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
}

impl Server {
    /// A server that serves nothing yet: give it to [`crate::listen`], or to [`crate::router`] in tests.
    #[must_use]
    pub fn new(setup: Setup) -> Arc<Self> {
        let Setup { identity, config, users, rooms, media, store, federation, transport, clock, computing, mut rng } = setup;
        let (identity, online) = (Arc::new(identity), Arc::new(Online::default()));
        let federation = Federation::new(federation::Parts {
            identity: Arc::clone(&identity),
            config: federation,
            store: Arc::clone(&store),
            media: Arc::clone(&media),
            clock: Arc::clone(&clock),
            transport,
            online: users.presence.then(|| Arc::clone(&online)),
            computing: computing.clone(),
            rng: StdRng::from_rng(&mut rng),
        });
        Arc::new(Self {
            name: identity.server_name.clone(),
            identity,
            memory: views::Memory::new(store.spare_memory()),
            metrics: Metrics::new(Arc::clone(&store)),
            online,
            limits: Limits::new(config.limits.clone()),
            blocking: Arc::new(Semaphore::new(config.blocking_max.max(1))),
            interactive: uiaa::Sessions::default(),
            nonces: Nonces::default(),
            config,
            users,
            rooms,
            media,
            store,
            federation,
            clock,
            computing,
            rng: Mutex::new(rng),
            stopping: watch::Sender::new(false),
        })
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// The time since some moment, which never goes back: for limits and deadlines.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// A generator of its own for whoever needs randomness, fit for secrets.
    #[must_use]
    pub fn rng(&self) -> StdRng {
        StdRng::from_rng(&mut *self.rng.lock())
    }

    /// All that is committed now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    /// Runs what computes long or reads many rows (a password hash, a thumbnail, a search) on another thread, of which few
    /// run at once. Cheap reads and writes need not come here.
    ///
    /// # Errors
    /// What `work` returns; 500 where it panicked.
    pub async fn blocking<T, E>(&self, work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        E: Into<Error> + Send + 'static,
    {
        let permit = Arc::clone(&self.blocking).acquire_owned().await.map_err(Error::internal)?;
        let work = move || {
            // The permit goes with the work, which cannot be cancelled, and not with the request, which can.
            let _permit = permit;
            work()
        };
        self.computing.run(work).await.map_err(Error::internal)?.map_err(Into::into)
    }

    /// Asks long polls to answer and listeners to finish.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Returns once a stop was asked for. A long poll selects on it and answers with what it has.
    pub async fn stopping(&self) {
        // The sender lives as long as `self`.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crate::{config::Config, error::Result, testing::Hearth};

    #[tokio::test]
    async fn blocking_work_is_bounded_and_its_panic_is_an_error() {
        let hearth = Hearth::with(Config { blocking_max: 2, ..Config::default() });
        let (now, most) = (std::sync::Arc::new(AtomicUsize::new(0)), std::sync::Arc::new(AtomicUsize::new(0)));
        let work = |_: usize| {
            let (now, most) = (now.clone(), most.clone());
            hearth.server.blocking(move || -> Result<()> {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_millis(5));
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            })
        };
        futures_util::future::join_all((0..8).map(work)).await;
        assert_eq!(most.load(Ordering::SeqCst), 2);
        assert!(hearth.server.blocking(|| -> Result<()> { panic!("a bug") }).await.is_err());
    }

    #[tokio::test]
    async fn a_stop_wakes_those_who_wait_and_those_who_come_later() {
        let hearth = Hearth::start();
        let waiting = hearth.server.stopping();
        hearth.server.stop();
        waiting.await;
        hearth.server.stopping().await;
        assert!(hearth.server.is_stopping());
    }

    #[test]
    fn two_servers_in_one_process_share_nothing() {
        let (one, two) = (Hearth::named("one.test"), Hearth::named("two.test"));
        one.server.stop();
        one.clock.advance(5);
        assert!(!two.server.is_stopping());
        assert_eq!(one.server.now_ms(), two.server.now_ms() + 5);
    }
}
