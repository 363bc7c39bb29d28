//! Active health checks: endpoints are asked whether they are well, whatever happens to their requests.
//!
//! The states of an endpoint are drawn at [`HealthCheck`].
//!
//! The figures are those of Kubernetes' readiness probe. That asks from the pod's own node; these checks ask from where
//! the requests come from. An endpoint that leaves the set and returns begins anew.
//!
//! Checks and requests ([`OutlierDetection`](crate::OutlierDetection)) are independent: an endpoint is picked only if
//! both allow it. A check that passes does not end an ejection for failed requests, and a request that succeeds does
//! not end one for failed checks. An endpoint that fails its checks gets no trial request.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `check/scheduler.rs` | which endpoint is asked when, and what follows from the answers; pure |

mod scheduler;

pub(crate) use scheduler::{CheckScheduler, CheckState};

use std::{any::Any, fmt, future::Future, sync::Arc, time::Duration};

use futures_util::{FutureExt, TryFutureExt, future::BoxFuture};
use tokio::net::TcpStream;

use crate::{
    endpoint::Endpoint,
    error::{BoxError, SharedError, cause},
    sync::Mutex,
    times::DAY,
};

/// Asks an endpoint whether it is well.
///
/// `Any`, so that the HTTP client recognises its own checkers, which use its kind of connections.
pub(crate) trait Checker: Any + Send + Sync {
    /// `kept` is what an earlier check of this endpoint has left, and where this one may leave something.
    fn check(&self, endpoint: &Endpoint, kept: &Kept) -> BoxFuture<'static, Result<(), BoxError>>;
}

/// What one check of an endpoint leaves to the next, such as a connection. Dropped with the endpoint or the balancer.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "TCP keeps nothing"))]
impl Kept {
    /// Takes what is there, so that a check that never ends leaves nothing.
    pub(crate) fn take<T: 'static>(&self) -> Option<T> {
        let kept = self.0.lock().take()?;
        kept.downcast().ok().map(|kept| *kept)
    }

    pub(crate) fn leave(&self, kept: impl Any + Send) {
        let before = self.0.lock().replace(Box::new(kept));
        drop(before);
    }
}

/// Active health checks: how endpoints are asked whether they are well. Off unless a builder is given one.
///
/// | setting | default | source |
/// | --- | --- | --- |
/// | [`interval`](Self::interval) | 10 s, ± 10 % | Kubernetes (`periodSeconds`) |
/// | [`timeout`](Self::timeout) | 1 s | Kubernetes (`timeoutSeconds`) |
/// | [`failures`](Self::failures) | 3 in a row | Kubernetes (`failureThreshold`) |
/// | [`successes`](Self::successes) | 1 | Kubernetes (`successThreshold`) |
/// | [`concurrency`](Self::concurrency) | 16 at a time | |
/// | [`require_initial_pass`](Self::require_initial_pass) | no | |
///
/// ```text
///                                3 checks in a row fail
///             ┌────────────────┐ ─────────────────────▶ ┌──────────────────────────────────────┐
///  joins ───▶ │ gets requests  │                        │ gets none: ejected, the check failed │
///             └────────────────┘ ◀───────────────────── └──────────────────────────────────────┘
///                      ▲            1 check passes
///                      │ 1 check passes
///             ┌──────────────────────┐
///  joins ───▶ │ gets none: pending   │ with `require_initial_pass`
///             └──────────────────────┘
/// ```
///
/// - **An endpoint that fails its checks** gets no requests: it is
///   [ejected](crate::EndpointState::Ejected) until its check passes again. No trial request is sent to it.
/// - **Checks and requests are independent.** A check that passes does not end an ejection for failed requests
///   ([`OutlierDetection`](crate::OutlierDetection)). Nor does it prove that an endpoint that refused a request accepts
///   requests again. When the checks pass again, failed requests from before are forgotten.
/// - **All endpoints can be out** because of checks, as with Envoy: they don't count for
///   [`OutlierDetection::max_ejection_ratio`](crate::OutlierDetection::max_ejection_ratio). But they count as not
///   available for [`OutlierDetection::panic_threshold`](crate::OutlierDetection::panic_threshold), and a panic brings
///   them back like other ejected ones: if most endpoints fail a check at one time, it is more likely the check's
///   fault. If the threshold is zero, only their checks bring them back.
/// - **Cost**: each client asks every endpoint once in each interval. With 100 clients and 100 pods, that is a thousand
///   checks a second in all, and ten for each pod. Without checks the balancer sees which pods fail requests or refuse
///   connections, and Kubernetes removes pods from DNS that fail their readiness probe. Checks find a pod that this
///   client can't reach before a request has to find out.
/// - **Checks run** in the balancer's background task, and end when the last handle is dropped.
///   They don't use the service that the balancer makes for an endpoint. An endpoint that leaves the set and returns
///   begins anew.
///
/// ```
/// use std::time::Duration;
/// use tower_headless::{Balance, Endpoint, StaticEndpoints, HealthCheck};
///
/// let balance = Balance::builder(StaticEndpoints::new([]))
///     .health_check(HealthCheck::tcp().interval(Duration::from_secs(5)).require_initial_pass(true))
///     .build(|endpoint: &Endpoint| endpoint.address());
/// # let _ = balance;
/// ```
#[derive(Clone)]
#[must_use = "settings do nothing until a builder has them"]
pub struct HealthCheck {
    pub(crate) checker: Arc<dyn Checker>,
    pub(crate) pace: Pace,
}

