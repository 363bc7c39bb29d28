//! Which addresses of an answer can be pods. An answer is untrusted input that decides where requests go.

use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::{
    endpoint::Endpoint,
    logs::{DISCOVERY, here, warn},
    sync::Mutex,
};

/// The most endpoints taken from one answer of any source. One DNS message holds at most 4,091 A records.
pub(crate) const CAP: usize = 4096;

/// How many addresses are warned about, so that a hostile answer can't fill the memory or the log.
const WARNINGS: usize = 64;

/// The clouds' metadata service over IPv6, which hands out credentials. (Over IPv4 it is link-local.)
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// An address that no pod can have, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejected(pub(crate) IpAddr, pub(crate) &'static str);

/// Why an endpoint with port 0 is left out.
const NO_PORT: &str = "named with port 0, where no pod can listen";

/// Keeps addresses that can be pods, and warns once about each other one. Clones share the list of warnings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    allow_loopback: bool,
    warned: Arc<Mutex<Warned>>,
}

#[derive(Debug, Default)]
struct Warned {
    addresses: HashSet<IpAddr>,
    port: bool,
}

impl Filter {
    pub(crate) fn new(allow_loopback: bool) -> Self {
        Self {
            allow_loopback,
            warned: Arc::default(),
        }
    }

    /// A copy that allows loopback addresses.
    #[cfg(feature = "dns")]
    pub(crate) fn with_loopback(&self) -> Self {
        Self {
            allow_loopback: true,
            warned: self.warned.clone(),
        }
    }

    /// Removes endpoints that can't be pods, and those above [`CAP`]. If nothing is left of a non-empty answer, it
    /// fails, so that it can't empty the set.
    pub(crate) fn apply(&self, endpoints: &mut Vec<Endpoint>) -> Result<(), Rejected> {
        let mut rejected = None;
        endpoints.retain(|endpoint| {
            let address = endpoint.address().ip();
            if !self.allows_port(endpoint.address().port()) {
                rejected = Some(Rejected(address, NO_PORT));
                return false;
            }
            let Some(why) = reject(address, self.allow_loopback) else {
                return true;
            };
            self.warn(address, why);
            rejected = Some(Rejected(address, why));
            false
        });
        cap(endpoints);
        match rejected {
            Some(rejected) if endpoints.is_empty() => Err(rejected),
            _ => Ok(()),
        }
    }

    /// Whether a pod can listen at `port`: not at 0. Warns once, however many endpoints have port 0.
    pub(crate) fn allows_port(&self, port: u16) -> bool {
        if port == 0 && !std::mem::replace(&mut self.warned.lock().port, true) {
            warn!(
                DISCOVERY,
                here(),
                "endpoints named with port 0 are left out: no pod can listen there"
            );
        }
        port != 0
    }

    fn warn(&self, address: IpAddr, why: &str) {
        let addresses = &mut self.warned.lock().addresses;
        if addresses.len() < WARNINGS && addresses.insert(address) {
            warn!(DISCOVERY, here(), %address, "no pod can have this address: it is {why}");
        }
    }
}

/// Why no pod can have this address; none if a pod can.
fn reject(address: IpAddr, allow_loopback: bool) -> Option<&'static str> {
    let address = address.to_canonical();
    if address.is_loopback() {
        return (!allow_loopback).then_some("loopback; allow it by `allow_loopback(true)`");
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

/// Reduces `endpoints` to at most [`CAP`]. The choice depends on the set only, not on its order.
fn cap(endpoints: &mut Vec<Endpoint>) {
    if endpoints.len() <= CAP {
        return;
    }
    endpoints.sort_unstable();
    endpoints.dedup();
    endpoints.sort_by_cached_key(|endpoint| {
        let mut hasher = DefaultHasher::new();
        endpoint.address().hash(&mut hasher);
        hasher.finish()
    });
    endpoints.truncate(CAP);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(address: &str, allow_loopback: bool) -> bool {
        reject(address.parse().expect("an address"), allow_loopback).is_some()
    }

    #[test]
    fn addresses_that_no_pod_can_have_are_rejected() {
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
    fn loopback_is_rejected_unless_allowed() {
        for address in ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"] {
            assert!(rejected(address, false), "{address}");
            assert!(!rejected(address, true), "{address}");
        }
    }

    fn endpoints(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Vec<Endpoint> {
        let endpoint = |address| Endpoint::new((address, 80).into());
        addresses.into_iter().map(endpoint).collect()
    }

    /// Found by fuzzing: SRV records and slices may name port 0, and connecting there fails at best.
    #[test]
    fn endpoints_with_port_0_are_left_out() {
        let at = |host, port| Endpoint::new(([10, 0, 0, host], port).into());
        let mut some = vec![at(1, 0), at(2, 80)];
        assert!(Filter::default().apply(&mut some).is_ok());
        assert_eq!(some, [at(2, 80)]);
        let rejected = Filter::default().apply(&mut vec![at(1, 0)]);
        assert!(matches!(rejected, Err(Rejected(_, NO_PORT))));
    }

    #[test]
    fn the_cap_keeps_the_same_endpoints_in_any_order() {
        let addresses = || (0..100_000_u32).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n));
        let mut forward = endpoints(addresses());
        let mut backward = endpoints(addresses().rev());
        let filter = Filter::default();
        assert!(filter.apply(&mut forward).is_ok());
        assert!(filter.apply(&mut backward).is_ok());
        assert_eq!(forward.len(), CAP);
        assert_eq!(forward, backward);
    }

    #[test]
    fn impossible_addresses_are_removed_and_an_answer_of_nothing_else_fails() {
        let (pod, metadata) = (
            Ipv4Addr::new(10, 0, 0, 1),
            Ipv4Addr::new(169, 254, 169, 254),
        );
        let filter = Filter::default();
        let mut mixed = endpoints([metadata, pod]);
        assert!(filter.apply(&mut mixed).is_ok());
        assert_eq!(mixed, endpoints([pod]));
        let rejected = filter.apply(&mut endpoints([metadata]));
        assert!(matches!(rejected, Err(Rejected(address, _)) if address == metadata));
        assert!(
            filter.apply(&mut Vec::new()).is_ok(),
            "an empty answer is not rejected"
        );
    }

    #[test]
    fn the_reason_for_leaving_out_port_0_is_named() {
        let at = |port| Endpoint::new((Ipv4Addr::new(10, 0, 0, 1), port).into());
        let filter = Filter::default();
        let mut some = vec![at(0), at(80)];
        assert!(filter.apply(&mut some).is_ok());
        assert_eq!(some, [at(80)]);
        let rejected = filter.apply(&mut vec![at(0)]).expect_err("nothing is left");
        assert!(rejected.1.contains("port 0"), "{rejected:?}");
    }
}
