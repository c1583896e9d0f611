//! Who a request comes from: the peer's address, or what a trusted proxy says of it.

use std::net::IpAddr;

pub use federation::Network;
use http::{HeaderMap, header};

/// The far end of a connection, which the listener puts into each request's extensions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer {
    /// Its address; `None` for a Unix socket.
    pub address: Option<IpAddr>,
}

/// Who sent a request.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// The address, where anything tells it.
    pub address: Option<IpAddr>,
    /// The `User-Agent`, cut to 256 characters.
    pub user_agent: Option<String>,
}

/// What is kept of a `User-Agent`, in characters.
const USER_AGENT_MAX: usize = 256;

impl Client {
    /// From the connection and the request's headers.
    pub(crate) fn of(peer: Peer, headers: &HeaderMap, trusted: &[Network]) -> Self {
        let user_agent = headers
            .get(header::USER_AGENT)
            .map(|agent| String::from_utf8_lossy(agent.as_bytes()).chars().take(USER_AGENT_MAX).collect());
        Self { address: address(peer, headers, trusted), user_agent }
    }

    /// Whether the request was made on the machine itself.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.address.is_some_and(|address| address.is_loopback())
    }
}

/// Walks back from the peer through `X-Forwarded-For` for as long as the hop is trusted. What cannot be read ends the walk.
fn address(peer: Peer, headers: &HeaderMap, trusted: &[Network]) -> Option<IpAddr> {
    let is_trusted = |address: Option<IpAddr>| match address {
        Some(address) => trusted.iter().any(|network| network.contains(address)),
        None => true,
    };
    let mut current = peer.address.map(|address| address.to_canonical());
    let lines: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok()).collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        if !is_trusted(current) {
            break;
        }
        let Some(address) = parse(hop.trim()) else { break };
        current = Some(address);
    }
    current
}

/// An address, perhaps with a port.
fn parse(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(inner, _)| inner);
    let address = bracketed.unwrap_or(text);
    let address = address.parse().ok().or_else(|| address.parse::<std::net::SocketAddr>().ok().map(|socket| socket.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn seen(peer: Option<&str>, forwarded: &[&'static str], trusted: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", http::HeaderValue::from_static(line));
        }
        let trusted: Vec<Network> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        let peer = Peer { address: peer.map(|text| text.parse().unwrap()) };
        address(peer, &headers, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let proxies = ["10.0.0.0/8", "::1"];
        for (peer, forwarded, expected) in [
            (Some("192.0.2.1"), vec!["198.51.100.7"], Some("192.0.2.1")),
            (Some("10.1.1.1"), vec!["198.51.100.7"], Some("198.51.100.7")),
            (Some("10.1.1.1"), vec![], Some("10.1.1.1")),
            (Some("10.1.1.1"), vec!["6.6.6.6, 198.51.100.7, 10.9.9.9"], Some("198.51.100.7")),
            (Some("10.1.1.1"), vec!["6.6.6.6", "198.51.100.7:4711"], Some("198.51.100.7")),
            (Some("10.1.1.1"), vec!["garbage"], Some("10.1.1.1")),
            (Some("10.1.1.1"), vec![", ,"], Some("10.1.1.1")),
            (Some("::1"), vec!["[2001:db8::9]:80"], Some("2001:db8::9")),
            (Some("::ffff:10.1.1.1"), vec!["2001:db8::9"], Some("2001:db8::9")),
            (None, vec!["198.51.100.7"], Some("198.51.100.7")),
            (None, vec![], None),
        ] {
            assert_eq!(seen(peer, &forwarded, &proxies).as_deref(), expected, "{peer:?} {forwarded:?}");
        }
    }
}
