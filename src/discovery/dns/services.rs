//! A look for SRV records: the targets, and where their addresses come from.
//!
//! ```text
//!  SRV records ─▶ all addresses came along (glue) ─────────────────────────────▶ endpoints with hostnames and weights
//!                 some are missing ─▶ the question again, over TCP ─▶ still missing:
//!                   ├─ all targets are below the service's own name, and have one port and one priority
//!                   │    └▶ that name's addresses, if there are enough of them ─▶ endpoints, without hostnames
//!                   └─ else ─▶ each target's own addresses ─▶ endpoints with hostnames and weights
//! ```
//!
//! The service's own name has the addresses of all its pods at once, for one more question. Only of a name above all targets
//! is that to be expected; of any other it would be another machine's address.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    addresses::{Addresses, either},
    lookup::{
        Answer, Family, Found, LookupError, Nothing, Query, Reason, RecordType, Records, Reply,
        Resolve, Service, Transport, Via,
    },
    targets,
};
use crate::{discovery::filter::Filter, endpoint::Endpoint};

/// How many aliases in a row are followed from a target to its addresses.
const ALIASES: usize = 8;

/// The most endpoints made of one answer. An honest message has room for some thousands of addresses; a hostile one may name
/// each of them in each record.
const LIMIT: usize = 65_536;

/// How many targets an error names.
const NAMED: usize = 4;

/// SRV records, joined with their targets' addresses.
pub(super) async fn services<R: Resolve>(
    resolver: &R,
    filter: &Filter,
    name: Arc<str>,
    family: Family,
) -> Answer<Found> {
    let query = Query {
        name: name.clone(),
        record_type: RecordType::Srv,
    };
    let nothing = |ttl| Nothing {
        ttl: Some(ttl),
        error: LookupError::new(&query, Reason::NoRecords),
    };
    if resolver.local(&name).is_some() {
        // "Negative responses for all other query types" (RFC 6761 §6.3).
        return Ok(Err(nothing(Duration::from_secs(30))));
    }
    let mut told = match ask_whole(resolver, &query).await? {
        Ok(told) => told,
        Err(nothing) => return Ok(Err(nothing)),
    };
    if told.services.is_empty() {
        return Ok(Err(nothing(told.ttl)));
    }
    told.services
        .retain(|service| filter.allows_port(service.port));
    if told.services.is_empty() {
        return Err(LookupError::new(&query, Reason::NoPort));
    }
    let mut found = join(resolver, &query, told, family).await?;
    let allowed = filter.apply(&mut found.endpoints);
    allowed.map_err(|rejected| LookupError::new(&query, rejected.into()))?;
    Ok(Ok(found))
}

/// What a name server tells of SRV records.
struct Told {
    /// The name that has them.
    owner: String,
    services: Vec<Service>,
    addresses: HashMap<String, Vec<IpAddr>>,
    aliases: HashMap<String, String>,
    truncated: bool,
    ttl: Duration,
    via: Via,
}

/// Asks for the records. A packet may lack some addresses for want of room and not be marked as cut short (RFC 2181 §9): then
/// the question is put over TCP, too.
async fn ask_whole<R: Resolve>(resolver: &R, query: &Query) -> Answer<Told> {
    let told = match ask(resolver, query, Transport::Udp).await? {
        Ok(told) => told,
        Err(nothing) => return Ok(Err(nothing)),
    };
    if told.via.transport == Transport::Udp && told.lacks_some_addresses() {
        return ask(resolver, query, Transport::Tcp).await;
    }
    Ok(Ok(told))
}

