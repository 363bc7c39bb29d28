//! A balancer's settings, and what makes one of them: the builder, and the tower layer.

use std::{sync::Arc, time::Duration};

use rand::Rng;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tower::Layer;
#[cfg(feature = "http")]
use tower::Service;

#[cfg(feature = "http")]
use super::place::ready;
use super::{
    Balance, Handle,
    checks::Checks,
    connected::{Connected, Connections},
    driver::Driver,
    generator::Generator,
    health_monitor::HealthMonitor,
    part::Part,
    shared::{READY_TIMEOUT, ReadyFn, ReadyTimeout, Shared},
    slow_start::SlowStart,
    starter::Starter,
};
#[cfg(feature = "http")]
use crate::error::BoxError;
use crate::{
    check::HealthCheck,
    discovery::Discovery,
    endpoint::Endpoint,
    in_flight::OnResponse,
    locality::LocalityPreference,
    outlier::OutlierDetection,
    policy::{AnyPolicy, Policy, Reads, RoundRobin},
    signals::Signals,
    snapshot::Writer,
    subset::Subset,
};

/// Settings of a [`Balance`].
///
/// | setting | default |
/// | --- | --- |
/// | [`policy`](Self::policy) | [`RoundRobin`] |
/// | [`completion`](Self::completion) | [`OnResponse`]; HTTP wants `OnBodyEnd` |
/// | [`outlier_detection`](Self::outlier_detection) | endpoints that fail are ejected: [`OutlierDetection`] |
/// | [`health_check`](Self::health_check) | none: endpoints are not asked |
/// | [`slow_start`](Self::slow_start) | off |
/// | [`ready_timeout`](Self::ready_timeout) | 5 s |
/// | [`zone`](Self::zone), [`node`](Self::node), [`prefer_zone`](Self::prefer_zone), [`prefer_node`](Self::prefer_node) | not known: all pods are alike |
/// | [`subset`](Self::subset) | none: all pods are used |
/// | [`name`](Self::name) | [discovery's](Discovery::name) |
/// | [`seed`](Self::seed) | none: picks can't be foreseen |
/// | [`counters`](Self::counters) | off |
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct BalanceBuilder<D, C = OnResponse> {
    discovery: D,
    completion: C,
    settings: Settings,
}

/// All but where endpoints come from, and when their requests end.
#[derive(Clone, Debug)]
struct Settings {
    policy: AnyPolicy,
    locality: LocalityPreference,
    detection: OutlierDetection,
    check: Option<HealthCheck>,
    slow_start: Duration,
    ready_timeout: ReadyTimeout,
    subset: Option<Subset>,
    name: Option<Arc<str>>,
    seed: Option<u64>,
    counters: bool,
}

impl Balance<()> {
    /// Settings of a balancer over what `discovery` finds.
    pub fn builder<D>(discovery: D) -> BalanceBuilder<D> {
        BalanceBuilder::new(discovery)
    }
}

impl<D> BalanceBuilder<D> {
    fn new(discovery: D) -> Self {
        let settings = Settings {
            policy: AnyPolicy::new(RoundRobin::new()),
            locality: LocalityPreference::default(),
            detection: OutlierDetection::new(),
            check: None,
            slow_start: Duration::ZERO,
            ready_timeout: ReadyTimeout::Bounded(READY_TIMEOUT),
            subset: None,
            name: None,
            seed: None,
            counters: false,
        };
        Self {
            discovery,
            completion: OnResponse::new(),
            settings,
        }
    }
}

