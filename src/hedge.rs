//! Hedging: asks a second endpoint before the first one has failed.
//!
//! "The Tail at Scale" (Dean and Barroso, CACM 56(2), 2013) describes it: the second request is held back until the
//! first has been outstanding for longer than usual, and the first answer counts. gRPC (gRFC A6) and Envoy
//! (`hedge_policy`) hedge after a fixed time, Finagle (`BackupRequestFilter`) after a percentile.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `hedge/share.rs` | how many requests are hedged |
//! | `hedge/race.rs` | the engine: two tries of one request, and which result counts |

mod race;
mod share;

#[cfg(feature = "http")]
pub(crate) use race::Runner;
pub(crate) use race::{Contest, Race};

use std::time::Duration;

use tower::retry::budget::Budget;

use self::share::Share;
use crate::route::Route;

/// Settings of hedging: asking a second pod when an answer is late. Hedging is off unless a client
/// (`http::ClientBuilder::hedge`) or a layer ([`RetryLayer::hedge`](crate::RetryLayer::hedge)) has these settings.
///
/// If the head of an answer is late, the same request goes to another pod, once. The caller gets the first good answer.
/// The other request is cancelled, and counts neither as a success nor as a failure of its pod. If both fail, the
/// caller sees one failure. The request's timeout holds for both, and cancelling the request cancels both.
///
/// | setting | default | source |
/// | --- | --- | --- |
/// | [late](Self::after) | after the usual p95, 1 ms at least; [up to 4 times that](#what-bounds-it) | The Tail at Scale, Finagle |
/// | [`share`](Self::share) | 2 of 100 requests, 10 saved up | The Tail at Scale, of BigTable |
///
/// # What is good
///
/// Over HTTP, an answer is good unless it is a 5xx, a 429, a status that is retried
/// (`http::ClientBuilder::retry_statuses`), or gRPC's `UNAVAILABLE`, `RESOURCE_EXHAUSTED` or `DEADLINE_EXCEEDED` in the
/// head. Those aren't good because refusals are fast, and would win against answers that are on their way. With
/// [`RetryLayer`](crate::RetryLayer), the policy [decides](crate::RetryPolicy::is_good). A result that isn't good is
/// set aside while the other pod has the request. If it is the first pod's and is one that is retried, a third pod, if
/// there is one, is asked at once, as without hedging. If no result is good, the caller gets the first result that was
/// set aside.
///
/// If the other pod hangs, the caller also gets the result that was set aside. A hedge that goes on alone has twice the
/// time that it was held back for. A first pod that goes on alone has as long as without hedging: until the request's
/// timeout, if it has one.
///
/// # What is hedged
///
/// Only safe requests, which change nothing. Over HTTP these are GET, HEAD, OPTIONS or TRACE (RFC 9110 §9.2.1) without
/// a body and without `Upgrade`. With [`RetryLayer`](crate::RetryLayer), the policy
/// [decides](crate::RetryPolicy::may_hedge). A POST is never hedged, even if it may be sent again. Nor is a request for
/// [one pod](crate::Route::pod) (as in a strict session) or for [all](crate::Balance::broadcast). Nor is a request with
/// no other pod left, because it [avoids](crate::Route::avoid) or [leaves out](crate::Route::leave_out) all of them.
///
/// The second pod is any other one that has a [weight](crate::Endpoint::weight). If the request has a
/// [key](crate::Route::key) and the policy goes by keys, it is the key's next choice. If no other pod is available, it
/// is one that is due to be tried, or one that is passed over because it is [slow](#slow-pods). A
/// [preferred](crate::Route::prefer) pod stays preferred, and its session stays with it.
///
/// # What is usual
///
/// The usual p95 is the median, over all pods, of each pod's 95th percentile of the time to the answer's head. The
/// pod's own p95 wouldn't do, because a slow pod would excuse itself. Nor would the p95 of all answers: with one slow
/// pod of ten, a tenth of them is slow. The value is known once a pod has had 20 answers, and reliable once most have.
/// Until then nothing is hedged, unless a [time](Self::after) is given. A request that is already under way when it
/// becomes known is hedged then, if it is late. A request's time counts from its beginning, including the wait for a
/// connection.
///
/// # What bounds it
///
/// The retries' budget ([`RetryLayer::budget`](crate::RetryLayer::budget)) and the [share](Self::share) both do, so
/// that a slowdown of all pods is not made worse.
///
/// By definition 5 of 100 requests take longer than the p95, and 2 of 100 may be hedged. So the fewer hedges are saved
/// up, the longer a hedge waits: from the usual p95 with all 10 saved up, to 4 times that with none. In good times this
/// settles where the slowest 1.5 of 100 requests are hedged: at 1.4 times the p95 if times are exponentially
/// distributed, at 1.7 times if they are lognormal (σ = 1). Then about 8 hedges are saved up for a bad moment. It is
/// 1.5 rather than 2 because while more than half is saved up, each request saves only three quarters of the share. A
/// [time](Self::after) that is given is not stretched.
///
/// If a late request can't be hedged yet, if no pod has it yet, or if no pod takes its hedge, it is looked at again
/// after twice the time, and so on, at least once a second. A request that is sent again gets the full time again.
///
/// # Slow pods
///
/// A pod is passed over if it lost three of its requests to a hedge, and answered none in between within twice the
/// usual p95. The first time it is out for 0.2 s, doubling to 5 s, ± 20 %. Then one request tries it; an answer within
/// twice the p95 brings it back. Once it has been in for four times the last pause, the next pause is 0.2 s again. It
/// shows as [`EjectionReason::Slow`](crate::EjectionReason::Slow). Without this, round robin would go on sending every
/// tenth request to one slow pod of ten, and hedge it.
///
/// This is only a preference. By default at most half of the pods may be out, including those that fail
/// ([`max_ejection_ratio`](crate::OutlierDetection::max_ejection_ratio)), and never the last one. A slow pod serves
/// again if a failing one would have to stay in otherwise. A slow pod whose requests fail or hang (those that prefer it
/// still go there) is ejected for that instead. So is one whose trial fails, or hangs without being hedged. If its
/// trial loses to a hedge, or is answered later than twice the p95, the pod stays slow.
/// [`eject_slow(false)`](crate::OutlierDetection::eject_slow) turns it off, and so does
/// [`OutlierDetection::off`](crate::OutlierDetection::off): then requests are hedged, but no pod is passed over.
///
/// # The price
///
/// Up to 2 % more requests, and 1.5 % in good times. The pod whose request is cancelled may have done the work. Over
/// HTTP/1.1 the cancelled request's connection is closed, so the next request to that pod may have to connect. Over
/// HTTP/2 only a stream is reset. A request that may be hedged is copied at its beginning, and has a timer. A client
/// without hedging pays none of this.
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
    /// The fixed time; `None` for the usual p95.
    after: Option<Duration>,
    share: f64,
}

