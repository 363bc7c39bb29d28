//! A balancer's set of endpoints as a stream of changes.

use std::sync::{Arc, Weak};

use futures::stream::unfold;
use tokio::sync::watch;

use super::shared::Shared;
use crate::{
    membership::{Known, MembershipChange, MembershipStream},
    policy::Policy,
};

struct Watching<S, P: Policy> {
    shared: Weak<Shared<S, P>>,
    receiver: watch::Receiver<()>,
    known: Known,
}

/// The changes of the set, beginning with what is there. The stream does not keep the balancer alive.
pub(super) fn watch<S, P>(shared: &Arc<Shared<S, P>>) -> MembershipStream
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
        known: Known::default(),
    };
    MembershipStream::over(unfold(watching, Watching::next))
}

impl<S, P: Policy> Watching<S, P> {
    async fn next(mut self) -> Option<(MembershipChange, Self)> {
        loop {
            self.receiver.changed().await.ok()?;
            let endpoints = {
                let shared = self.shared.upgrade().filter(|shared| !shared.is_closed())?;
                let snapshot = shared.current.load();
                if !snapshot.is_discovered() {
                    continue;
                }
                snapshot.endpoints().to_vec()
            };
            if let Some(change) = self.known.update(endpoints) {
                return Some((change, self));
            }
        }
    }
}
