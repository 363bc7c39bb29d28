//! A look for SRV records: the targets, and where their addresses come from.
//!
//! ```text
//!  SRV records ─▶ all addresses came along (glue) ─────────────────────────────▶ endpoints with hostnames and weights
//!                 some are missing ─▶ the question again, over TCP ─▶ still missing:
//!                   ├─ all targets are below the service's own name, and have one port and one priority
//!                   │    └▶ that name's addresses, if there are enough of them ─▶ endpoints, without hostnames
//!                   ├─ else, and the answer is truncated ─▶ a failure: nobody knows which targets it lacks
//!                   └─ else ─▶ each target's own addresses ─▶ endpoints with hostnames and weights; if there are none,
//!                              on to the records of the next priority
//! ```
//!
//! The service's own name has the addresses of all its pods, for one more question. That can be expected only if all
//! targets are below that name; otherwise it may be another machine's.
//!
//! All steps together get the time of one question. Each step leaves some to the next ones, and what has come by the
//! deadline is used.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    addresses::{Addresses, either, part_way},
    lookup::{
        Answer, Family, Found, LookupError, Nothing, OwnNames, Query, Reason, RecordType, Resolve,
        Service,
    },
    srv_records::{SrvRecords, ask_whole},
    targets,
};
use crate::{discovery::filter::Filter, endpoint::Endpoint};

/// The most endpoints made from one answer. An honest message has room for some thousands of addresses, but a hostile
/// one may name each of them in each record.
const LIMIT: usize = 65_536;

/// The share of the remaining time for the service's own name, if the targets can be asked for afterwards.
const SHARE: f32 = 0.75;

/// How many priorities are gone through while the targets of the lowest one have no addresses.
const PRIORITIES: usize = 4;

/// How many targets an error lists.
const NAMED: usize = 4;

/// Looks up SRV records and joins them with their targets' addresses, by the `deadline`.
pub(super) async fn services<R: Resolve>(
    resolver: &R,
    filter: &Filter,
    name: Arc<str>,
    family: Family,
    deadline: Instant,
) -> Answer<Found> {
    let query = Query {
        name: name.clone(),
        record_type: RecordType::Srv,
    };
    let nothing = |ttl| Nothing::new(Some(ttl), LookupError::new(&query, Reason::NoRecords));
    if resolver.local(&name).is_some() {
        // "Negative responses for all other query types" (RFC 6761 §6.3).
        return Ok(Err(nothing(Duration::from_secs(30))));
    }
    let mut srv = match ask_whole(resolver, &query, deadline).await? {
        Ok(srv) => srv,
        Err(nothing) => return Ok(Err(nothing)),
    };
    if srv.services.is_empty() {
        return match srv.truncated {
            true => Err(LookupError::new(&query, srv.shortage()).at(srv.via.name_server)),
            false => Ok(Err(nothing(srv.ttl))),
        };
    }
    srv.services
        .retain(|service| filter.allows_port(service.port));
    if srv.services.is_empty() {
        return Err(LookupError::new(&query, Reason::NoPort));
    }
    let mut found = join(resolver, &query, srv, family, deadline).await?;
    let allowed = filter.apply(&mut found.endpoints);
    allowed.map_err(|rejected| LookupError::new(&query, rejected.into()))?;
    Ok(Ok(found))
}

/// Joins the records with addresses, and asks for missing ones. It never gives a negative answer, because there are
/// records.
async fn join<R: Resolve>(
    resolver: &R,
    query: &Query,
    mut srv: SrvRecords,
    family: Family,
    deadline: Instant,
) -> Result<Found, LookupError> {
    let mut without_address = Vec::new();
    for _ in 0..PRIORITIES {
        let missing = srv.missing();
        let mut incomplete = None;
        if srv.truncated || !missing.is_empty() {
            if let Some(found) = stand_in(resolver, query, &srv, family, deadline).await? {
                return Ok(found);
            }
            if srv.truncated {
                let error = LookupError::new(query, srv.shortage());
                return Err(error.at(srv.via.name_server));
            }
            let resolved = targets::resolve(resolver, query, missing, family, deadline).await;
            srv.ttl = resolved.ttl.map_or(srv.ttl, |ttl| ttl.min(srv.ttl));
            srv.addresses.extend(resolved.addresses);
            incomplete = resolved.incomplete;
        }
        let (endpoints, targets) = endpoints(&srv, family);
        if !endpoints.is_empty() {
            return Ok(Found {
                name: query.name.clone(),
                endpoints,
                ttl: srv.ttl,
                via: Some(srv.via),
                targets,
                incomplete: incomplete.map(Box::new),
                is_virtual: srv.is_virtual(),
                own_names: None,
            });
        }
        if let Some(incomplete) = incomplete {
            return Err(incomplete.error);
        }
        without_address.extend(srv.chosen().map(|service| service.target.as_str().into()));
        if !srv.drop_chosen() {
            break;
        }
    }
    without_address.truncate(NAMED);
    Err(LookupError::new(query, Reason::NoTarget(without_address)))
}