impl<D, C> BalanceBuilder<D, C> {
    /// Which endpoint gets the next request: one of this crate's policies, or one of your own.
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.settings.policy = AnyPolicy::new(policy);
        self
    }

    /// The client's own zone, for hints: with `spec.trafficDistribution: PreferSameZone` the Service's EndpointSlices say
    /// which pods are meant for it. Empty: not known.
    ///
    /// Requests stay with those as long as they have their fair part of the endpoints that accept requests. If they have
    /// less, the excess goes to the others, and if none of them is left, all requests do:
    /// see [near pods first](crate::guide::near_pods). Needs a [`Discovery`] that tells hints; DNS doesn't.
    pub fn zone(mut self, zone: impl Into<Box<str>>) -> Self {
        self.settings.locality.zone(zone);
        self
    }

    /// The client's own node, for hints: with `spec.trafficDistribution: PreferSameNode`. Hints for the node go before those
    /// for the zone, which count where no pod is meant for the node. Empty: not known.
    pub fn node(mut self, node: impl Into<Box<str>>) -> Self {
        self.settings.locality.node(node);
        self
    }

    /// [`zone`](Self::zone), and if there are no hints, the pods [in this zone](Endpoint::zone) are the near ones.
    pub fn prefer_zone(mut self, zone: impl Into<Box<str>>) -> Self {
        self.settings.locality.prefer_zone(zone);
        self
    }

    /// [`node`](Self::node), and if there are no hints, the pods [on this node](Endpoint::node) are the near ones.
    pub fn prefer_node(mut self, node: impl Into<Box<str>>) -> Self {
        self.settings.locality.prefer_node(node);
        self
    }

    /// Over what another source finds.
    #[cfg(feature = "http")]
    pub(crate) fn over<E>(self, discovery: E) -> BalanceBuilder<E, C> {
        BalanceBuilder {
            discovery,
            completion: self.completion,
            settings: self.settings,
        }
    }

    /// Changes the check, if there is one.
    #[cfg(feature = "http")]
    pub(crate) fn change_check(mut self, change: impl FnOnce(HealthCheck) -> HealthCheck) -> Self {
        self.settings.check = self.settings.check.map(change);
        self
    }

    /// Whether the policy may go by requests' keys.
    #[cfg(feature = "http")]
    pub(crate) fn may_be_keyed(&self) -> bool {
        self.settings.policy.may_be_keyed()
    }

    /// When endpoints are ejected for what their requests come to; [`OutlierDetection::off`] for never.
    pub fn outlier_detection(mut self, detection: OutlierDetection) -> Self {
        self.settings.detection = detection;
        self
    }

    /// Asks endpoints whether they are well, beside what their requests come to; off by default.
    pub fn health_check(mut self, check: HealthCheck) -> Self {
        self.settings.check = Some(check);
        self
    }

    /// For how long a new endpoint gets less than its share; zero by default.
    ///
    /// It begins with a tenth, which grows to all of it over the window: for pods that begin with empty caches or have code to
    /// compile, 10 s may do. New is what joins endpoints that are there already; while most of them are new, all
    /// get their shares. An endpoint that comes back after it was ejected is not new.
    pub fn slow_start(mut self, window: Duration) -> Self {
        self.settings.slow_start = window;
        self
    }

    /// When a request stops counting as in flight, and what came of it.
    pub fn completion<E>(self, completion: E) -> BalanceBuilder<D, E> {
        BalanceBuilder {
            discovery: self.discovery,
            completion,
            settings: self.settings,
        }
    }

    /// How long requests wait while no endpoint accepts them, because discovery has not answered yet or because all
    /// endpoints refuse.
    ///
    /// The time counts from the beginning of the outage, not of the request: once it is over, requests fail at once
    /// until an endpoint accepts one, so that nothing piles up. Zero means that requests never wait.
    ///
    /// A request for [one pod](Balance::pod), or of a [broadcast](Balance::broadcast), waits for its own pod for so long each time,
    /// from when it is made.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.settings.ready_timeout = ReadyTimeout::Bounded(timeout);
        self
    }

    /// Requests wait for as long as no endpoint accepts them. (gRPC calls this "wait for ready".)
    ///
    /// Put a timeout around the balancer then. A service that is known to have no pods still fails its requests at once.
    pub fn wait_for_ready(mut self) -> Self {
        self.settings.ready_timeout = ReadyTimeout::Forever;
        self
    }

    /// Requests never wait: while no endpoint accepts them, they fail at once. The same as a ready timeout of zero.
    ///
    /// So do those that come before discovery's first answer: wait for that with [`Balance::discovered`].
    pub fn fail_fast(self) -> Self {
        self.ready_timeout(Duration::ZERO)
    }

    /// Uses only a part of the pods, for services with so many clients and pods that not every client should have connections to
    /// every pod: see [`Subset`]. All of them by default.
    pub fn subset(mut self, subset: Subset) -> Self {
        self.settings.subset = Some(subset);
        self
    }

    /// The service's name, as errors tell it ([`Error::service`](crate::Error::service)). By default it is
    /// [discovery's](Discovery::name): that of a [`Dns`](crate::Dns) target, without its port.
    pub fn name(mut self, service: impl Into<Arc<str>>) -> Self {
        self.settings.name = Some(service.into());
        self
    }

    /// Draws all random numbers from a generator with this seed: the same requests, answers and times then lead to the same
    /// picks.
    ///
    /// For simulations and tests on one thread and tokio's paused clock. Not for production: each draw
    /// takes a lock that all threads share, and clients of the same seed make the same choices at the same time. Clones
    /// share the generator; each balancer of a [layer](Self::into_layer) has one of its own, of this same seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Whether requests are counted, and it is kept what has happened to the endpoints, for
    /// [`Balance::explain`](super::Balance::explain) and [`Balance::counts`](super::Balance::counts). Off by default.
    ///
    /// On, it costs a request some nanoseconds and no allocation, and an endpoint half a kilobyte. No word is written by
    /// the requests of all endpoints.
    pub fn counters(mut self, on: bool) -> Self {
        self.settings.counters = on;
        self
    }

    /// Builds the balancer; `make` makes the service of an endpoint, once for as long as the endpoint is in the set.
    ///
    /// Discovery starts now if this is called within a tokio runtime, and else when the balancer is first used. Nothing
    /// blocks, and nothing fails: requests find out.
    ///
    /// # What a pod's service may rely on
    ///
    /// For a protocol with connections, [`build_connected`](Self::build_connected) makes a service that keeps to all this; then
    /// you write one connection.
    ///
    /// | | |
    /// | --- | --- |
    /// | `make` | runs in the background task, once for an endpoint as long as that stays, and again when it comes back; it must neither block nor panic: after a panic the set stays as it was until discovery's next answer |
    /// | clones | the balancer keeps a few. Each request gets a new one, which is polled ready, called once, and dropped at once: before the response comes. So clones have to be cheap, and what a response needs has to be in its future |
    /// | what clones share | connections, limits and all else that outlives a request, behind an `Arc`. What `poll_ready` makes for a clone alone is gone with it |
    /// | readiness | isn't copied by `Clone`, as tower's rule is. A clone that is ready may be dropped without a call: by a cancelled request, or an attempt (below). What it has reserved has to come back by `Drop` |
    /// | `Send`, `Sync` | the service needs both: threads clone it from one shared set. Its future needs neither here; for `tokio::spawn` it has to be `Send`, and so has the request |
    /// | dropping | when the endpoint leaves, the balancer's clones go, and requests that it has not got go elsewhere. Those that it has run to their end; a future that holds a connection keeps it open until then |
    /// | cancellation | drops the clone, or the future, wherever it is; nothing is told to the service besides. A connection that is in the middle of an exchange then is good for nothing, unless the protocol numbers its requests |
    ///
    /// **`poll_ready` is the place to connect.** Nothing has been sent then, so an error costs the caller nothing:
    ///
    /// - It is polled by the request itself: first in the balancer's `call`, outside of any runtime if that is, with a waker that
    ///   wakes nobody; then by the task that awaits the response. So register the waker of the last poll, and never block.
    /// - While it is pending the request waits for this endpoint, and goes elsewhere only if that leaves. The ready timeout
    ///   does not count here (but for a request to [one pod](Balance::pod)): **give connecting a timeout**, such as 1 s.
    /// - Its error is a refusal, of this request and of all: the request goes to another endpoint, and the error's text is the
    ///   source of [`Error`](crate::Error) if none takes it. This endpoint is passed over until an attempt succeeds, in the
    ///   background: after 200 ms, doubling to 5 s, a new clone is polled ready, for up to 5 s, and dropped. So a connection
    ///   that an attempt makes is of use only if the clones share it. tower's rule that a service is not used after an
    ///   error of `poll_ready` holds for the clone.
    /// - A service that is busy, at a limit of its own say, is pending: the request waits in the line, other requests are sent here
    ///   as before, and nothing counts against the endpoint. There is no word for "busy, go elsewhere": an error, however it is
    ///   named, has the endpoint passed over. [`Connections::pooled`](crate::Connections::pooled) has it, and looks elsewhere.
    ///
    /// **The response's error** is the endpoint's answer. It reaches the caller ([`Error::is_endpoint`](crate::Error::is_endpoint)), and counts
    /// as a [failure](OutlierDetection), unless the [completion](Self::completion) says otherwise. One is different:
    /// [`Unsent`](crate::Unsent) with the request in it says that nothing was sent. The request goes elsewhere, and this endpoint
    /// gets one request at a time until it keeps one. It counts as the error itself or boxed, not as the source of another error,
    /// and only with the very type of the balancer's requests: below a layer that changes them, the layer has to change it back.
    pub fn build<S, M>(self, make: M) -> Balance<S, C>
    where
        D: Discovery,
        M: FnMut(&Endpoint) -> S + Send + 'static,
        S: Clone + Send + Sync + 'static,
    {
        self.build_with(make, None)
    }

    /// Builds the balancer over connections: the service of each pod is one of [`Connections`], which connects in `poll_ready`.
    pub fn build_connected<S>(self, connections: Connections<S>) -> Balance<Connected<S>, C>
    where
        D: Discovery,
        S: Send + 'static,
    {
        self.build(move |endpoint: &Endpoint| connections.of(endpoint))
    }

    /// [`build`](Self::build). `ahead` makes new endpoints ready before requests need them: they get none before, unless there is no other
    /// one, and those that refuse are tried again as usual.
    #[cfg(feature = "http")]
    pub(crate) fn build_ahead<S, M, Req>(self, make: M) -> Balance<S, C>
    where
        D: Discovery,
        M: FnMut(&Endpoint) -> S + Send + 'static,
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
    {
        self.build_with(make, Some(ready::<S, Req>))
    }

    fn build_with<S, M>(self, make: M, ahead: Option<ReadyFn<S>>) -> Balance<S, C>
    where
        D: Discovery,
        M: FnMut(&Endpoint) -> S + Send + 'static,
        S: Clone + Send + Sync + 'static,
    {
        let service = self.settings.name.clone();
        let service = service.or_else(|| Some(self.discovery.name()?.into()));
        let signals = Arc::new(self.signals().named(service));
        let generator = Generator::new(self.settings.seed);
        let part = self.settings.subset.map(|subset| {
            let locality = self.settings.locality.clone();
            Part::new(subset, locality, || (&mut &generator).next_u64())
        });
        let policy = self.settings.policy.name();
        let (writer, current) = Writer::new(
            self.settings.policy,
            self.settings.locality,
            make,
            signals.clone(),
            &mut &generator,
        );
        let check = self.settings.check.as_ref();
        let writer = writer.hold_back(check.is_some_and(|check| check.pace.require_initial_pass));
        let writer = writer.ready_first(ahead.is_some());
        let (events, requests) = mpsc::unbounded_channel();
        let ready_timeout = self.settings.ready_timeout;
        let mut shared = Shared::new(current, signals.clone(), generator, ready_timeout, events);
        shared.is_part = part.is_some();
        shared.policy = policy;
        let shared = Arc::new(shared);
        signals.belong_to(&shared);
        let slow_start = SlowStart::new(self.settings.slow_start);
        let monitor = HealthMonitor::new(self.settings.detection, slow_start, signals);
        let health = (monitor, Checks::new(self.settings.check));
        let (alive, handles) = oneshot::channel();
        let told = (requests, handles);
        let source = (self.discovery, part);
        let driver = Driver::new(shared.clone(), source, writer, health, ahead, told);
        let starter = Arc::new(Starter::new(driver));
        shared.set_starter(&starter);
        starter.start();
        Balance {
            shared,
            completion: self.completion,
            handle: Arc::new(Handle {
                starter,
                _alive: alive,
            }),
            opening: None,
            is_cut_off: false,
        }
    }

    fn signals(&self) -> Signals {
        let signals = Signals::new(Instant::now()).counted(self.settings.counters);
        // Who counts requests has some to count out later, and who asks endpoints puts them out.
        let is_reviewed = !self.settings.detection.is_off()
            || !self.settings.slow_start.is_zero()
            || self.settings.check.is_some()
            || self.settings.policy.reads() != Reads::Nothing;
        if is_reviewed {
            signals.reviewed(self.settings.detection.limit())
        } else {
            signals
        }
    }

    /// A tower layer with these settings.
    pub fn into_layer(self) -> BalanceLayer<D, C> {
        BalanceLayer { builder: self }
    }
}

