//! The 95th percentile of the times until an endpoint's answers begin, estimated in one word.
//!
//! Each sample moves the estimate by a factor: up by 19 steps if the sample is above it, otherwise down by one step. It
//! settles where one of twenty samples is above (Ma, Muthukrishnan and Sandler, "Frugal Streaming for Estimating
//! Quantiles", 2013). With these steps it is right to about a tenth. It grows tenfold after 26 samples that are above,
//! and shrinks again after 480 below. How far a sample is above doesn't matter, so a request that was cut short counts
//! as well as any.
//!
//! The first samples include dials, TLS handshakes and cold caches, and may be a hundred times too large. So the steps
//! are larger at first: 2/n at sample n, which undoes a factor of (n/20)² by then, a hundred by sample 200 (Robbins and
//! Monro, "A Stochastic Approximation Method", 1951). No step more than doubles the estimate. From sample 420 on the
//! steps are constant.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A step down is 0.48 %: 19 of these undo one step up.
const UP: f32 = 1.095;
const DOWN: f32 = 0.995_235;

/// The first estimate is the largest of this many samples.
const FIRST: u64 = 20;

/// The steps are larger up to this sample.
const YOUNG: u64 = 420;

/// The least estimate, in nanoseconds: a timer's resolution.
const LEAST: f32 = 1e6;

/// The number of samples, up to [`YOUNG`], above the estimate in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Percentile(AtomicU64);

impl Percentile {
    /// Adds the time that an answer took. If several threads add at the same time, some of their samples may be lost.
    #[inline]
    pub(crate) fn add(&self, sample: Duration) {
        let (count, estimate) = self.load();
        let sample = sample.as_nanos() as f32;
        let estimate = match () {
            () if count < FIRST => estimate.max(sample),
            () if sample > estimate => estimate * up(count),
            () => estimate * down(count),
        };
        let count = (count + 1).min(YOUNG);
        let estimate = u64::from(estimate.max(LEAST).to_bits());
        self.0.store(count << 32 | estimate, Relaxed);
    }

    /// Adds a request that was cut short: its answer would have taken at least this long.
    pub(crate) fn add_at_least(&self, waited: Duration) {
        if waited.as_nanos() as f32 > self.load().1 {
            self.add(waited);
        }
    }

    /// The estimate in nanoseconds, once there are enough samples.
    pub(crate) fn get(&self) -> Option<f64> {
        let (count, estimate) = self.load();
        (count >= FIRST).then_some(f64::from(estimate))
    }

    #[inline]
    fn load(&self) -> (u64, f32) {
        let word = self.0.load(Relaxed);
        (word >> 32, f32::from_bits(word as u32))
    }
}

#[inline]
fn up(count: u64) -> f32 {
    match count {
        YOUNG.. => UP,
        _ => (19.0 * young_step(count)).exp().min(2.0),
    }
}

#[inline]
fn down(count: u64) -> f32 {
    match count {
        YOUNG.. => DOWN,
        _ => (-young_step(count)).exp(),
    }
}

