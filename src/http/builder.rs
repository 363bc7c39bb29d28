//! The client's settings.

mod build;
mod connections;
mod grpc;
mod limits;
mod retries;
mod service;
mod spans;
mod wire;
mod words;

pub use service::BuildError;

use std::{fmt, sync::Arc, time::Duration};

use self::limits::Limits;
#[cfg(feature = "sessions")]
use super::session::Sessions;
#[cfg(feature = "tls")]
use super::tls::Tls;
use super::{
    connect::Connector, defaults::DefaultSettings, key_from::KeyFrom, replay::Retries,
    response::SharedClassify,
};
use crate::{
    balance::{Balance, BalanceBuilder},
    check::HealthCheck,
    discovery::Discovery,
    outcome::ClassifyHttp,
    outlier::OutlierDetection,
    policy::Policy,
    subset::Subset,
};
use http::{
    Uri,
    uri::{Authority, Scheme},
};

// The default source of pods.
#[cfg(feature = "dns")]
use crate::discovery::dns::{Dns, Dns as DefaultDiscovery};
#[cfg(not(feature = "dns"))]
use service::NoDiscovery as DefaultDiscovery;

/// Settings of a [`Client`](super::Client).
///
/// | setting | default |
/// | --- | --- |
/// | [`policy`](Self::policy) | [`RoundRobin`](crate::RoundRobin) |
/// | [`discovery`](Self::discovery), [`dns`](Self::dns) | [`Dns`](crate::Dns) for the URI's host and port; without the feature `dns` a client needs a discovery |
/// | [`protocol`](Self::protocol) | [`Protocol::Negotiated`](super::Protocol::Negotiated) |
/// | [`connect_timeout`](Self::connect_timeout) | 1 s, all handshakes included |
/// | [`first_byte_timeout`](Self::first_byte_timeout) | none |
/// | [`timeout`](Self::timeout) | none |
/// | [`ready_timeout`](Self::ready_timeout) | 5 s: how long requests wait while no pod accepts them |
/// | [`outlier_detection`](Self::outlier_detection), [`classify`](Self::classify) | pods that fail are ejected: [`OutlierDetection`], [`ByStatus`](crate::ByStatus) |
/// | [`slow_start`](Self::slow_start) | off |
/// | [`counters`](Self::counters) | on |
/// | [`health_check`](Self::health_check) | none |
/// | [`retries`](Self::retries) | 3 for a request |
/// | [`retry_budget`](Self::retry_budget) | 20 % of all requests and 10 a second, over 10 s |
/// | [`retry_statuses`](Self::retry_statuses) | 502, 503 and 504 |
/// | [`hedge`](Self::hedge) | off: one pod at a time |
/// | [`zone`](Self::zone), [`node`](Self::node), [`prefer_zone`](Self::prefer_zone), [`prefer_node`](Self::prefer_node) | not set: zones and nodes don't matter |
/// | [`subset`](Self::subset) | none: all pods are used |
/// | [`key_from`](Self::key_from) | nowhere: only keys that requests name count |
/// | `sessions` (feature `sessions`) | none: no request stays with a pod |
/// | [`max_idle`](Self::max_idle) | 32 connections a pod |
/// | [`idle_timeout`](Self::idle_timeout) | 30 s |
/// | [`max_connections`](Self::max_connections) | 1,024 a pod |
/// | [`max_connection_age`](Self::max_connection_age), [`max_connection_requests`](Self::max_connection_requests) | none |
/// | [`connect_ahead`](Self::connect_ahead) | no |
/// | [`tcp_keepalive`](Self::tcp_keepalive) | after 10 s of silence |
/// | [`tcp_user_timeout`](Self::tcp_user_timeout) | 10 s (Linux) |
/// | [`http2_ping`](Self::http2_ping) | none |
/// | [`allow_foreign_authority`](Self::allow_foreign_authority) | off: a URI of another service is an error |
/// | [`grpc_status`](Self::grpc_status) | on: gRPC calls get errors as a status |
/// | [`request_spans`](Self::request_spans) | off: requests have no tracing spans |
/// | [`request_attempts`](Self::request_attempts) | off: only requests that ask for it record their attempts |
/// | [`base_path`](Self::base_path) | the path of the client's URI, if it has one |
/// | [`default_headers`](Self::default_headers), [`user_agent`](Self::user_agent) | none |
///
/// The limits on responses, HTTP/2's windows and every other bound of a connection are listed
/// [below](#what-bounds-a-connection), with their defaults and reasons.
#[must_use = "a builder does nothing until it builds"]
pub struct ClientBuilder<D = DefaultDiscovery> {
    service: Result<(Scheme, Authority), BuildError>,
    discovery: Result<D, BuildError>,
    pods: BalanceBuilder<()>,
    keys: Vec<KeyFrom>,
    #[cfg(feature = "sessions")]
    sessions: Option<Sessions>,
    classify: SharedClassify,
    connector: Connector,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    limits: Limits,
    retries: Retries,
    allow_foreign: bool,
    grpc_status: bool,
    has_spans: bool,
    has_attempts: bool,
    defaults: DefaultSettings,
}

