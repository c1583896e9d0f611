//! The binary as its operators use it: started as a process, stopped by signals, changed by commands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod commands;
mod configuration;
mod crash;
mod disk;
mod lifetime;
mod process;
