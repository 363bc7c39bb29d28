//! Addresses that no other cluster has.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use super::member::{Member, Template};

/// A loopback /24 and a port.
pub(super) struct Network {
    prefix: [u8; 3],
    /// The port of all pods; 0 until the first pod has chosen it.
    pub(super) port: u16,
    last_host: u8,
}

impl Network {
    /// Host numbers 1 to 254.
    pub(super) const HOSTS: u8 = 254;

    /// Returns another /24 at each call, never 127.0.0.0/24.
    ///
    /// Processes that run at the same time have similar process ids: the factor keeps their ranges apart.
    pub(super) fn next() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        const RANGE: u32 = 61;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let number = process::id().wrapping_mul(RANGE).wrapping_add(count) % (253 * 256);
        let [_, _, high, low] = number.to_be_bytes();
        Self {
            prefix: [127, high + 1, low],
            port: 0,
            last_host: 0,
        }
    }

    pub(super) fn next_address(&mut self) -> SocketAddr {
        self.last_host = self.last_host % Self::HOSTS + 1;
        let [a, b, c] = self.prefix;
        SocketAddr::from((Ipv4Addr::new(a, b, c, self.last_host), self.port))
    }

    pub(super) async fn start_pods(
        &mut self,
        n: usize,
        template: &Template,
    ) -> io::Result<Vec<Member>> {
        let mut pods = Vec::new();
        // A Service without pods needs a port, too. A first pod chooses it.
        for ordinal in 0..n.max(1) {
            let member = template.start(self.next_address(), ordinal).await?;
            self.port = member.pod.addr().port();
            pods.push(member);
        }
        pods.truncate(n);
        Ok(pods)
    }
}
