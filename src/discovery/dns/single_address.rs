//! Whether a name with one address is a Service with a virtual IP.
//!
//! Such a Service works, but all its pods look like one, and only kube-proxy balances over them. That is usually a
//! mistake. The evidence depends on what was asked:
//!
//! | asked | what one address means | logged, once |
//! | --- | --- | --- |
//! | SRV records of a Service | a virtual IP, if the target is the Service itself (Kubernetes DNS specification §2.3.2); a pod, if the target is a name below it (§2.4.2) | a warning about a virtual IP |
//! | addresses of a Service, `service.namespace.svc.zone` | a virtual IP or a pod: a headless Service with one pod looks the same | that it may be either, as `info`, after a minute with the same address |
//! | addresses of a pod, `pod.service.namespace.svc.zone` | one pod | nothing |
//! | addresses of any other name | nothing | nothing |

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

use crate::endpoint::Endpoint;
use crate::logs::{DISCOVERY, here, info, warn};

/// How long the same single address must last before it is logged: a Deployment may be starting.
const UNCHANGED: Duration = Duration::from_secs(60);

/// Judges a name's single address, and logs it once.
#[derive(Debug, Default)]
pub(super) struct SingleAddress {
    first: Option<(IpAddr, Instant)>,
    /// There is nothing to log any more.
    settled: bool,
}

/// What a single address may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    VirtualIp(IpAddr),
    Either(IpAddr),
}

impl SingleAddress {
    /// Looks at the set of the full name `name`, and logs what it finds. `is_virtual`: SRV records say that it
    /// is a virtual IP.
    pub(super) fn look(&mut self, endpoints: &[Endpoint], name: &str, is_virtual: bool) {
        match self.find(endpoints, name, is_virtual, Instant::now()) {
            None => {}
            Some(Finding::VirtualIp(address)) => warn!(
                DISCOVERY, here(), name, %address,
                "the Service has a virtual IP, which stands for all its pods: set `clusterIP: None`",
            ),
            Some(Finding::Either(address)) => info!(
                DISCOVERY, here(), name, %address,
                "one address: right if the Service has one pod; if it has more, is `clusterIP: None` set?",
            ),
        }
    }

    fn find(
        &mut self,
        endpoints: &[Endpoint],
        name: &str,
        is_virtual: bool,
        now: Instant,
    ) -> Option<Finding> {
        if self.settled {
            return None;
        }
        let [endpoint] = endpoints else {
            // An empty set proves nothing.
            self.settled = !endpoints.is_empty();
            return None;
        };
        let address = endpoint.address().ip();
        let asked = Asked::new(name);
        if asked == Asked::Ports {
            self.settled = true;
            return is_virtual.then_some(Finding::VirtualIp(address));
        }
        let (first, since) = *self.first.get_or_insert((address, now));
        self.settled = asked == Asked::Other || address != first || now >= since + UNCHANGED;
        let is_either = self.settled && asked == Asked::Addresses && address == first;
        is_either.then_some(Finding::Either(address))
    }
}

/// What a full name means in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// SRV records of a Service.
    Ports,
    /// A Service.
    Addresses,
    /// A pod, or a name outside of clusters.
    Other,
}

impl Asked {
    fn new(name: &str) -> Self {
        let labels: Vec<_> = name.split('.').take(6).collect();
        match labels[..] {
            [port, protocol, _, _, "svc", ..]
                if port.starts_with('_') && protocol.starts_with('_') =>
            {
                Self::Ports
            }
            // A pod of a Service in a namespace named `svc`.
            [_, _, "svc", "svc", ..] => Self::Other,
            [_, _, "svc", ..] => Self::Addresses,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "web.default.svc.cluster.local";
    const PORT: &str = "_http._tcp.web.default.svc.cluster.local";
    const SECOND: Duration = Duration::from_secs(1);

    fn endpoint(host: u8) -> Endpoint {
        Endpoint::new(([10, 0, 0, host], 80).into())
    }

    /// The findings of an hour with the same address.
    fn found(name: &str, is_virtual: bool) -> Vec<(u32, Finding)> {
        let (mut single, began) = (SingleAddress::default(), Instant::now());
        let look = |second| {
            let now = began + second * SECOND;
            let finding = single.find(&[endpoint(1)], name, is_virtual, now)?;
            Some((second, finding))
        };
        (0..3600).filter_map(look).collect()
    }

    #[test]
    fn srv_records_distinguish_a_virtual_ip_from_a_pod_at_once() {
        let address = endpoint(1).address().ip();
        assert_eq!(found(PORT, true), [(0, Finding::VirtualIp(address))]);
        assert_eq!(found(PORT, false), []);
    }

    #[test]
    fn a_single_address_is_logged_as_either_after_a_minute() {
        let address = endpoint(1).address().ip();
        assert_eq!(found(SERVICE, false), [(60, Finding::Either(address))]);
    }

    #[test]
    fn pods_and_names_outside_of_clusters_are_not_logged() {
        for name in [
            "web-0.web.default.svc.cluster.local",
            "web-0.web.svc.svc.cluster.local",
            "10-0-0-1.default.pod.cluster.local",
            "db.example.com",
            "web",
        ] {
            assert_eq!(found(name, false), [], "{name}");
        }
        assert_eq!(found("_http._tcp.example.com", true), []);
    }

    #[test]
    fn nothing_is_logged_once_the_address_has_changed_or_there_were_two() {
        for other in [vec![endpoint(2)], vec![endpoint(1), endpoint(2)]] {
            let (mut single, began) = (SingleAddress::default(), Instant::now());
            let mut find = |set: &[Endpoint], second: u32| {
                single.find(set, SERVICE, false, began + second * SECOND)
            };
            assert_eq!(find(&[endpoint(1)], 0), None);
            assert_eq!(find(&other, 30), None);
            assert_eq!(find(&[endpoint(1)], 100), None);
            assert_eq!(find(&[endpoint(1)], 1000), None);
        }
    }
}
