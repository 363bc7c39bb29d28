//! SRV records, and the addresses and aliases that come with them.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    addresses::part_way,
    lookup::{
        Answer, LookupError, Query, Reason, Records, Reply, Resolve, Service, Transport, Via,
    },
};

/// How many aliases in a row are followed from a target to its addresses.
const ALIASES: usize = 8;

/// A name server's answer to a question for SRV records.
pub(super) struct SrvRecords {
    /// The name that has the records.
    owner: String,
    pub(super) services: Vec<Service>,
    pub(super) addresses: HashMap<String, Vec<IpAddr>>,
    aliases: HashMap<String, String>,
    pub(super) truncated: bool,
    pub(super) ttl: Duration,
    pub(super) via: Via,
}

/// Asks for the records. A packet may leave out some addresses for lack of room without being marked as truncated (RFC
/// 2181 §9). Then the question is asked again over TCP, in half of the time to the `deadline`.
pub(super) async fn ask_whole<R: Resolve>(
    resolver: &R,
    query: &Query,
    deadline: Instant,
) -> Answer<SrvRecords> {
    let srv = match ask(resolver, query, Transport::Udp, deadline).await? {
        Ok(srv) => srv,
        Err(nothing) => return Ok(Err(nothing)),
    };
    // A truncated answer comes over UDP only if TCP has just failed.
    if srv.via.transport == Transport::Udp && !srv.truncated && srv.lacks_some_addresses() {
        // If TCP fails, the answer over UDP still counts.
        let half = part_way(deadline, 0.5);
        return match ask(resolver, query, Transport::Tcp, half).await {
            Ok(Ok(whole)) => Ok(Ok(whole)),
            _ => Ok(Ok(srv)),
        };
    }
    Ok(Ok(srv))
}

async fn ask<R: Resolve>(
    resolver: &R,
    query: &Query,
    over: Transport,
    deadline: Instant,
) -> Answer<SrvRecords> {
    let Reply { records, ttl, via } = match resolver.ask(query.clone(), over, deadline).await? {
        Ok(reply) => reply,
        Err(nothing) => return Ok(Err(nothing)),
    };
    let Records::Services {
        owner,
        mut services,
        glue,
        aliases,
        truncated,
    } = records
    else {
        return Err(LookupError::new(query, Reason::NoRecords));
    };
    // "The service is decidedly not available at this domain" (RFC 2782).
    services.retain(|service| !service.target.is_empty());
    let mut addresses = HashMap::<_, Vec<_>>::with_capacity(services.len());
    for (name, address) in glue {
        addresses.entry(name).or_default().push(address);
    }
    // Against RFC 2782, but met in the field; every resolver library takes it for the address that it is.
    for Service { target, .. } in &services {
        if let Ok(address) = target.parse() {
            addresses.insert(target.clone(), vec![address]);
        }
    }
    Ok(Ok(SrvRecords {
        owner,
        services,
        addresses,
        aliases: aliases.into_iter().collect(),
        truncated,
        ttl,
        via,
    }))
}

impl SrvRecords {
    /// The addresses that came along for a target: its own, or those of its last alias.
    pub(super) fn addresses(&self, target: &str) -> Option<&[IpAddr]> {
        let mut name = target;
        for _ in 0..=ALIASES {
            if let Some(addresses) = self.addresses.get(name) {
                return Some(addresses);
            }
            name = self.aliases.get(name)?;
        }
        None
    }

    /// Why a truncated answer is of no use.
    pub(super) fn shortage(&self) -> Reason {
        match self.via.transport {
            Transport::Tcp => Reason::Truncated,
            // Only because TCP failed does a truncated packet come here.
            Transport::Udp => Reason::NoTcp,
        }
    }

    /// Whether only some targets have an address. A server that sends any would send all if there were room.
    fn lacks_some_addresses(&self) -> bool {
        let has = |service: &Service| self.addresses(&service.target).is_some();
        !self.addresses.is_empty() && !self.services.iter().all(has)
    }

    /// The `service` in the records' owner name, `_port._protocol.service`.
    pub(super) fn parent(&self) -> Option<&str> {
        let rest = self.owner.strip_prefix('_')?.split_once('.')?.1;
        let parent = rest.strip_prefix('_')?.split_once('.')?.1;
        (!parent.is_empty()).then_some(parent)
    }

    /// The records of the lowest priority (RFC 2782: "A client MUST attempt to contact the target host with the
    /// lowest-numbered priority").
    pub(super) fn chosen(&self) -> impl Iterator<Item = &Service> {
        let lowest = self.lowest_priority();
        let services = self.services.iter();
        services.filter(move |service| Some(service.priority) == lowest)
    }

    fn lowest_priority(&self) -> Option<u16> {
        self.services.iter().map(|service| service.priority).min()
    }

    /// Leaves out the chosen records. Returns false if no others are left.
    pub(super) fn drop_chosen(&mut self) -> bool {
        let lowest = self.lowest_priority();
        self.services
            .retain(|service| Some(service.priority) != lowest);
        !self.services.is_empty()
    }

    /// The address that a target is named by: a pod without a hostname has it there, with dashes (Kubernetes DNS
    /// specification §2.4.1).
    pub(super) fn address_in_name(&self, target: &str) -> Option<IpAddr> {
        let label = target.strip_suffix(self.parent()?)?.strip_suffix('.')?;
        let address = |separator| label.replace('-', separator).parse().ok();
        address(".").or_else(|| address(":"))
    }

    /// The chosen targets whose addresses are missing, without duplicates.
    pub(super) fn missing(&self) -> Vec<Arc<str>> {
        let mut seen = HashSet::new();
        let targets = self.chosen().map(|service| service.target.as_str());
        let missing = targets.filter(|target| self.addresses(target).is_none());
        missing
            .filter(|target| seen.insert(*target))
            .map(Arc::from)
            .collect()
    }

    /// The service whose own addresses may be used in place of all targets', and the port.
    pub(super) fn stand_in(&self) -> Option<(Arc<str>, u16)> {
        let parent = self.parent()?;
        let first = self.services.first()?;
        let fits = |service: &Service| {
            service.port == first.port
                && service.priority == first.priority
                && is_under(&service.target, parent)
        };
        let all = self.services.iter().all(fits);
        all.then(|| (parent.into(), first.port))
    }

    pub(super) fn is_virtual(&self) -> bool {
        let parent = self.parent().unwrap_or_default();
        let mut services = self.services.iter();
        services.all(|service| service.target == parent)
    }

    pub(super) fn targets(&self) -> usize {
        self.distinct_targets().len()
    }

    /// How many pods the targets stand for: a dual-stack pod without a hostname has one for each of its addresses.
    pub(super) fn pods(&self) -> usize {
        let (mut v4, mut v6, mut others) = (0, 0, 0);
        for target in self.distinct_targets() {
            match self.address_in_name(target) {
                Some(IpAddr::V4(_)) => v4 += 1,
                Some(IpAddr::V6(_)) => v6 += 1,
                None => others += 1,
            }
        }
        others + v4.max(v6)
    }

    fn distinct_targets(&self) -> HashSet<&str> {
        let services = self.services.iter();
        services.map(|service| &*service.target).collect()
    }
}

fn is_under(name: &str, parent: &str) -> bool {
    let rest = name.strip_suffix(parent);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
