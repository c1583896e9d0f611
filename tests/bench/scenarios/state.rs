//! What a state event and a message cost in a room with many members.

use super::{Bench, Run};
use crate::audit::Audit;
use crate::failure::Failure;
use crate::follower::Follower;
use crate::load::{Kind, Sender, send_all};

/// How many events of each kind are sent.
const EVENTS: usize = 200;

/// One user of a room with `size` members sends state events, then messages.
pub async fn state(bench: &mut Bench, size: usize) -> Result<Run, Failure> {
    let mut run = Run::new(size);
    let mut audit = Audit::default();
    let mut users = bench.users(size.max(1)).await?;
    let rooms = [bench.room_of(&mut users).await?];
    bench.phase("starting syncs", size);
    let mut followers = Vec::new();
    for user in &users {
        followers.push(Follower::start(user.another(), &rooms).await?);
        bench.progress.inc(1);
    }
    let mut senders = vec![Sender::new(0, users.swap_remove(0), rooms.to_vec())];
    for (kind, prefix) in [(Kind::State, ""), (Kind::Message, "message_")] {
        bench.phase("sending", EVENTS);
        let window = bench.open_window();
        let sent = send_all(&mut senders, kind, EVENTS, &bench.progress).await?;
        let spent = bench.close_window(&window);
        run.latencies(&format!("{prefix}latency"), &sent.latencies);
        spent.cpu_per(&mut run, prefix, "send", sent.latencies.len());
        if matches!(kind, Kind::State) {
            spent.disk_per_event(&mut run, sent.latencies.len());
        }
        audit.note(sent);
    }
    bench.phase("checking", size);
    let followers = audit.catch_up(followers).await?;
    audit.close(followers, &mut run);
    Ok(run)
}
