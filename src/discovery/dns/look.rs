//! One look at a name: the questions that it takes, and the endpoints that come of them.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::lookup::{
    Answer, Family, Found, Lookup, LookupError, Nothing, Query, Reason, RecordType, Records, Reply,
    Resolve, Service, Transport, Via,
};
use crate::endpoint::Endpoint;

/// What is looked for under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Addresses, at a port.
    Addresses(Family, u16),
    /// SRV records; the family is preferred where a target has addresses of both.
    Services(Family),
}

/// Looks once.
pub(super) fn look<R: Resolve>(resolver: &R, name: Arc<str>, kind: Kind) -> Lookup {
    let resolver = resolver.clone();
    Box::pin(async move {
        match kind {
            Kind::Addresses(family, port) => {
                addresses(&resolver, name, family, port, Transport::Udp).await
            }
            Kind::Services(family) => services(&resolver, name, family).await,
        }
    })
}

async fn addresses<R: Resolve>(
    resolver: &R,
    name: Arc<str>,
    family: Family,
    port: u16,
    over: Transport,
) -> Answer<Found> {
    let record_type = family.record_type();
    let query = Query {
        name: name.clone(),
        record_type,
    };
    let reply = match resolver.ask(query, over).await? {
        Ok(reply) => reply,
        Err(nothing) => return Ok(Err(nothing)),
    };
    let addresses = match reply.records {
        Records::Addresses(addresses) => addresses,
        Records::Services { .. } => Vec::new(),
    };
    let at_port = |address| Endpoint::new(SocketAddr::new(address, port));
    Ok(Ok(Found {
        name,
        endpoints: addresses.into_iter().map(at_port).collect(),
        ttl: reply.ttl,
        via: reply.via,
        is_virtual: false,
    }))
}

/// SRV records, joined with the addresses that come with them. A packet may lack some for want of room and not be marked
/// as cut short (RFC 2181 §9): then the question is put over TCP, too. Where they are still missing, or the server sends
/// none, the service's own name has them all: one more question, not one for each pod, and over TCP if the records came
/// over it. Hostnames are then not to be had.
async fn services<R: Resolve>(resolver: &R, name: Arc<str>, family: Family) -> Answer<Found> {
    let query = Query {
        name: name.clone(),
        record_type: RecordType::Srv,
    };
    let mut told = match ask_services(resolver, &query, Transport::Udp).await? {
        Ok(told) => told,
        Err(nothing) => return Ok(Err(nothing)),
    };
    if told.via.transport == Transport::Udp && told.lacks_some_addresses() {
        told = match ask_services(resolver, &query, Transport::Tcp).await? {
            Ok(told) => told,
            Err(nothing) => return Ok(Err(nothing)),
        };
    }
    let Told {
        services,
        glue,
        truncated,
        ttl,
        via,
    } = told;
    let Some(&Service { port, priority, .. }) = services.first() else {
        let error = LookupError::new(&query, Reason::NoRecords);
        return Ok(Err(Nothing {
            ttl: Some(ttl),
            error,
        }));
    };
    let parent = parent(&name);
    let is_virtual = services.iter().all(|service| service.target == parent);
    if !truncated && let Some(endpoints) = join(&services, &glue, parent, family) {
        return Ok(Ok(Found {
            name,
            endpoints,
            ttl,
            via,
            is_virtual,
        }));
    }
    let alike = |service: &Service| service.port == port && service.priority == priority;
    if !services.iter().all(alike) {
        return Err(LookupError::new(&query, Reason::NoGlue));
    }
    let found = either(resolver, parent.into(), family, port, via.transport).await?;
    Ok(found.map(|found| Found {
        name: name.clone(),
        ttl: found.ttl.min(ttl),
        is_virtual,
        ..found
    }))
}

/// What a name server tells of SRV records.
struct Told {
    services: Vec<Service>,
    glue: Vec<(String, IpAddr)>,
    truncated: bool,
    ttl: Duration,
    via: Via,
}

async fn ask_services<R: Resolve>(resolver: &R, query: &Query, over: Transport) -> Answer<Told> {
    let Reply { records, ttl, via } = match resolver.ask(query.clone(), over).await? {
        Ok(reply) => reply,
        Err(nothing) => return Ok(Err(nothing)),
    };
    let Records::Services {
        mut services,
        glue,
        truncated,
    } = records
    else {
        return Err(LookupError::new(query, Reason::NoRecords));
    };
    // "The Service is decidedly not available at this domain" (RFC 2782).
    services.retain(|service| !service.target.is_empty());
    Ok(Ok(Told {
        services,
        glue,
        truncated,
        ttl,
        via,
    }))
}

impl Told {
    /// Whether only a part of the targets has an address: a server that sends any would send all, if there were room.
    fn lacks_some_addresses(&self) -> bool {
        let named: HashSet<_> = self.glue.iter().map(|(name, _)| name).collect();
        let mut services = self.services.iter();
        !named.is_empty() && !services.all(|service| named.contains(&service.target))
    }
}

/// The addresses of the family; those of the other one where there are none.
async fn either<R: Resolve>(
    resolver: &R,
    name: Arc<str>,
    family: Family,
    port: u16,
    over: Transport,
) -> Answer<Found> {
    match addresses(resolver, name.clone(), family, port, over).await? {
        Err(_) => addresses(resolver, name, family.other(), port, over).await,
        found => Ok(found),
    }
}

/// The service that SRV records are of: `_port._protocol.service`.
fn parent(name: &str) -> &str {
    name.splitn(3, '.').nth(2).unwrap_or_default()
}

/// The endpoints of the records of the lowest priority (RFC 2782: "A client MUST attempt to contact the target host with
/// the lowest-numbered priority"). None if a target's addresses are missing.
fn join(
    services: &[Service],
    glue: &[(String, IpAddr)],
    parent: &str,
    family: Family,
) -> Option<Vec<Endpoint>> {
    let mut addresses = HashMap::<&str, Vec<IpAddr>>::with_capacity(services.len());
    for (name, address) in glue {
        addresses.entry(name).or_default().push(*address);
    }
    let lowest = services.iter().map(|service| service.priority).min()?;
    let chosen = || services.iter().filter(|it| it.priority == lowest);
    let first = chosen().next()?;
    // CoreDNS shares 100 out among a Service's pods: not to be news whenever one comes or goes, equal weights are none.
    let is_weighted = chosen().any(|service| service.weight != first.weight);
    let preferred = |address: &IpAddr| address.is_ipv4() == (family == Family::V4);
    let mut endpoints = Vec::with_capacity(services.len());
    for service in chosen() {
        let all = addresses.get(service.target.as_str())?;
        let hostname = hostname(&service.target, parent, all).map(Arc::<str>::from);
        // A pod counts once, however many families it has.
        let any = all.iter().any(preferred);
        for &address in all.iter().filter(|address| !any || preferred(address)) {
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
    }
    Some(endpoints)
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

impl Family {
    fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}
