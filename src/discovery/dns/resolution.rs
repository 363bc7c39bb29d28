//! A single look, outside of any balancer.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    local::Local,
    lookup::{Found, LookupError, Resolve, Transport, Via},
    name::Name,
    pod_names::PodNames,
    settings::Settings,
    target::Host,
    walk::{Looks, Step, Walk, Walked},
};
use crate::{discovery::filter::Filter, endpoint::Endpoint};

/// What [`Dns::resolve`](crate::Dns::resolve) found.
#[derive(Clone, Debug)]
pub struct Resolution {
    endpoints: Vec<Endpoint>,
    found: Option<Source>,
}

#[derive(Clone, Debug)]
struct Source {
    name: Arc<str>,
    ttl: Duration,
    via: Option<Via>,
}

impl Resolution {
    /// The pods, sorted by address, without duplicates.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The full name that has the pods, without the trailing dot. None if the target is an address, which needs no
    /// lookup.
    pub fn name(&self) -> Option<&str> {
        self.found.as_ref().map(|source| &*source.name)
    }

    /// The records' TTL. None if the target is an address.
    pub fn ttl(&self) -> Option<Duration> {
        self.found.as_ref().map(|source| source.ttl)
    }

    /// The name server that answered. None if none was asked, as for `localhost`.
    pub fn name_server(&self) -> Option<SocketAddr> {
        Some(self.via()?.name_server)
    }

    /// The transport of the answer. None if no name server was asked.
    pub fn transport(&self) -> Option<Transport> {
        Some(self.via()?.transport)
    }

    fn via(&self) -> Option<Via> {
        self.found.as_ref()?.via
    }
}

pub(super) async fn resolve<R: Resolve>(
    settings: &Settings,
    resolver: &R,
) -> Result<Resolution, LookupError> {
    let name = match settings.target.host() {
        Host::Name(name, _) | Host::Service(name) => name,
        Host::Address(address) => {
            return Ok(Resolution {
                endpoints: vec![Endpoint::new(*address)],
                found: None,
            });
        }
    };
    let looks = Looks {
        resolver: Local::new(resolver.clone(), settings.hosts_file.clone(), name),
        filter: Filter::new(settings.allow_loopback),
        names: PodNames::default(),
        kinds: settings.kinds(),
    };
    let Found {
        name,
        mut endpoints,
        ttl,
        via,
        ..
    } = find(name, looks).await?;
    endpoints.sort_unstable();
    endpoints.dedup();
    let found = Some(Source { name, ttl, via });
    Ok(Resolution { endpoints, found })
}

/// What the preferred kind of records gives under the first candidate that has any.
async fn find<R: Resolve>(name: &Name, looks: Looks<R>) -> Result<Found, LookupError> {
    let candidates = looks.resolver.candidates(name)?;
    let mut walk = Walk::new(candidates.into(), looks);
    let original = name.to_string();
    let steps = match poll_fn(|cx| walk.poll(&original, cx)).await {
        Walked::Found { steps, .. } => steps,
        Walked::Nothing(nothing) => return Err(nothing.error),
        Walked::Failed(error) => return Err(error),
    };
    let mut failed = None;
    for step in steps {
        let answer = match step {
            Step::Done(answer) => answer,
            Step::Asking(lookup) => lookup.await,
        };
        match answer {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(nothing)) => failed = failed.or(Some(nothing.error)),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.expect("a walk that has found something has looked for it"))
}
