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

// Where the pods come from, unless the builder is told.
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
/// | [`health_check`](Self::health_check) | none: pods are not asked |
/// | [`retries`](Self::retries) | 3 for a request |
/// | [`retry_budget`](Self::retry_budget) | 20 % of all requests and 10 a second, over 10 s |
/// | [`retry_statuses`](Self::retry_statuses) | 502, 503 and 504 |
/// | [`hedge`](Self::hedge) | off: one pod at a time |
/// | [`zone`](Self::zone), [`node`](Self::node), [`prefer_zone`](Self::prefer_zone), [`prefer_node`](Self::prefer_node) | not known: all pods are alike |
/// | [`subset`](Self::subset) | none: all pods are used |
/// | [`key_from`](Self::key_from) | nowhere: requests have the keys that they name |
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
/// | [`grpc_status`](Self::grpc_status) | on: gRPC calls that fail are told so by a status |
/// | [`request_spans`](Self::request_spans) | off: requests have no spans of tracing's |
/// | [`request_attempts`](Self::request_attempts) | off: only requests that ask for it tell of their attempts |
/// | [`base_path`](Self::base_path) | the path of the client's URI, if it has one |
/// | [`default_headers`](Self::default_headers), [`user_agent`](Self::user_agent) | none |
///
/// What is read of a response at most, HTTP/2's windows and every other bound of a connection are listed
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
    /// Where the pods come from, instead of DNS; the URI then only says how they are spoken to. Without the feature `dns` it
    /// takes one to [build](Self::build).
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

    /// Which pod gets the next request: one of this crate's policies, or one of your own.
    pub fn policy(self, policy: impl Policy) -> Self {
        self.pods(|pods| pods.policy(policy))
    }

    /// The client's own zone, so that the pods that are meant for it come first; see
    /// [`BalanceBuilder::zone`](crate::BalanceBuilder::zone).
    pub fn zone(self, zone: impl Into<Box<str>>) -> Self {
        self.pods(|pods| pods.zone(zone))
    }

    /// The client's own node, so that the pods that are meant for it come first; see
    /// [`BalanceBuilder::node`](crate::BalanceBuilder::node).
    pub fn node(self, node: impl Into<Box<str>>) -> Self {
        self.pods(|pods| pods.node(node))
    }

    /// The pods of this zone come first where there are no hints, too; see
    /// [`BalanceBuilder::prefer_zone`](crate::BalanceBuilder::prefer_zone).
    pub fn prefer_zone(self, zone: impl Into<Box<str>>) -> Self {
        self.pods(|pods| pods.prefer_zone(zone))
    }

    /// The pods of this node come first where there are no hints, too; see
    /// [`BalanceBuilder::prefer_node`](crate::BalanceBuilder::prefer_node).
    pub fn prefer_node(self, node: impl Into<Box<str>>) -> Self {
        self.pods(|pods| pods.prefer_node(node))
    }

    /// When pods are ejected for what their requests come to; [`OutlierDetection::off`] for never.
    pub fn outlier_detection(self, detection: OutlierDetection) -> Self {
        self.pods(|pods| pods.outlier_detection(detection))
    }

    /// Asks pods whether they are well, beside what their requests come to; off by default.
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

    /// For how long a new pod gets less than its share; see [`BalanceBuilder::slow_start`](crate::BalanceBuilder::slow_start).
    pub fn slow_start(self, window: Duration) -> Self {
        self.pods(|pods| pods.slow_start(window))
    }

    /// Whether requests are counted, and it is kept what has happened to the pods; see
    /// [`BalanceBuilder::counters`](crate::BalanceBuilder::counters). On by default.
    pub fn counters(self, on: bool) -> Self {
        self.pods(|pods| pods.counters(on))
    }

    /// Uses only a part of the pods; all of them by default. For services of so many clients and pods that not every client should
    /// have connections to every pod: see [`Subset`].
    pub fn subset(self, subset: Subset) -> Self {
        self.pods(|pods| pods.subset(subset))
    }

    /// Where the [key](crate::Route::key) of a request comes from if it names none: a header, a part of the path, a cookie, or a
    /// function. Call it several times for several sources: the first that finds a key counts. A request without a key goes to
    /// any pod.
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
    /// Of this crate's policies only [`ConsistentHash`](crate::ConsistentHash) looks at keys: with another one, the default
    /// included, [`build`](Self::build) fails.
    pub fn key_from(mut self, source: KeyFrom) -> Self {
        self.keys.push(source);
        self
    }

    /// Sticky sessions: requests that bring a cookie, or a header, go to the pod that has answered before; off by default. See
    /// [`Sessions`].
    #[cfg(feature = "sessions")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sessions")))]
    pub fn sessions(mut self, sessions: Sessions) -> Self {
        self.sessions = Some(sessions);
        self
    }

    /// What the end of a request says of its pod.
    ///
    /// Two ends are not passed to the classifier. A request whose own body fails says nothing of its pod. A request that the
    /// pod refuses unprocessed (HTTP/2's `REFUSED_STREAM` and GOAWAY) is [overload](crate::Outcome::Overload).
    pub fn classify(mut self, classify: impl ClassifyHttp) -> Self {
        self.classify = SharedClassify::Own(Arc::new(classify));
        self
    }

    /// How long all of a request may take, to the end of its response's body and with all retries; no limit by default. A stream
    /// ends then, too, if its request has no [timeout of its own](super::RequestBuilder::timeout).
    ///
    /// Rounded up to whole milliseconds. Zero fails every request; `Duration::MAX` is no limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits.whole = Some(timeout);
        self
    }

    /// How long requests wait while no pod accepts them, counted from the beginning of the outage; 5 s by default. Requests for
    /// [one pod](super::Client::pod) wait for it, each from when it is made. See
    /// [`BalanceBuilder::ready_timeout`](crate::BalanceBuilder::ready_timeout).
    pub fn ready_timeout(self, timeout: Duration) -> Self {
        self.pods(|pods| pods.ready_timeout(timeout))
    }

    /// Requests wait for as long as no pod accepts them; see
    /// [`BalanceBuilder::wait_for_ready`](crate::BalanceBuilder::wait_for_ready).
    pub fn wait_for_ready(self) -> Self {
        self.pods(|pods| pods.wait_for_ready())
    }

    /// Requests fail at once while no pod accepts them. The same as a ready timeout of zero.
    ///
    /// So do those that come before discovery's first answer: await `Client::discovered` before the first request.
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
