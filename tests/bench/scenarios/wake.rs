//! How fast a message reaches the syncs that wait for it.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::{Bench, Run};
use crate::audit::{Audit, follow};
use crate::delivery::EventId;
use crate::failure::Failure;
use crate::follower::{Arrival, Follower, PATIENCE};
use crate::load::{Kind, Sender, Sent, send_all};
use crate::summary::Latencies;

/// How many messages are sent one by one to syncs at rest.
const ROUNDS: usize = 20;
/// How long the syncs of a round get to be waiting again.
const PAUSE: Duration = Duration::from_millis(100);
/// How many messages are sent without waiting for their deliveries.
const CONTINUOUS: usize = 100;
/// How many deliveries may be on their way from the followers to the measurement.
const ARRIVALS: usize = 1_024;

/// `waiting` users sync in a room in which one more user sends.
pub async fn wake(bench: &mut Bench, waiting: usize) -> Result<Run, Failure> {
    let mut run = Run::new(waiting);
    let mut users = bench.users(waiting + 1).await?;
    let room = [bench.room_of(&mut users).await?];
    let author = users.swap_remove(0);
    let own = Follower::start(author.another(), &room).await?;
    bench.phase("starting syncs", waiting);
    let mut followers = Vec::new();
    for user in users {
        followers.push(Follower::start(user, &room).await?);
        bench.progress.inc(1);
    }
    let (sender, mut arrivals) = mpsc::channel(ARRIVALS);
    let live = follow(followers, Some(&sender));
    let mut senders = vec![Sender::new(0, author, room.to_vec())];
    let mut audit = Audit::default();

    let sent = rounds(bench, &mut run, &mut senders, &mut arrivals, waiting).await;
    audit.note(sent);
    let sent = continuous(bench, &mut run, &mut senders, &mut arrivals, waiting).await?;
    audit.note(sent);
    drop(arrivals);

    let mut followers = live.finish(&audit).await?;
    followers.extend(audit.catch_up(vec![own]).await?);
    audit.close(followers, &mut run);
    Ok(run)
}

/// Sends a message when all syncs wait, until all have it, and again.
async fn rounds(
    bench: &Bench,
    run: &mut Run,
    senders: &mut [Sender],
    arrivals: &mut mpsc::Receiver<Arrival>,
    waiting: usize,
) -> Sent {
    bench.phase("waking", ROUNDS);
    let mut sent = Sent::default();
    let mut wakes = Latencies::default();
    let window = bench.open_window();
    for sender in senders {
        for _ in 0..ROUNDS {
            sleep(PAUSE).await;
            let before = sent.acknowledged.len();
            let started = Instant::now();
            sender.send(Kind::Message, &mut sent).await;
            if let Some((_, _, event)) = sent.acknowledged.get(before) {
                for at in deliveries(arrivals, event, waiting).await {
                    wakes.push(at.duration_since(started));
                }
            }
            bench.progress.inc(1);
        }
    }
    let spent = bench.close_window(&window);
    run.latencies("wake", &wakes);
    spent.cpu_per(run, "", "delivery", wakes.len());
    run.latencies("send", &sent.latencies);
    sent
}

/// When an event reached each of the waiting syncs. Those that it did not reach in time are left out, and found by the audit.
async fn deliveries(arrivals: &mut mpsc::Receiver<Arrival>, event: &EventId, waiting: usize) -> Vec<Instant> {
    let mut times = Vec::with_capacity(waiting);
    while times.len() < waiting {
        match timeout(PATIENCE, arrivals.recv()).await {
            Ok(Some(arrival)) if arrival.event == *event => times.push(arrival.at),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    times
}

/// Sends messages as fast as one user can; syncs may bring several at once.
async fn continuous(
    bench: &Bench,
    run: &mut Run,
    senders: &mut Vec<Sender>,
    arrivals: &mut mpsc::Receiver<Arrival>,
    waiting: usize,
) -> Result<Sent, Failure> {
    bench.phase("sending continuously", CONTINUOUS);
    let window = bench.open_window();
    let drain = async {
        let mut count = 0;
        let mut last = None;
        while count < waiting * CONTINUOUS {
            let Ok(Some(arrival)) = timeout(PATIENCE, arrivals.recv()).await else { break };
            last = last.max(Some(arrival.at));
            count += 1;
        }
        (count, last)
    };
    let (sent, (count, last)) = tokio::join!(send_all(senders, Kind::Message, CONTINUOUS, &bench.progress), drain);
    let mut spent = bench.close_window(&window);
    if let Some(last) = last {
        spent.elapsed = last.duration_since(window.since);
    }
    run.metric("continuous_deliveries_per_second", count as f64 / spent.elapsed.as_secs_f64());
    spent.cpu_per(run, "continuous_", "delivery", count);
    let sent = sent?;
    run.latencies("continuous_send", &sent.latencies);
    Ok(sent)
}
