//! What holds for every endpoint and listener, tried over endpoints made for the purpose.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bodies;
mod endpoints;
mod federation;
mod federation_device_lists;
mod federation_devices;
mod federation_hostile;
mod federation_liars;
mod federation_membership;
mod federation_policy;
mod federation_presence;
mod federation_third_party;
mod hostile;
mod listeners;
mod partial_state;
mod requests;
mod security;
mod simulator;
mod wire;
