//! The balancer itself: a tower service over the endpoints that discovery finds.

mod asked;
mod attempts;
mod builder;
mod checks;
mod connected;
mod driver;
mod explained;
mod future;
mod generator;
mod health_monitor;
mod history;
mod ignored_keys;
#[cfg(all(test, tower_headless_shuttle))]
mod interleavings;
mod membership;
mod part;
mod place;
mod reconnect;
mod registry;
mod request_context;
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
/// - **A refused request goes to another endpoint**, at no cost to its caller. A service refuses if its `poll_ready`
///   fails, or if it hands the request back ([`Unsent`](crate::Unsent)). From then on all requests pass over this
///   endpoint, until it accepts requests again.
/// - **If no endpoint accepts requests**, they wait, unsent, for one that does, up to the
///   [ready timeout](BalanceBuilder::ready_timeout).
/// - **Cancelling** a request, by dropping its future at any time, stops counting it as in flight, and leaves nothing
///   behind.
///
/// `poll_ready` waits for discovery's first answer, up to the ready timeout. It never fails, because tower's middleware
/// treats a service as dead once its `poll_ready` fails, and this one recovers. All errors come from the response
/// future.
///
/// See [naming types](crate::guide::naming) for where to keep a balancer, and how to name its type.
///
/// When the last clone is dropped, the background task ends and all services are dropped. Requests that endpoints have
/// by then run to their end, but no longer move to another endpoint.
///
/// # In a stack of layers
///
/// To wait until pods are discovered, await [`balance.discovered()`](Self::discovered) once. It waits for discovery's
/// first answer, up to the ready timeout, and not for a pod that accepts requests. Without it nothing is lost: each
/// request waits for both.
///
/// | tower's layer around it | what it does |
/// | --- | --- |
/// | `load_shed` | sheds requests before the first answer, and none after it: while no pod accepts, `poll_ready` is ready and requests wait. So await `discovered()` before you serve, and put a limit below `load_shed`: only that limit sheds then |
/// | `concurrency_limit` | counts a request from before its pick to its response's head, including the wait for a pod. With `load_shed` above it, it bounds how many wait |
/// | `timeout` | includes the wait for a pod, but not the wait for the first answer: that is in `poll_ready`, before the timeout's `call`. It cancels a request that takes too long |
/// | `buffer` | isn't needed: clone the balancer instead. Before the first answer requests stay in the buffer; after it they pass on at once |
/// | `retry` | use [`RetryLayer`](crate::RetryLayer), which retries on another pod |
///
/// Keep a clone while requests are under way. `oneshot` drops the clone that it is called on; if that is the last one,
/// a request that waits for a pod fails.
///
/// Below the balancer, around the service of each pod, a `concurrency_limit` is a limit for this pod: its clones share
/// it, and a request that was picked for the pod waits there. Don't put `load_shed` there: the caller would get its
/// error, because shedding isn't refusing.
///
/// # Several runtimes
///
/// The background task runs in the runtime that the balancer was built in, or first used in. A balancer may outlive
/// this runtime, as one in a `static` does, and may be used in several:
///
/// | the task's runtime | what happens |
/// | --- | --- |
/// | has ended | the next request in another runtime, or a caller that waits there, starts the task in its own; the set, the ejections and the counters stay, and discovery is asked at once |
/// | ends before discovery has ever answered | requests that wait in other runtimes fail, with an error that says so; later ones start the task again |
/// | is not driven (a current-thread runtime outside of `block_on`) | a request in another runtime notices when a pod refuses or, with [outlier detection](BalanceBuilder::outlier_detection), a second after the task last ran; a second later the task goes on there |
/// | does not exist | requests fail with an error |
///
/// Sources and services of your own must work when they are polled in another runtime than before. tokio's timers and
/// sockets don't. If a source panics, the balancer is closed, and requests that find no endpoint fail.
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
    /// Waits for the first answer; made before `opened` is checked, so that no notice is missed, and kept from poll to
    /// poll.
    opening: Option<Opening>,
    /// The background task's runtime ended while this clone waited for the first answer.
    is_cut_off: bool,
}

/// What `Shared::cut_off` was when the wait for the first answer began, the wait itself, and the guard that counts its
/// time.
type Opening = (u64, Pin<Box<OwnedNotified>>, Option<Wait>);

/// Keeps the background task running.
struct Handle {
    starter: Arc<Starter>,
    /// The task ends when this is dropped.
    _alive: oneshot::Sender<Infallible>,
}

