//! Starting the server on a filled database, and its memory. Both stop and start the server, so the generator must have started it.

use std::time::Duration;

use tokio::time::sleep;

use super::{Bench, Run};
use crate::audit::{Audit, follow};
use crate::failure::Failure;
use crate::follower::Follower;
use crate::load::{Kind, Sender, send_all};
use crate::summary::{Latencies, milliseconds};

/// How many users fill a room.
const AUTHORS: usize = 8;
/// How often the server is started.
const STARTS: usize = 5;
/// How long a server is left alone before it counts as idle.
const SETTLING: Duration = Duration::from_secs(3);

/// Senders in one room and what checks them.
struct Crowd {
    senders: Vec<Sender>,
    followers: Vec<Follower>,
}

async fn crowd(bench: &mut Bench) -> Result<Crowd, Failure> {
    let mut users = bench.users(AUTHORS).await?;
    let rooms = [bench.room_of(&mut users).await?];
    let mut followers = Vec::new();
    for user in &users {
        followers.push(Follower::start(user.another(), &rooms).await?);
    }
    let senders = users.into_iter().enumerate().map(|(number, user)| Sender::new(number, user, rooms.to_vec())).collect();
    Ok(Crowd { senders, followers })
}

/// Messages are sent, then the server is stopped and started several times. The members' tokens are from before the stop, and what they
/// fetch afterwards shows whether all that was acknowledged is still there.
pub async fn cold_start(bench: &mut Bench, size: usize) -> Result<Run, Failure> {
    let mut run = Run::new(size);
    let mut audit = Audit::default();
    let Crowd { mut senders, followers } = crowd(bench).await?;
    bench.phase("sending", size);
    audit.note(send_all(&mut senders, Kind::Message, size, &bench.progress).await?);

    bench.phase("restarting", STARTS);
    let [mut stops, mut starts, mut cpu] = [(); 3].map(|()| Latencies::default());
    for _ in 0..STARTS {
        stops.push(bench.server.stop().await?);
        starts.push(bench.start().await?);
        if let Some(spent) = bench.server.cpu() {
            cpu.push(spent);
        }
        bench.progress.inc(1);
    }
    run.latencies("start", &starts);
    run.latencies("start_cpu", &cpu);
    run.latencies("stop", &stops);
    run.metric_if("resident_mib", bench.resident_mib());
    let followers = audit.catch_up(followers).await?;
    audit.close(followers, &mut run);
    Ok(run)
}

/// Memory of a server that has just started, after messages, and some time later.
pub async fn memory(bench: &mut Bench, size: usize) -> Result<Run, Failure> {
    let mut run = Run::new(size);
    let mut audit = Audit::default();
    bench.server.stop().await?;
    bench.start().await?;
    bench.phase("idling", 0);
    let window = bench.open_window();
    sleep(SETTLING).await;
    let spent = bench.close_window(&window);
    let idle = bench.resident_mib();
    run.metric_if("resident_idle_mib", idle);

    let Crowd { mut senders, followers } = crowd(bench).await?;
    bench.phase("sending", size);
    let live = follow(followers, None);
    let sent = send_all(&mut senders, Kind::Message, size, &bench.progress).await?;
    audit.note(sent);
    let followers = live.finish(&audit).await?;
    let loaded = bench.resident_mib();
    run.metric_if("resident_after_load_mib", loaded);
    sleep(SETTLING).await;
    run.metric_if("resident_settled_mib", bench.resident_mib());
    run.metric_if("resident_growth_mib", loaded.zip(idle).map(|(loaded, idle)| loaded - idle));
    run.metric_if("idle_cpu_ms_per_second", spent.cpu.map(|cpu| milliseconds(cpu) / spent.elapsed.as_secs_f64()));
    audit.close(followers, &mut run);
    Ok(run)
}
