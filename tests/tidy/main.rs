//! What the compiler does not hold: layers, sizes, habits.
#![allow(clippy::unwrap_used, clippy::panic)]

mod dependencies;
mod layers;
mod sizes;
mod source;
