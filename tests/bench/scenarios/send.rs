//! Sending messages: alone, many to one room, many to many rooms.
//!
//! Each runs in two phases. First nobody syncs, so that the cost is that of sending; members then fetch what they missed. Then some
//! more is sent while every member follows by `/sync`: that is when an event can slip through between two sync tokens.

use super::{Bench, Run};
use crate::audit::{Audit, follow};
use crate::failure::Failure;
use crate::follower::Follower;
use crate::load::{Kind, Sender, send_all};

/// How many users send to one room.
const CONTENDERS: usize = 8;
/// How many users send to many rooms.
const SPREAD: usize = 16;
/// How many messages each of many rooms gets.
const MESSAGES_A_ROOM: usize = 10;
/// The second phase sends this part of what the first did.
const FOLLOWED_PART: usize = 4;

/// One user sends one message at a time.
pub async fn lone(bench: &mut Bench, size: usize) -> Result<Run, Failure> {
    one_room(bench, size, 1).await
}

/// Eight users send to one room.
pub async fn contended(bench: &mut Bench, size: usize) -> Result<Run, Failure> {
    one_room(bench, size, CONTENDERS).await
}

async fn one_room(bench: &mut Bench, size: usize, count: usize) -> Result<Run, Failure> {
    let mut users = bench.users(count).await?;
    let room = bench.room_of(&mut users).await?;
    let rooms = [room];
    let mut followers = Vec::new();
    for user in &users {
        followers.push(Follower::start(user.another(), &rooms).await?);
    }
    let senders = users.into_iter().enumerate().map(|(number, user)| Sender::new(number, user, rooms.to_vec())).collect();
    sends(bench, size, size, senders, followers).await
}

/// Users send to rooms of their own, and one more user is in all of them.
pub async fn many_rooms(bench: &mut Bench, size: usize) -> Result<Run, Failure> {
    let count = SPREAD.min(size);
    let mut reader = bench.user().await?;
    let (mut senders, mut followers, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for (number, mut user) in bench.users(count).await?.into_iter().enumerate() {
        let share = size / count + usize::from(number < size % count);
        let rooms = bench.rooms_of_two(&mut user, &mut reader, share).await?;
        followers.push(Follower::start(user.another(), &rooms).await?);
        all.extend_from_slice(&rooms);
        senders.push(Sender::new(number, user, rooms));
    }
    followers.push(Follower::start(reader, &all).await?);
    sends(bench, size, size * MESSAGES_A_ROOM, senders, followers).await
}

async fn sends(
    bench: &Bench,
    size: usize,
    messages: usize,
    mut senders: Vec<Sender>,
    followers: Vec<Follower>,
) -> Result<Run, Failure> {
    let mut run = Run::new(size);
    let mut audit = Audit::default();

    bench.phase("sending", messages);
    let window = bench.open_window();
    let sent = send_all(&mut senders, Kind::Message, messages, &bench.progress).await?;
    let spent = bench.close_window(&window);
    spent.per(&mut run, "", "send", sent.latencies.len());
    run.latencies("latency", &sent.latencies);
    spent.disk_per_event(&mut run, sent.latencies.len());
    audit.note(sent);
    bench.phase("checking", 0);
    let followers = audit.catch_up(followers).await?;

    let messages = (messages / FOLLOWED_PART).max(senders.len());
    bench.phase("sending to members that sync", messages);
    let live = follow(followers, None);
    let window = bench.open_window();
    let sent = send_all(&mut senders, Kind::Message, messages, &bench.progress).await?;
    let spent = bench.close_window(&window);
    spent.per(&mut run, "followed_", "send", sent.latencies.len());
    run.latencies("followed_latency", &sent.latencies);
    audit.note(sent);
    let followers = live.finish(&audit).await?;

    audit.close(followers, &mut run);
    Ok(run)
}
