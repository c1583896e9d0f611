//! Views without a runtime: a store in memory, a few users, and clients that keep what they are told.

mod stories;
mod whole;
mod world;
