//! Hearth: a Matrix homeserver. This package is the command line and the composition root: the only place that sees all
//! layers, and the one that hands them to each other.

pub mod appservices;
pub mod cli;
pub mod config;
pub mod folder;
pub mod jobs;
pub mod telemetry;

use store::TableSpec;

/// The version that the binary and its server tell.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The tables of each layer that has any. They open the store and generate `docs/schema.md`.
pub const TABLES: &[(&str, &[&TableSpec])] =
    &[("users", users::TABLES), ("rooms", rooms::TABLES), ("media", media::TABLES), ("federation", federation::TABLES)];

/// The tables of all layers.
#[must_use]
pub fn tables() -> Vec<&'static TableSpec> {
    TABLES.iter().flat_map(|(_, tables)| tables.iter().copied()).collect()
}
