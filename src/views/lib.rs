//! Read-only answers composed from `users` and `rooms`: sync, filters, stripped state.
//!
//! Everything here is given snapshots only, so it cannot write.

pub mod directory;
mod error;
pub mod filter;
pub mod hierarchy;
pub mod history;
mod json;
mod memory;
pub mod relations;
pub mod stripped;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod threads;
pub mod token;
pub mod user_directory;

pub use error::{Error, Result};
pub use memory::{Memory, RoomList};
