//! Telling systemd how the service fares, as `sd_notify(3)` has it. Without systemd it does nothing.

use std::{
    os::{
        linux::net::SocketAddrExt as _,
        unix::{ffi::OsStrExt as _, net::SocketAddr, net::UnixDatagram},
    },
    time::Duration,
};

/// The service takes requests.
pub(super) const READY: &str = "READY=1";
/// The service is about to end.
pub(super) const STOPPING: &str = "STOPPING=1";
/// The service lives.
pub(super) const ALIVE: &str = "WATCHDOG=1";

/// Tells the service manager, if there is one. That it does not listen is no reason to fail.
pub(super) fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        name => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
    };
    let told = UnixDatagram::unbound().and_then(|socket| socket.send_to_addr(state.as_bytes(), &address?));
    if let Err(error) = told {
        tracing::warn!(%error, "the service manager could not be told: {state}");
    }
}

/// How often the service manager wants to hear that the service lives: twice in the time after which it ends it.
pub(super) fn watchdog_interval() -> Option<Duration> {
    let wanted = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    let micros = std::env::var("WATCHDOG_USEC").ok()?.parse::<u64>().ok()?;
    (wanted && micros > 0).then(|| Duration::from_micros(micros) / 2)
}
