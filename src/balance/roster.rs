//! The endpoints of a balancer, for those who ask them one by one.

use std::sync::Arc;

use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{BoxStream, unfold},
};

use super::{Handle, shared::Shared};
use crate::{
    error::{Error, NoEndpoints},
    route::Target,
};

/// The endpoints of a balancer, which it keeps going.
pub(crate) struct Roster {
    set: Arc<dyn Set>,
    _handle: Arc<Handle>,
}

trait Set: Send + Sync {
    fn targets(&self) -> Vec<Target>;

    fn first_targets(self: Arc<Self>) -> BoxFuture<'static, Result<Vec<Target>, Error>>;

    fn not_discovered(&self) -> Error;

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

    /// All endpoints now.
    pub(crate) fn targets(&self) -> Vec<Target> {
        self.set.targets()
    }

    /// All endpoints now. Where there are none, waits for the first as a request does, and fails as one.
    pub(crate) fn first_targets(&self) -> BoxFuture<'static, Result<Vec<Target>, Error>> {
        self.set.clone().first_targets()
    }

    /// Why there is none, where nobody has waited for long enough.
    pub(crate) fn not_discovered(&self) -> Error {
        self.set.not_discovered()
    }

    /// The set has changed, since this was made or since the last time.
    pub(crate) fn changes(&self) -> BoxStream<'static, ()> {
        self.set.changes()
    }
}

impl<S: Send + Sync + 'static> Set for Shared<S> {
    fn targets(&self) -> Vec<Target> {
        self.current.load().targets().collect()
    }

    fn first_targets(self: Arc<Self>) -> BoxFuture<'static, Result<Vec<Target>, Error>> {
        Box::pin(async move { self.wait_for_targets().await })
    }

    fn not_discovered(&self) -> Error {
        let cause = self.notes().last_error.clone();
        Error::no_endpoints(NoEndpoints::NotDiscovered, cause)
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