/// The logarithm of a step down after `count` samples.
#[cold]
fn young_step(count: u64) -> f32 {
    2.0 / count as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    const MILLI: Duration = Duration::from_millis(1);

    /// Adds exponentially distributed samples with a mean of `mean` milliseconds; their 95th percentile is 3.0 times
    /// that.
    fn add(percentile: &Percentile, mean: f64, times: usize, rng: &mut SmallRng) {
        for _ in 0..times {
            let sample = -(1.0 - rng.random::<f64>()).ln() * mean;
            percentile.add(MILLI.mul_f64(sample));
        }
    }

    fn estimate(percentile: &Percentile) -> f64 {
        percentile.get().expect("enough samples") / 1e6
    }

    #[test]
    fn one_sample_of_twenty_is_above_the_estimate() {
        for seed in 0..20 {
            let (percentile, rng) = (Percentile::default(), &mut SmallRng::seed_from_u64(seed));
            add(&percentile, 10.0, 2_000, rng);
            let estimate = estimate(&percentile);
            assert!((20.0..45.0).contains(&estimate), "{estimate}, not 30");
        }
    }

    /// The median of the estimates of many runs after `samples` samples, and their 5th and 95th percentiles, relative
    /// to the right value. The first `slow` samples are a hundred times too large.
    fn estimates(slow: usize, samples: usize) -> [f64; 3] {
        let run = |seed| {
            let (percentile, rng) = (Percentile::default(), &mut SmallRng::seed_from_u64(seed));
            add(&percentile, 1_000.0, slow, rng);
            add(&percentile, 10.0, samples - slow, rng);
            estimate(&percentile) / (10.0 * 20_f64.ln())
        };
        let mut estimates: Vec<_> = (0..400).map(run).collect();
        estimates.sort_by(f64::total_cmp);
        [200, 20, 380].map(|rank| estimates[rank])
    }

    #[test]
    fn first_samples_a_hundred_times_too_large_are_corrected_by_sample_200() {
        let [middle, _, high] = estimates(20, 150);
        assert!(middle < 2.5 && high < 4.0, "{middle}, {high}");
        let [middle, low, high] = estimates(20, 200);
        assert!((0.9..1.5).contains(&middle), "{middle}");
        assert!(low > 0.7 && high < 2.2, "{low}, {high}");
    }

    #[test]
    fn the_estimate_is_about_right_at_first_and_to_a_tenth_later() {
        for samples in [20, 30, 40, 60, 100, 200] {
            let [middle, low, high] = estimates(0, samples);
            assert!((0.85..1.2).contains(&middle), "{middle} after {samples}");
            assert!(low > 0.4 && high < 2.3, "{low}, {high} after {samples}");
        }
        for samples in [500, 1_000, 2_000] {
            let [middle, low, high] = estimates(0, samples);
            assert!((0.95..1.1).contains(&middle), "{middle} after {samples}");
            assert!(low > 0.75 && high < 1.3, "{low}, {high} after {samples}");
        }
    }

    #[test]
    fn the_larger_first_steps_meet_the_constant_ones() {
        let is_close = |one: f32, other: f32| (one / other - 1.0).abs() < 1e-3;
        assert!(is_close(up(YOUNG - 1), UP) && is_close(down(YOUNG - 1), DOWN));
    }

    #[test]
    fn the_estimate_rises_at_once_and_falls_later() {
        let (percentile, rng) = (Percentile::default(), &mut SmallRng::seed_from_u64(3));
        add(&percentile, 10.0, 1_000, rng);
        add(&percentile, 1_000.0, 100, rng);
        assert!(estimate(&percentile) > 1_500.0);
        add(&percentile, 10.0, 1_500, rng);
        assert!(estimate(&percentile) < 45.0);
    }

    #[test]
    fn there_is_no_estimate_before_twenty_samples() {
        let percentile = Percentile::default();
        (1..20).for_each(|_| percentile.add(MILLI));
        assert_eq!(percentile.get(), None);
        percentile.add(7 * MILLI);
        assert_eq!(estimate(&percentile), 7.0);
    }

    #[test]
    fn a_request_cut_short_counts_only_if_it_waited_longer_than_the_estimate() {
        let percentile = Percentile::default();
        (0..20).for_each(|_| percentile.add(10 * MILLI));
        percentile.add_at_least(10 * MILLI);
        assert_eq!(estimate(&percentile), 10.0);
        percentile.add_at_least(11 * MILLI);
        assert!(estimate(&percentile) > 10.9);
    }

    #[test]
    fn the_estimate_is_never_below_a_timers_resolution() {
        let percentile = Percentile::default();
        (0..1_000).for_each(|_| percentile.add(Duration::ZERO));
        assert_eq!(estimate(&percentile), 1.0);
    }
}
