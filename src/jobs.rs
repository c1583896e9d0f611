//! Background jobs: the list of them, and what drives them.
//!
//! A job runs now and then, one run at a time. It is idempotent, takes no input, and may be cut off anywhere: what is left to do is
//! found in the store by its next run. How it fares is on the [`Board`].

mod departures;
mod profiles;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use admin::jobs::Board;
use http_layer::Server;
use media::Media;
use store::Pending;
use tokio::task::JoinSet;

const MINUTE: Duration = Duration::from_secs(60);
/// How long a client may take to send a transaction again.
const TRANSACTIONS_KEPT_MS: u64 = 24 * 60 * 60 * 1000;
/// The most transactions that one run forgets.
const TRANSACTIONS_MAX: usize = 100_000;
/// The most servers that one run forgets.
const DESTINATIONS_MAX: usize = 10_000;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What jobs work on.
pub struct Context {
    /// The running server: its store, its clock, and who it is.
    pub server: Arc<Server>,
    /// Its uploads.
    pub media: Arc<Media>,
}

impl Context {
    /// Waits, on a thread that may, until what was sent is on disk; where the room's policy server has to sign it first, it is asked.
    fn sent(&self, sending: rooms::Result<Pending<()>>) -> Result<(), Failure> {
        match sending {
            Err(rooms::Error::Unsigned(unsent)) => {
                let asking = self.server.federation.send_recommended(*unsent);
                Ok(tokio::runtime::Handle::current().block_on(asking).map(drop)?)
            }
            Err(rooms::Error::Store(error)) => Err(error.into()),
            sending => Ok(sending?.wait()?),
        }
    }
}

