//! What syncs cost a user who is in many rooms: when nothing is new, and when everything is.

use std::time::{Duration, Instant};

use super::{Bench, PASSWORD, Run};
use crate::audit::Audit;
use crate::failure::Failure;
use crate::follower::Follower;
use crate::load::{Kind, Sender, Sent, send_all};
use crate::summary::{Latencies, milliseconds};

/// How many syncs without anything new are measured.
const IDLE_SYNCS: usize = 200;
/// How many messages each room has when it is synced first: a timeline of 20 events holds them and the room's creation.
const MESSAGES_A_ROOM: usize = 5;
/// How many devices sync for the first time.
const DEVICES: usize = 10;

/// Incremental syncs with nothing new, first on a server at rest and then on one where something happens in other rooms between any two
/// syncs, so that "no event since your token on this server" is no answer.
pub async fn idle(bench: &mut Bench, size: usize) -> Result<Run, Failure> {
    let mut run = Run::new(size);
    let mut audit = Audit::default();
    let (mut author, mut reader) = (bench.user().await?, bench.user().await?);
    let rooms = bench.rooms_of_two(&mut author, &mut reader, size).await?;
    let elsewhere = author.create_room().await?;
    let mut busy = Sender::new(1, author.another(), vec![elsewhere]);
    let followers = vec![Follower::start(reader, &rooms).await?, Follower::start(author.another(), &rooms).await?];
    let mut senders = vec![Sender::new(0, author, rooms)];
    audit.note(send_all(&mut senders, Kind::Message, size, &bench.progress).await?);
    let mut followers = audit.catch_up(followers).await?;

    if let Some(reader) = followers.first_mut() {
        idle_syncs(bench, &mut run, "", reader, None).await?;
        let sent = idle_syncs(bench, &mut run, "busy_server_", reader, Some(&mut busy)).await?;
        if let Some(failure) = sent.failures.into_iter().next() {
            return Err(failure);
        }
    }
    audit.close(followers, &mut run);
    Ok(run)
}

async fn idle_syncs(
    bench: &Bench,
    run: &mut Run,
    prefix: &str,
    reader: &mut Follower,
    mut busy: Option<&mut Sender>,
) -> Result<Sent, Failure> {
    bench.phase("syncing", IDLE_SYNCS);
    let mut sent = Sent::default();
    let mut syncs = Latencies::default();
    let mut cpu = Some(Duration::ZERO);
    for _ in 0..IDLE_SYNCS {
        if let Some(busy) = &mut busy {
            busy.send(Kind::Message, &mut sent).await;
        }
        let window = bench.open_window();
        let polled = reader.poll(Duration::ZERO).await?;
        let spent = bench.close_window(&window);
        syncs.push(polled.answered.duration_since(window.since));
        cpu = cpu.zip(spent.cpu).map(|(sum, more)| sum + more);
        bench.progress.inc(1);
    }
    run.latencies(&format!("{prefix}latency"), &syncs);
    run.metric_if(format!("{prefix}cpu_ms_per_sync"), cpu.map(|cpu| milliseconds(cpu) / IDLE_SYNCS as f64));
    Ok(sent)
}

/// First syncs of new devices of a user, in rooms with some messages each.
pub async fn initial(bench: &mut Bench, size: usize) -> Result<Run, Failure> {
    let mut run = Run::new(size);
    let mut audit = Audit::default();
    let (mut author, mut reader) = (bench.user().await?, bench.user().await?);
    let rooms = bench.rooms_of_two(&mut author, &mut reader, size).await?;
    let own = Follower::from_beginning(author.another(), &rooms);
    let mut senders = vec![Sender::new(0, author, rooms.clone())];
    bench.phase("sending", size * MESSAGES_A_ROOM);
    audit.note(send_all(&mut senders, Kind::Message, size * MESSAGES_A_ROOM, &bench.progress).await?);
    let mut devices = Vec::new();
    for _ in 0..DEVICES {
        devices.push(Follower::from_beginning(reader.log_in(PASSWORD).await?, &rooms));
    }

    bench.phase("syncing", DEVICES);
    let mut syncs = Latencies::default();
    let mut bytes = 0;
    let window = bench.open_window();
    for device in &mut devices {
        let started = Instant::now();
        let polled = device.poll(Duration::ZERO).await?;
        syncs.push(polled.answered.duration_since(started));
        bytes += polled.bytes;
        bench.progress.inc(1);
    }
    let spent = bench.close_window(&window);
    run.latencies("latency", &syncs);
    spent.cpu_per(&mut run, "", "sync", DEVICES);
    run.metric("answer_kib", bytes as f64 / DEVICES as f64 / 1_024.0);

    devices.push(own);
    let devices = audit.catch_up(devices).await?;
    audit.close(devices, &mut run);
    Ok(run)
}
