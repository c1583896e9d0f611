//! Hearth: a Matrix homeserver. This package is the command line and the composition root: the only place that sees all
//! layers, and the one that hands them to each other.

pub mod cli;
pub mod config;
pub mod folder;
pub mod jobs;
pub mod telemetry;

use store::TableSpec;

/// The version that the binary and its server tell.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The tables of all layers. They open the store and generate `docs/schema.md`.
#[must_use]
pub fn tables() -> Vec<&'static TableSpec> {
    [users::TABLES, rooms::TABLES, media::TABLES].concat()
}
