//! Reading a room's history backwards by `/messages`.

use std::time::Instant;

use super::{Bench, Run};
use crate::audit::Audit;
use crate::delivery::EventId;
use crate::failure::Failure;
use crate::follower::{Follower, PAGE_LIMIT};
use crate::load::{Kind, Sender, send_all};
use crate::matrix::{Page, Room, Session, parse};
use crate::summary::Latencies;

/// How many users fill the room.
const AUTHORS: usize = 4;
/// The history is read until about this many events were returned, so that both sizes have as many pages.
const EVENTS_READ: usize = 10_000;

/// A room of `size` messages is read from its end to its beginning.
pub async fn messages(bench: &mut Bench, size: usize) -> Result<Run, Failure> {
    let mut run = Run::new(size);
    let mut audit = Audit::default();
    let mut users = bench.users(AUTHORS).await?;
    let room = bench.room_of(&mut users).await?;
    let rooms = [room];
    let mut followers = Vec::new();
    for user in &users {
        followers.push(Follower::start(user.another(), &rooms).await?);
    }
    let [room] = &rooms;
    let Some(mut reader) = users.first().map(Session::another) else { return Ok(run) };
    let mut senders = users.into_iter().enumerate().map(|(number, user)| Sender::new(number, user, rooms.to_vec())).collect();
    bench.phase("filling the room", size);
    audit.note(send_all(&mut senders, Kind::Message, size, &bench.progress).await?);
    let followers = audit.catch_up(followers).await?;

    let passes = EVENTS_READ.div_ceil(size);
    bench.phase("reading", passes);
    let mut pages = Latencies::default();
    let mut events = 0;
    let window = bench.open_window();
    for _ in 0..passes {
        let seen = read_back(&mut reader, room, size, &mut pages).await?;
        events += seen.len();
        audit.deliver(room, seen);
        bench.progress.inc(1);
    }
    let spent = bench.close_window(&window);
    spent.per(&mut run, "", "event", events);
    run.latencies("page", &pages);
    spent.cpu_per(&mut run, "", "page", pages.len());
    audit.close(followers, &mut run);
    Ok(run)
}

/// The tracked events of a room, oldest first. `size` bounds the pages that are read.
async fn read_back(reader: &mut Session, room: &Room, size: usize, pages: &mut Latencies) -> Result<Vec<EventId>, Failure> {
    let mut seen = Vec::with_capacity(size);
    let mut from: Option<String> = None;
    // A server may return fewer events than asked for, so a page of one event is the worst case; some more for the room's creation.
    for _ in 0..size + PAGE_LIMIT {
        let started = Instant::now();
        let answer = reader.messages(room, from.as_deref(), PAGE_LIMIT).await?;
        pages.push(started.elapsed());
        let page: Page = parse("GET /messages", &answer)?;
        seen.extend(page.chunk.iter().filter(|event| event.is_tracked()).map(|event| EventId::from(&*event.event_id)));
        match page.end {
            Some(end) if from.as_ref() != Some(&end) => from = Some(end),
            _ => break,
        }
    }
    seen.reverse();
    Ok(seen)
}
