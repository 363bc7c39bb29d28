//! Hedging: a second endpoint is asked before the first one has failed.
//!
//! "The Tail at Scale" (Dean and Barroso, CACM 56(2), 2013) describes it: the second request is held back until the first has
//! been outstanding for longer than is usual, and what comes first counts. gRPC (gRFC A6) and Envoy (`hedge_policy`) have
//! it after a fixed time, Finagle (`BackupRequestFilter`) after a percentile.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `hedge/share.rs` | how many requests are hedged |
//! | `hedge/race.rs` | the one engine: two tries of one request, and which result counts |

mod race;
mod share;

#[cfg(feature = "http")]
pub(crate) use race::Runner;
pub(crate) use race::{Contest, Race};

use std::time::Duration;

use tower::retry::budget::Budget;

use self::share::Share;
use crate::route::Route;

/// When a second pod is asked for an answer that is late. Off unless a client
/// (`http::ClientBuilder::hedge`) or a layer ([`RetryLayer::hedge`](crate::RetryLayer::hedge)) is given one.
///
/// If the head of an answer is late, the same request goes to another pod, once. The first good answer is the caller's; the
/// other request is cancelled, and says nothing of its pod: it is neither a success nor a failure. Where both fail, it is as if
/// one had. The request's timeout holds for both, and giving it up cancels both.
///
/// | setting | default | source |
/// | --- | --- | --- |
/// | [late](Self::after) | after the usual p95, 1 ms at least; [up to 4 times that](#what-bounds-it) | The Tail at Scale, Finagle |
/// | [`share`](Self::share) | 2 of 100 requests, 10 saved up | The Tail at Scale, of BigTable |
///
/// # What is good
///
/// Over HTTP an answer that is neither a 5xx nor a 429, none of the
/// statuses that are retried (`http::ClientBuilder::retry_statuses`), and not gRPC's `UNAVAILABLE`, `RESOURCE_EXHAUSTED` or
/// `DEADLINE_EXCEEDED` in the head: refusals are fast, and would win against answers that are on their way. With
/// [`RetryLayer`](crate::RetryLayer), what the policy [says](crate::RetryPolicy::is_good). Any other result is set aside while
/// the other pod has the request. If it is the first pod's, is one that is retried, and there is a third pod, that is asked at
/// once, as without hedging. Where no result is good, the first one since then is the caller's.
///
/// Where the other pod hangs, what was set aside is the caller's as well. A hedge that goes on alone has twice the time that it
/// was held back for. A first pod that goes on alone has as long as it would have without hedging: until the request's timeout
/// is over, if it has one.
///
/// # What is hedged
///
/// Safe requests only, which change nothing: over HTTP those with GET, HEAD, OPTIONS or TRACE (RFC 9110 §9.2.1), without a body
/// and without `Upgrade`; with [`RetryLayer`](crate::RetryLayer), what the
/// policy [allows](crate::RetryPolicy::may_hedge). A POST never is, though it may be sent again. Nor is a request for
/// [one pod](crate::Route::pod), which one of a strict session is, or for [all](crate::Balance::broadcast); or one that may go to
/// no other pod for those that it [avoids](crate::Route::avoid) and that it [leaves out](crate::Route::leave_out).
///
/// The second pod is any other one that has a [weight](crate::Endpoint::weight); for a request with a
/// [key](crate::Route::key), under a policy that goes by keys, the key's next choice. Where no other one is available, it is one
/// that is due to be tried, or one that is passed over because it is [slow](#slow-pods). A pod that is only
/// [preferred](crate::Route::prefer) stays so, and its session stays with it.
///
/// # What is usual
///
/// Of each pod the 95th percentile of the time to its answers' heads, of all requests; of those the median of all pods. Not
/// the pod's own: a slow one would be its own excuse. Nor that of all answers: with one slow pod of ten, a tenth of them is
/// slow. It is known once a pod has had 20 answers, and sure once most have. Until then nothing is hedged, unless a
/// [time](Self::after) is given; a request that is under way when it is known is hedged then, if it is late. The time of a
/// request counts from its beginning, with whatever it waits for a connection.
///
/// # What bounds it
///
/// The retries' budget ([`RetryLayer::budget`](crate::RetryLayer::budget)), and besides the [share](Self::share), so that a
/// slowdown of all pods is not made worse.
///
/// By definition 5 of 100 requests take longer than the p95, and 2 of 100 may be hedged. So a hedge waits for longer the fewer
/// are saved up: from the usual p95 with all 10 to 4 times that with none. In good times this settles where 1.5 of 100 are late,
/// those that take longest: at 1.4 times the p95 where times are exponentially distributed, at 1.7 times where they are
/// lognormal (σ = 1). Then about 8 are saved up for a bad moment. The share is filled by three quarters of it only while more
/// than half is saved up, hence 1.5. A [time](Self::after) that is given stays as it is.
///
/// A late request that may not be hedged, or that no pod has yet, is looked at again after twice the time, and so on, at least
/// once a second; so is one whose hedge no pod takes. One that is sent again has all of the time again.
///
/// # Slow pods
///
/// A pod that lost three of its requests to a hedge, and answered none in less than twice the usual p95 between, is passed
/// over: 0.2 s the first time, doubling to 5 s, ± 20 %. Then one request tries it, and brings it back by an answer in that
/// time; once it has been in for four times the last pause, the next is 0.2 s again. It shows as
/// [`EjectionReason::Slow`](crate::EjectionReason::Slow).
/// Without that, round robin would go on sending every tenth request to one slow pod of ten, and hedge it.
///
/// That is a preference. Half of the pods may be out for it by default, those that fail included
/// ([`max_ejection_ratio`](crate::OutlierDetection::max_ejection_ratio)), and never the last one; and rather than keep a pod in
/// that fails, a slow one serves. One whose requests fail or hang, such as those that prefer it, is out for that. So is one that
/// fails when it is tried, or hangs and that isn't hedged; a trial that loses to its hedge, or has any answer later than that,
/// leaves it slow.
/// [`eject_slow(false)`](crate::OutlierDetection::eject_slow) turns it off, and so does
/// [`OutlierDetection::off`](crate::OutlierDetection::off): requests are hedged, and no pod is passed over.
///
/// # The price
///
/// Up to 2 % more requests, and 1.5 % in good times. The pod whose request is cancelled may have done the work. Over HTTP/1.1 the cancelled
/// request's connection is closed, and the next one to that pod may have to be dialled; over HTTP/2 it is a stream that is reset. A
/// request that may be hedged is copied at its beginning, and has a timer. A client without hedging has none of that.
///
/// ```
/// use std::time::Duration;
/// use tower_headless::Hedge;
///
/// let by_p95 = Hedge::new();
/// let fixed = Hedge::after(Duration::from_millis(50)).share(0.05);
/// # assert_ne!(by_p95, fixed);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "settings do nothing until a client or a layer has them"]
pub struct Hedge {
    /// None: when it is late by the endpoints' own measure.
    after: Option<Duration>,
    share: f64,
}

