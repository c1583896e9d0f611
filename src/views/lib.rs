//! Read-only answers composed from `users` and `rooms`: sync, filters, stripped state.
//!
//! Everything here is given snapshots only, so it cannot write.

mod error;
pub mod filter;
pub mod history;
pub mod stripped;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod token;

pub use error::{Error, Result};
