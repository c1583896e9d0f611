//! The Matrix specification as pure functions: no IO, no clock, no randomness, no async.
//!
//! Same input, same output: nothing here awaits, reads a clock, draws randomness or iterates an unordered map.

pub mod acl;
pub mod auth;
pub mod base64;
mod content;
pub mod dag;
pub mod draft;
pub mod event;
pub mod hash;
pub mod ids;
pub mod json;
pub mod keys;
pub mod parse;
pub mod power_levels;
pub mod push;
pub mod redact;
pub mod resolve;
pub mod sign;
pub mod stored;
pub mod verify;
pub mod version;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod mutants;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod scenario;
