//! One look, told in full.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use super::{
    look::{Kind, look},
    lookup::{Found, Lookup, LookupError, Resolve, Transport, Via},
    name::Name,
    settings::Settings,
    target::Host,
    walk::{Step, Walk, Walked},
};
use crate::{discovery::filter::Filter, endpoint::Endpoint};

/// What [`Dns::resolve`](crate::Dns::resolve) has found.
#[derive(Clone, Debug)]
pub struct Resolution {
    endpoints: Vec<Endpoint>,
    found: Option<Source>,
}

#[derive(Clone, Debug)]
struct Source {
    name: Arc<str>,
    ttl: Duration,
    via: Via,
}

impl Resolution {
    /// The pods, in the order of their addresses, each once.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The full name that has them, without the trailing dot. None where an address was given and nothing was asked.
    pub fn name(&self) -> Option<&str> {
        self.found.as_ref().map(|source| &*source.name)
    }

    /// For how long the records hold, by their own word.
    pub fn ttl(&self) -> Option<Duration> {
        self.found.as_ref().map(|source| source.ttl)
    }

    /// The name server that answered.
    pub fn name_server(&self) -> Option<SocketAddr> {
        self.found.as_ref().map(|source| source.via.name_server)
    }

    /// How the endpoints came.
    pub fn transport(&self) -> Option<Transport> {
        self.found.as_ref().map(|source| source.via.transport)
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
    let found = find(name, &settings.kinds(), resolver).await?;
    let Found {
        name,
        mut endpoints,
        ttl,
        via,
        ..
    } = found;
    let allowed = Filter::new(settings.allow_loopback).apply(&mut endpoints);
    allowed.map_err(|rejected| LookupError::new(format_args!("{name}."), rejected.into()))?;
    endpoints.sort_unstable();
    endpoints.dedup();
    let found = Some(Source { name, ttl, via });
    Ok(Resolution { endpoints, found })
}

/// What the most welcome kind finds under the first candidate that has anything.
async fn find<R: Resolve>(name: &Name, kinds: &[Kind], resolver: &R) -> Result<Found, LookupError> {
    let candidates = resolver.candidates(name)?;
    let look = |name: &Arc<str>| -> Vec<Lookup> {
        let looks = kinds.iter().map(|&kind| look(resolver, name.clone(), kind));
        looks.collect()
    };
    let mut walk = Walk::new(candidates.into(), look);
    let original = name.to_string();
    let walked = poll_fn(|cx| match walk.poll(&original, look, cx) {
        Poll::Ready(walked) => Poll::Ready(walked),
        Poll::Pending => Poll::Pending,
    });
    let steps = match walked.await {
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
            Ok(Err(nothing)) => failed = Some(nothing.error),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.expect("a walk that has found something has looked for it"))
}
