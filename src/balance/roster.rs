//! The endpoints of a balancer, for those who ask them one by one.

use std::sync::Arc;

use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{BoxStream, unfold},
};
use tokio::sync::oneshot;

use super::{
    Handle,
    shared::{Event, Shared},
};
use crate::{
    error::{Error, NoEndpoints},
    route::Target,
};

/// The endpoints of a balancer, which it keeps going.
pub(crate) struct Roster {
    set: Arc<dyn Set>,
    _handle: Arc<Handle>,
}

/// Keeps all pods in a set that is a subset otherwise.
pub(crate) struct Whole(Arc<dyn Set>);

impl Drop for Whole {
    fn drop(&mut self) {
        self.0.narrow();
    }
}

/// All endpoints, as long as what keeps them in the set is there.
type Gathered = (Vec<Target>, Option<Whole>);

trait Set: Send + Sync {
    fn service(&self) -> Option<&Arc<str>>;

    fn targets(&self) -> Vec<Target>;

    fn gather(self: Arc<Self>) -> BoxFuture<'static, Result<Gathered, Error>>;

    fn narrow(&self);

    fn gathered(&self) -> Result<Vec<Target>, Error>;

    fn changes(&self) -> BoxStream<'static, ()>;
}

impl Roster {
    pub(super) fn new<S: Send + Sync + 'static>(
        shared: &Arc<Shared<S>>,
        handle: &Arc<Handle>,
    ) -> Self {
        Self {
            set: shared.clone(),
            _handle: handle.clone(),
        }
    }

    /// The name of their service.
    pub(crate) fn service(&self) -> Option<&Arc<str>> {
        self.set.service()
    }

    /// All endpoints now.
    pub(crate) fn targets(&self) -> Vec<Target> {
        self.set.targets()
    }

    /// All endpoints now, those outside of the balancer's subset as well. Where there are none, waits for the first as a request
    /// does, and fails as one.
    pub(crate) fn gather(&self) -> BoxFuture<'static, Result<Gathered, Error>> {
        self.set.clone().gather()
    }

    /// All endpoints now, where there is no time to [`gather`](Self::gather); or why there is none.
    pub(crate) fn gathered(&self) -> Result<Vec<Target>, Error> {
        self.set.gathered()
    }

    /// The set has changed, since this was made or since the last time.
    pub(crate) fn changes(&self) -> BoxStream<'static, ()> {
        self.set.changes()
    }
}

impl<S: Send + Sync + 'static> Set for Shared<S> {
    fn service(&self) -> Option<&Arc<str>> {
        self.signals.service()
    }

    fn targets(&self) -> Vec<Target> {
        self.current.load().targets().collect()
    }

    fn gather(self: Arc<Self>) -> BoxFuture<'static, Result<Gathered, Error>> {
        Box::pin(async move {
            let whole = match self.is_part {
                true => Some(widen(&self).await?),
                false => None,
            };
            Ok((self.wait_for_targets().await?, whole))
        })
    }

    fn narrow(&self) {
        let _ = self.events.send(Event::Narrow);
    }

    fn gathered(&self) -> Result<Vec<Target>, Error> {
        let snapshot = self.current.load();
        let targets: Vec<_> = snapshot.targets().collect();
        if !targets.is_empty() {
            return Ok(targets);
        }
        let why = match snapshot.is_discovered() {
            true => NoEndpoints::Empty,
            false => NoEndpoints::NotDiscovered(None),
        };
        Err(Error::no_endpoints(why, self.notes().last_error.clone()))
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        let receiver = self.members.subscribe();
        let changes = unfold(receiver, |mut receiver| async move {
            receiver.changed().await.ok()?;
            Some(((), receiver))
        });
        changes.boxed()
    }
}

/// Takes all pods into a set that is a subset. What the caller gets, or gives up before, takes that back.
async fn widen<S: Send + Sync + 'static>(shared: &Arc<Shared<S>>) -> Result<Whole, Error> {
    let (sender, is_done) = oneshot::channel();
    let _ = shared.events.send(Event::Widen(sender));
    let whole = Whole(shared.clone());
    shared.wait_for_task(is_done).await?;
    Ok(whole)
}
