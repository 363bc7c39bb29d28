//! Discovery in the form that tower's own balancers take.

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
/// It never yields an error, because tower would end the stream on one. A failed lookup changes nothing; it is logged,
/// each error once in ten minutes.
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
    /// Each with the endpoint as it was when it joined: that is tower's key, which must not change when more becomes
    /// known.
    known: Known<Endpoint>,
    failures: FailureLog,
    changes: VecDeque<Queued>,
}

enum Queued {
    Joined(Endpoint),
    Left(Endpoint),
}

impl<D, M> ServiceStream<D, M> {
    /// A service from `make` for each endpoint that `discovery` finds.
    pub fn new(discovery: D, make: M) -> Self {
        Self {
            discovery,
            make,
            known: Known::default(),
            failures: FailureLog::default(),
            changes: VecDeque::new(),
        }
    }

    /// Queues joins before leaves, so that tower's set is never empty while every pod is replaced.
    fn change(&mut self, change: Membership<Endpoint>) {
        let left = change
            .left
            .into_iter()
            .map(|(_, as_joined)| Queued::Left(as_joined));
        self.changes
            .extend(change.joined.into_iter().map(Queued::Joined));
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
                Some(Queued::Joined(endpoint)) => {
                    let service = (this.make)(&endpoint);
                    return Poll::Ready(Some(Ok(Change::Insert(endpoint, service))));
                }
                Some(Queued::Left(endpoint)) => {
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
    fn a_leaving_endpoint_is_removed_by_the_key_it_joined_with() {
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
