//! One pod, as discovery names it.

use std::{fmt, net::SocketAddr};

/// One pod behind the service: where it is, and what is known of it.
///
/// Two endpoints are the same pod when their addresses are equal: a pod that stays in the set from one answer to the
/// next keeps its service, its connections and its counters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    address: SocketAddr,
}

impl Endpoint {
    /// The endpoint at `address`.
    pub const fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What makes two answers mean the same pod, and the order in which a set is kept.
    pub(crate) fn identity(&self) -> SocketAddr {
        self.address
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::new(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