impl ClientBuilder {
    pub(super) fn new(uri: Uri) -> Self {
        Self {
            service: service::name(&uri),
            discovery: service::discovery(&uri),
            pods: Balance::builder(()).counters(true),
            keys: Vec::new(),
            #[cfg(feature = "sessions")]
            sessions: None,
            classify: SharedClassify::ByStatus,
            connector: Connector::default(),
            #[cfg(feature = "tls")]
            tls: None,
            limits: Limits::default(),
            retries: Retries::default(),
            allow_foreign: false,
            grpc_status: true,
            has_spans: false,
            has_attempts: false,
            defaults: DefaultSettings::new(uri.path()),
        }
    }
}

#[cfg(feature = "dns")]
#[cfg_attr(docsrs, doc(cfg(feature = "dns")))]
impl ClientBuilder<Dns> {
    /// Changes how the service's name is resolved.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// # let _entered = runtime.enter();
    /// use tower_headless::http::Client;
    ///
    /// let client = Client::builder("http://nginx-headless.default:80".parse()?)
    ///     .dns(|dns| dns.prefer_ipv6(true))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn dns(mut self, change: impl FnOnce(Dns) -> Dns) -> Self {
        self.discovery = self.discovery.map(change);
        self
    }
}

impl<D> ClientBuilder<D> {
    /// Finds pods by this discovery instead of DNS; the URI then only says how to speak to them. If the feature `dns`
    /// is off, [`build`](Self::build) fails unless you set a discovery.
    pub fn discovery<E: Discovery>(self, discovery: E) -> ClientBuilder<E> {
        ClientBuilder {
            service: self.service,
            discovery: Ok(discovery),
            pods: self.pods,
            keys: self.keys,
            #[cfg(feature = "sessions")]
            sessions: self.sessions,
            classify: self.classify,
            connector: self.connector,
            #[cfg(feature = "tls")]
            tls: self.tls,
            limits: self.limits,
            retries: self.retries,
            allow_foreign: self.allow_foreign,
            grpc_status: self.grpc_status,
            has_spans: self.has_spans,
            has_attempts: self.has_attempts,
            defaults: self.defaults,
        }
    }

    /// Changes a setting of the balancer beneath.
    fn pods(mut self, change: impl FnOnce(BalanceBuilder<()>) -> BalanceBuilder<()>) -> Self {
        self.pods = change(self.pods);
        self
    }

    /// Which policy picks the pod for each request: one of this crate's, or your own.
    pub fn policy(self, policy: impl Policy) -> Self {
        self.pods(|pods| pods.policy(policy))
    }

    /// The client's own zone. Pods that are meant for it come first; see
    /// [`BalanceBuilder::zone`](crate::BalanceBuilder::zone).
    pub fn zone(self, zone: impl Into<Box<str>>) -> Self {
        self.pods(|pods| pods.zone(zone))
    }

    /// The client's own node. Pods that are meant for it come first; see
    /// [`BalanceBuilder::node`](crate::BalanceBuilder::node).
    pub fn node(self, node: impl Into<Box<str>>) -> Self {
        self.pods(|pods| pods.node(node))
    }

    /// Prefers the pods of this zone even without hints; see
    /// [`BalanceBuilder::prefer_zone`](crate::BalanceBuilder::prefer_zone).
    pub fn prefer_zone(self, zone: impl Into<Box<str>>) -> Self {
        self.pods(|pods| pods.prefer_zone(zone))
    }

    /// Prefers the pods of this node even without hints; see
    /// [`BalanceBuilder::prefer_node`](crate::BalanceBuilder::prefer_node).
    pub fn prefer_node(self, node: impl Into<Box<str>>) -> Self {
        self.pods(|pods| pods.prefer_node(node))
    }

    /// Sets when pods are ejected because their requests fail, hang or are slow; [`OutlierDetection::off`] for never.
    pub fn outlier_detection(self, detection: OutlierDetection) -> Self {
        self.pods(|pods| pods.outlier_detection(detection))
    }

