//! One pod, as discovery names it.

use std::{fmt, net::SocketAddr, sync::Arc};

/// One pod behind the service: where it is, and what is known of it.
///
/// Two endpoints are the same pod when their addresses are equal, unless both have hostnames and those differ: then the
/// address has been given to another pod. A pod that stays in the set from one answer to the next keeps its service, its
/// connections and its counters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    address: SocketAddr,
    hostname: Option<Arc<str>>,
}

impl Endpoint {
    /// The endpoint at `address`.
    pub const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            hostname: None,
        }
    }

    /// The same endpoint with the hostname of its pod.
    pub fn with_hostname(mut self, hostname: impl Into<Arc<str>>) -> Self {
        self.hostname = Some(hostname.into());
        self
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The pod's hostname where it has one of its own, as a StatefulSet's pods have: `web-0`.
    ///
    /// SRV records tell it ([`Dns::srv`](crate::Dns::srv)); A and AAAA records don't.
    pub fn hostname(&self) -> Option<&str> {
        self.hostname.as_deref()
    }

    /// The order in which a set is kept, in which no two pods are equal.
    pub(crate) fn identity(&self) -> SocketAddr {
        self.address
    }

    /// Whether both may be the same pod: a hostname that one side doesn't know is no difference.
    pub(crate) fn is_same_pod(&self, other: &Self) -> bool {
        self.address == other.address
            && match (&self.hostname, &other.hostname) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => true,
            }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::new(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hostname {
            Some(hostname) => write!(f, "{hostname} ({})", self.address),
            None => self.address.fmt(f),
        }
    }
}
