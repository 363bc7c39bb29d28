//! The balancer itself: a tower service over the endpoints that discovery finds.

mod asked;
mod attempts;
mod builder;
mod checks;
mod connected;
mod driver;
mod errand;
mod explained;
mod future;
mod generator;
mod health_monitor;
mod history;
#[cfg(all(test, tower_headless_shuttle))]
mod interleavings;
mod membership;
mod part;
mod place;
mod reconnect;
mod registry;
mod roster;
mod shared;
mod slow_start;
mod starter;
mod status;
#[cfg(all(test, any(feature = "dns", feature = "kube")))]
mod suite;
mod waiting;

pub use builder::{BalanceBuilder, BalanceLayer};
pub use connected::{Connected, ConnectedFuture, Connections};
#[cfg(feature = "http")]
pub(crate) use future::Awaited;
pub use future::ResponseFuture;
#[cfg(feature = "http")]
pub(crate) use generator::Generator;
pub(crate) use roster::{Roster, Whole};
pub use status::{EndpointState, EndpointStatus, Proximity};

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::{futures::OwnedNotified, oneshot},
    time::Instant,
};
use tower::Service;

use self::{shared::Shared, starter::Starter};
use crate::{
    counters::{BalanceCounts, BalanceTally, Wait, WaitCause},
    endpoint::Endpoint,
    error::{BoxError, Error},
    explain::{Explainer, Explains, Explanation, KeyExplanation},
    in_flight::{Completion, OnResponse},
    membership::MembershipStream,
    route::{Route, RouteKey},
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
/// Where to keep one, and how to name its type, is [a page of its own](crate::guide::naming).
///
/// The background task ends, and all services are dropped, when the last clone is. Requests that endpoints have at that
/// time run to their end, but are not taken to another endpoint any more.
///
/// # In a stack of layers
///
/// To wait until pods are discovered: [`balance.discovered().await?`](Self::discovered), once. It waits for discovery's first answer,
/// not for a pod that accepts, and no longer than the ready timeout. Without it nothing is lost: a request waits for both by itself.
///
/// | tower's layer around it | what it does |
/// | --- | --- |
/// | `load_shed` | sheds what comes before the first answer, at once, and nothing after it: while no pod accepts, `poll_ready` is ready and requests wait. So wait as above before you serve; a limit below it is what sheds |
/// | `concurrency_limit` | counts a request from before its pick to its response's head, the wait for a pod included. With `load_shed` above it, that bounds how many wait |
/// | `timeout` | counts the wait for a pod, and not the wait for the first answer: that is in `poll_ready`, before the timeout's `call`. A request that it ends is cancelled |
/// | `buffer` | isn't needed: the balancer is cloned. Before the first answer requests stay in the buffer; after it they pass on at once |
/// | `retry` | see [`RetryLayer`](crate::RetryLayer), which goes to another pod |
///
/// Keep a clone while requests are under way: `oneshot` drops the one that it is called on, and if that is the last one, a
/// request that waits for a pod fails.
///
/// Below it, around the service of each pod, a `concurrency_limit` counts for the pod: its clones share it, and a request that was
/// picked for the pod waits there. `load_shed` doesn't belong there: what it sheds is no refusal, but the caller's error.
///
/// # Several runtimes
///
/// The background task runs in the runtime that the balancer was built in, or first used in. A balancer may outlive that, as
/// one in a `static` does, and be used in several:
///
/// | the task's runtime | what happens |
/// | --- | --- |
/// | has ended | the next request in another runtime, or whoever waits there, starts the task in its own; the set, the ejections and the counters stay, and discovery is asked at once |
/// | ends before discovery has ever answered | requests that wait in other runtimes fail: the error says so; later ones start anew |
/// | is not driven (a current-thread runtime outside of `block_on`) | a request in another runtime notices when a pod refuses or, with [outlier detection](BalanceBuilder::outlier_detection), a second after the task last ran; a second later the task goes on there |
/// | none is there | an error |
///
/// Sources and services of your own have to bear it that they are polled in another runtime: tokio's timers and sockets
/// don't. If a source panics, the balancer is closed, and requests that find no endpoint fail.
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
pub struct Balance<S, C = OnResponse> {
    shared: Arc<Shared<S>>,
    completion: C,
    handle: Arc<Handle>,
    /// Waits for the first answer; made before the check that it waits after, and kept from poll to poll.
    opening: Option<Opening>,
    /// The background task's runtime ended while this waited for the first answer.
    is_cut_off: bool,
}

/// The wait for the first answer, what `Shared::cut_off` was at its beginning, and what counts its time.
type Opening = (u64, Pin<Box<OwnedNotified>>, Option<Wait>);

/// Keeps the background task running.
struct Handle {
    starter: Arc<Starter>,
    /// The task ends when this is dropped.
    _alive: oneshot::Sender<Infallible>,
}

impl<S, C> Balance<S, C> {
    /// What the balancer knows of its endpoints now, in the order of their addresses: of its subset, if it has one. For looking
    /// at, not for picking.
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        status::statuses(&self.shared.current.load())
    }

    /// The name of the service, where it is known.
    pub(crate) fn service(&self) -> Option<&Arc<str>> {
        self.shared.signals.service()
    }

    /// A stream of the changes of the set, beginning with all that is in it.
    pub fn watch(&self) -> MembershipStream
    where
        S: Send + Sync + 'static,
    {
        self.handle.starter.start();
        membership::stream(&self.shared)
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

    /// Waits until discovery has answered, be it that there are no pods. Whether one accepts requests is not waited for.
    ///
    /// It needs no runtime before it is polled, and keeps the balancer going meanwhile. Dropping it changes nothing.
    ///
    /// # Errors
    ///
    /// Those of a request that finds no answer: if there was none within the [ready timeout](BalanceBuilder::ready_timeout) from when it
    /// is polled ([`Error::is_no_endpoints`]; the source is discovery's last error); 5 s where requests
    /// [never wait](BalanceBuilder::fail_fast). Discovery goes on, and it can be waited for again.
    pub fn discovered(&self) -> impl Future<Output = Result<(), Error>> + Send + use<S, C>
    where
        S: Send + Sync + 'static,
    {
        let (shared, handle) = (self.shared.clone(), self.handle.clone());
        async move {
            let discovered = shared.wait_for_discovery().await;
            drop(handle);
            discovered.map_err(|error| error.of_service(shared.signals.service()))
        }
    }

    /// Sends a request: [`call`](Service::call) without `poll_ready` before it. Where discovery hasn't answered yet, the request
    /// waits.
    pub fn send<Req>(&self, request: Req) -> ResponseFuture<S, Req, C>
    where
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        C: Completion<S::Response> + Clone,
    {
        ResponseFuture::new(&self.shared, self.completion.clone(), request)
    }

    /// What the balancer knows of itself now: of each endpoint why it would get a request or wouldn't, since when, and what its
    /// requests have come to; where the endpoints come from, and what failed there; what has happened in the last hour.
    ///
    /// For people, pages and metrics to read, not for requests: it takes some microseconds for each endpoint, and two locks
    /// that no pick takes. Under [`ConsistentHash`](crate::ConsistentHash), while something is wrong with an endpoint, it takes
    /// some ten milliseconds more at most. Since when, next trials, errors' times, counts and events are there only if the balancer
    /// [counts](BalanceBuilder::counters).
    pub fn explain(&self) -> Explanation {
        explained::explain(&self.shared)
    }

    /// Which endpoint a request with this [key](Route::key) would get now, which ones come next, and why those before it don't
    /// get it. None unless the policy is [`ConsistentHash`](crate::ConsistentHash).
    ///
    /// ```
    /// # use tower_headless::{Balance, ConsistentHash, Endpoint, StaticEndpoints};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_headless::BoxError> {
    /// let pods = StaticEndpoints::new(["10.244.1.7:80".parse()?, "10.244.2.4:80".parse()?]);
    /// let cache = Balance::builder(pods)
    ///     .policy(ConsistentHash::new())
    ///     .build(|pod: &Endpoint| pod.address());
    /// cache.discovered().await?;
    /// let it = cache.explain_key("user-42").expect("a policy that goes by keys");
    /// let home = it.choices.first().map(|choice| choice.address);
    /// assert_eq!(it.endpoint().map(|choice| choice.address), home);
    /// # Ok(())
    /// # }
    /// ```
    pub fn explain_key(&self, key: impl Into<RouteKey>) -> Option<KeyExplanation> {
        explained::explain_key(&self.shared, key.into())
    }

    /// What has been counted since the balancer was built, as a whole; none unless it
    /// [counts](BalanceBuilder::counters). No figure in it ever goes down, except
    /// [`ConnectionCounts::idle`](crate::ConnectionCounts::idle).
    pub fn counts(&self) -> Option<BalanceCounts> {
        Some(self.shared.signals.tally()?.counts())
    }

    /// [`call`](Service::call) with a [`Route`]: by key, to one pod, or away from some.
    ///
    /// A request that avoids pods goes to one of two others, chosen at random: the one with the smaller load, whatever the
    /// policy. It is no turn of the policy's, else an endpoint that fails would take its neighbour's turns. The avoided pods
    /// get it only if no other one takes it.
    ///
    /// Needs no `poll_ready` before it: where discovery hasn't answered yet, the request waits.
    pub fn call_with<Req>(&self, request: Req, route: Route) -> ResponseFuture<S, Req, C>
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
    ) -> ResponseFuture<S, Req, D>
    where
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        C: Clone,
    {
        let completion = around(self.completion.clone());
        match route.is_empty() {
            true => ResponseFuture::new(&self.shared, completion, request),
            false => ResponseFuture::routed(&self.shared, completion, request, route),
        }
    }

    /// Has discovery look for the pods that `route` names.
    pub(crate) fn ask_for(&self, route: &Route) {
        self.shared.ask_for(route);
    }

    /// What is known of the pod that `route` is for.
    pub(crate) fn requested(&self, route: &Route) -> Option<Endpoint> {
        let snapshot = self.shared.current.load();
        snapshot.requested_endpoint(route).cloned()
    }

    /// Its endpoints, to be asked one by one.
    pub(crate) fn roster(&self) -> Roster
    where
        S: Send + Sync + 'static,
    {
        Roster::new(&self.shared, &self.handle)
    }

    /// Whether there is an endpoint that requests may be sent to and that `route` doesn't avoid.
    pub(crate) fn has_other(&self, route: &Route) -> bool {
        self.shared.current.load().has_other(route)
    }

    /// What counts its requests, if anything does.
    pub(crate) fn tally(&self) -> Option<&Arc<BalanceTally>> {
        self.shared.signals.tally()
    }

    /// A hedge was answered first.
    pub(crate) fn count_hedge_won(&self) {
        if let Some(tally) = self.tally() {
            tally.hedge_won();
        }
    }

    /// From now on requests are hedged, and it is learnt which answers are late.
    pub(crate) fn begin_hedging(&self) {
        self.shared.signals.begin_hedging();
    }

    /// How long an answer takes that is late, if that is known.
    pub(crate) fn late(&self) -> Option<Duration> {
        self.shared.signals.latencies.late()
    }

    /// Tells what is known of an endpoint at the time. Doesn't keep the balancer alive.
    #[cfg(feature = "tls")]
    pub(crate) fn known(&self) -> impl Fn(&Endpoint) -> Option<Endpoint> + Send + Sync + use<S, C>
    where
        S: Send + Sync + 'static,
    {
        let shared = Arc::downgrade(&self.shared);
        move |endpoint| shared.upgrade()?.current.load().known(endpoint).cloned()
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
                Some((cut_off, opening, _)) => {
                    ready!(opening.as_mut().poll(cx));
                    self.is_cut_off = self.shared.cut_off() != *cut_off;
                    self.opening = None;
                    if self.is_cut_off {
                        // The call will say so.
                        return Poll::Ready(());
                    }
                }
                // Before the check above comes round again, so that it can't miss what happens after it.
                None => {
                    let opening = self.shared.opening.clone();
                    let cut_off = self.shared.cut_off();
                    let wait = self.shared.wait(WaitCause::Discovery);
                    self.opening = Some((cut_off, Box::pin(opening.notified_owned()), wait));
                    if !self.handle.starter.start() {
                        // There is no runtime; the call will say so.
                        return Poll::Ready(());
                    }
                }
            }
        }
    }
}

