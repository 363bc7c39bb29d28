//! Which endpoints are passed over because of what their requests have come to (passive health checks, outlier ejection).
//!
//! ```text
//!                    5 failures in a row, or fewer than 80 % successes
//!               ┌────────────────────────────────────────────────────────────┐
//!               │                                                            ▼
//!  ┌─────────────┐  requests without an answer  ┌────────┐  given up  ┌──────────────┐
//!  │   healthy   │ ───────────────────────────▶ │ silent │ ─────────▶ │   ejected    │
//!  │             │ ◀─────────────────────────── │        │            │ 5 s … 300 s  │
//!  └─────────────┘           an answer          └────────┘            └──────────────┘
//!               ▲                        still silent │   the pause is over │     ▲ its one request fails:
//!               │                                     ▼                     ▼     │ twice as long
//!               │                                ┌──────────────────────────────────┐
//!               └─────────────────────────────── │ on probation: one request at a   │
//!                    its one request succeeds    │ time                             │
//!                                                └──────────────────────────────────┘
//! ```
//!
//! The figures are Finagle's (`FailureAccrualFactory`): they work with two endpoints, where those of Envoy (a tenth of the set
//! at most) and gRPC (A50: from five endpoints with a hundred requests each) do nothing. At most half of the set is out, and
//! never the last one that accepts requests. With less than half available, *panic*: what looks like that many bad endpoints is
//! more likely to be something else, such as a bad client or a database behind all of them. Ejections are ignored then, and the
//! requests spread over all.
//!
//! Silence is what a hung pod shows: its connections stand, its requests get no answer, and whoever waits for them gives up
//! some day. Long before that, others answer, and it doesn't.
//!
//! Pure: takes `now`, the generator, and what the endpoints' records tell.

mod standing;
#[cfg(test)]
mod suite;
mod ward;
mod window;

pub(crate) use standing::Standing;
pub(crate) use ward::{Finding, Treatment, Ward};

use std::time::Duration;

/// When endpoints are passed over because of what their requests have come to.
///
/// | setting | default | source |
/// | --- | --- | --- |
/// | [`consecutive_failures`](Self::consecutive_failures) | 5 | Finagle |
/// | [`success_rate`](Self::success_rate) | 80 % over 30 s, with 5 requests or more | Finagle |
/// | [`ejection_time`](Self::ejection_time) | 5 s, doubling to 300 s, ± 10 % | Finagle |
/// | [`max_ejection_ratio`](Self::max_ejection_ratio) | half of the endpoints | |
/// | [`panic_threshold`](Self::panic_threshold) | half of the endpoints | Envoy |
/// | [`unresponsive_after`](Self::unresponsive_after) | four times the usual time, 50 ms at least | |
///
/// What counts as a failure is the [`Completion`](crate::Completion)'s to say.
///
/// ```
/// use std::time::Duration;
/// use tower_headless::{Balance, Endpoint, StaticEndpoints, OutlierDetection};
///
/// let balance = Balance::builder(StaticEndpoints::new([]))
///     .outlier_detection(OutlierDetection::new().consecutive_failures(10).ejection_time(Duration::from_secs(1), Duration::from_secs(60)))
///     .build(|endpoint: &Endpoint| endpoint.address());
/// # let _ = balance;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "settings do nothing until a builder has them"]
pub struct OutlierDetection {
    consecutive_failures: Option<u32>,
    success_rate: Option<f64>,
    silence: Option<Duration>,
    min_pause: Duration,
    max_pause: Duration,
    max_ejection_ratio: f64,
    panic_threshold: f64,
}

impl OutlierDetection {
    /// The default settings.
    pub const fn new() -> Self {
        Self {
            consecutive_failures: Some(5),
            success_rate: Some(0.8),
            silence: Some(Duration::from_millis(50)),
            min_pause: Duration::from_secs(5),
            max_pause: Duration::from_secs(300),
            max_ejection_ratio: 0.5,
            panic_threshold: 0.5,
        }
    }

    /// No endpoint is ejected, whatever its requests come to. Those that refuse connections are passed over all the same.
    pub const fn off() -> Self {
        Self {
            consecutive_failures: None,
            success_rate: None,
            silence: None,
            ..Self::new()
        }
    }

    /// So many failures, without a success among them, eject; one at least. None: however many.
    pub fn consecutive_failures(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.consecutive_failures = failures.into().map(|failures| failures.max(1));
        self
    }

    /// An endpoint with a smaller part of successes, from 0 to 1, is ejected. None: however small.
    ///
    /// The part is that of the last 30 s, once there were 5 requests in them. An endpoint that was well for a long time has
    /// many successes to its name: so the last 3, 6, 9 … s alone count as well, once there were 20 requests in them and the
    /// part is below the rate by two standard deviations.
    pub fn success_rate(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.success_rate = rate.into();
        self
    }

    /// For how long several requests may wait at an endpoint, of which none is answered, while the others answer theirs. It is
    /// four times the usual time to an answer, but this at least. None: for ever.
    ///
    /// With this goes the rule that a request counts as a failure if its caller gives it up after such a time without any
    /// answer of the endpoint in all of it, neither to this request nor to another one. A hedge that lost the race gives up
    /// sooner, or while the endpoint answers others.
    pub fn unresponsive_after(mut self, least: impl Into<Option<Duration>>) -> Self {
        self.silence = least.into();
        self
    }

    /// For how long an endpoint is out the first time, and at most. The time doubles with each ejection, and begins anew once
    /// the endpoint has been in for as long as it was out, and for 30 s.
    pub fn ejection_time(mut self, min: Duration, max: Duration) -> Self {
        // A pause of nothing would be no pause, and one beyond a day an end.
        self.min_pause = min.clamp(Duration::from_millis(1), DAY);
        self.max_pause = max.clamp(self.min_pause, DAY);
        self
    }

    /// How many of the endpoints may be ejected, as a part of all from 0 to 1. The last one that accepts requests never is.
    pub fn max_ejection_ratio(mut self, part: f64) -> Self {
        self.max_ejection_ratio = part;
        self
    }

    /// With fewer endpoints available than this part of all, from 0 to 1, ejections are ignored. Zero: they never are.
    pub fn panic_threshold(mut self, part: f64) -> Self {
        self.panic_threshold = part;
        self
    }

    pub(crate) fn is_off(&self) -> bool {
        self.consecutive_failures.is_none() && self.success_rate.is_none() && self.silence.is_none()
    }

    /// How many failures in a row are reason enough.
    pub(crate) fn limit(&self) -> Option<u32> {
        self.consecutive_failures
    }

    /// How many of `all` may be out.
    fn may_be_out(&self, all: usize) -> usize {
        // Half of two is one, in spite of rounding.
        ((all as f64 * self.max_ejection_ratio + 1e-9) as usize).min(all.saturating_sub(1))
    }

    /// Whether so few of `all` are available that ejections are to be ignored.
    fn is_panic(&self, available: usize, all: usize) -> bool {
        (available as f64) < all as f64 * self.panic_threshold - 1e-9
    }

    /// For how long an endpoint may be silent, where answers usually take so long.
    pub(crate) fn patience(&self, usual: Duration) -> Option<Duration> {
        let least = self.silence?;
        Some(least.max(usual.saturating_mul(USUAL)))
    }
}

/// How many times the usual time is a long time.
pub(crate) const USUAL: u32 = 4;

const DAY: Duration = Duration::from_secs(86_400);

impl Default for OutlierDetection {
    fn default() -> Self {
        Self::new()
    }
}
