//! Asking endpoints whether they are well (active health checks), beside what their requests come to.
//!
//! The life of an endpoint is drawn at [`HealthCheck`].
//!
//! The figures are those of Kubernetes' readiness probe, which asks the same question from the node that the pod is on; this
//! one asks it from where the requests come from. Who leaves the set and returns begins anew.
//!
//! What a check says and what requests say ([`OutlierDetection`](crate::OutlierDetection)) are two things, and neither overrules the other: an
//! endpoint is picked if both let it. A check that passes does not end an ejection for failed requests, and a request that
//! succeeds does not end one for failed checks; no trial request is offered to an endpoint whose check fails.
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

/// A question to an endpoint, and what it says to it.
///
/// `Any`, so that the HTTP client finds its own, which are to go over its kind of connections.
pub(crate) trait Checker: Any + Send + Sync {
    /// `kept` is what earlier checks of this endpoint have left, and this one leaves.
    fn check(&self, endpoint: &Endpoint, kept: &Kept) -> BoxFuture<'static, Result<(), BoxError>>;
}

/// What one check of an endpoint leaves to the next, such as a connection. It goes with the endpoint, and the balancer.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "TCP keeps nothing"))]
impl Kept {
    /// Takes what is there: a check that never ends leaves nothing.
    pub(crate) fn take<T: 'static>(&self) -> Option<T> {
        let kept = self.0.lock().take()?;
        kept.downcast().ok().map(|kept| *kept)
    }

    pub(crate) fn leave(&self, kept: impl Any + Send) {
        let before = self.0.lock().replace(Box::new(kept));
        drop(before);
    }
}

/// How endpoints are asked whether they are well (active health checks). Off unless a builder is given one.
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
///   [ejected](crate::EndpointState::Ejected), until its check passes again. No request is sent to try it.
/// - **Checks and requests** know different things, and neither overrules the other. A check that passes does not end an
///   ejection for failed requests ([`OutlierDetection`](crate::OutlierDetection)); nor does it say that an endpoint that refused a request
///   accepts some again. What requests failed before a check did is forgotten when it passes.
/// - **It is known to be bad**, not only believed to be: such endpoints don't count against
///   [`OutlierDetection::max_ejection_ratio`](crate::OutlierDetection::max_ejection_ratio), and all of them can be out, as with Envoy. They count as not
///   available for [`OutlierDetection::panic_threshold`](crate::OutlierDetection::panic_threshold), and a panic brings them back as it does the
///   other ejected ones: that most endpoints fail a check at one time is more likely the check's fault. Where the threshold
///   is zero nothing brings them back but their checks.
/// - **It costs** a question of each client to every endpoint in each interval: a hundred clients of a hundred pods ask a
///   thousand times a second, and each pod is asked ten times. Without it the balancer sees which pods fail requests or refuse
///   connections, and Kubernetes takes those out of DNS that fail their readiness probe. Checks find what neither shows: a
///   pod that this client can't reach, before a request has to find out.
/// - **Checks run** in the balancer's background task, each endpoint in its turn; they end when the last handle is dropped.
///   The service that the balancer makes for an endpoint has no part in them. An endpoint that leaves the set and returns
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

/// When checks are made, and how many count.
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
    /// An endpoint passes if it accepts a TCP connection, which is closed at once.
    ///
    /// The runtime has to have I/O enabled, else all checks fail.
    pub fn tcp() -> Self {
        Self::by(|endpoint: Endpoint| async move {
            let connection = TcpStream::connect(endpoint.address());
            connection.await.map(drop)
        })
    }

    /// An endpoint passes if the future that `checker` makes for it ends well, within the [`timeout`](Self::timeout). It is
    /// dropped when that has passed, or the balancer is gone.
    ///
    /// The futures run in the balancer's background task, several at a time: they must not block. One that panics fails.
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

    /// How long it is from one check of an endpoint to the next, ± 10 %. The first one comes at some time within the
    /// interval, so that those of a new set are spread out.
    ///
    /// An endpoint that is [waited for](Self::require_initial_pass) is checked at once, and again after a second, or after
    /// the interval if that is shorter, until it passes.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.pace.interval = interval.clamp(SHORTEST, DAY);
        self
    }

    /// How long a check may take; one that takes longer fails.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.pace.timeout = timeout.clamp(SHORTEST, DAY);
        self
    }

    /// After how many checks in a row that fail an endpoint is ejected; one at least.
    pub fn failures(mut self, failures: u32) -> Self {
        self.pace.failures = failures.max(1);
        self
    }

    /// After how many checks in a row that pass an endpoint whose checks have failed is taken back; one at least.
    pub fn successes(mut self, successes: u32) -> Self {
        self.pace.successes = successes.max(1);
        self
    }

    /// How many checks of one balancer run at the same time at most; one at least. Those beyond wait for their turn, which
    /// makes the interval longer if they never have done in time.
    pub fn concurrency(mut self, checks: usize) -> Self {
        self.pace.concurrency = checks.max(1);
        self
    }

    /// Whether an endpoint gets no request before it has passed one check.
    ///
    /// While none has, requests wait, up to the [ready timeout](crate::BalanceBuilder::ready_timeout), and fail then with an
    /// error that [is unreachable](crate::Error::is_unreachable), whose source tells of the last check that failed. Endpoints
    /// that have passed none yet are not brought back by a panic, and are no reason for one: they don't count.
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

/// A check that has failed, as the source of errors that say why no endpoint gets requests.
#[derive(Debug, thiserror::Error)]
#[error("its health check failed: {}", cause(&**source))]
pub(crate) struct CheckFailed {
    #[source]
    pub(crate) source: SharedError,
}
