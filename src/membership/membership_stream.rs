//! A stream of membership changes.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::{
    Stream, StreamExt,
    stream::{BoxStream, unfold},
};

use super::{Known, MembershipChange};
use crate::{
    discovery::{Discovery, FailureLog},
    logs,
};

/// A stream of membership changes. The first item has all endpoints as joined.
///
/// [`Balance::watch`](crate::Balance::watch) returns one for a balancer's endpoints. [`new`](Self::new) makes one over
/// any discovery, for programs that need to know their peers but don't send them requests through this crate: gossip,
/// sharding, a cache's ring.
///
/// No change is missed, but a slow reader may get several as one. A balancer's stream ends when the last clone of the
/// balancer is dropped; a stream over discovery never ends.
///
/// ```no_run
/// use futures::StreamExt;
/// use tower_headless::{Dns, MembershipStream};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut peers = MembershipStream::new(Dns::srv("_gossip._tcp.nginx-headless.default")?);
/// while let Some(change) = peers.next().await {
///     println!("{:?} joined, {:?} left", change.joined, change.left);
/// }
/// # Ok(())
/// # }
/// ```
pub struct MembershipStream {
    changes: BoxStream<'static, MembershipChange>,
}

impl MembershipStream {
    /// A stream of the changes that `discovery` finds. Discovery runs only while the stream is polled.
    ///
    /// Failed lookups change nothing. They are logged, each error once in ten minutes.
    pub fn new(discovery: impl Discovery) -> Self {
        let source = Source {
            service: discovery.name().map(Arc::from),
            discovery,
            known: Known::default(),
            failures: FailureLog::default(),
        };
        Self::over(unfold(source, Source::next))
    }

    pub(crate) fn over(changes: impl Stream<Item = MembershipChange> + Send + 'static) -> Self {
        Self {
            changes: changes.boxed(),
        }
    }
}

/// The state of a stream over discovery, outside of any balancer.
struct Source<D> {
    service: Option<Arc<str>>,
    discovery: D,
    known: Known,
    failures: FailureLog,
}

impl<D: Discovery> Source<D> {
    async fn next(mut self) -> Option<(MembershipChange, Self)> {
        loop {
            let answer = poll_fn(|cx| {
                let _entered = logs::enter(self.service.as_ref());
                let answer = ready!(self.discovery.poll_next(cx));
                self.failures.note(&answer);
                Poll::Ready(answer)
            });
            let answer = answer.await;
            if let Some(change) = answer.ok().and_then(|set| self.known.change(set)) {
                return Some((change, self));
            }
        }
    }
}

impl Stream for MembershipStream {
    type Item = MembershipChange;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.changes.poll_next_unpin(cx)
    }
}

impl fmt::Debug for MembershipStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MembershipStream").finish_non_exhaustive()
    }
}