impl<S, C, Req> Service<Req> for Balance<S, C>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
    C: Completion<S::Response> + Clone,
{
    type Response = C::Response;
    type Error = Error;
    type Future = ResponseFuture<S, Req, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_opened(cx).map(Ok)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        if std::mem::take(&mut self.is_cut_off) {
            return ResponseFuture::failed(
                self.completion.clone(),
                self.shared
                    .closed()
                    .of_service(self.shared.signals.service()),
            );
        }
        ResponseFuture::new(&self.shared, self.completion.clone(), request)
    }
}

/// For a list of all balancers, which doesn't keep this one alive.
impl<S, C> From<&Balance<S, C>> for Explainer
where
    S: Send + Sync + 'static,
{
    fn from(balance: &Balance<S, C>) -> Self {
        let listed = Listed {
            shared: Arc::downgrade(&balance.shared),
            handle: Arc::downgrade(&balance.handle),
        };
        Self::new(balance.service().cloned(), listed)
    }
}

/// A balancer, as long as a clone of it is left.
struct Listed<S> {
    shared: Weak<Shared<S>>,
    handle: Weak<Handle>,
}

impl<S: Send + Sync> Explains for Listed<S> {
    fn explain(&self) -> Option<Explanation> {
        let shared = self.shared.upgrade().filter(|_| self.is_alive())?;
        Some(explained::explain(&shared))
    }

    fn is_alive(&self) -> bool {
        self.handle.strong_count() > 0
    }
}

impl<S, C: Clone> Clone for Balance<S, C> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            completion: self.completion.clone(),
            handle: self.handle.clone(),
            opening: None,
            is_cut_off: false,
        }
    }
}

impl<S, C> fmt::Debug for Balance<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("endpoints", &self.endpoints())
            .finish_non_exhaustive()
    }
}
