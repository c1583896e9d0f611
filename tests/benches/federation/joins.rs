//! Entering a room of another server with many members.

use std::time::Instant;

use http_layer::testing::Network;
use rooms::partial;

use crate::world::{self, HERE, THERE, fill, forget_peak, memory, number, path, room, running, until};

/// How long it takes until the room is of use, and until all members are known; and what memory both servers take for it. The databases
/// are in memory too.
pub async fn join(members: u32) {
    let network = Network::default();
    let (one, two) = (running(&network, HERE), running(&network, THERE));
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let (id, no) = room(&alice).await;
    fill(&one, no, members).await;
    let before = memory("VmRSS");
    forget_peak();
    let begun = Instant::now();
    let watching = async {
        let name = path(&id, "state/m.room.name");
        until(async || bob.get(&name).await.status.is_success()).await;
        begun.elapsed()
    };
    let ((), usable) = tokio::join!(world::join(&bob, &id), watching);
    let is_partial = |no| partial::is_partial(&two.server.store.snapshot(), no).unwrap();
    until(async || number(&two, &id).is_some_and(|no| !is_partial(no))).await;
    let whole = begun.elapsed();
    let (grown, after) = (memory("VmHWM").saturating_sub(before) >> 20, memory("VmRSS").saturating_sub(before) >> 20);
    let told = bob.get(&path(&id, "members?membership=join")).await.ok();
    assert_eq!(told["chunk"].as_array().unwrap().len(), members as usize + 2);
    eprintln!(
        "join: {members} members: of use after {usable:.0?}, whole after {whole:.0?}; {grown} MiB more at most, {after} MiB at the end"
    );
}
