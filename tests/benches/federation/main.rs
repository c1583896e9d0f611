//! What federation costs, and how it grows: entering a room of many members, events that come in, a message to many servers. Servers of one process over
//! a network in memory, each measurement in a process of its own, so that its memory can be told.

#![allow(missing_docs, clippy::unwrap_used)]

// As everybody else calls it.
extern crate hearth_http as http_layer;

mod inbound;
mod joins;
mod outbound;
mod world;

use std::process::Command;

/// The server's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["join", members] => world::run(joins::join(members.parse().unwrap())),
        ["inbound", rooms] => world::run(inbound::inbound(rooms.parse().unwrap())),
        ["outbound", servers] => world::run(outbound::outbound(servers.parse().unwrap())),
        wanted => all(wanted.first().copied().unwrap_or_default()),
    }
}

/// Measures all, or that whose name is asked for.
fn all(wanted: &str) {
    let sizes = [("join", vec![1_000, 10_000, 50_000]), ("inbound", vec![1, 10]), ("outbound", vec![10, 100, 1_000])];
    for (name, sizes) in sizes.into_iter().filter(|(name, _)| name.contains(wanted)) {
        for size in sizes {
            let mut own = Command::new(std::env::current_exe().unwrap());
            assert!(own.args([name, &size.to_string()]).status().unwrap().success(), "{name} {size}");
        }
    }
}
