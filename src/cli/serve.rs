//! `hearth serve`: builds the server out of its layers, runs it, and stops it so that nothing is lost.

use std::sync::Arc;

use admin::{Homeserver, jobs::Board};
use federation::{Computing, NoNetwork, Transport, Wire};
use http_layer::{
    Clock, Listening, Server, Setup, SystemClock,
    config::Kind,
    listen::{self, Address, Reload},
};
use media::Media;
use rand::rngs::StdRng;
use rooms::Identity;
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
};
use users::accounts;

use super::{Failure, Place, Result, Serve, notify, operator, socket};
use crate::{
    appservices,
    config::{Config, Loaded},
    folder::{self, Layout},
    jobs, telemetry,
};

/// How long computations may go on after the last request is answered, before the process ends under them.
const LAST_WORK: std::time::Duration = std::time::Duration::from_secs(5);

/// The pause before other servers are told again after a failure of the store.
const TELL_AGAIN: std::time::Duration = std::time::Duration::from_secs(5);

pub(super) fn run(place: &Place, serve: &Serve) -> Result<()> {
    let Loaded { config, defaults, ignored } = place.load(serve.flags())?;
    telemetry::start(&config.log)?;
    for name in ignored {
        tracing::warn!(name, "this environment variable is no setting of Hearth");
    }
    if !defaults.is_empty() {
        let file = place.config.as_ref().map_or("no configuration file".into(), |path| path.display().to_string());
        tracing::info!(file, defaults = defaults.join(", "), "some settings have their defaults");
    }
    // Two at least: one of them may wait for the disk.
    let workers = std::thread::available_parallelism().map_or(1, usize::from).max(2);
    let runtime = Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let served = runtime.block_on(serve_until_stopped(config));
    runtime.shutdown_timeout(LAST_WORK);
    served
}

/// What is put together of the layers, ready to serve.
struct Hearth {
    server: Arc<Server>,
    homeserver: Arc<Homeserver>,
    jobs: Arc<jobs::Context>,
    board: Arc<Board>,
}

fn build(config: Config) -> Result<Hearth> {
    let layout = Layout(&config.data);
    let mut rng = rand::make_rng::<StdRng>();
    let key = folder::signing_key(&layout, &mut rng)?;
    let folder::Folder { name, store } = folder::open(&config)?;
    let media = Arc::new(Media::open(&layout.media(), config.media).map_err(folder::Error::from)?);
    tracing::info!(version = crate::VERSION, server_name = %name, data = %config.data.display(), key = key.id(), "starting");
    let store = Arc::new(store);
    let appservices = appservices::load(&config.appservices, &name)?;
    let clock = Arc::new(SystemClock::default());
    appservices.make_senders(&store, clock.now_ms()).map_err(|error| Failure(error.to_string()))?;
    let (registration, sessions, presence) = (config.registration, config.sessions, config.presence);
    let users = users::Config { registration, sessions, presence, appservices };
    let transport: Arc<dyn Transport> = if config.federation.enabled {
        Arc::new(Wire::new(&config.federation, Arc::clone(&clock) as Arc<dyn Clock>, &mut rng)?)
    } else {
        Arc::new(NoNetwork)
    };
    let server = Server::new(Setup {
        identity: Identity { server_name: name.clone(), key },
        config: config.http,
        users,
        rooms: config.rooms,
        media: Arc::clone(&media),
        store: Arc::clone(&store),
        federation: config.federation,
        transport,
        clock,
        computing: Computing::Beside,
        rng,
    });
    server.federation.publish_own_key().map_err(|error| Failure(error.to_string()))?;
    let board = Arc::new(Board::default());
    let keys = operator::known_keys(name.clone(), Arc::clone(&store));
    let homeserver = Arc::new(Homeserver { name, store, keys, jobs: Some(Arc::clone(&board)) });
    let jobs = Arc::new(jobs::Context { server: Arc::clone(&server), media });
    Ok(Hearth { server, homeserver, jobs, board })
}

async fn serve_until_stopped(config: Config) -> Result<()> {
    let signals = Signals::new()?;
    let socket = Layout(&config.data).socket();
    let Hearth { server, homeserver, jobs, board } = build(config)?;
    let listening = listen::bind(&server).await?;
    let operators = match socket::bind(&socket) {
        Ok(bound) => Some(tokio::spawn(bound.run(Arc::clone(&server), Arc::clone(&homeserver)))),
        Err(error) => {
            tracing::warn!(path = %socket.display(), %error, "commands cannot reach the running server");
            None
        }
    };
    welcome(&server, &listening)?;
    let jobs = jobs::start(&jobs, &board);
    let telling = tokio::spawn(tell_others(Arc::clone(&server)));
    let signalled = tokio::spawn(signals.until_stop(Arc::clone(&server), listening.reload()));
    notify::tell(notify::READY);
    let watchdog = tokio::spawn(watchdog());
    listening.run().await;
    jobs.stopped().await;
    telling.await.map_err(|error| Failure(error.to_string()))?;
    if let Some(operators) = operators {
        operators.await.map_err(|error| Failure(error.to_string()))?;
    }
    watchdog.abort();
    signalled.abort();
    tracing::info!("stopped");
    Ok(())
}

/// Says where clients find the server, and how people get in.
fn welcome(server: &Server, listening: &Listening) -> Result<()> {
    let listeners = server.config.listeners.iter().zip(listening.addresses());
    for (listener, address) in listeners.filter(|(listener, _)| listener.kind == Kind::Client) {
        if let Address::Tcp(mut address) = address {
            let scheme = if listener.tls.is_some() { "https" } else { "http" };
            if address.ip().is_unspecified() {
                address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
            }
            tracing::info!(homeserver = %format!("{scheme}://{address}"), "point clients here");
        }
    }
    if accounts::accounts(&server.store.snapshot(), None, 1).map_err(folder::Error::from)?.is_empty() {
        tracing::info!("nobody has an account yet: make one with `hearth user create NAME --admin`");
    }
    Ok(())
}

/// Tells other servers what there is to tell, until the server stops. What fails is tried again.
async fn tell_others(server: Arc<Server>) {
    while let Err(error) = server.federation.run(server.stopping()).await {
        tracing::error!(%error, "telling other servers failed; it is tried again in {} s", TELL_AGAIN.as_secs());
        tokio::select! {
            () = tokio::time::sleep(TELL_AGAIN) => {}
            () = server.stopping() => return,
        }
    }
}

/// Tells the service manager that the process is not stuck. A disk that refuses writes is not its concern: reads go on, and a
/// restart could end them too.
async fn watchdog() {
    let Some(interval) = notify::watchdog_interval() else { return };
    loop {
        notify::tell(notify::ALIVE);
        tokio::time::sleep(interval).await;
    }
}

/// What the operating system asks of the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Reads certificates again on SIGHUP; stops the server on SIGTERM or SIGINT, and the process on a second one.
    async fn until_stop(mut self, server: Arc<Server>, reload: Reload) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hangup.recv() => {
                    match reload.certificates() {
                        Ok(()) => tracing::info!("read the certificates again"),
                        Err(error) => tracing::error!(%error, "the old certificate stays"),
                    }
                    continue;
                }
            }
            if server.is_stopping() {
                tracing::warn!("stopping at once");
                std::process::exit(1);
            }
            tracing::info!("stopping; once more to stop at once");
            notify::tell(notify::STOPPING);
            server.stop();
        }
    }
}
