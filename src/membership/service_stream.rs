//! Tower's own interface for what comes and goes.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::Stream;
use tower::discover::Change;

use super::{Change as Membership, Known};
use crate::{
    discovery::{Discovery, FailureLog},
    endpoint::Endpoint,
    logs,
};

/// A service for each endpoint that discovery finds, as a [`tower::discover::Discover`]: for tower's own balancers.
///
/// It never yields an error: tower takes one for the end. A failed lookup changes nothing; it is logged, each error once
/// in ten minutes.
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
    /// With the endpoints as they were when they joined: tower knows them by that, whatever is learnt of them.
    known: Known<Endpoint>,
    failures: FailureLog,
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
            failures: FailureLog::default(),
            changes: VecDeque::new(),
        }
    }

    /// Those that join come first, so that a set that is replaced whole is never empty on the way.
    fn change(&mut self, change: Membership<Endpoint>) {
        let left = change
            .left
            .into_iter()
            .map(|(_, as_joined)| Joining::No(as_joined));
        self.changes
            .extend(change.joined.into_iter().map(Joining::Yes));
        self.changes.extend(left);
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
            let name = this.discovery.name().map(Arc::from);
            let entered = logs::enter(name.as_ref());
            let answer = ready!(this.discovery.poll_next(cx));
            this.failures.note(&answer);
            drop(entered);
            let change = answer
                .ok()
                .and_then(|set| this.known.update(set, Endpoint::clone));
            if let Some(change) = change {
                this.change(change);
            }
        }
    }
}

impl<D: fmt::Debug, M> fmt::Debug for ServiceStream<D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceStream")
            .field("discovery", &self.discovery)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::BoxError;
    use futures_util::{FutureExt, StreamExt};

    struct Answers(VecDeque<Vec<Endpoint>>);

    impl Discovery for Answers {
        fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
            self.0
                .pop_front()
                .map_or(Poll::Pending, |set| Poll::Ready(Ok(set)))
        }
    }

    #[test]
    fn who_leaves_is_named_as_it_joined() {
        let endpoint = |host| Endpoint::new(([10, 0, 0, host], 80).into());
        let learnt = endpoint(1).with_zone("a");
        let answers = [
            vec![endpoint(1)],
            vec![learnt.clone(), endpoint(2)],
            vec![learnt.clone().with_zone_hints(["a"]), endpoint(2)],
            vec![endpoint(2)],
            vec![endpoint(2), learnt.clone()],
            vec![],
        ];
        let mut stream = ServiceStream::new(Answers(answers.into()), |_: &_| ());
        let mut seen = Vec::new();
        while let Some(Some(Ok(change))) = stream.next().now_or_never() {
            seen.push(match change {
                Change::Insert(endpoint, ()) => (true, endpoint),
                Change::Remove(endpoint) => (false, endpoint),
            });
        }
        let expected = [
            (true, endpoint(1)),
            (true, endpoint(2)),
            (false, endpoint(1)),
            (true, learnt.clone()),
            (false, learnt),
            (false, endpoint(2)),
        ];
        assert_eq!(seen, expected);
    }
}
