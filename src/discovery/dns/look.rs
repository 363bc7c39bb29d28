//! One look at a name: for one kind of record, with the endpoints that it finds.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    addresses::{Addresses, addresses},
    lookup::{Answer, Family, Found, Lookup, LookupError, OwnNames, Resolve, Transport},
    pod_names::{PodNames, learn},
    services::services,
};
use crate::{discovery::filter::Filter, endpoint::Endpoint};

/// How long a look may take, including all questions, name servers and attempts. It is less than the balancer's ready
/// timeout of 5 s, so that callers whose wait for the first answer times out get the reason.
const DEADLINE: Duration = Duration::from_secs(4);

/// What to look for under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Addresses, at a port.
    Addresses(Family, u16),
    /// SRV records; this family is preferred if a target has addresses of both.
    Services(Family),
}

impl Kind {
    /// This kind with the other address family.
    pub(super) fn other_family(self) -> Self {
        match self {
            Self::Addresses(family, port) => Self::Addresses(family.other(), port),
            Self::Services(family) => Self::Services(family.other()),
        }
    }
}

/// Looks once, for the pods' own `names` as well. `filter` removes what can't be a pod; if it removes everything, the
/// look fails.
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
    // Localhost and the hosts file may name loopback addresses.
    let filter = match found.via {
        Some(_) => filter.clone(),
        None => filter.with_loopback(),
    };
    let allowed = filter.apply(&mut endpoints);
    allowed.map_err(|rejected| LookupError::new(format_args!("{name}."), rejected.into()))?;
    Ok(Found {
        // Localhost and the hosts file have no pods' own names.
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
