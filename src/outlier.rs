//! Which endpoints are passed over because of what their requests have come to (passive health checks, outlier ejection).
//!
//! ```text
//!                    5 failures in a row, or fewer than 80 % successes
//!               ┌──────────────────────────────────────────────────────────────────┐
//!               │                                                                  ▼
//!  ┌─────────────┐  requests without an answer  ┌──────────────┐  given up  ┌──────────────┐
//!  │   healthy   │ ───────────────────────────▶ │ unresponsive │ ─────────▶ │   ejected    │
//!  │             │ ◀─────────────────────────── │              │            │ 5 s … 300 s  │
//!  └─────────────┘           an answer          └──────────────┘            └──────────────┘
//!               ▲                  still no answer │       the time is over │     ▲ its one request fails:
//!               │                                  ▼                        ▼     │ twice as long
//!               │                                ┌───────────────────────────────────┐
//!               └─────────────────────────────── │ half-open: one request at a time  │
//!                    its one request succeeds    └───────────────────────────────────┘
//! ```
//!
//! The figures are Finagle's (`FailureAccrualFactory`): they work with two endpoints, where those of Envoy (a tenth of the set
//! at most) and gRPC (A50: from five endpoints with a hundred requests each) do nothing. At most half of the set is out, and
//! never the last one that accepts requests. With less than half available, *panic*: what looks like that many bad endpoints is
//! more likely to be something else, such as a bad client or a database behind all of them. Ejections are ignored then, and the
//! requests spread over all.
//!
//! A hung pod is unresponsive: its connections stand, its requests get no answer, and their callers give up some day. Long
//! before that, the other pods answer, and it doesn't.
//!
//! A slow pod is one whose requests are answered by their hedges first, three in a row. The other reasons say that requests
//! fail there; this one says that others are faster. So it is a preference, and yields:
//!
//! - It takes up nothing: where it stands in the way of another ejection, or of an available pod, it serves again.
//! - Its pauses are short, 0.2 s doubling to 5 s: to try it costs a request some time, and no more. They begin anew once it has
//!   been in for four times the last one.
//! - Once its requests fail or hang, or its trial fails, or hangs and isn't hedged, it is out for that, and with those pauses.
//!   A trial that has any answer late is late, and no failure.
//! - A trial that loses to its hedge is late, no failure: whatever the pod is out for, the next trial comes after one of these
//!   short pauses.
//!
//! Pure: takes `now`, the generator, and what the members' statistics tell.

mod detector;
mod endpoint_health;
mod observation;
mod pauses;
#[cfg(test)]
mod suite;
mod window;

pub(crate) use detector::{Case, OutlierDetector};
pub(crate) use endpoint_health::EndpointHealth;
pub(crate) use observation::{Decision, Observation};

use std::time::Duration;

use crate::{member::EjectionReason, times::DAY};

/// When endpoints are passed over because of what their requests have come to.
///
/// | setting | default | source |
/// | --- | --- | --- |
/// | [`consecutive_failures`](Self::consecutive_failures) | 5 | Finagle |
/// | [`success_rate`](Self::success_rate) | 80 % over 30 s, with 5 requests or more | Finagle |
/// | [`eject_slow`](Self::eject_slow) | three lost [hedges](crate::Hedge) in a row, where requests are hedged | |
/// | [`ejection_time`](Self::ejection_time) | 5 s, doubling to 300 s, ± 10 % | Finagle |
/// | [`max_ejection_ratio`](Self::max_ejection_ratio) | half of the endpoints | |
/// | [`panic_threshold`](Self::panic_threshold) | half of the endpoints | Envoy |
/// | [`unresponsive_after`](Self::unresponsive_after) | four times the usual time, 50 ms at least | |
///
/// What counts as a failure is the [`Completion`](crate::Completion)'s to say.
///
/// No setting can do harm by its value: ratios outside of 0 to 1 are taken for the nearer end, NaN for the default, and times
/// for the nearest from 1 ms to a day.
///
/// Endpoints of weight zero, which get requests of their own only, have no part in how many of the others may be ejected; unless
/// all are.
///
/// ```
/// use std::time::Duration;
/// use tower_headless::{Balance, Endpoint, OutlierDetection, StaticEndpoints};
///
/// let detection = OutlierDetection::new()
///     .consecutive_failures(10)
///     .ejection_time(Duration::from_secs(1), Duration::from_secs(60));
/// let balance = Balance::builder(StaticEndpoints::new([]))
///     .outlier_detection(detection)
///     .build(|endpoint: &Endpoint| endpoint.address());
/// # let _ = balance;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "settings do nothing until a builder has them"]
pub struct OutlierDetection {
    consecutive_failures: Option<u32>,
    success_rate: Option<f64>,
    unresponsive_after: Option<Duration>,
    eject_slow: bool,
    min_ejection: Duration,
    max_ejection: Duration,
    max_ejection_ratio: f64,
    panic_threshold: f64,
}

const SUCCESS_RATE: f64 = 0.8;
const MAX_EJECTION_RATIO: f64 = 0.5;
const PANIC_THRESHOLD: f64 = 0.5;

impl OutlierDetection {
    /// The default settings.
    pub const fn new() -> Self {
        Self {
            consecutive_failures: Some(5),
            success_rate: Some(SUCCESS_RATE),
            unresponsive_after: Some(Duration::from_millis(50)),
            eject_slow: true,
            min_ejection: Duration::from_secs(5),
            max_ejection: Duration::from_secs(300),
            max_ejection_ratio: MAX_EJECTION_RATIO,
            panic_threshold: PANIC_THRESHOLD,
        }
    }