    /// Checks the pods' health, in addition to judging them by their requests; off by default.
    ///
    /// ```
    /// # fn main() -> Result<(), tower_headless::BoxError> {
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// # let _entered = runtime.enter();
    /// use tower_headless::{HealthCheck, http::Client};
    ///
    /// let client = Client::builder("http://nginx-headless.default:80".parse()?)
    ///     .health_check(HealthCheck::http("/healthz")?)
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn health_check(self, check: HealthCheck) -> Self {
        self.pods(|pods| pods.health_check(check))
    }

    /// How long a new pod gets less than its share; see
    /// [`BalanceBuilder::slow_start`](crate::BalanceBuilder::slow_start).
    pub fn slow_start(self, window: Duration) -> Self {
        self.pods(|pods| pods.slow_start(window))
    }

    /// Whether requests are counted, and the events of each pod recorded; see
    /// [`BalanceBuilder::counters`](crate::BalanceBuilder::counters). On by default.
    pub fn counters(self, on: bool) -> Self {
        self.pods(|pods| pods.counters(on))
    }

    /// Uses only a part of the pods; all of them by default. For services with so many clients and pods that not every
    /// client should have connections to every pod: see [`Subset`].
    pub fn subset(self, subset: Subset) -> Self {
        self.pods(|pods| pods.subset(subset))
    }

    /// Where a request's [key](crate::Route::key) comes from if it names none: a header, a part of the path, a cookie,
    /// or a function. Call it again to add another source: the first that finds a key counts. A request without a key
    /// goes to any pod.
    ///
    /// ```
    /// # fn main() -> Result<(), tower_headless::BoxError> {
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// # let _entered = runtime.enter();
    /// use tower_headless::{ConsistentHash, http::{Client, KeyFrom}};
    ///
    /// // `/users/42/cart`, and what comes without a user in its path, by its tenant.
    /// let client = Client::builder("http://cart-headless.default:80".parse()?)
    ///     .policy(ConsistentHash::new())
    ///     .key_from(KeyFrom::path_segment(1))
    ///     .key_from(KeyFrom::header("x-tenant"))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Only [`ConsistentHash`](crate::ConsistentHash) of this crate's policies looks at keys. With another one,
    /// including the default, [`build`](Self::build) fails.
    pub fn key_from(mut self, source: KeyFrom) -> Self {
        self.keys.push(source);
        self
    }

    /// Sticky sessions: a request with the session's cookie or header goes to the pod that answered before. Off by
    /// default; see [`Sessions`].
    #[cfg(feature = "sessions")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sessions")))]
    pub fn sessions(mut self, sessions: Sessions) -> Self {
        self.sessions = Some(sessions);
        self
    }

    /// How the end of a request counts for or against its pod.
    ///
    /// Two outcomes are not passed to the classifier. If a request's own body fails, that says nothing about its pod.
    /// If the pod refuses a request unprocessed (HTTP/2's `REFUSED_STREAM` and GOAWAY), that is
    /// [overload](crate::Outcome::Overload).
    pub fn classify(mut self, classify: impl ClassifyHttp) -> Self {
        self.classify = SharedClassify::Own(Arc::new(classify));
        self
    }

    /// How long a whole request may take, to the end of its response's body and with all retries; no limit by default.
    /// It also ends streams whose request has no [timeout of its own](super::RequestBuilder::timeout).
    ///
    /// Rounded up to whole milliseconds. Zero fails every request; `Duration::MAX` is no limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits.whole = Some(timeout);
        self
    }

    /// How long requests wait while no pod accepts them, counted from the beginning of the outage; 5 s by default. A
    /// request for [one pod](super::Client::pod) waits for that pod this long, counted from when the request is made.
    /// See [`BalanceBuilder::ready_timeout`](crate::BalanceBuilder::ready_timeout).
    pub fn ready_timeout(self, timeout: Duration) -> Self {
        self.pods(|pods| pods.ready_timeout(timeout))
    }

    /// Lets requests wait as long as no pod accepts them; see
    /// [`BalanceBuilder::wait_for_ready`](crate::BalanceBuilder::wait_for_ready).
    pub fn wait_for_ready(self) -> Self {
        self.pods(|pods| pods.wait_for_ready())
    }

    /// Fails requests at once while no pod accepts them, like a ready timeout of zero.
    ///
    /// Requests before discovery's first answer fail too: await `Client::discovered` before the first one.
    pub fn fail_fast(self) -> Self {
        self.ready_timeout(Duration::ZERO)
    }
}

impl<D: fmt::Debug> fmt::Debug for ClientBuilder<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("service", &self.service)
            .field("discovery", &self.discovery)
            .finish_non_exhaustive()
    }
}