/// The service's own addresses, if they may be used in place of its targets' and there are [`enough`] of them.
async fn stand_in<R: Resolve>(
    resolver: &R,
    query: &Query,
    srv: &SrvRecords,
    family: Family,
    deadline: Instant,
) -> Result<Option<Found>, LookupError> {
    let Some((parent, port)) = srv.stand_in() else {
        return Ok(None);
    };
    let targets = srv.targets();
    // Without the service's own addresses, some of the pods would be missing.
    let is_needed = srv.truncated || targets > targets::MOST;
    let until = match is_needed {
        true => deadline,
        false => part_way(deadline, SHARE),
    };
    let Addresses {
        addresses,
        ttl,
        via,
    } = match either(resolver, parent.clone(), family, srv.via.transport, until).await {
        Ok(Ok(found)) => found,
        Err(error) if is_needed => return Err(error),
        Ok(Err(_)) | Err(_) => return Ok(None),
    };
    if addresses.iter().collect::<HashSet<_>>().len() < enough(targets, srv.pods()) {
        return Ok(None);
    }
    let endpoint = |address| Endpoint::new(SocketAddr::new(address, port));
    Ok(Some(Found {
        name: query.name.clone(),
        endpoints: addresses.into_iter().map(endpoint).collect(),
        ttl: ttl.min(srv.ttl),
        via,
        targets: HashMap::new(),
        incomplete: None,
        is_virtual: srv.is_virtual(),
        own_names: OwnNames::of(parent),
    }))
}

/// How many addresses the service's own name must have, to be trusted for all `targets`: one for each of their `pods`.
/// If there are very many, some come and go between two answers, and half of them prove that it isn't another machine.
fn enough(targets: usize, pods: usize) -> usize {
    match targets > targets::MOST {
        true => pods / 2,
        false => pods,
    }
}

/// The endpoints of the chosen records whose addresses are known, and the target that each belongs to.
fn endpoints(srv: &SrvRecords, family: Family) -> (Vec<Endpoint>, HashMap<SocketAddr, Arc<str>>) {
    let parent = srv.parent();
    let mut weights = srv.chosen().map(|service| service.weight);
    let first = weights.next();
    // CoreDNS divides 100 among a Service's pods. Equal weights are ignored, or each scale event would change them all.
    let is_weighted = weights.any(|weight| Some(weight) != first);
    let own_address = |service: &Service| {
        let own = srv.address_in_name(&service.target)?;
        let all = srv.addresses(&service.target)?;
        all.contains(&own).then_some(own)
    };
    let mut own_addresses = srv.chosen().filter_map(own_address);
    let has_own = own_addresses.any(|own| family.has(&own));
    let mut endpoints = Vec::with_capacity(srv.services.len());
    let mut targets = HashMap::with_capacity(srv.services.len());
    for service in srv.chosen() {
        let Some(all) = srv.addresses(&service.target) else {
            continue;
        };
        let own = own_address(service);
        // A dual-stack pod without a hostname has a target for each of its addresses, and counts once.
        if has_own && own.is_some_and(|own| !family.has(&own)) {
            continue;
        }
        let hostname = parent.filter(|_| own.is_none());
        let hostname = hostname.and_then(|parent| hostname_of(&service.target, parent));
        let hostname = hostname.map(Arc::<str>::from);
        let target = Arc::<str>::from(&*service.target);
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
            targets.insert(endpoint.address(), target.clone());
            endpoints.push(endpoint.with_weight(weight));
        }
        if endpoints.len() >= LIMIT {
            break;
        }
    }
    (endpoints, targets)
}

/// The pod's hostname: the label before the service's name.
fn hostname_of<'a>(target: &'a str, parent: &str) -> Option<&'a str> {
    let label = target.strip_suffix(parent)?.strip_suffix('.')?;
    (!label.is_empty() && !label.contains('.')).then_some(label)
}
