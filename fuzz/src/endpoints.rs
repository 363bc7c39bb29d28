//! What must hold for every endpoint of a source, whatever the answer was.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tower_headless::Endpoint;

/// The most endpoints taken from one answer.
const CAP: usize = 4096;

/// Panics if an endpoint can't be a pod, or if there are too many.
pub fn check(endpoints: &[Endpoint]) {
    let distinct: HashSet<_> = endpoints.iter().collect();
    assert!(distinct.len() <= CAP, "{} endpoints", distinct.len());
    for endpoint in endpoints {
        let address = endpoint.address();
        assert_ne!(address.port(), 0, "{address}");
        assert!(can_be_a_pod(address.ip()), "{address}");
    }
}

/// The crate's filter, written a second time independently.
fn can_be_a_pod(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let is_link_local = v4.octets().starts_with(&[169, 254]);
            let is_multicast = (224..240).contains(&v4.octets()[0]);
            let is_loopback = v4.octets()[0] == 127;
            let is_other = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST].contains(&v4);
            !is_link_local && !is_multicast && !is_loopback && !is_other
        }
        IpAddr::V6(v6) => {
            let is_link_local = v6.segments()[0] & 0xffc0 == 0xfe80;
            let is_multicast = v6.octets()[0] == 0xff;
            let is_metadata = v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];
            let is_other = [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST].contains(&v6);
            !is_link_local && !is_multicast && !is_metadata && !is_other
        }
    }
}
