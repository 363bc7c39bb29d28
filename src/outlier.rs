//! Which endpoints are ejected because their requests fail, hang or are slow (passive health checks).
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
//! The figures are Finagle's (`FailureAccrualFactory`), because they work with two endpoints. With so few, those of
//! Envoy (at most a tenth of the set) and gRPC (A50: from five endpoints with a hundred requests each) do nothing. At
//! most half of the set is out, and never the last endpoint that accepts requests. If less than half is available,
//! there is a *panic*: so many bad endpoints are more likely a sign of something else, such as a bad client or a
//! database behind all of them. Then ejections are ignored, and requests go to all.
//!
//! A hung pod is unresponsive: its connections stay open, its requests get no answer, and their callers give up at some
//! time. The detector notices long before that, because the other pods answer meanwhile.
//!
//! A pod is slow if its requests' hedges are answered first, three times in a row. The other reasons mean that requests
//! fail there; this one means only that others are faster. So it is a preference, and yields:
//!
//! - It takes up no room: if it stands in the way of another ejection, or too few pods are available, it serves again.
//! - Its pauses are short, 0.2 s doubling to 5 s, because a trial costs a request only some time. They begin anew once
//!   the pod has served for four times the last one.
//! - Once its requests fail or hang, or its trial fails, or hangs and isn't hedged, it is out for that reason, with
//!   those pauses. A late answer to a trial is late, not a failure.
//! - A trial that loses to its hedge is late, not a failure: whatever the pod is out for, the next trial comes after
//!   one of these short pauses.
//!
//! Pure: takes `now`, the generator, and the members' statistics.

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

