//! Tower's own interface for what comes and goes.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::Stream;
use tower::discover::Change;
use tracing::debug;

use super::{Known, MembershipChange};
use crate::{discovery::Discovery, endpoint::Endpoint};

/// A service for each endpoint that discovery finds, as a [`tower::discover::Discover`]: for tower's own balancers.
///
/// It never yields an error: tower takes one for the end. A failed lookup changes nothing.
///
/// ```no_run
/// use tower::{balance::p2c::Balance, load::Constant, service_fn};
/// use tower_headless::{BoxError, Dns, Endpoint, ServiceStream};
///
/// # fn main() -> Result<(), BoxError> {
/// let dns = Dns::new("nginx-headless.default:80".parse()?);
/// let services = ServiceStream::new(dns, |endpoint: &Endpoint| {
///     let address = endpoint.address();
///     let service = service_fn(move |_: ()| async move { Ok::<_, BoxError>(address) });
///     Constant::new(service, 1)
/// });
/// let balance = Balance::new(services);
/// # let _: Balance<_, ()> = balance;
/// # Ok(())
/// # }
/// ```
pub struct ServiceStream<D, M> {
    discovery: D,
    make: M,
    known: Known,
    changes: VecDeque<Joining>,
}

enum Joining {
    Yes(Endpoint),
    No(Endpoint),
}

impl<D, M> ServiceStream<D, M> {
    /// Services that `make` makes, of what `discovery` finds.
    pub fn new(discovery: D, make: M) -> Self {
        Self {
            discovery,
            make,
            known: Known::default(),
            changes: VecDeque::new(),
        }
    }
}

impl<D, M, S> Stream for ServiceStream<D, M>
where
    D: Discovery + Unpin,
    M: FnMut(&Endpoint) -> S + Unpin,
{
    type Item = Result<Change<Endpoint, S>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match this.changes.pop_front() {
                Some(Joining::Yes(endpoint)) => {
                    let service = (this.make)(&endpoint);
                    return Poll::Ready(Some(Ok(Change::Insert(endpoint, service))));
                }
                Some(Joining::No(endpoint)) => {
                    return Poll::Ready(Some(Ok(Change::Remove(endpoint))));
                }
                None => {}
            }
            match ready!(this.discovery.poll_next(cx)) {
                // Those that join come first, so that a set that is replaced whole is never empty on the way.
                Ok(set) => {
                    let change = this.known.update(set);
                    let (joined, left) = change.map_or_else(Default::default, parts);
                    this.changes.extend(joined.into_iter().map(Joining::Yes));
                    this.changes.extend(left.into_iter().map(Joining::No));
                }
                Err(error) => debug!(%error, "discovery failed"),
            }
        }
    }
}

fn parts(change: MembershipChange) -> (Vec<Endpoint>, Vec<Endpoint>) {
    (change.joined, change.left)
}

impl<D: fmt::Debug, M> fmt::Debug for ServiceStream<D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceStream")
            .field("discovery", &self.discovery)
            .finish_non_exhaustive()
    }
}
