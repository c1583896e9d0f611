//! The Matrix specification as pure functions: no IO, no clock, no randomness, no async.
//!
//! Same input, same output: nothing here awaits, reads a clock, draws randomness or iterates an unordered map.

pub mod auth;
mod content;
pub mod event;
pub mod power_levels;
pub mod version;