async fn ask<R: Resolve>(resolver: &R, query: &Query, over: Transport) -> Answer<Told> {
    let Reply { records, ttl, via } = match resolver.ask(query.clone(), over).await? {
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
    Ok(Ok(Told {
        owner,
        services,
        addresses,
        aliases: aliases.into_iter().collect(),
        truncated,
        ttl,
        via,
    }))
}

impl Told {
    /// A target's addresses, as far as they came along: its own, or those at the end of its aliases.
    fn addresses(&self, target: &str) -> Option<&[IpAddr]> {
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
    fn parent(&self) -> Option<&str> {
        let rest = self.owner.strip_prefix('_')?.split_once('.')?.1;
        let parent = rest.strip_prefix('_')?.split_once('.')?.1;
        (!parent.is_empty()).then_some(parent)
    }

    /// The records of the lowest priority (RFC 2782: "A client MUST attempt to contact the target host with the
    /// lowest-numbered priority").
    fn chosen(&self) -> impl Iterator<Item = &Service> {
        let lowest = self.services.iter().map(|service| service.priority).min();
        let services = self.services.iter();
        services.filter(move |service| Some(service.priority) == lowest)
    }

    /// The chosen targets whose addresses are missing, each once.
    fn missing(&self) -> Vec<Arc<str>> {
        let mut seen = HashSet::new();
        let targets = self.chosen().map(|service| service.target.as_str());
        let missing = targets.filter(|target| self.addresses(target).is_none());
        missing
            .filter(|target| seen.insert(*target))
            .map(Arc::from)
            .collect()
    }

    /// The service whose own addresses may stand for those of all targets, and the port.
    fn stand_in(&self) -> Option<(Arc<str>, u16)> {
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

    fn is_virtual(&self) -> bool {
        let parent = self.parent().unwrap_or_default();
        let mut services = self.services.iter();
        services.all(|service| service.target == parent)
    }

    fn targets(&self) -> usize {
        let targets = self.services.iter().map(|service| &service.target);
        targets.collect::<HashSet<_>>().len()
    }
}

fn is_under(name: &str, parent: &str) -> bool {
    let rest = name.strip_suffix(parent);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Joins the records with addresses, and asks for those that are missing. Where there are records, it never says that there
/// is nothing.
async fn join<R: Resolve>(
    resolver: &R,
    query: &Query,
    mut told: Told,
    family: Family,
) -> Result<Found, LookupError> {
    let missing = told.missing();
    let mut incomplete = None;
    if told.truncated || !missing.is_empty() {
        if let Some(found) = stand_in(resolver, query, &told, family).await? {
            return Ok(found);
        }
        let resolved = targets::resolve(resolver, query, missing, family).await;
        told.ttl = resolved.ttl.map_or(told.ttl, |ttl| ttl.min(told.ttl));
        told.addresses.extend(resolved.addresses);
        incomplete = resolved.failure;
    }
    let endpoints = endpoints(&told, family);
    if endpoints.is_empty() {
        let none = || {
            let names = told.chosen().map(|service| service.target.as_str().into());
            LookupError::new(query, Reason::NoTarget(names.take(NAMED).collect()))
        };
        return Err(incomplete.unwrap_or_else(none));
    }
    Ok(Found {
        name: query.name.clone(),
        endpoints,
        ttl: told.ttl,
        via: Some(told.via),
        incomplete,
        is_virtual: told.is_virtual(),
    })
}

/// The service's own addresses, where they may stand for those of its targets, and prove enough: that there is one for each.
async fn stand_in<R: Resolve>(
    resolver: &R,
    query: &Query,
    told: &Told,
    family: Family,
) -> Result<Option<Found>, LookupError> {
    let Some((parent, port)) = told.stand_in() else {
        return Ok(None);
    };
    let Ok(found) = either(resolver, parent, family, told.via.transport).await? else {
        return Ok(None);
    };
    let Addresses {
        addresses,
        ttl,
        via,
    } = found;
    let targets = told.targets();
    if addresses.iter().collect::<HashSet<_>>().len() < targets && targets <= targets::MOST {
        return Ok(None);
    }
    let endpoint = |address| Endpoint::new(SocketAddr::new(address, port));
    Ok(Some(Found {
        name: query.name.clone(),
        endpoints: addresses.into_iter().map(endpoint).collect(),
        ttl: ttl.min(told.ttl),
        via,
        incomplete: None,
        is_virtual: told.is_virtual(),
    }))
}

/// The endpoints of the chosen records, as far as their addresses are known.
fn endpoints(told: &Told, family: Family) -> Vec<Endpoint> {
    let parent = told.parent();
    let mut weights = told.chosen().map(|service| service.weight);
    let first = weights.next();
    // CoreDNS shares 100 out among a Service's pods: not to be news whenever one comes or goes, equal weights are none.
    let is_weighted = weights.any(|weight| Some(weight) != first);
    let mut endpoints = Vec::with_capacity(told.services.len());
    for service in told.chosen() {
        let Some(all) = told.addresses(&service.target) else {
            continue;
        };
        let hostname = parent.and_then(|parent| hostname(&service.target, parent, all));
        let hostname = hostname.map(Arc::<str>::from);
        // A pod counts once, however many families it has.
        let any = all.iter().any(|address| family.has(address));
        for &address in all.iter().filter(|address| !any || family.has(address)) {
            let endpoint = Endpoint::new(SocketAddr::new(address, service.port));
            let endpoint = match &hostname {
                Some(hostname) => endpoint.with_hostname(hostname.clone()),
                None => endpoint,
            };
            let weight = if is_weighted {
                service.weight.into()
            } else {
                1
            };
            endpoints.push(endpoint.with_weight(weight));
        }
        if endpoints.len() >= LIMIT {
            break;
        }
    }
    endpoints
}

/// The pod's own name: what stands before the service's. A pod without one is named by its address there, with dashes
/// (Kubernetes DNS specification §2.4.1).
fn hostname<'a>(target: &'a str, parent: &str, addresses: &[IpAddr]) -> Option<&'a str> {
    let label = target.strip_suffix(parent)?.strip_suffix('.')?;
    let is_address = |separator| {
        let address = label.replace('-', separator).parse();
        address.is_ok_and(|address| addresses.contains(&address))
    };
    let is_name = !label.is_empty() && !label.contains('.') && !is_address(".") && !is_address(":");
    is_name.then_some(label)
}
