//! A balancer's settings, and what makes a balancer of them: the builder, and the tower layer.

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

/// Builds a [`Balance`].
///
/// | setting | default |
/// | --- | --- |
/// | [`policy`](Self::policy) | [`RoundRobin`] |
/// | [`completion`](Self::completion) | [`OnResponse`]; use `OnBodyEnd` for HTTP |
/// | [`outlier_detection`](Self::outlier_detection) | endpoints that fail are ejected: [`OutlierDetection`] |
/// | [`health_check`](Self::health_check) | none: endpoints are not checked |
/// | [`slow_start`](Self::slow_start) | off |
/// | [`ready_timeout`](Self::ready_timeout) | 5 s |
/// | [`zone`](Self::zone), [`node`](Self::node), [`prefer_zone`](Self::prefer_zone), [`prefer_node`](Self::prefer_node) | not known: no pod is preferred |
/// | [`subset`](Self::subset) | none: all pods are used |
/// | [`name`](Self::name) | [discovery's](Discovery::name) |
/// | [`seed`](Self::seed) | none: picks can't be predicted |
/// | [`counters`](Self::counters) | off |
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct BalanceBuilder<D, C = OnResponse> {
    discovery: D,
    completion: C,
    settings: Settings,
}

/// All settings but discovery and completion.
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
    /// Begins a balancer over the endpoints that `discovery` finds.
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
    /// The policy, which picks the endpoint of each request: one of this crate's, or your own.
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.settings.policy = AnyPolicy::new(policy);
        self
    }

    /// The client's own zone, to follow topology hints: with `spec.trafficDistribution: PreferSameZone` the Service's
    /// EndpointSlices say which pods are meant for which zone. Empty: not known.
    ///
    /// Requests stay with the pods that are meant for the zone, as long as these are a fair share of the endpoints that
    /// accept requests. If they are fewer, the excess goes to the others, and if none is left, all requests do: see
    /// [near pods first](crate::guide::near_pods). Needs a [`Discovery`] that reports hints; DNS doesn't.
    pub fn zone(mut self, zone: impl Into<Box<str>>) -> Self {
        self.settings.locality.zone(zone);
        self
    }

    /// The client's own node, to follow topology hints with `spec.trafficDistribution: PreferSameNode`. Empty: not
    /// known.
    ///
    /// Hints for the node come first. If no pod is meant for the node, those for the zone count.
    pub fn node(mut self, node: impl Into<Box<str>>) -> Self {
        self.settings.locality.node(node);
        self
    }

    /// Sets [`zone`](Self::zone); if there are no hints, the pods [in this zone](Endpoint::zone) are the near ones.
    pub fn prefer_zone(mut self, zone: impl Into<Box<str>>) -> Self {
        self.settings.locality.prefer_zone(zone);
        self
    }

    /// Sets [`node`](Self::node); if there are no hints, the pods [on this node](Endpoint::node) are the near ones.
    pub fn prefer_node(mut self, node: impl Into<Box<str>>) -> Self {
        self.settings.locality.prefer_node(node);
        self
    }

    /// Replaces discovery, and keeps the settings.
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

    /// Whether the policy may use requests' keys.
    #[cfg(feature = "http")]
    pub(crate) fn may_be_keyed(&self) -> bool {
        self.settings.policy.may_be_keyed()
    }

    /// Sets when endpoints are ejected because their requests fail, hang or are slow; [`OutlierDetection::off`] for
    /// never.
    pub fn outlier_detection(mut self, detection: OutlierDetection) -> Self {
        self.settings.detection = detection;
        self
    }

    /// Checks endpoints actively, in addition to [outlier detection](Self::outlier_detection); off by default.
    pub fn health_check(mut self, check: HealthCheck) -> Self {
        self.settings.check = Some(check);
        self
    }

    /// For how long a new endpoint gets less than its share; zero by default.
    ///
    /// It begins with a tenth of its share, which grows to all of it over the window. For pods that begin with empty
    /// caches or have code to compile, 10 s may do. An endpoint is new if it joins others that are there already. While
    /// most are new, all get their full shares. An endpoint that comes back after it was ejected is not new.
    pub fn slow_start(mut self, window: Duration) -> Self {
        self.settings.slow_start = window;
        self
    }

    /// Decides when a request stops counting as in flight, and whether it failed; [`OnResponse`] by default.
    pub fn completion<E>(self, completion: E) -> BalanceBuilder<D, E> {
        BalanceBuilder {
            discovery: self.discovery,
            completion,
            settings: self.settings,
        }
    }

    /// How long requests wait while no endpoint accepts them, because discovery has not answered yet or because all
    /// endpoints refuse; 5 s by default.
    ///
    /// The time counts from the beginning of the outage, not of the request. When it is over, requests fail at once
    /// until an endpoint accepts one, so that nothing piles up. Zero means that requests never wait.
    ///
    /// A request for [one pod](Balance::pod), or of a [broadcast](Balance::broadcast), waits for its own pod up to this
    /// long, counted from when the request is made.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.settings.ready_timeout = ReadyTimeout::Bounded(timeout);
        self
    }

    /// Requests wait without limit while no endpoint accepts them. (gRPC calls this "wait for ready".)
    ///
    /// Put a timeout around the balancer then. If the service is known to have no pods, requests still fail at once.
    pub fn wait_for_ready(mut self) -> Self {
        self.settings.ready_timeout = ReadyTimeout::Forever;
        self
    }

    /// Requests never wait: while no endpoint accepts them, they fail at once, as with a ready timeout of zero.
    ///
    /// Requests before discovery's first answer fail too: wait for the answer with [`Balance::discovered`].
    pub fn fail_fast(self) -> Self {
        self.ready_timeout(Duration::ZERO)
    }

    /// Uses only some of the pods; all of them by default.
    ///
    /// For services with so many clients and pods that not every client should have connections to every pod: see
    /// [`Subset`].
    pub fn subset(mut self, subset: Subset) -> Self {
        self.settings.subset = Some(subset);
        self
    }

    /// The service's name, for errors ([`Error::service`](crate::Error::service)), logs and metrics. By default it is
    /// [discovery's](Discovery::name): for [`Dns`](crate::Dns), the target without its port.
    pub fn name(mut self, service: impl Into<Arc<str>>) -> Self {
        self.settings.name = Some(service.into());
        self
    }

    /// Seeds the random numbers: the same requests, answers and times then lead to the same picks.
    ///
    /// For simulations and tests on one thread and tokio's paused clock. Not for production: each draw takes a lock
    /// that all threads share, and clients with the same seed make the same choices at the same time. Clones share the
    /// generator; each balancer of a [layer](Self::into_layer) has its own, with the same seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Whether to count requests and keep a history of the endpoints, for
    /// [`Balance::explain`](super::Balance::explain) and [`Balance::counts`](super::Balance::counts). Off by default.
    ///
    /// It costs some nanoseconds and no allocation for each request, and half a kilobyte for each endpoint. There is no
    /// counter that the requests of all endpoints write to.
    pub fn counters(mut self, on: bool) -> Self {
        self.settings.counters = on;
        self
    }

    /// Builds the balancer. `make` makes the service of an endpoint, once for as long as the endpoint is in the set.
    ///
    /// Discovery starts now if this is called within a tokio runtime, otherwise when the balancer is first used.
    /// Building neither blocks nor fails: errors come from requests.
    ///
    /// # What a pod's service may rely on
    ///
    /// For a protocol with connections, [`build_connected`](Self::build_connected) makes a service that follows all
    /// these rules, and you write only the connection.
    ///
    /// | | |
    /// | --- | --- |
    /// | `make` | runs in the background task, once for an endpoint as long as it stays, and again when it comes back. It must neither block nor panic: after a panic the set stays as it was until discovery's next answer |
    /// | clones | the balancer keeps a few. Each request gets a new one, which is polled ready, called once, and dropped at once, before the response comes. So clones have to be cheap, and whatever a response needs has to be in its future |
    /// | what clones share | keep connections, limits and everything else that outlives a request behind an `Arc`. What `poll_ready` makes for one clone alone is dropped with it |
    /// | readiness | isn't copied by `Clone`, as tower requires. A ready clone may be dropped without a call: by a cancelled request, or by an attempt (below). `Drop` has to give back what it has reserved |
    /// | `Send`, `Sync` | the service needs both, because threads clone it from one shared set. Its future needs neither here; for `tokio::spawn` the future and the request have to be `Send` |
    /// | dropping | when the endpoint leaves, the balancer drops its clones, and requests that wait for the endpoint go elsewhere. Those that it has got run to their end; a future that holds a connection keeps it open until then |
    /// | cancellation | drops the clone or the future, at any stage; the service isn't told in any other way. A connection in the middle of an exchange is then useless, unless the protocol numbers its requests |
    ///
    /// **Connect in `poll_ready`.** Nothing has been sent then, so an error costs the caller nothing:
    ///
    /// - The request itself polls it: first in the balancer's `call`, which may be outside of any runtime, with a waker
    ///   that wakes nobody; then in the task that awaits the response. So register the waker of the last poll, and
    ///   never block.
    /// - While it is pending the request waits for this endpoint, and goes elsewhere only if the endpoint leaves. The
    ///   ready timeout does not apply here, except to a request for [one pod](Balance::pod): **give connecting a
    ///   timeout**, such as 1 s.
    /// - Its error is a refusal: this request goes to another endpoint, and so do all others. If none takes the
    ///   request, the error's text is the source of [`Error`](crate::Error). The endpoint is passed over until an
    ///   attempt in the background succeeds: after 200 ms, doubling to 5 s, a new clone is polled ready, for up to 5 s,
    ///   and dropped. So a connection that an attempt makes is useful only if the clones share it. tower's rule that a
    ///   service is not used after an error of `poll_ready` applies to each clone.
    /// - If the service is busy, for example at its own limit, it is pending: the request waits in line, other requests
    ///   are sent here as before, and nothing counts against the endpoint. A service can't say "busy, go elsewhere":
    ///   after any error the endpoint is passed over. [`Connections::pooled`](crate::Connections::pooled) can, and
    ///   looks elsewhere.
    ///
    /// **The response's error** is the endpoint's answer. It reaches the caller
    /// ([`Error::is_endpoint`](crate::Error::is_endpoint)), and counts as a [failure](OutlierDetection), unless the
    /// [completion](Self::completion) says otherwise. The exception is [`Unsent`](crate::Unsent), which has the request
    /// in it, and says that nothing was sent. Then the request goes elsewhere, and this endpoint gets one request at a
    /// time until it keeps one. `Unsent` is recognised as the error itself or boxed, not as the source of another
    /// error, and only if its request has the type of the balancer's requests: a layer between that changes the type
    /// has to change it back.
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

    /// [`build`](Self::build), with new endpoints connected before they get requests.
    ///
    /// Until one is ready it gets requests only if there is no other; if it refuses, it is tried again as usual.
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
        let ignores_keys = !self.settings.policy.may_be_keyed();
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
        shared.ignored_keys.does_ignore = ignores_keys;
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
        // Reviews also end failure penalties, which a load-aware policy counts, and apply the results of checks.
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

/// A tower [`Layer`] that balances over the services that a closure makes, one for each endpoint.
///
/// A usual layer wraps a service. This one wraps a closure from an [`Endpoint`] to a service, which the
/// balancer calls for each pod. Layers above it see one service.
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
/// Like any layer it may be applied more than once, and makes a new balancer each time. So its source has to be
/// `Clone`, as this crate's are. A source that isn't, such as a boxed one, goes into one balancer, which is the stack's
/// innermost service:
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
    /// The policy, which picks the endpoint of each request.
    pub fn policy(self, policy: impl Policy) -> Self {
        self.builder.policy(policy).into_layer()
    }

    /// Uses only some of the pods. Each balancer of the layer draws its own, unless the subset has a seed or a client
    /// id.
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
