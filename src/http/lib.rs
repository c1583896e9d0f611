//! Decode, authenticate, limit, call one domain function, encode: routes, extractors, rate limits, error codes, listeners.
//!
//! An endpoint is one line of a table ([`endpoint`], [`streaming`]) and one handler that destructures its request, calls
//! one function of a layer below and wraps what that returns. `docs/adding-an-endpoint.md` walks through one.

mod address;
pub mod auth;
mod client;
pub mod config;
mod decode;
mod edge;
pub mod error;
mod federation;
mod health;
pub mod limits;
pub mod listen;
mod metrics;
mod route;
mod router;
mod server;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod wakeful;

pub use address::{Client, Network, Peer};
pub use config::Config;
pub use decode::json;
pub use error::{Error, Result};
pub use limits::Class;
pub use listen::Listening;
pub use metrics::Metrics;
pub use route::{Arrival, BODY_MAX, Call, Json, Place, Route, endpoint, streaming};
pub use router::{endpoints, router, routes};
pub use server::{Server, Setup};
pub use store::{Clock, SystemClock};
