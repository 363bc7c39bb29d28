//! The balancer itself: a tower service over the endpoints that discovery finds.

mod builder;
mod care;
mod checks;
mod driver;
mod future;
mod generator;
mod place;
mod recovery;
mod shared;
mod slow_start;
mod status;
mod watch;

pub use builder::{BalanceBuilder, BalanceLayer};
pub use future::ResponseFuture;
pub use status::{EndpointState, EndpointStatus, Proximity};

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    sync::{futures::OwnedNotified, oneshot},
    time::Instant,
};
use tower::Service;

use self::shared::Shared;
use crate::{
    endpoint::Endpoint,
    error::{BoxError, Error},
    in_flight::{Completion, OnResponse},
    membership::MembershipStream,
    policy::{Policy, RoundRobin},
    route::Route,
};

/// A tower [`Service`] that spreads requests over the endpoints of a service.
///
/// - **Clone it** wherever it is needed: clones share the endpoints, their counters and the one background task. It is
///   `Send` and `Sync`, and needs no `Buffer`.
/// - **Picking** takes place in `call`, with the request in hand, on the newest set of endpoints. It takes no lock,
///   allocates nothing and never waits.
/// - **A request that an endpoint refuses costs its caller nothing**: where a service is not ready, with an error, or
///   hands the request back ([`Unsent`](crate::Unsent)), the same request goes to another endpoint. The one that refused
///   is passed over by all until it accepts requests again.
/// - **When none accepts**, requests wait, unsent, for one that does, up to the
///   [ready timeout](BalanceBuilder::ready_timeout).
/// - **Cancelling** a request, by dropping its future at any time, counts it out and leaves nothing behind.
///
/// `poll_ready` waits for discovery's first answer, up to the ready timeout, and never fails: a service whose readiness
/// fails is taken for dead by tower's middleware, and this one recovers. All errors come from the response future.
///
/// The background task ends, and all services are dropped, when the last clone is. Requests that endpoints have at that
/// time run to their end, but are not taken to another endpoint any more.
///
/// ```
/// use tower::{Service, ServiceExt, service_fn};
/// use tower_headless::{Balance, BoxError, Endpoint, StaticEndpoints};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let pods = StaticEndpoints::new(["10.244.1.7:80".parse()?, "10.244.2.4:80".parse()?]);
/// let mut balance = Balance::builder(pods).build(|endpoint: &Endpoint| {
///     let address = endpoint.address();
///     service_fn(move |request: u32| async move { Ok::<_, BoxError>((address, request)) })
/// });
/// let (address, request) = balance.ready().await?.call(7).await?;
/// assert_eq!(request, 7);
/// # assert!(address.port() == 80);
/// # Ok(())
/// # }
/// ```
pub struct Balance<S, P: Policy = RoundRobin, C = OnResponse> {
    shared: Arc<Shared<S, P>>,
    completion: C,
    handle: Arc<Handle>,
    /// Waits for the first answer; made before the check that it waits after, and kept from poll to poll.
    opening: Option<Pin<Box<OwnedNotified>>>,
}

/// Keeps the background task running.
struct Handle {
    /// The task, as long as it could not be started for want of a runtime.
    driver: Mutex<Option<BoxFuture<'static, ()>>>,
    /// The task ends when this is dropped.
    _alive: oneshot::Sender<Infallible>,
}

impl Handle {
    /// Starts the background task if that has not been done and there is a runtime to do it.
    fn start(&self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(driver) = driver.take() {
                runtime.spawn(driver);
            }
        }
    }
}

impl Balance<()> {
    /// Settings of a balancer over what `discovery` finds.
    pub fn builder<D>(discovery: D) -> BalanceBuilder<D> {
        BalanceBuilder::new(discovery)
    }
}

impl<S, P: Policy, C> Balance<S, P, C> {
    /// What the balancer knows of its endpoints now, in the order of their addresses. For looking at, not for picking.
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        status::statuses::<S, P>(&self.shared.current.load())
    }

    /// A stream of the changes of the set, beginning with all that is in it.
    pub fn watch(&self) -> MembershipStream
    where
        S: Send + Sync + 'static,
    {
        self.handle.start();
        watch::watch(&self.shared)
    }

    /// How long ago discovery last answered; none if it never has.
    ///
    /// With [`Dns`](crate::Dns) this stays below the refresh interval while all is well, and grows while DNS fails and
    /// the last endpoints are used. A watch of EndpointSlices (feature `kube`) begins anew with each word of the API server:
    /// up to about a minute while all is well, for then a bookmark comes. [`StaticEndpoints`](crate::StaticEndpoints) answers once.
    pub fn staleness(&self) -> Option<Duration> {
        let answered = self.shared.notes().last_answer?;
        Some(Instant::now().saturating_duration_since(answered))
    }

    /// [`call`](Service::call) with a word on where the request wants to go.
    pub fn call_with<Req>(&self, request: Req, route: Route) -> ResponseFuture<S, Req, P, C>
    where
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        C: Completion<S::Response> + Clone,
    {
        self.call_completing(request, route, |completion| completion)
    }

    /// The same with another completion around the balancer's own.
    pub(crate) fn call_completing<Req, D>(
        &self,
        request: Req,
        route: Route,
        around: impl FnOnce(C) -> D,
    ) -> ResponseFuture<S, Req, P, D>
    where
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        C: Clone,
    {
        let completion = around(self.completion.clone());
        let avoid: Vec<_> = route.avoided().iter().map(Endpoint::address).collect();
        match &*avoid {
            [] => ResponseFuture::new(&self.shared, completion, request),
            avoid => ResponseFuture::avoiding(&self.shared, completion, request, avoid),
        }
    }

    /// Whether there is an endpoint that requests may be sent to and that `route` doesn't avoid.
    pub(crate) fn has_other(&self, route: &Route) -> bool {
        let snapshot = self.shared.current.load();
        let mut loads = snapshot.loads().iter();
        loads.any(|load| load.is_available() && !route.avoids(load.endpoint()))
    }

    #[inline]
    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.shared.opened.load(Ordering::Acquire) {
                if self.opening.is_some() {
                    self.opening = None;
                }
                return Poll::Ready(());
            }
            match &mut self.opening {
                Some(opening) => {
                    ready!(opening.as_mut().poll(cx));
                    self.opening = None;
                }
                // Before the check above comes round again, so that it can't miss what happens after it.
                None => {
                    let opening = self.shared.opening.clone();
                    self.opening = Some(Box::pin(opening.notified_owned()));
                    self.handle.start();
                    if tokio::runtime::Handle::try_current().is_err() {
                        // The call will say so.
                        return Poll::Ready(());
                    }
                }
            }
        }
    }
}

impl<S, P, C, Req> Service<Req> for Balance<S, P, C>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
    P: Policy,
    C: Completion<S::Response> + Clone,
{
    type Response = C::Response;
    type Error = Error;
    type Future = ResponseFuture<S, Req, P, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_opened(cx).map(Ok)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        ResponseFuture::new(&self.shared, self.completion.clone(), request)
    }
}

impl<S, P: Policy, C: Clone> Clone for Balance<S, P, C> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            completion: self.completion.clone(),
            handle: self.handle.clone(),
            opening: None,
        }
    }
}

impl<S, P: Policy, C> fmt::Debug for Balance<S, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("endpoints", &self.endpoints())
            .finish_non_exhaustive()
    }
}