/// What the second requests are of all, at most.
const SHARE: f64 = 0.02;

impl Hedge {
    /// After the usual p95.
    pub const fn new() -> Self {
        Self {
            after: None,
            share: SHARE,
        }
    }

    /// After this time, counted in milliseconds. One shorter than pods take to answer only uses up the share.
    pub const fn after(time: Duration) -> Self {
        Self {
            after: Some(time),
            ..Self::new()
        }
    }

    /// How many of the requests that may be hedged are, as a part from 0 to 1. Up to 10 that weren't needed are saved up for
    /// later. A value out of range is taken for the nearest, NaN for the default.
    pub fn share(mut self, part: f64) -> Self {
        self.share = match part.is_nan() {
            true => SHARE,
            false => part.clamp(0.0, 1.0),
        };
        self
    }
}

impl Default for Hedge {
    fn default() -> Self {
        Self::new()
    }
}

/// When a result is late.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Late {
    /// After so long.
    After(Duration),
    /// It is learnt from answers, and there have been too few so far.
    Unknown,
}

/// What has become so far of the wish to hedge one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Charge {
    /// The budget has been charged for it.
    is_paid: bool,
    is_refused: bool,
}

impl Charge {
    /// Whether it is news that a hedge is allowed or refused: each one that is allowed is sent, but one that is refused is asked for
    /// again.
    pub(crate) fn is_news(&mut self, is_allowed: bool) -> bool {
        is_allowed || !std::mem::replace(&mut self.is_refused, true)
    }
}

/// The hedges of all requests of a client or a layer.
#[derive(Debug)]
pub(crate) struct Hedges {
    after: Option<Duration>,
    share: Share,
}

impl Hedges {
    pub(crate) fn new(settings: &Hedge) -> Self {
        Self {
            after: settings.after,
            share: Share::new(settings.share),
        }
    }

    /// A request begins that may be hedged, if it isn't for one pod; when it is late, where an answer is `late` after so long.
    pub(crate) fn begin(
        &self,
        route: &Route,
        late: impl FnOnce() -> Option<Duration>,
    ) -> Option<Late> {
        if route.is_for_one() {
            return None;
        }
        self.share.deposit();
        let after = self.after.or_else(late);
        Some(after.map_or(Late::Unknown, Late::After))
    }

    /// How long an answer may take now before its request is hedged, where it is late after `late`.
    pub(crate) fn patience(&self, late: Duration) -> Duration {
        match self.after {
            Some(_) => late,
            None => late.mul_f64(self.share.patience()),
        }
    }

    /// Whether one more hedge is allowed, which is made then. What either of the two refuses costs the other one nothing, and
    /// the budget is charged once for each request.
    pub(crate) fn allow(&self, budget: &dyn Budget, charge: &mut Charge) -> bool {
        if !self.share.withdraw() {
            return false;
        }
        charge.is_paid = charge.is_paid || budget.withdraw();
        if !charge.is_paid {
            self.share.give_back();
        }
        charge.is_paid
    }

    /// One that was allowed has come to nothing: no pod has had it.
    pub(crate) fn give_back(&self) {
        self.share.give_back();
    }
}