impl<S, C> Balance<S, C> {
    /// What the balancer knows of its endpoints now, in the order of their addresses.
    ///
    /// With a [`Subset`](crate::Subset), only those of the subset. For looking at, not for picking.
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        status::statuses(&self.shared.current.load())
    }

    /// The name of the service, if it is known.
    pub(crate) fn service(&self) -> Option<&Arc<str>> {
        self.shared.signals.service()
    }

    /// A stream of the changes of the set. It begins with the whole set as it is now.
    pub fn watch(&self) -> MembershipStream
    where
        S: Send + Sync + 'static,
    {
        self.handle.starter.start();
        membership::stream(&self.shared)
    }

    /// How long ago discovery last answered; `None` if it never has.
    ///
    /// With [`Dns`](crate::Dns) this stays below the refresh interval while all is well, and grows while DNS fails and
    /// the last endpoints are used. With EndpointSlices (feature `kube`) each event of the watch resets it: while all
    /// is well it stays below about a minute, because the API server sends a bookmark that often.
    /// [`StaticEndpoints`](crate::StaticEndpoints) answers once.
    pub fn staleness(&self) -> Option<Duration> {
        let answered = self.shared.notes().last_answer?;
        Some(Instant::now().saturating_duration_since(answered))
    }

    /// Waits until discovery has answered, even if the answer is that there are no pods. Doesn't wait for a pod that
    /// accepts requests.
    ///
    /// The future needs no runtime before it is polled, and keeps the balancer running meanwhile. Dropping it changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// Fails as a request does if there was no answer within the [ready timeout](BalanceBuilder::ready_timeout),
    /// counted from the first poll; within 5 s if requests [never wait](BalanceBuilder::fail_fast). The error is
    /// [`Error::is_no_endpoints`]; its source is discovery's last error. Discovery goes on, and you can wait for it
    /// again.
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

    /// Sends a request, like [`call`](Service::call), but needs no `poll_ready` before it.
    ///
    /// If discovery hasn't answered yet, the request waits.
    ///
    /// Use it in spawned tasks. There `oneshot` of tower's `ServiceExt` doesn't compile if the pods' errors are
    /// [`BoxError`]s: rustc says that "implementation of `From` is not general enough".
    pub fn send<Req>(&self, request: Req) -> ResponseFuture<S, Req, C>
    where
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        C: Completion<S::Response> + Clone,
    {
        ResponseFuture::new(&self.shared, self.completion.clone(), request)
    }

    /// Why requests go where they go: the balancer's state as plain data.
    ///
    /// It says for each endpoint why it would or wouldn't get a request, since when, and how its requests ended; where
    /// the endpoints come from, and what failed there; and what has happened in the last hour.
    ///
    /// For people, pages and metrics, not for each request: it takes some microseconds for each endpoint, and two locks
    /// that no pick takes. Under [`ConsistentHash`](crate::ConsistentHash), while something is wrong with an endpoint,
    /// it takes up to some ten milliseconds more. Since when, next trials, errors' times, counts and events are there
    /// only if the balancer [counts](BalanceBuilder::counters).
    pub fn explain(&self) -> Explanation {
        explained::explain(&self.shared)
    }

    /// Which endpoint would get a request with this [key](Route::key) now, which ones come next, and why those before
    /// it don't get it. `None` unless the policy is [`ConsistentHash`](crate::ConsistentHash).
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

    /// What has been counted since the balancer was built, over all endpoints; `None` unless it
    /// [counts](BalanceBuilder::counters). No figure in it ever goes down, except
    /// [`ConnectionCounts::idle`](crate::ConnectionCounts::idle).
    pub fn counts(&self) -> Option<BalanceCounts> {
        Some(self.shared.signals.tally()?.counts())
    }

    /// [`call`](Service::call) with a [`Route`]: by key, to one pod, or away from some.
    ///
    /// A request that avoids pods goes to the less loaded of two others, drawn at random, whatever the policy. It
    /// doesn't use up a turn of the policy's: otherwise the neighbour of a failing endpoint would lose its turns. The
    /// avoided pods get it only if no other one takes it.
    ///
    /// Needs no `poll_ready` before it: if discovery hasn't answered yet, the request waits.
    pub fn call_with<Req>(&self, request: Req, route: Route) -> ResponseFuture<S, Req, C>
    where
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        C: Completion<S::Response> + Clone,
    {
        self.call_completing(request, route, |completion| completion)
    }

    /// [`call_with`](Self::call_with), with another completion around the balancer's own.
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

    /// Asks discovery to look for the pods that `route` names.
    pub(crate) fn ask_for(&self, route: &Route) {
        self.shared.ask_for(route);
    }

    /// The endpoint that `route` is for, if it is in the set.
    pub(crate) fn requested(&self, route: &Route) -> Option<Endpoint> {
        let snapshot = self.shared.current.load();
        snapshot.requested_endpoint(route).cloned()
    }

    /// The balancer's endpoints, for a caller that sends to each of them.
    pub(crate) fn roster(&self) -> Roster
    where
        S: Send + Sync + 'static,
    {
        Roster::new(&self.shared, &self.handle)
    }

    /// Whether some endpoint accepts requests that `route` doesn't avoid.
    pub(crate) fn has_other(&self, route: &Route) -> bool {
        self.shared.current.load().has_other(route)
    }

    /// The counters of its requests, if they are on.
    pub(crate) fn tally(&self) -> Option<&Arc<BalanceTally>> {
        self.shared.signals.tally()
    }

    /// Counts a hedge that was answered first.
    pub(crate) fn count_hedge_won(&self) {
        if let Some(tally) = self.tally() {
            tally.hedge_won();
        }
    }

    /// Requests are hedged from now on, so latencies are measured to know which answers are late.
    pub(crate) fn begin_hedging(&self) {
        self.shared.signals.begin_hedging();
    }

    /// After how long an answer is late, if that is known.
    pub(crate) fn late(&self) -> Option<Duration> {
        self.shared.signals.latencies.late()
    }

    /// Looks up what the current set knows of an endpoint. Doesn't keep the balancer alive.
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
                        // `call` returns the error.
                        return Poll::Ready(());
                    }
                }
                // Registered before the check above runs again, so that no notice after that check is missed.
                None => {
                    let opening = self.shared.opening.clone();
                    let cut_off = self.shared.cut_off();
                    let wait = self.shared.wait(WaitCause::Discovery);
                    self.opening = Some((cut_off, Box::pin(opening.notified_owned()), wait));
                    if !self.handle.starter.start() {
                        // There is no runtime: `call` returns the error.
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

/// For a list of all balancers. It doesn't keep this one alive.
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

/// A balancer, for as long as a clone of it is left.
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
