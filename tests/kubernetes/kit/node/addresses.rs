//! The pods' addresses.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU16, Ordering},
};

/// Which address the next pod gets.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    reserved: BTreeMap<String, IpAddr>,
}

impl Addresses {
    /// The next pod of this name gets this address.
    pub(super) fn reserve(&mut self, pod: &str, address: IpAddr) {
        self.reserved.insert(pod.to_owned(), address);
    }

    /// The addresses of a starting pod, one of each family: those reserved for it, or else ones that no pod of any test
    /// has had yet.
    pub(super) fn assign(&mut self, pod: &str) -> Vec<IpAddr> {
        let number = match self.reserved.remove(pod) {
            Some(IpAddr::V4(address)) => host(address),
            Some(IpAddr::V6(address)) => address.segments()[7],
            None => next(),
        };
        vec![ipv4(number).into(), ipv6(number).into()]
    }
}

/// The next number, from the lower half of the range. The upper half is for addresses that nobody listens on, and the
/// node's own.
fn next() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0x0001);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < 0x8000, "no test has so many pods");
    number
}

fn ipv4(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 244, high, low)
}

fn ipv6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, number)
}

fn host(address: Ipv4Addr) -> u16 {
    let [_, _, high, low] = address.octets();
    u16::from_be_bytes([high, low])
}
