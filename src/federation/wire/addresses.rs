//! Which addresses may be called. Names of other servers are chosen by strangers: none may lead into the operator's own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Network;

/// Networks of IPv4 that are no public ones (IANA, "IPv4 Special-Purpose Address Registry").
const RESERVED_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Within the public part of IPv6, 2000::/3, the networks that are none (IANA, "IPv6 Special-Purpose Address Registry").
const RESERVED_V6: [(Ipv6Addr, u32); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Whether this server may call this address.
pub(super) fn may_call(address: IpAddr, allowed: &[Network]) -> bool {
    let address = address.to_canonical();
    allowed.iter().any(|network| network.contains(address)) || is_public(address)
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let within = |(first, bits): &(Ipv4Addr, u32)| (first.to_bits() ^ address.to_bits()).leading_zeros() >= *bits;
    !RESERVED_V4.iter().any(within)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    match segments {
        // The translators' prefix of RFC 6052, by which machines without IPv4 reach it.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(embedded(high, low)),
        // 6to4 leads to the IPv4 address in it.
        [0x2002, high, low, ..] => is_public_v4(embedded(high, low)),
        [first, ..] if first & 0xe000 == 0x2000 => {
            let within = |(first, bits): &(Ipv6Addr, u32)| (first.to_bits() ^ address.to_bits()).leading_zeros() >= *bits;
            !RESERVED_V6.iter().any(within)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// T39: names that lead into the operator's own network lead nowhere.
    #[test]
    fn t39_private_and_reserved_addresses_are_not_called() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!may_call(address.parse().unwrap(), &[]), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_called_and_private_ones_where_they_are_allowed() {
        for address in [
            "1.1.1.1",
            "100.63.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a01:4f8::1",
            "64:ff9b::101:101",
            "2002:101:101::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(may_call(address.parse().unwrap(), &[]), "{address}");
        }
        let allowed: Vec<Network> = ["10.0.0.0/8", "::1"].map(|text| text.parse().unwrap()).into();
        for (address, may) in
            [("10.2.3.4", true), ("::ffff:10.2.3.4", true), ("::1", true), ("127.0.0.1", false), ("fd00::1", false)]
        {
            assert_eq!(may_call(address.parse().unwrap(), &allowed), may, "{address}");
        }
    }
}
