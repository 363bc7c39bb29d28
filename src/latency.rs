//! How long an endpoint takes to begin its answers: a moving average in which peaks count at once, and better answers
//! slowly.
//!
//! A sample above the average replaces it (a peak); one below moves it by 1 − e^(−Δt/τ), where Δt is the time since the
//! average last moved (Finagle's and linkerd's "peak EWMA"). Without samples it decays to *zero*, so that an endpoint
//! that is no longer picked becomes the cheapest at some time, and is tried. Decaying to the median would leave it
//! behind half of the set indefinitely. All averages decay alike, so a lull doesn't change their order.
//!
//! A pick reads only the average: no clock, no exponential. Samples bring their own time, and the background task does
//! the decaying.
//!
//! No average is above [`CEILING`] times the typical one, whatever the endpoint did. From there it decays to the
//! typical one within τ × ln 10, which is 23 s by default, however long the endpoint hung. Meanwhile requests still
//! avoid the endpoint, because at ten times the cost it always loses.

mod percentile;

pub(crate) use percentile::Percentile;

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The largest average, as a multiple of the typical one.
const CEILING: f64 = 10.0;

/// The least time that a failure counts as, as a multiple of the usual time.
const SLOW: f64 = 4.0;

/// The most time that one review lets decay: an average shouldn't decay while no requests could have raised it.
const MAX_STEP: Duration = Duration::from_secs(1);

/// The latencies of a balancer's endpoints, in sum.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    /// The median of the endpoints' averages.
    typical: Nanos,
    /// How long an answer usually takes to begin; without peaks.
    usual: Nanos,
    /// The median of the endpoints' 95th percentiles.
    late: Nanos,
}

/// The latency of one endpoint.
#[derive(Debug)]
pub(crate) struct Latency {
    average: Nanos,
    /// The balancer's age when the average last moved, in nanoseconds.
    moved: AtomicU64,
    decay: Duration,
}

/// A number of nanoseconds; zero if unknown.
#[derive(Debug, Default)]
struct Nanos(AtomicU64);

impl Nanos {
    #[inline]
    fn load(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    /// Stores at least a nanosecond, because zero stands for unknown.
    fn store(&self, nanos: f64) {
        self.0.store(nanos.max(1.0).to_bits(), Relaxed);
    }

    #[inline]
    fn update(&self, change: impl Fn(f64) -> f64) {
        let change = |bits| {
            let (before, after) = (f64::from_bits(bits), change(f64::from_bits(bits)));
            (after != before).then(|| after.max(1.0).to_bits())
        };
        // `Err` means that nothing changes.
        let _ = self.0.fetch_update(Relaxed, Relaxed, change);
    }
}

impl Latencies {
    /// The latency of a new endpoint, which starts with the typical average.
    pub(crate) fn latency(&self, decay: Duration) -> Latency {
        Latency {
            average: Nanos(AtomicU64::new(self.typical.load().to_bits())),
            moved: AtomicU64::new(0),
            decay,
        }
    }

    /// Sets how long an answer usually takes to begin.
    pub(crate) fn set_usual(&self, usual: Duration) {
        self.usual.store(usual.as_nanos() as f64);
    }

    /// Sets the typical average to the median of these averages.
    pub(crate) fn learn(&self, averages: &mut [f64]) {
        if let Some(median) = median(averages) {
            self.typical.store(median);
        }
    }

    /// Sets when an answer is late, to the median of the endpoints' 95th percentiles. The median, so that slow
    /// endpoints don't raise it while they are a minority.
    pub(crate) fn learn_late(&self, percentiles: &mut [f64]) {
        if let Some(median) = median(percentiles) {
            self.late.store(median);
        }
    }

    /// After how long an answer is late, if that is known.
    #[inline]
    pub(crate) fn late(&self) -> Option<Duration> {
        let nanos = self.late.load();
        (nanos > 0.0).then(|| Duration::from_nanos(nanos as u64))
    }

    #[inline]
    fn ceiling(&self) -> f64 {
        match self.typical.load() {
            0.0 => f64::INFINITY,
            typical => typical * CEILING,
        }
    }

