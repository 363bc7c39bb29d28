//! SRV records and what comes along with them, as a name server tells it.

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

/// What a name server tells of SRV records.
pub(super) struct SrvRecords {
    /// The name that has them.
    owner: String,
    pub(super) services: Vec<Service>,
    pub(super) addresses: HashMap<String, Vec<IpAddr>>,
    aliases: HashMap<String, String>,
    pub(super) truncated: bool,
    pub(super) ttl: Duration,
    pub(super) via: Via,
}

/// Asks for the records. A packet may lack some addresses for want of room and not be marked as cut short (RFC 2181 §9): then
/// the question is put over TCP, too, in half of the time to the `deadline`.
pub(super) async fn ask_whole<R: Resolve>(
    resolver: &R,
    query: &Query,
    deadline: Instant,
) -> Answer<SrvRecords> {
    let told = match ask(resolver, query, Transport::Udp, deadline).await? {
        Ok(told) => told,
        Err(nothing) => return Ok(Err(nothing)),
    };
    if told.via.transport == Transport::Udp && told.lacks_some_addresses() {
        // A server that is of no use over TCP has said something over UDP all the same.
        let half = part_way(deadline, 0.5);
        return match ask(resolver, query, Transport::Tcp, half).await {
            Ok(Ok(whole)) => Ok(Ok(whole)),
            _ => Ok(Ok(told)),
        };
    }
    Ok(Ok(told))
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
    /// A target's addresses, as far as they came along: its own, or those at the end of its aliases.
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

    /// Whether only a part of the targets has an address: a server that sends any would send all, if there were room.
    fn lacks_some_addresses(&self) -> bool {
        let has = |service: &Service| self.addresses(&service.target).is_some();
        !self.addresses.is_empty() && !self.services.iter().all(has)
    }

    /// The service that the records are of: `_port._protocol.service`, at the end of all aliases.
    pub(super) fn parent(&self) -> Option<&str> {
        let rest = self.owner.strip_prefix('_')?.split_once('.')?.1;
        let parent = rest.strip_prefix('_')?.split_once('.')?.1;
        (!parent.is_empty()).then_some(parent)
    }

    /// The records of the lowest priority (RFC 2782: "A client MUST attempt to contact the target host with the
    /// lowest-numbered priority").
    pub(super) fn chosen(&self) -> impl Iterator<Item = &Service> {
        let lowest = self.services.iter().map(|service| service.priority).min();
        let services = self.services.iter();
        services.filter(move |service| Some(service.priority) == lowest)
    }

    /// The chosen targets whose addresses are missing, each once.
    pub(super) fn missing(&self) -> Vec<Arc<str>> {
        let mut seen = HashSet::new();
        let targets = self.chosen().map(|service| service.target.as_str());
        let missing = targets.filter(|target| self.addresses(target).is_none());
        missing
            .filter(|target| seen.insert(*target))
            .map(Arc::from)
            .collect()
    }

    /// The service whose own addresses may stand for those of all targets, and the port.
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
        let targets = self.services.iter().map(|service| &service.target);
        targets.collect::<HashSet<_>>().len()
    }
}

fn is_under(name: &str, parent: &str) -> bool {
    let rest = name.strip_suffix(parent);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
