//! How long nearly all of an endpoint's answers take to begin at most: the 95th percentile, estimated in one word.
//!
//! Each sample moves the estimate by a part of itself: up by 19 steps if the sample is above, down by one step if it isn't.
//! It rests where one of twenty is above (Ma, Muthukrishnan and Sandler, "Frugal Streaming for Estimating Quantiles", 2013).
//! With these steps it is right to about a tenth, is ten times as large after 26 samples that say so, and as small
//! again after 480. How far a sample is above doesn't matter: one that was cut short counts as well as any.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A step down makes 0.48 % less: 19 of these undo a step up.
const UP: f32 = 1.095;
const DOWN: f32 = 0.995_235;

/// The largest of so many samples is the first estimate.
const FIRST: u64 = 20;

/// The least that a timer tells, in nanoseconds.
const LEAST: f32 = 1e6;

/// The number of samples, up to [`FIRST`], above the estimate in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Percentile(AtomicU64);

impl Percentile {
    /// An answer took so long. If several threads say so at the same time, one of their samples may be lost, and no more.
    #[inline]
    pub(crate) fn add(&self, sample: Duration) {
        let (count, estimate) = self.load();
        let sample = sample.as_nanos() as f32;
        let estimate = match () {
            () if count < FIRST => estimate.max(sample),
            () if sample > estimate => estimate * UP,
            () => estimate * DOWN,
        };
        let count = (count + 1).min(FIRST);
        let estimate = u64::from(estimate.max(LEAST).to_bits());
        self.0.store(count << 32 | estimate, Relaxed);
    }

    /// An answer would have taken at least so long.
    pub(crate) fn add_at_least(&self, waited: Duration) {
        if waited.as_nanos() as f32 > self.load().1 {
            self.add(waited);
        }
    }

    /// The estimate in nanoseconds, once there were enough samples.
    pub(crate) fn get(&self) -> Option<f64> {
        let (count, estimate) = self.load();
        (count == FIRST).then_some(f64::from(estimate))
    }

    #[inline]
    fn load(&self) -> (u64, f32) {
        let word = self.0.load(Relaxed);
        (word >> 32, f32::from_bits(word as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    const MILLI: Duration = Duration::from_millis(1);

    /// Samples with a mean of so many milliseconds, exponentially distributed, whose 95th percentile is 3.0 times that.
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
    fn one_of_twenty_is_above_it() {
        for seed in 0..20 {
            let (percentile, rng) = (Percentile::default(), &mut SmallRng::seed_from_u64(seed));
            add(&percentile, 10.0, 2_000, rng);
            let estimate = estimate(&percentile);
            assert!((20.0..45.0).contains(&estimate), "{estimate}, not 30");
        }
    }

    #[test]
    fn it_follows_upwards_at_once_and_downwards_later() {
        let (percentile, rng) = (Percentile::default(), &mut SmallRng::seed_from_u64(3));
        add(&percentile, 10.0, 1_000, rng);
        add(&percentile, 1_000.0, 100, rng);
        assert!(estimate(&percentile) > 1_500.0);
        add(&percentile, 10.0, 1_500, rng);
        assert!(estimate(&percentile) < 45.0);
    }

    #[test]
    fn nothing_is_said_before_there_are_samples_enough() {
        let percentile = Percentile::default();
        (1..20).for_each(|_| percentile.add(MILLI));
        assert_eq!(percentile.get(), None);
        percentile.add(7 * MILLI);
        assert_eq!(estimate(&percentile), 7.0);
    }

    #[test]
    fn what_was_cut_short_says_something_only_above_the_estimate() {
        let percentile = Percentile::default();
        (0..20).for_each(|_| percentile.add(10 * MILLI));
        percentile.add_at_least(10 * MILLI);
        assert_eq!(estimate(&percentile), 10.0);
        percentile.add_at_least(11 * MILLI);
        assert!(estimate(&percentile) > 10.9);
    }

    #[test]
    fn it_is_never_less_than_a_timer_tells() {
        let percentile = Percentile::default();
        (0..1_000).for_each(|_| percentile.add(Duration::ZERO));
        assert_eq!(estimate(&percentile), 1.0);
    }
}
