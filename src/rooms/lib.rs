//! Rooms: the write pipeline, and all that is derived from an event in the commit that appends it.
//!
//! Synchronous, without network and HTTP. Functions, not services: queries read any [`store::Read`]; commands take the
//! [`store::Store`] and return a [`store::Pending`]. Only [`append`] makes an event part of a room.

pub mod acl;
pub mod aliases;
mod append;
pub mod chains;
pub mod check;
pub mod collect;
pub mod create;
pub mod dag;
pub mod directory;
mod error;
pub mod events;
mod expected;
pub mod format;
pub mod graph;
pub mod guests;
mod head;
pub mod members;
pub mod membership;
pub mod numbers;
pub mod outgoing;
pub mod partial;
pub mod policy;
pub mod presence;
pub mod purge;
pub mod receipts;
pub mod receive;
mod redaction;
mod refusals;
pub mod relations;
pub mod remote;
pub mod resolve;
pub mod resync;
pub mod send;
pub mod servers;
pub mod state;
pub mod template;
#[cfg(test)]
mod tests;
pub mod threads;
pub mod timeline;
pub mod times;
mod tree;
pub mod typing;
pub mod unread;
pub mod upgrade;
pub mod visibility;
pub mod why;

pub use create::Config;
pub use error::{Error, Result};
pub use head::{Head, head};
pub use numbers::{EventNo, Pos};
pub use send::{Identity, NewEvent, Sender};

use store::TableSpec;

/// All tables of this layer.
pub const TABLES: &[&TableSpec] = &[
    aliases::ALIASES.spec(),
    aliases::ROOM_ALIASES.spec(),
    chains::AUTH_CHAINS.spec(),
    chains::CITED.spec(),
    collect::COLLECTED.spec(),
    directory::PUBLISHED.spec(),
    events::EVENTS.spec(),
    events::EVENT_NOS.spec(),
    expected::EXPECTED.spec(),
    guests::WITHDRAWN.spec(),
    head::HEADS.spec(),
    members::MEMBERS.spec(),
    members::USER_ROOMS.spec(),
    numbers::ROOM_NOS.spec(),
    numbers::ROOMS.spec(),
    numbers::COUNTERS.spec(),
    outgoing::ACQUAINTED.spec(),
    outgoing::OUTGOING.spec(),
    partial::COMPLETED.spec(),
    partial::EVENTS.spec(),
    partial::ORDER.spec(),
    partial::PARTIAL.spec(),
    purge::PURGES.spec(),
    receipts::CHANGES.spec(),
    receipts::PRIVATE_CHANGES.spec(),
    receipts::RECEIPTS.spec(),
    relations::RELATIONS.spec(),
    relations::SUMMARIES.spec(),
    relations::PARTICIPANTS.spec(),
    remote::REMOTE.spec(),
    send::TXNS.spec(),
    servers::PAST.spec(),
    servers::SERVERS.spec(),
    state::TYPES.spec(),
    state::KEYS.spec(),
    threads::THREADS.spec(),
    timeline::GAPS.spec(),
    timeline::TIMELINE.spec(),
    times::TIMES.spec(),
    tree::NODES.spec(),
    typing::CHANGED.spec(),
    typing::DUE.spec(),
    typing::TYPING.spec(),
    unread::TALLIES.spec(),
];
