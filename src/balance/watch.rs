//! The set of endpoints for those who need the set itself.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use futures::{
    Stream, StreamExt,
    stream::{BoxStream, unfold},
};
use tokio::sync::watch;

use super::shared::Shared;
use crate::{endpoint::Endpoint, policy::Policy};

/// How the set of endpoints changed since a [`Watch`] last looked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MembershipChange {
    /// All endpoints now, in the order of their addresses.
    pub endpoints: Vec<Endpoint>,
    /// Those that were not there before.
    pub joined: Vec<Endpoint>,
    /// Those that are there no more.
    pub left: Vec<Endpoint>,
}

/// A stream of membership changes. The first item has all endpoints as joined.
///
/// No change is missed, but several may come as one where the reader is slow. The stream ends when the last clone of the
/// balancer is dropped.
pub struct Watch {
    changes: BoxStream<'static, MembershipChange>,
}

struct Watching<S, P: Policy> {
    shared: Weak<Shared<S, P>>,
    receiver: watch::Receiver<()>,
    known: Option<Vec<Endpoint>>,
}

impl Watch {
    pub(super) fn new<S, P>(shared: &Arc<Shared<S, P>>) -> Self
    where
        S: Send + Sync + 'static,
        P: Policy,
    {
        let mut receiver = shared.members.subscribe();
        // What is there already is the first item.
        receiver.mark_changed();
        let watching = Watching {
            shared: Arc::downgrade(shared),
            receiver,
            known: None,
        };
        Self {
            changes: unfold(watching, Watching::next).boxed(),
        }
    }
}

impl<S, P: Policy> Watching<S, P> {
    async fn next(mut self) -> Option<(MembershipChange, Self)> {
        loop {
            self.receiver.changed().await.ok()?;
            let endpoints: Vec<_> = {
                let shared = self.shared.upgrade().filter(|shared| !shared.is_closed())?;
                let snapshot = shared.current.load();
                if !snapshot.is_discovered() {
                    continue;
                }
                let loads = snapshot.loads().iter();
                loads.map(|load| load.endpoint().clone()).collect()
            };
            if self.known.as_ref() == Some(&endpoints) {
                continue;
            }
            let known = self.known.replace(endpoints.clone()).unwrap_or_default();
            let change = MembershipChange {
                joined: without(&endpoints, &known),
                left: without(&known, &endpoints),
                endpoints,
            };
            return Some((change, self));
        }
    }
}

/// What `a` has and `b` has not; both are sorted.
fn without(a: &[Endpoint], b: &[Endpoint]) -> Vec<Endpoint> {
    let missing = a
        .iter()
        .filter(|endpoint| b.binary_search(endpoint).is_err());
    missing.cloned().collect()
}

impl Stream for Watch {
    type Item = MembershipChange;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.changes.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
