//! A balancer's set of endpoints as a stream of changes.

use std::sync::{Arc, Weak};

use futures_util::stream::unfold;
use tokio::sync::watch;

use super::shared::Shared;
use crate::{
    comparison::{Fate, compare},
    endpoint::Endpoint,
    member::MemberId,
    membership::{MembershipChange, MembershipStream},
    snapshot::Snapshot,
};

struct Watching<S> {
    shared: Weak<Shared<S>>,
    receiver: watch::Receiver<()>,
    /// The set that was last told; `None` before the first time.
    told: Option<Vec<Told>>,
}

/// An endpoint that has been told, and the member that it was.
type Told = (Endpoint, MemberId);

/// The changes of the set, beginning with the whole set. The stream does not keep the balancer alive.
pub(super) fn stream<S>(shared: &Arc<Shared<S>>) -> MembershipStream
where
    S: Send + Sync + 'static,
{
    let mut receiver = shared.members.subscribe();
    // So that the present set is the first item.
    receiver.mark_changed();
    let watching = Watching {
        shared: Arc::downgrade(shared),
        receiver,
        told: None,
    };
    MembershipStream::over(unfold(watching, Watching::next))
}

impl<S> Watching<S> {
    async fn next(mut self) -> Option<(MembershipChange, Self)> {
        loop {
            self.receiver.changed().await.ok()?;
            let now = {
                let shared = self.shared.upgrade().filter(|shared| !shared.is_closed())?;
                // Starts the background task in this runtime if its own has ended.
                shared.start();
                let snapshot = shared.current.load();
                if !snapshot.is_discovered() {
                    continue;
                }
                all(&snapshot)
            };
            if let Some(change) = self.tell(now) {
                return Some((change, self));
            }
        }
    }

    /// The change since the last time; `None` if there is none.
    fn tell(&mut self, now: Vec<Told>) -> Option<MembershipChange> {
        let is_first = self.told.is_none();
        let before = self.told.take().unwrap_or_default();
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        let old_key = |(endpoint, _): &Told| endpoint.identity();
        let new_key = |(endpoint, _): &&Told| endpoint.identity();
        // A pod that comes back is a new member, even with the same name and address.
        for fate in compare(before, &now, old_key, new_key, |old, new| old.1 == new.1) {
            match fate {
                Fate::Joined((endpoint, _)) => joined.push(endpoint.clone()),
                Fate::Left((endpoint, _)) => left.push(endpoint),
                Fate::Stayed(..) => {}
            }
        }
        let endpoints = || now.iter().map(|(endpoint, _)| endpoint.clone()).collect();
        let is_news = is_first || !joined.is_empty() || !left.is_empty();
        let change = is_news.then(|| MembershipChange {
            endpoints: endpoints(),
            joined,
            left,
        });
        self.told = Some(now);
        change
    }
}

fn all<S>(snapshot: &Snapshot<S>) -> Vec<Told> {
    let all = snapshot.endpoints().iter().zip(snapshot.members());
    all.map(|(endpoint, member)| (endpoint.clone(), member.id()))
        .collect()
}
