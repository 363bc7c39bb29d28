//! The endpoints of a balancer, for a broadcast, which sends to them one by one.

use std::sync::Arc;

use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{BoxStream, unfold},
};
use tokio::sync::oneshot;

use super::{
    Handle,
    place::leaves_out_a_name,
    shared::{Event, Shared},
};
use crate::{
    error::{Error, NoEndpoints},
    route::{PodId, Route, Target},
};

/// The endpoints of a balancer. Keeps the balancer running.
pub(crate) struct Roster {
    set: Arc<dyn Set>,
    /// Says which endpoint to leave out.
    route: Route,
    _handle: Arc<Handle>,
}

/// Keeps all pods in the balancer's set, in spite of its subset, until dropped.
pub(crate) struct Whole(Arc<dyn Set>);

impl Drop for Whole {
    fn drop(&mut self) {
        self.0.narrow();
    }
}

/// All endpoints, and the guard that keeps them in the set.
type Gathered = (Vec<Target>, Option<Whole>);

trait Set: Send + Sync {
    fn service(&self) -> Option<&Arc<str>>;

    fn ask_for(&self, route: &Route);

    fn leaves_out(&self, route: &Route, target: &Target) -> bool;

    /// The endpoints that the route doesn't leave out.
    fn targets(&self, route: &Route) -> Vec<Target>;

    fn gather(self: Arc<Self>, route: Route) -> BoxFuture<'static, Result<Gathered, Error>>;

    fn narrow(&self);

    fn gathered(&self, route: &Route) -> Result<Vec<Target>, Error>;

    fn changes(&self) -> BoxStream<'static, ()>;
}

impl Roster {
    pub(super) fn new<S: Send + Sync + 'static>(
        shared: &Arc<Shared<S>>,
        handle: &Arc<Handle>,
    ) -> Self {
        Self {
            set: shared.clone(),
            route: Route::new(),
            _handle: handle.clone(),
        }
    }

    /// Leaves one pod out. If it is given by name, discovery looks for the name from now on.
    pub(crate) fn leave_out(&mut self, pod: PodId) {
        self.route = Route::new().leave_out(pod);
        self.set.ask_for(&self.route);
    }

    /// The name of the service, if it is known.
    pub(crate) fn service(&self) -> Option<&Arc<str>> {
        self.set.service()
    }

    /// The endpoints to send to now.
    pub(crate) fn targets(&self) -> Vec<Target> {
        self.set.targets(&self.route)
    }

    /// Whether to send to this target, by what is known of it now.
    pub(crate) fn has(&self, target: &Target) -> bool {
        self.route.is_empty() || !self.set.leaves_out(&self.route, target)
    }

    /// The endpoints to send to now, including those outside of the balancer's subset. If there are none, waits for the
    /// first as a request does, and fails as a request does.
    pub(crate) fn gather(&self) -> BoxFuture<'static, Result<Gathered, Error>> {
        self.set.clone().gather(self.route.clone())
    }

    /// The endpoints to send to now, if there is no time to [`gather`](Self::gather); or the error that there are none.
    pub(crate) fn gathered(&self) -> Result<Vec<Target>, Error> {
        self.set.gathered(&self.route)
    }

    /// Yields whenever the set has changed since this was made, or since the last item.
    pub(crate) fn changes(&self) -> BoxStream<'static, ()> {
        self.set.changes()
    }
}

impl<S: Send + Sync + 'static> Set for Shared<S> {
    fn service(&self) -> Option<&Arc<str>> {
        self.signals.service()
    }

    fn ask_for(&self, route: &Route) {
        Self::ask_for(self, route);
    }

    fn targets(&self, route: &Route) -> Vec<Target> {
        self.current.load().targets_of(route)
    }

    fn leaves_out(&self, route: &Route, target: &Target) -> bool {
        let snapshot = self.current.load();
        snapshot.is_left_out(route, &target.endpoint, target.id)
    }

    fn gather(self: Arc<Self>, route: Route) -> BoxFuture<'static, Result<Gathered, Error>> {
        Box::pin(async move {
            leaves_out_a_name(&route)?;
            let whole = match self.is_part {
                true => Some(widen(&self).await?),
                false => None,
            };
            Ok((self.wait_for_targets(&route).await?, whole))
        })
    }

    fn narrow(&self) {
        let _ = self.events.send(Event::Narrow);
    }

    fn gathered(&self, route: &Route) -> Result<Vec<Target>, Error> {
        leaves_out_a_name(route)?;
        let snapshot = self.current.load();
        let targets = snapshot.targets_of(route);
        if !targets.is_empty() {
            return Ok(targets);
        }
        let why = match snapshot.is_discovered() {
            true if !snapshot.members().is_empty() => NoEndpoints::LeftOut,
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

/// Takes all pods into the set of a balancer with a subset. Dropping the guard, or this future, undoes that.
async fn widen<S: Send + Sync + 'static>(shared: &Arc<Shared<S>>) -> Result<Whole, Error> {
    let (sender, is_done) = oneshot::channel();
    let _ = shared.events.send(Event::Widen(sender));
    let whole = Whole(shared.clone());
    shared.wait_for_task(is_done).await?;
    Ok(whole)
}