/// What a run did, in words; or why it failed.
type Outcome = Result<String, Failure>;
type Run = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Users(#[from] users::Error),
    #[error(transparent)]
    Rooms(#[from] rooms::Error),
    #[error(transparent)]
    Media(#[from] media::Error),
    #[error(transparent)]
    Federation(#[from] federation::Error),
    #[error("a bug of Hearth: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// A job: a name for machines, words for people, how long it rests between runs, and what it does.
struct Job {
    name: &'static str,
    about: &'static str,
    every: Duration,
    run: fn(Arc<Context>) -> Run,
}

/// All jobs.
const JOBS: &[Job] = &[
    Job {
        name: "departures",
        about: "Leaves the rooms of deactivated users",
        every: Duration::from_secs(10),
        run: |context| Box::pin(departures::run(context)),
    },
    Job {
        name: "destinations",
        about: "Forgets other servers that did not answer and are not asked any more",
        every: HOUR,
        run: |context| Box::pin(prune_destinations(context)),
    },
    Job {
        name: "guests",
        about: "Lets guests leave rooms that no longer let them in",
        every: Duration::from_secs(1),
        run: |context| Box::pin(expel_guests(context)),
    },
    Job {
        name: "login_tokens",
        about: "Deletes login tokens that expired unused",
        every: HOUR,
        run: |context| Box::pin(purge_login_tokens(context)),
    },
    Job {
        name: "media_sweep",
        about: "Removes files that belong to nothing and uploads that never came",
        every: Duration::from_secs(6 * 60 * 60),
        run: |context| Box::pin(sweep_media(context)),
    },
    Job {
        name: "presence",
        about: "Shows users as idle or gone",
        every: Duration::from_secs(2),
        run: |context| Box::pin(refresh_presence(context)),
    },
    Job {
        name: "profiles",
        about: "Shows changed display names and avatars in rooms",
        every: Duration::from_secs(1),
        run: |context| Box::pin(profiles::run(context)),
    },
    Job {
        name: "purges",
        about: "Finishes purges of rooms that were cut off",
        every: MINUTE,
        run: |context| Box::pin(finish_purges(context)),
    },
    Job {
        name: "server_keys",
        about: "Forgets the keys of servers that have nothing to do with this one",
        every: MINUTE,
        run: |context| Box::pin(prune_server_keys(context)),
    },
    Job {
        name: "state_nodes",
        about: "Removes what forks leave behind of the states of rooms",
        every: HOUR,
        run: |context| Box::pin(collect_state(context)),
    },
    Job {
        name: "transactions",
        about: "Forgets the transactions of clients that are too old to be sent again",
        every: HOUR,
        run: |context| Box::pin(prune_transactions(context)),
    },
    Job {
        name: "typing",
        about: "Ends the typing of those who said no more of it",
        every: Duration::from_secs(1),
        run: |context| Box::pin(expire_typing(context)),
    },
];

async fn expel_guests(context: Arc<Context>) -> Outcome {
    // Writes wait for the disk here, so not on an async thread.
    let work = move || rooms::guests::expel(&context.server.store, &context.server.identity, context.server.now_ms());
    let left = tokio::task::spawn_blocking(work).await??;
    Ok(format!("{left} guests left"))
}

async fn expire_typing(context: Arc<Context>) -> Outcome {
    let ended = rooms::typing::expire(&context.server.store, context.server.now_ms())?;
    Ok(format!("{ended} users no longer type"))
}

async fn finish_purges(context: Arc<Context>) -> Outcome {
    // Writes wait for the disk here, so not on an async thread.
    let work = move || -> Outcome {
        let server = &context.server;
        let rooms = rooms::purge::begun(&server.store.snapshot())?;
        for room in &rooms {
            while !server.is_stopping() {
                match rooms::purge::step(&server.store, &server.identity.server_name, *room) {
                    Ok(rooms::purge::Step::More(_)) => {}
                    Ok(rooms::purge::Step::Done) => break,
                    Err(rooms::Error::Forbidden(why)) => {
                        tracing::warn!(room = room.0, why, "the purge of a room is given up");
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(format!("went on with {} purges", rooms.len()))
    };
    tokio::task::spawn_blocking(work).await?
}

async fn collect_state(context: Arc<Context>) -> Outcome {
    let work = move || -> Outcome {
        let server = &context.server;
        let due = rooms::collect::due(&server.store.snapshot())?;
        let (mut looked_at, mut removed) = (0, 0);
        for room in due {
            if server.is_stopping() {
                break;
            }
            match rooms::collect::collect(&server.store, room, || server.is_stopping()) {
                Ok(collected) => (looked_at, removed) = (looked_at + 1, removed + collected.removed),
                // Purged meanwhile.
                Err(rooms::Error::UnknownRoom) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(format!("removed {removed} tree nodes of {looked_at} rooms"))
    };
    tokio::task::spawn_blocking(work).await?
}

async fn refresh_presence(context: Arc<Context>) -> Outcome {
    let server = &context.server;
    if !server.users.presence {
        return Ok("presence is switched off".into());
    }
    let changed = rooms::presence::refresh(&server.store, &server.online, server.now_ms())?;
    Ok(format!("{changed} users are idle or gone now"))
}

async fn prune_transactions(context: Arc<Context>) -> Outcome {
    let before_ms = context.server.now_ms().saturating_sub(TRANSACTIONS_KEPT_MS);
    let pruned = rooms::send::prune_txns(&context.server.store, before_ms, TRANSACTIONS_MAX)?.durable().await?;
    Ok(format!("forgot {pruned} transactions"))
}

async fn prune_destinations(context: Arc<Context>) -> Outcome {
    let pruned = context.server.federation.prune_destinations(DESTINATIONS_MAX)?;
    Ok(format!("forgot {pruned} servers"))
}

async fn prune_server_keys(context: Arc<Context>) -> Outcome {
    // It may read the keys of all servers.
    let pruned = tokio::task::spawn_blocking(move || context.server.federation.prune_server_keys()).await??;
    Ok(format!("forgot the keys of {pruned} servers"))
}

async fn purge_login_tokens(context: Arc<Context>) -> Outcome {
    users::sessions::purge(&context.server.store, context.server.now_ms())?.durable().await?;
    Ok("done".into())
}

async fn sweep_media(context: Arc<Context>) -> Outcome {
    let swept = context.media.sweep(&context.server.store, context.server.now_ms()).await?;
    Ok(format!("removed {} files and {} uploads that never came", swept.blobs, swept.expired))
}

/// Jobs that are being driven.
pub struct Running(JoinSet<()>);

/// Drives all jobs until the server stops.
#[must_use]
pub fn start(context: &Arc<Context>, board: &Arc<Board>) -> Running {
    let mut running = JoinSet::new();
    for job in JOBS {
        let first = job.every.min(MINUTE);
        board.planned(job.name, job.about, after(context, first));
        drop(running.spawn(drive(job, first, Arc::clone(context), Arc::clone(board))));
    }
    Running(running)
}

impl Running {
    /// Waits until all jobs have stopped, which they do once the server was asked to.
    pub async fn stopped(self) {
        self.0.join_all().await;
    }
}

fn after(context: &Context, rest: Duration) -> u64 {
    context.server.now_ms().saturating_add(u64::try_from(rest.as_millis()).unwrap_or(u64::MAX))
}

async fn drive(job: &'static Job, first: Duration, context: Arc<Context>, board: Arc<Board>) {
    let mut rest = first;
    loop {
        tokio::select! {
            () = context.server.stopping() => return,
            () = tokio::time::sleep(rest) => {}
        }
        board.started(job.name, context.server.now_ms());
        // Its own task, so that a panic ends the run and not the job.
        let run = tokio::spawn((job.run)(Arc::clone(&context)));
        let abort = run.abort_handle();
        let outcome = tokio::select! {
            () = context.server.stopping() => return abort.abort(),
            outcome = run => outcome.unwrap_or_else(|panicked| Err(panicked.into())),
        };
        match &outcome {
            Ok(done) => tracing::debug!(job = job.name, done, "a job ran"),
            Err(error) => tracing::warn!(job = job.name, %error, "a job failed"),
        }
        rest = job.every;
        board.ended(job.name, outcome.map_err(|error| error.to_string()), context.server.now_ms(), after(&context, rest));
    }
}