/// When checks are made, and how many results decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) failures: u32,
    pub(crate) successes: u32,
    pub(crate) concurrency: usize,
    pub(crate) require_initial_pass: bool,
}

impl Pace {
    pub(crate) const fn new() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            failures: 3,
            successes: 1,
            concurrency: 16,
            require_initial_pass: false,
        }
    }
}

const SHORTEST: Duration = Duration::from_millis(1);

impl HealthCheck {
    /// Checks that an endpoint accepts a TCP connection, which is closed at once.
    ///
    /// The runtime has to have I/O enabled; otherwise all checks fail.
    pub fn tcp() -> Self {
        Self::by(|endpoint: Endpoint| async move {
            let connection = TcpStream::connect(endpoint.address());
            connection.await.map(drop)
        })
    }

    /// Checks with a future of your own: an endpoint passes if it returns `Ok` within the [`timeout`](Self::timeout).
    ///
    /// The future is dropped after the timeout, or with the balancer. Several run at a time in the balancer's
    /// background task, so they must not block. If one panics, the check fails.
    ///
    /// ```
    /// # async fn ping(_: std::net::SocketAddr) -> std::io::Result<()> { Ok(()) }
    /// use tower_headless::{Endpoint, HealthCheck};
    ///
    /// let check = HealthCheck::by(|endpoint: Endpoint| async move { ping(endpoint.address()).await });
    /// # let _ = check;
    /// ```
    pub fn by<F, R, E>(checker: F) -> Self
    where
        F: Fn(Endpoint) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        Self::with(By(checker))
    }

    pub(crate) fn with(checker: impl Checker) -> Self {
        Self {
            checker: Arc::new(checker),
            pace: Pace::new(),
        }
    }

    /// How long from the beginning of one check of an endpoint to the next, ± 10 %; 10 s by default.
    ///
    /// The first check comes at a random time within the interval, so that those of a new set are spread out. If an
    /// endpoint [has to pass first](Self::require_initial_pass), it is checked at once, and again every second, or
    /// every interval if that is shorter, until it passes.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.pace.interval = interval.clamp(SHORTEST, DAY);
        self
    }

    /// How long a check may take before it fails; 1 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.pace.timeout = timeout.clamp(SHORTEST, DAY);
        self
    }

    /// How many failed checks in a row eject an endpoint; 3 by default, at least 1.
    pub fn failures(mut self, failures: u32) -> Self {
        self.pace.failures = failures.max(1);
        self
    }

    /// How many passed checks in a row bring an endpoint back; 1 by default, at least 1.
    pub fn successes(mut self, successes: u32) -> Self {
        self.pace.successes = successes.max(1);
        self
    }

    /// How many checks of one balancer may run at the same time; 16 by default, at least 1.
    ///
    /// The others wait for their turn. If checks can't keep up, the effective interval grows.
    pub fn concurrency(mut self, checks: usize) -> Self {
        self.pace.concurrency = checks.max(1);
        self
    }

    /// Whether a new endpoint has to pass a check before it gets requests; no by default.
    ///
    /// While no endpoint has passed, requests wait, up to the [ready timeout](crate::BalanceBuilder::ready_timeout).
    /// Then they fail with [`Error::is_unreachable`](crate::Error::is_unreachable), and the source is the last check
    /// that failed. Endpoints that have passed no check yet don't count for a panic, and a panic doesn't bring them in.
    pub fn require_initial_pass(mut self, require_initial_pass: bool) -> Self {
        self.pace.require_initial_pass = require_initial_pass;
        self
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthCheck")
            .field("pace", &self.pace)
            .finish_non_exhaustive()
    }
}

struct By<F>(F);

impl<F, R, E> Checker for By<F>
where
    F: Fn(Endpoint) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    fn check(&self, endpoint: &Endpoint, _: &Kept) -> BoxFuture<'static, Result<(), BoxError>> {
        (self.0)(endpoint.clone()).map_err(Into::into).boxed()
    }
}

/// A failed check, as the source of the error that no endpoint gets requests.
#[derive(Debug, thiserror::Error)]
#[error("its health check failed: {}", cause(&**source))]
pub(crate) struct CheckFailed {
    #[source]
    pub(crate) source: SharedError,
}