/// The default of [`Hedge::share`].
const SHARE: f64 = 0.02;

impl Hedge {
    /// Hedges after the usual p95.
    pub const fn new() -> Self {
        Self {
            after: None,
            share: SHARE,
        }
    }

    /// Hedges after this time, counted in milliseconds. A time that is shorter than pods take to answer only uses up
    /// the share.
    pub const fn after(time: Duration) -> Self {
        Self {
            after: Some(time),
            ..Self::new()
        }
    }

    /// The largest part, from 0 to 1, of hedgeable requests that are hedged; 0.02 by default. Up to 10 hedges that
    /// weren't needed are saved up for later. A value out of range counts as the nearest in range, NaN as the default.
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

/// From when on a result is late.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Late {
    /// After this time.
    After(Duration),
    /// Not known yet: it is learnt from answers, and there have been too few.
    Unknown,
}

/// How far the hedge of one request has got.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Charge {
    /// Whether the budget has been charged for it.
    is_paid: bool,
    is_refused: bool,
}

impl Charge {
    /// Whether to count that a hedge is allowed or refused. Each allowed one counts, because it is sent. A refused one
    /// is asked for again and again, and counts once.
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

    /// Begins a request that may be hedged, and returns from when on it is late; `None` if it is for one pod. `late`
    /// gives the usual p95.
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

    /// How long an answer may take, at present, before its request is hedged. `late` is the time after which it is
    /// late.
    pub(crate) fn hedge_delay(&self, late: Duration) -> Duration {
        match self.after {
            Some(_) => late,
            None => late.mul_f64(self.share.delay_factor()),
        }
    }

    /// Whether one more hedge is allowed; if so, it must be made. If the share or the budget refuses, the other is not
    /// charged. The budget is charged once for each request.
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

    /// Gives back a hedge that was allowed, but that no pod got.
    pub(crate) fn give_back(&self) {
        self.share.give_back();
    }
}