    /// No endpoint is ejected, whatever its requests come to, [slow ones](crate::Hedge#slow-pods) included. Those that refuse
    /// connections are passed over all the same.
    pub const fn off() -> Self {
        Self {
            consecutive_failures: None,
            success_rate: None,
            unresponsive_after: None,
            eject_slow: false,
            ..Self::new()
        }
    }

    /// How many failures, without a success among them, eject; one at least. None: no number does.
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
        self.success_rate = rate.into().map(|rate| ratio(rate, SUCCESS_RATE));
        self
    }

    /// How long several requests may wait at an endpoint, of which none is answered, while the others answer theirs. It is
    /// four times the usual time to an answer, but this at least. None: for ever.
    ///
    /// A request waits until the head of its response comes: a response that streams is no silence.
    ///
    /// With this goes the rule that a cancelled request counts as a failure if it waited this long and the endpoint answered
    /// nobody meanwhile. A hedge that lost the race gives up sooner, or while the endpoint answers others.
    pub fn unresponsive_after(mut self, least: impl Into<Option<Duration>>) -> Self {
        self.unresponsive_after = least.into().map(|least| least.clamp(MILLI, DAY));
        self
    }

    /// Whether an endpoint is passed over for a while that [loses one hedge after another](crate::Hedge#slow-pods). Without
    /// hedging none does.
    pub fn eject_slow(mut self, eject: bool) -> Self {
        self.eject_slow = eject;
        self
    }

    /// How long an endpoint that fails is out the first time, and at most. The time doubles with each ejection, and begins anew once
    /// the endpoint has been in for as long as it was out, and for 30 s.
    pub fn ejection_time(mut self, min: Duration, max: Duration) -> Self {
        // An ejection of no time would be none, and one of more than a day an end.
        self.min_ejection = min.clamp(MILLI, DAY);
        self.max_ejection = max.clamp(self.min_ejection, DAY);
        self
    }

    /// How many of the endpoints may be ejected, as a part of all from 0 to 1. The last one that accepts requests never is.
    /// Where the set shrinks, those beyond it serve again, the ones first whose next trial is nearest. Endpoints without weight
    /// don't count, unless none has any.
    /// [Slow](Self::eject_slow) endpoints make room for those that fail: they serve again rather than keep one of these in.
    pub fn max_ejection_ratio(mut self, part: f64) -> Self {
        self.max_ejection_ratio = ratio(part, MAX_EJECTION_RATIO);
        self
    }

    /// With fewer endpoints available than this part of all, from 0 to 1, ejections are ignored. Zero: they never are.
    pub fn panic_threshold(mut self, part: f64) -> Self {
        self.panic_threshold = ratio(part, PANIC_THRESHOLD);
        self
    }

    pub(crate) fn is_off(&self) -> bool {
        self.consecutive_failures.is_none()
            && self.success_rate.is_none()
            && self.unresponsive_after.is_none()
    }

    /// What an endpoint is out for that fails the request it is tried with.
    fn rule_of_failures(&self) -> Option<EjectionReason> {
        let in_a_row = self.consecutive_failures.is_some();
        let rate = self.success_rate.is_some();
        let rate = rate.then_some(EjectionReason::SuccessRate);
        in_a_row
            .then_some(EjectionReason::ConsecutiveFailures)
            .or(rate)
    }

    /// What an endpoint is out for that doesn't answer the request it is tried with.
    fn rule_of_silence(&self) -> Option<EjectionReason> {
        let after = self.unresponsive_after;
        after.map(|_| EjectionReason::Unresponsive)
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

    /// Whether so few of `all` are available that ejections are ignored.
    fn is_panic(&self, available: usize, all: usize) -> bool {
        (available as f64) < all as f64 * self.panic_threshold - 1e-9
    }

    /// How long an endpoint may leave requests unanswered, where answers usually take so long.
    pub(crate) fn unresponsive_limit(&self, usual: Duration) -> Option<Duration> {
        let least = self.unresponsive_after?;
        Some(least.max(usual.saturating_mul(USUAL)))
    }
}

/// How many times the usual time is a long time.
pub(crate) const USUAL: u32 = 4;

const MILLI: Duration = Duration::from_millis(1);

fn ratio(value: f64, default: f64) -> f64 {
    match value.is_nan() {
        true => default,
        false => value.clamp(0.0, 1.0),
    }
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_taken_for_the_nearest_in_it() {
        let new = OutlierDetection::new;
        assert_eq!(new().success_rate(1.5), new().success_rate(1.0));
        assert_eq!(new().success_rate(f64::NAN), new());
        assert_eq!(
            new().max_ejection_ratio(-1.0),
            new().max_ejection_ratio(0.0)
        );
        assert_eq!(new().max_ejection_ratio(f64::NAN), new());
        assert_eq!(
            new().panic_threshold(f64::INFINITY),
            new().panic_threshold(1.0)
        );
        assert_eq!(new().panic_threshold(f64::NAN), new());
        assert_eq!(new().consecutive_failures(0), new().consecutive_failures(1));
        assert_eq!(
            new().unresponsive_after(Duration::ZERO),
            new().unresponsive_after(MILLI)
        );
        let times = new().ejection_time(Duration::ZERO, Duration::ZERO);
        assert_eq!(times, new().ejection_time(MILLI, MILLI));
        assert_eq!(
            new().ejection_time(DAY, Duration::MAX),
            new().ejection_time(DAY, DAY)
        );
    }
}