/// When endpoints are ejected because their requests fail, hang or are slow.
///
/// | setting | default | source |
/// | --- | --- | --- |
/// | [`consecutive_failures`](Self::consecutive_failures) | 5 | Finagle |
/// | [`success_rate`](Self::success_rate) | 80 % over 30 s, with 5 requests or more | Finagle |
/// | [`eject_slow`](Self::eject_slow) | three lost [hedges](crate::Hedge) in a row, if requests are hedged | |
/// | [`ejection_time`](Self::ejection_time) | 5 s, doubling to 300 s, ± 10 % | Finagle |
/// | [`max_ejection_ratio`](Self::max_ejection_ratio) | half of the endpoints | |
/// | [`panic_threshold`](Self::panic_threshold) | half of the endpoints | Envoy |
/// | [`unresponsive_after`](Self::unresponsive_after) | four times the usual time, 50 ms at least | |
///
/// The [`Completion`](crate::Completion) decides what counts as a failure.
///
/// Values out of range do no harm: ratios are clamped to 0 to 1, NaN means the default, and times are clamped to 1 ms
/// to a day.
///
/// Endpoints of weight zero, which get only requests that ask for them while others accept any, don't count for how
/// many may be ejected, unless all weights are zero.
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

    /// Settings that eject no endpoint, not even [slow ones](crate::Hedge#slow-pods).
    ///
    /// Endpoints that refuse connections are still passed over.
    pub const fn off() -> Self {
        Self {
            consecutive_failures: None,
            success_rate: None,
            unresponsive_after: None,
            eject_slow: false,
            ..Self::new()
        }
    }

    /// How many failures in a row eject an endpoint; 5 by default, at least 1. `None` for no limit.
    pub fn consecutive_failures(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.consecutive_failures = failures.into().map(|failures| failures.max(1));
        self
    }

    /// The least success rate, from 0 to 1, that keeps an endpoint in; 0.8 by default. `None` for no limit.
    ///
    /// The rate is that of the last 30 s, if there were at least 5 requests. An endpoint that was healthy for long has
    /// many old successes in that window. So the last 3, 6, 9 … s also count by themselves, if they have at least 20
    /// requests and their rate is lower by two standard deviations.
    pub fn success_rate(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.success_rate = rate.into().map(|rate| ratio(rate, SUCCESS_RATE));
        self
    }

    /// How long an endpoint may leave several requests without any answer while the others answer theirs.
    ///
    /// The limit is four times the usual time to an answer, but at least this; 50 ms by default. `None` for no limit.
    ///
    /// A request waits until the head of its response comes: while a response streams, the request doesn't wait.
    ///
    /// The limit has a second use: a cancelled request counts as a failure if it waited this long and the endpoint
    /// answered nobody meanwhile. A hedge that lost the race doesn't count: it is cancelled sooner, or the endpoint
    /// answers others.
    pub fn unresponsive_after(mut self, least: impl Into<Option<Duration>>) -> Self {
        self.unresponsive_after = least.into().map(|least| least.clamp(MILLI, DAY));
        self
    }

    /// Whether an endpoint is ejected for a short while if it [loses one hedge after another](crate::Hedge#slow-pods);
    /// on by default. Has an effect only if requests are hedged.
    pub fn eject_slow(mut self, eject: bool) -> Self {
        self.eject_slow = eject;
        self
    }

    /// How long an endpoint that fails is out the first time, and at most; 5 s and 300 s by default.
    ///
    /// The time doubles with each ejection. It begins anew once the endpoint has served for as long as it was out, and
    /// for at least 30 s.
    pub fn ejection_time(mut self, min: Duration, max: Duration) -> Self {
        // An ejection of no time has no effect, and one of more than a day is for good.
        self.min_ejection = min.clamp(MILLI, DAY);
        self.max_ejection = max.clamp(self.min_ejection, DAY);
        self
    }

    /// How many of the endpoints may be ejected, as a part of all from 0 to 1; half by default.
    ///
    /// The last endpoint that accepts requests is never ejected. If the set shrinks and too many are out, some serve
    /// again: first those whose next trial is nearest. Endpoints without weight don't count, unless none has any.
    /// [Slow](Self::eject_slow) endpoints make room for failing ones: they serve again if a failing endpoint couldn't
    /// be ejected otherwise.
    pub fn max_ejection_ratio(mut self, part: f64) -> Self {
        self.max_ejection_ratio = ratio(part, MAX_EJECTION_RATIO);
        self
    }

    /// If a smaller part of the endpoints than this, from 0 to 1, is available, ejections are ignored; half by default.
    /// Zero: never.
    pub fn panic_threshold(mut self, part: f64) -> Self {
        self.panic_threshold = ratio(part, PANIC_THRESHOLD);
        self
    }

    pub(crate) fn is_off(&self) -> bool {
        self.consecutive_failures.is_none()
            && self.success_rate.is_none()
            && self.unresponsive_after.is_none()
    }

    /// The reason to eject an endpoint whose trial request fails.
    fn rule_of_failures(&self) -> Option<EjectionReason> {
        let in_a_row = self.consecutive_failures.is_some();
        let rate = self.success_rate.is_some();
        let rate = rate.then_some(EjectionReason::SuccessRate);
        in_a_row
            .then_some(EjectionReason::ConsecutiveFailures)
            .or(rate)
    }

    /// The reason to eject an endpoint that doesn't answer its trial request.
    fn rule_of_silence(&self) -> Option<EjectionReason> {
        let after = self.unresponsive_after;
        after.map(|_| EjectionReason::Unresponsive)
    }

    /// How many failures in a row eject an endpoint.
    pub(crate) fn limit(&self) -> Option<u32> {
        self.consecutive_failures
    }

    /// How many of `all` may be out.
    fn may_be_out(&self, all: usize) -> usize {
        // Half of two is one, in spite of rounding.
        ((all as f64 * self.max_ejection_ratio + 1e-9) as usize).min(all.saturating_sub(1))
    }

    /// Whether too few of `all` are available, so that ejections are ignored.
    fn is_panic(&self, available: usize, all: usize) -> bool {
        (available as f64) < all as f64 * self.panic_threshold - 1e-9
    }

    /// How long an endpoint may leave requests unanswered, if answers usually take `usual`.
    pub(crate) fn unresponsive_limit(&self, usual: Duration) -> Option<Duration> {
        let least = self.unresponsive_after?;
        Some(least.max(usual.saturating_mul(USUAL)))
    }
}

/// How many times the usual time counts as long.
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
    fn settings_out_of_range_are_clamped() {
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
