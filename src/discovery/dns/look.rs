//! One look at a name: what is looked for, and the endpoints that come of it.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    addresses::{Addresses, addresses},
    lookup::{Answer, Family, Found, Lookup, LookupError, OwnNames, Resolve, Transport},
    pod_names::{PodNames, learn},
    services::services,
};
use crate::{discovery::filter::Filter, endpoint::Endpoint};

/// How long a look may take, over all questions, name servers and attempts. Less than the balancer's ready timeout of 5 s, so
/// that callers who wait for the first answer in vain are told why.
const DEADLINE: Duration = Duration::from_secs(4);

/// What is looked for under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Addresses, at a port.
    Addresses(Family, u16),
    /// SRV records; the family is preferred where a target has addresses of both.
    Services(Family),
}

impl Kind {
    /// The same with the other address family.
    pub(super) fn other_family(self) -> Self {
        match self {
            Self::Addresses(family, port) => Self::Addresses(family.other(), port),
            Self::Services(family) => Self::Services(family.other()),
        }
    }
}

/// Looks once, for the pods' own `names` as well. What can't be a pod is left out by `filter`; an answer of which nothing is left is a failure.
pub(super) fn look<R: Resolve>(
    resolver: &R,
    filter: &Filter,
    names: &PodNames,
    name: Arc<str>,
    kind: Kind,
) -> Lookup {
    let (resolver, filter, names) = (resolver.clone(), filter.clone(), names.clone());
    Box::pin(async move {
        let deadline = Instant::now() + DEADLINE;
        let mut answer: Answer<Found> = match kind {
            Kind::Addresses(family, port) => {
                let found = addresses(&resolver, name.clone(), family, Transport::Udp, deadline);
                match found.await? {
                    Ok(found) => Ok(Ok(at_port(&filter, name, found, port)?)),
                    Err(nothing) => Ok(Err(nothing)),
                }
            }
            Kind::Services(family) => services(&resolver, &filter, name, family, deadline).await,
        };
        if let Ok(Ok(found)) = &mut answer {
            learn(&resolver, &names, found).await;
        }
        answer
    })
}

fn at_port(
    filter: &Filter,
    name: Arc<str>,
    found: Addresses,
    port: u16,
) -> Result<Found, LookupError> {
    let at_port = |address| Endpoint::new(SocketAddr::new(address, port));
    let mut endpoints = found.addresses.into_iter().map(at_port).collect();
    // What this machine itself says is its owner's choice.
    let filter = match found.via {
        Some(_) => filter.clone(),
        None => filter.with_loopback(),
    };
    let allowed = filter.apply(&mut endpoints);
    allowed.map_err(|rejected| LookupError::new(format_args!("{name}."), rejected.into()))?;
    Ok(Found {
        // This machine's own names aren't a Service's.
        own_names: found.via.and_then(|_| OwnNames::of(name.clone())),
        name,
        endpoints,
        ttl: found.ttl,
        via: found.via,
        targets: HashMap::new(),
        incomplete: None,
        is_virtual: false,
    })
}
