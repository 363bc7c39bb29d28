//! Which of the addresses in an answer can be pods. An answer is input from outside: it decides where requests go.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The most endpoints taken from one answer. One DNS message holds no more A records than 4,091.
pub(super) const CAP: usize = 4096;

/// The metadata services of the large clouds: credentials are to be had there.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Whether a pod can have this address; if not, why not.
pub(super) fn reject(address: IpAddr, allow_loopback: bool) -> Option<&'static str> {
    let address = address.to_canonical();
    if address.is_loopback() {
        return (!allow_loopback).then_some("loopback");
    }
    if address.is_unspecified() {
        return Some("unspecified");
    }
    if address.is_multicast() {
        return Some("multicast");
    }
    match address {
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("broadcast"),
        IpAddr::V4(address) if address.is_link_local() => Some("link-local"),
        IpAddr::V6(address) if address.is_unicast_link_local() => Some("link-local"),
        IpAddr::V6(METADATA_V6) => Some("a cloud's metadata service"),
        _ => None,
    }
}

/// Reduces `addresses` to at most [`CAP`], always the same ones, in whatever order they come.
pub(super) fn cap(addresses: &mut Vec<IpAddr>) {
    if addresses.len() <= CAP {
        return;
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses.sort_by_cached_key(|address| {
        let mut hasher = DefaultHasher::new();
        address.hash(&mut hasher);
        hasher.finish()
    });
    addresses.truncate(CAP);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(address: &str, allow_loopback: bool) -> bool {
        reject(address.parse().expect("an address"), allow_loopback).is_some()
    }

    #[test]
    fn addresses_that_no_pod_can_have() {
        for address in [
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "169.254.169.254",
            "169.254.1.1",
            "::",
            "ff02::1",
            "fe80::1",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "fd00:ec2::254",
        ] {
            assert!(rejected(address, true), "{address}");
        }
        for address in [
            "10.244.1.7",
            "192.168.0.1",
            "8.8.8.8",
            "fd00::7",
            "2001:db8::1",
        ] {
            assert!(!rejected(address, false), "{address}");
        }
    }

    #[test]
    fn loopback_only_when_allowed() {
        for address in ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"] {
            assert!(rejected(address, false), "{address}");
            assert!(!rejected(address, true), "{address}");
        }
    }

    #[test]
    fn the_cap_keeps_the_same_ones_in_whatever_order() {
        let mut forward: Vec<IpAddr> = (0..100_000_u32)
            .map(|n| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)))
            .collect();
        let mut backward: Vec<_> = forward.iter().rev().copied().collect();
        cap(&mut forward);
        cap(&mut backward);
        assert_eq!(forward.len(), CAP);
        assert_eq!(forward, backward);
    }
}