/// A tower [`Layer`] over whatever makes a service per endpoint.
///
/// What it is put on is a closure from an [`Endpoint`] to a service, where a usual layer is put on a service: the
/// balancer makes one for each pod. Layers above it see one service.
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, service_fn};
/// use tower_headless::{BalanceLayer, BoxError, Endpoint, StaticEndpoints, Random};
///
/// let pods = StaticEndpoints::new(["127.0.0.1:8080".parse()?]);
/// let service = ServiceBuilder::new()
///     .timeout(Duration::from_secs(1))
///     .layer(BalanceLayer::new(pods).policy(Random::new()))
///     .service(|endpoint: &Endpoint| {
///         let address = endpoint.address();
///         service_fn(move |name: &'static str| async move {
///             Ok::<_, BoxError>(format!("{name} from {address}"))
///         })
///     });
/// # let _ = service;
/// # Ok::<(), BoxError>(())
/// ```
///
/// It may be put on many things, as any layer, and makes a balancer for each: so the source has to be `Clone`, as this crate's are.
/// One that isn't, a boxed one among them, goes into one balancer, which is the stack's innermost service:
///
/// ```
/// # use std::time::Duration;
/// # use tower::{ServiceBuilder, service_fn};
/// # use tower_headless::{Balance, BoxError, Discovery, Endpoint, StaticEndpoints};
/// # let source: Box<dyn Discovery> = Box::new(StaticEndpoints::new([]));
/// let balance = Balance::builder(source).build(|endpoint: &Endpoint| {
///     let address = endpoint.address();
///     service_fn(move |name: &'static str| async move {
///         Ok::<_, BoxError>(format!("{name} from {address}"))
///     })
/// });
/// let service = ServiceBuilder::new().timeout(Duration::from_secs(1)).service(balance);
/// # let _ = service;
/// ```
#[derive(Clone, Debug)]
pub struct BalanceLayer<D, C = OnResponse> {
    builder: BalanceBuilder<D, C>,
}

impl<D> BalanceLayer<D> {
    /// A layer with the default settings. [`BalanceBuilder::into_layer`] makes one with others.
    pub fn new(discovery: D) -> Self {
        Balance::builder(discovery).into_layer()
    }
}

impl<D, C> BalanceLayer<D, C> {
    /// Which endpoint gets the next request.
    pub fn policy(self, policy: impl Policy) -> Self {
        self.builder.policy(policy).into_layer()
    }

    /// Uses only a part of the pods; each balancer of the layer draws its own, unless the subset is told how.
    pub fn subset(self, subset: Subset) -> Self {
        self.builder.subset(subset).into_layer()
    }
}

impl<D, C, M, S> Layer<M> for BalanceLayer<D, C>
where
    D: Discovery + Clone,
    C: Clone,
    M: FnMut(&Endpoint) -> S + Send + 'static,
    S: Clone + Send + Sync + 'static,
{
    type Service = Balance<S, C>;

    fn layer(&self, make: M) -> Self::Service {
        self.builder.clone().build(make)
    }
}