    /// The time that a failure counts as. Not a multiple of the typical average, which would grow by itself while most
    /// endpoints fail.
    fn slow(&self) -> f64 {
        (self.usual.load() * SLOW).max(self.typical.load())
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    // The lower one of two: otherwise the slower of two endpoints would set its own ceiling.
    let middle = values.len().checked_sub(1)? / 2;
    let (_, &mut median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(median)
}

impl Latency {
    /// The average in nanoseconds; zero if unknown.
    #[inline]
    pub(crate) fn average(&self) -> f64 {
        self.average.load()
    }

    /// An answer has begun, `after` this time. `now` is the balancer's age in nanoseconds.
    #[inline]
    pub(crate) fn answered(&self, after: Duration, now: u64, latencies: &Latencies) {
        let sample = (after.as_nanos() as f64).min(latencies.ceiling());
        let passed = self.pass(now);
        let weight = -(-passed.as_secs_f64() / self.decay.as_secs_f64()).exp_m1();
        self.average.update(|average| {
            if sample >= average {
                sample
            } else {
                average + (sample - average) * weight
            }
        });
    }

    /// A request has failed, and counts as slow.
    pub(crate) fn failed(&self, after: Duration, latencies: &Latencies) {
        self.raise(latencies.slow().max(after.as_nanos() as f64), latencies);
    }

    /// A request has waited for this time without an answer.
    pub(crate) fn waited(&self, time: Duration, latencies: &Latencies) {
        self.raise(time.as_nanos() as f64, latencies);
    }

    /// Lets the average decay. For the time `quiet`, the endpoint has had requests and answered none. Returns the
    /// average, if known.
    pub(crate) fn review(&self, now: u64, quiet: Duration, latencies: &Latencies) -> Option<f64> {
        let passed = self.pass(now).min(MAX_STEP);
        let left = (-passed.as_secs_f64() / self.decay.as_secs_f64()).exp();
        let ceiling = latencies.ceiling();
        let sink = |average: f64| match average {
            0.0 => 0.0,
            average => (average * left).min(ceiling),
        };
        self.average.update(sink);
        self.waited(quiet, latencies);
        Some(self.average()).filter(|&average| average > 0.0)
    }

    /// How much time has passed since the average last moved; it begins anew.
    #[inline]
    fn pass(&self, now: u64) -> Duration {
        let before = self.moved.swap(now, Relaxed);
        Duration::from_nanos(now.saturating_sub(before))
    }

    fn raise(&self, nanos: f64, latencies: &Latencies) {
        let nanos = nanos.min(latencies.ceiling());
        self.average.update(|average| average.max(nanos));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAU: Duration = Duration::from_secs(10);
    const MILLI: Duration = Duration::from_millis(1);

    struct Fixture {
        latency: Latency,
        latencies: Latencies,
        now: Duration,
    }

    impl Fixture {
        fn new() -> Self {
            let latencies = Latencies::default();
            Self {
                latency: latencies.latency(TAU),
                latencies,
                now: Duration::ZERO,
            }
        }

        fn now(&self) -> u64 {
            self.now.as_nanos() as u64
        }

        /// With a typical latency of 1 ms.
        fn among_others() -> Self {
            let fixture = Self::new();
            fixture.latencies.learn(&mut [5e5, 1e6, 9e6]);
            fixture.latencies.set_usual(MILLI);
            fixture
        }

        fn answer(&mut self, later: Duration, after: Duration) -> f64 {
            self.now += later;
            self.latency.answered(after, self.now(), &self.latencies);
            self.millis()
        }

        /// Reviews for `time`, and returns the average.
        fn review(&mut self, time: Duration, quiet: Duration) -> f64 {
            const STEP: Duration = Duration::from_millis(25);
            let steps = time.as_millis() / STEP.as_millis();
            for _ in 0..steps {
                self.now += STEP;
                self.latency.review(self.now(), quiet, &self.latencies);
            }
            self.millis()
        }

        fn millis(&self) -> f64 {
            self.latency.average() / 1e6
        }
    }

    fn is_close(value: f64, expected: f64) -> bool {
        (value - expected).abs() < expected * 1e-3
    }

    #[test]
    fn peaks_count_at_once_and_better_answers_by_the_time_passed() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.answer(MILLI, 10 * MILLI), 10.0);
        assert_eq!(fixture.answer(MILLI, 20 * MILLI), 20.0);
        let after_tau = fixture.answer(TAU, 10 * MILLI);
        assert!(is_close(after_tau, 10.0 + 10.0 / std::f64::consts::E));
        // Many samples at one time change nothing: only time counts.
        let many = (0..1_000).map(|_| fixture.answer(Duration::ZERO, 10 * MILLI));
        assert_eq!(many.last(), Some(after_tau));
    }

    #[test]
    fn an_endpoint_that_is_not_picked_becomes_cheap() {
        let mut fixture = Fixture::among_others();
        fixture.answer(MILLI, 20 * MILLI);
        assert_eq!(fixture.millis(), 10.0, "the ceiling");
        let sunk = fixture.review(TAU.mul_f64(10_f64.ln()), Duration::ZERO);
        assert!((sunk - 1.0).abs() < 0.01, "{sunk}");
        assert_eq!(fixture.answer(MILLI, 20 * MILLI), 10.0, "it still is slow");
    }

    #[test]
    fn a_lull_changes_little() {
        let mut fixture = Fixture::new();
        fixture.answer(MILLI, 10 * MILLI);
        fixture.now += Duration::from_secs(3_600);
        let latencies = &fixture.latencies;
        fixture
            .latency
            .review(fixture.now(), Duration::ZERO, latencies);
        assert!(is_close(fixture.millis(), 10.0 * (-0.1_f64).exp()));
    }

    #[test]
    fn silence_and_waiting_are_a_lower_bound() {
        let mut fixture = Fixture::among_others();
        fixture.answer(MILLI, MILLI);
        assert_eq!(fixture.review(25 * MILLI, 7 * MILLI), 7.0);
        fixture.latency.waited(5 * MILLI, &fixture.latencies);
        assert_eq!(fixture.millis(), 7.0);
        fixture.latency.waited(8 * MILLI, &fixture.latencies);
        assert_eq!(fixture.millis(), 8.0);
        assert_eq!(fixture.review(TAU, TAU), 10.0, "the ceiling");
    }

    #[test]
    fn a_failure_counts_as_slow() {
        let mut fixture = Fixture::among_others();
        fixture.answer(MILLI, MILLI / 10);
        fixture.latency.failed(MILLI / 10, &fixture.latencies);
        assert_eq!(fixture.millis(), 4.0);
        fixture.latency.failed(6 * MILLI, &fixture.latencies);
        assert_eq!(fixture.millis(), 6.0);
    }

    #[test]
    fn averages_do_not_grow_while_all_endpoints_fail() {
        let fixture = Fixture::among_others();
        for _ in 0..100 {
            fixture.latency.failed(MILLI, &fixture.latencies);
            fixture.latencies.learn(&mut [fixture.latency.average()]);
        }
        assert_eq!(fixture.millis(), 4.0);
    }

    #[test]
    fn a_new_endpoint_is_typical() {
        let fixture = Fixture::among_others();
        let new = fixture.latencies.latency(TAU);
        assert_eq!(new.average(), 1e6);
        assert_eq!(Fixture::new().millis(), 0.0, "nothing is known");
    }
}
